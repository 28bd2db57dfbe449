//! The random choices behind one view, drawn before any pixel is touched.

use super::{CropBox, ViewConfig, ViewRandom};

/// One step of colour jitter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum JitterStep {
    /// Blend with black by this factor.
    Brightness(f32),
    /// Blend with the mean grey by this factor.
    Contrast(f32),
    /// Blend with the grey image by this factor.
    Saturation(f32),
    /// Turn the hue by this share of a full turn.
    Hue(f32),
}

/// The steps of colour jitter in the order they are applied: at most one of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Jitter {
    steps: [Option<JitterStep>; 4],
    count: usize,
}

impl Jitter {
    /// Appends a step; a fifth is left out.
    pub fn push(&mut self, step: JitterStep) {
        if let Some(next) = self.steps.get_mut(self.count) {
            *next = Some(step);
            self.count += 1;
        }
    }

    /// The steps in order.
    pub fn iter(&self) -> impl Iterator<Item = &JitterStep> {
        self.steps.iter().flatten()
    }

    /// Number of steps.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether the view is not jittered.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// What happens to an image on its way to becoming a view.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ViewParameters {
    /// The part of the image that is kept.
    pub crop: CropBox,
    /// Colour jitter in the order it is applied; empty when the view is not jittered.
    pub jitter: Jitter,
    /// Whether the view turns grey.
    pub grey: bool,
    /// Standard deviation of the blur in pixels, if there is one.
    pub blur: Option<f32>,
    /// Whether the bright samples are inverted.
    pub solarise: bool,
    /// Whether the view is mirrored left to right.
    pub flip: bool,
}

impl ViewParameters {
    /// Draws the parameters of a view of a `width` × `height` image, with the distributions of
    /// torchvision's `RandomResizedCrop`, `ColorJitter` and `RandomApply`.
    pub fn draw(
        config: &ViewConfig,
        width: usize,
        height: usize,
        random: &mut ViewRandom,
    ) -> ViewParameters {
        let crop = crop(config, width, height, random);
        let jitter = match random.chance(config.jitter_probability) {
            true => jitter(config, random),
            false => Jitter::default(),
        };
        let grey = random.chance(config.grey_probability);
        let blur = random
            .chance(config.blur_probability)
            .then(|| random.uniform(config.blur_sigma) as f32);
        let flip = random.chance(config.flip_probability);
        // Last, so that runs without it keep the numbers that they drew before it was added.
        let solarise = random.chance(config.solarise_probability);
        ViewParameters { crop, jitter, grey, blur, solarise, flip }
    }
}

/// A box of random area and shape: ten tries, then the largest central box of an allowed shape.
fn crop(config: &ViewConfig, width: usize, height: usize, random: &mut ViewRandom) -> CropBox {
    const TRIES: usize = 10;
    let area = (width * height) as f64;
    let log_ratio = config.crop_ratio.map(f64::ln);
    for _ in 0..TRIES {
        let target_area = area * random.uniform(config.crop_scale);
        // Uniform in the logarithm: twice as wide is as likely as twice as high.
        let ratio = random.uniform(log_ratio).exp();
        let crop_width = (target_area * ratio).sqrt().round_ties_even() as usize;
        let crop_height = (target_area / ratio).sqrt().round_ties_even() as usize;
        if (1..=width).contains(&crop_width) && (1..=height).contains(&crop_height) {
            let top = random.below(height - crop_height + 1);
            let left = random.below(width - crop_width + 1);
            return CropBox { left, top, width: crop_width, height: crop_height };
        }
    }

    let ratio = width as f64 / height as f64;
    let [lowest, highest] = config.crop_ratio;
    let (mut crop_width, mut crop_height) = (width, height);
    if ratio < lowest {
        crop_height = ((width as f64 / lowest).round_ties_even() as usize).clamp(1, height);
    } else if ratio > highest {
        crop_width = ((height as f64 * highest).round_ties_even() as usize).clamp(1, width);
    }
    CropBox {
        left: (width - crop_width) / 2,
        top: (height - crop_height) / 2,
        width: crop_width,
        height: crop_height,
    }
}

/// A factor for each kind of jitter that has a strength, in random order.
fn jitter(config: &ViewConfig, random: &mut ViewRandom) -> Jitter {
    let mut order = [0, 1, 2, 3];
    for last in (1..order.len()).rev() {
        order.swap(last, random.below(last + 1));
    }
    let mut steps = Jitter::default();
    for kind in order {
        let strength = config.jitter[kind];
        if strength == 0.0 {
            continue;
        }
        let factor = random.uniform([(1.0 - strength).max(0.0), 1.0 + strength]) as f32;
        steps.push(match kind {
            0 => JitterStep::Brightness(factor),
            1 => JitterStep::Contrast(factor),
            2 => JitterStep::Saturation(factor),
            // The same draw, moved from around 1 to around 0: hue's strength is at most 0.5.
            _ => JitterStep::Hue(factor - 1.0),
        });
    }
    steps
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::random::View;

    const DRAWS: u64 = 20_000;

    fn draws(config: &ViewConfig, width: usize, height: usize) -> Vec<ViewParameters> {
        let draw = |index| {
            ViewParameters::draw(
                config,
                width,
                height,
                &mut ViewRandom::new(1, 2, index, View::Query),
            )
        };
        (0..DRAWS).map(draw).collect()
    }

    fn share(draws: &[ViewParameters], of: impl Fn(&ViewParameters) -> bool) -> f64 {
        draws.iter().filter(|parameters| of(parameters)).count() as f64 / draws.len() as f64
    }

    fn mean(numbers: impl Iterator<Item = f64>) -> f64 {
        let (count, sum) = numbers.fold((0, 0.0), |(count, sum), n| (count + 1, sum + n));
        sum / f64::from(count)
    }

    #[test]
    fn crops_lie_inside_images_of_any_shape() {
        let config = ViewConfig::v2(32);
        for (width, height) in [(1, 1), (1, 900), (900, 1), (2, 3), (32, 32), (500, 375)] {
            for ViewParameters { crop, .. } in &draws(&config, width, height)[..2000] {
                assert!(crop.width > 0 && crop.left + crop.width <= width, "{crop:?}");
                assert!(crop.height > 0 && crop.top + crop.height <= height, "{crop:?}");
            }
        }
    }

    #[test]
    fn an_image_no_crop_fits_gives_its_largest_central_box() {
        let config = ViewConfig { crop_scale: [1.0, 1.0], ..ViewConfig::v2(32) };
        let crop = draws(&config, 100, 1000)[0].crop;
        assert_eq!(crop, CropBox { left: 0, top: 433, width: 100, height: 133 });
        let crop = draws(&config, 1000, 100)[0].crop;
        assert_eq!(crop, CropBox { left: 433, top: 0, width: 133, height: 100 });
    }

    #[test]
    fn crops_have_torchvisions_areas_shapes_and_positions() {
        // A range of areas that always fits, so that no try is rejected and the mean is known.
        let config = ViewConfig { crop_scale: [0.2, 0.6], ..ViewConfig::v2(32) };
        let (width, height) = (1000, 1000);
        let draws = draws(&config, width, height);
        let area = mean(draws.iter().map(|d| (d.crop.width * d.crop.height) as f64 / 1e6));
        assert!((area - 0.4).abs() < 0.005, "{area}");
        let ratios = || draws.iter().map(|d| d.crop.width as f64 / d.crop.height as f64);
        assert!(ratios().all(|ratio| (0.745..1.34).contains(&ratio)));
        assert!(mean(ratios().map(f64::ln)).abs() < 0.005);
        let position = |left: usize, free: usize| left as f64 / free as f64;
        let left = mean(draws.iter().map(|d| position(d.crop.left, width - d.crop.width)));
        let top = mean(draws.iter().map(|d| position(d.crop.top, height - d.crop.height)));
        assert!((left - 0.5).abs() < 0.01 && (top - 0.5).abs() < 0.01, "{left} {top}");
    }

    #[test]
    fn operations_happen_as_often_as_configured() {
        let all = draws(&ViewConfig::v2(32), 32, 32);
        for (found, expected) in [
            (share(&all, |d| !d.jitter.is_empty()), 0.8),
            (share(&all, |d| d.grey), 0.2),
            (share(&all, |d| d.blur.is_some()), 0.5),
            (share(&all, |d| d.flip), 0.5),
        ] {
            // Four standard deviations of a share of this many draws are at most 0.014.
            assert!((found - expected).abs() < 0.014, "{found} instead of {expected}");
        }
        let all = draws(&ViewConfig::v1(32), 32, 32);
        assert_eq!(share(&all, |d| d.jitter.len() == 4 && d.blur.is_none()), 1.0);
    }

    #[test]
    fn strengths_are_uniform_in_their_ranges_and_orders_equally_likely() {
        let all = draws(&ViewConfig::v2(32), 32, 32);
        let blurs: Vec<f64> = all.iter().filter_map(|d| d.blur).map(f64::from).collect();
        assert!(blurs.iter().all(|sigma| (0.1..2.0).contains(sigma)));
        assert!((mean(blurs.into_iter()) - 1.05).abs() < 0.025);

        let mut orders: BTreeMap<String, u32> = BTreeMap::new();
        let mut jittered = 0;
        for parameters in all.iter().filter(|d| !d.jitter.is_empty()) {
            jittered += 1;
            let mut order = String::new();
            for step in parameters.jitter.iter() {
                let (letter, offset, strength) = match *step {
                    JitterStep::Brightness(factor) => ('b', factor - 1.0, 0.4),
                    JitterStep::Contrast(factor) => ('c', factor - 1.0, 0.4),
                    JitterStep::Saturation(factor) => ('s', factor - 1.0, 0.4),
                    JitterStep::Hue(shift) => ('h', shift, 0.1),
                };
                assert!(offset.abs() <= strength + 1e-6, "{step:?}");
                order.push(letter);
            }
            *orders.entry(order).or_default() += 1;
        }
        assert_eq!(orders.len(), 24);
        let expected = f64::from(jittered) / 24.0;
        let chi_squared: f64 =
            orders.values().map(|&n| (f64::from(n) - expected).powi(2) / expected).sum();
        // 23 degrees of freedom: above 50 once in a thousand.
        assert!(chi_squared < 50.0, "{chi_squared}");
    }

    /// Counts of numbers below the first edge, between the first and the second, and so on.
    fn histogram(numbers: impl Iterator<Item = f64>, edges: &[f64]) -> Vec<f64> {
        let mut counts = vec![0.0; edges.len() + 1];
        for number in numbers {
            counts[edges.partition_point(|&edge| edge <= number)] += 1.0;
        }
        counts
    }

    #[test]
    fn a_hundred_thousand_crops_are_distributed_as_torchvisions() {
        let reference: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/fixtures/crops.json")).unwrap();
        let numbers = |name: &str, part: &str| -> Vec<f64> {
            let list = reference[name][part].as_array().unwrap();
            list.iter().map(|number| number.as_f64().unwrap()).collect()
        };
        let config = ViewConfig::v2(224);
        let crops: Vec<CropBox> = (0..100_000)
            .map(|index| {
                let mut random = ViewRandom::new(7, 0, index, View::Key);
                ViewParameters::draw(&config, 500, 375, &mut random).crop
            })
            .collect();
        type Measure = fn(&CropBox) -> f64;
        let measures: [(&str, Measure); 4] = [
            ("area", |crop| (crop.width * crop.height) as f64 / (500.0 * 375.0)),
            ("ratio", |crop| crop.width as f64 / crop.height as f64),
            ("left", |crop| crop.left as f64),
            ("top", |crop| crop.top as f64),
        ];
        for (name, measure) in measures {
            let expected = numbers(name, "counts");
            let found = histogram(crops.iter().map(measure), &numbers(name, "edges"));
            // Two samples of different size; chi-squared with 19 degrees of freedom, above 48 once
            // in three thousand.
            let (n, m) = (found.iter().sum::<f64>(), expected.iter().sum::<f64>());
            let chi_squared: f64 = found
                .iter()
                .zip(&expected)
                .map(|(f, e)| ((m / n).sqrt() * f - (n / m).sqrt() * e).powi(2) / (f + e))
                .sum();
            assert!(chi_squared < 48.0, "{name}: {chi_squared}");
        }
    }

    #[test]
    fn a_hundred_thousand_strengths_are_uniform() {
        let config = ViewConfig { jitter_probability: 1.0, ..ViewConfig::v2(224) };
        let draws: Vec<ViewParameters> = (0..100_000)
            .map(|index| {
                let mut random = ViewRandom::new(8, 1, index, View::Query);
                ViewParameters::draw(&config, 500, 375, &mut random)
            })
            .collect();
        // Kolmogorov and Smirnov's distance to the uniform distribution on [low, high].
        let uniform = |what: &str, mut numbers: Vec<f64>, low: f64, high: f64| {
            numbers.sort_by(f64::total_cmp);
            let count = numbers.len() as f64;
            let distance = numbers.iter().enumerate().fold(0.0, |most: f64, (rank, number)| {
                most.max(((number - low) / (high - low) - rank as f64 / count).abs())
            });
            // 2 / √n is exceeded once in fifteen hundred.
            assert!(distance < 2.0 / count.sqrt(), "{what}: {distance} of {count}");
        };
        let step = |pick: fn(&JitterStep) -> Option<f32>| -> Vec<f64> {
            draws.iter().flat_map(|d| d.jitter.iter().filter_map(pick)).map(f64::from).collect()
        };
        let pick = |s: &JitterStep| if let JitterStep::Brightness(f) = *s { Some(f) } else { None };
        uniform("brightness", step(pick), 0.6, 1.4);
        let pick = |s: &JitterStep| if let JitterStep::Contrast(f) = *s { Some(f) } else { None };
        uniform("contrast", step(pick), 0.6, 1.4);
        let pick = |s: &JitterStep| if let JitterStep::Saturation(f) = *s { Some(f) } else { None };
        uniform("saturation", step(pick), 0.6, 1.4);
        let pick = |s: &JitterStep| if let JitterStep::Hue(f) = *s { Some(f) } else { None };
        uniform("hue", step(pick), -0.1, 0.1);
        let sigmas: Vec<f64> = draws.iter().filter_map(|d| d.blur).map(f64::from).collect();
        assert!((sigmas.len() as f64 / 1e5 - 0.5).abs() < 0.0064);
        uniform("blur", sigmas, 0.1, 2.0);
        let flips = share(&draws, |d| d.flip);
        // Four standard deviations.
        assert!((flips - 0.5).abs() < 0.0064, "{flips}");
        let mut orders: BTreeMap<Vec<u8>, f64> = BTreeMap::new();
        for parameters in &draws {
            let letter = |step: &JitterStep| match step {
                JitterStep::Brightness(_) => b'b',
                JitterStep::Contrast(_) => b'c',
                JitterStep::Saturation(_) => b's',
                JitterStep::Hue(_) => b'h',
            };
            *orders.entry(parameters.jitter.iter().map(letter).collect()).or_default() += 1.0;
        }
        let expected = 1e5 / 24.0;
        let chi_squared: f64 =
            orders.values().map(|count| (count - expected).powi(2) / expected).sum();
        assert!(orders.len() == 24 && chi_squared < 54.0, "{chi_squared}");
    }

    #[test]
    fn a_view_changes_with_each_of_its_four_numbers() {
        let config = ViewConfig::v2(32);
        let draw = |seed, epoch, image, view| {
            let mut random = ViewRandom::new(seed, epoch, image, view);
            ViewParameters::draw(&config, 500, 375, &mut random)
        };
        let base = draw(3, 4, 5, View::Query);
        assert_eq!(base, draw(3, 4, 5, View::Query));
        for (seed, epoch, image, view) in [
            (4, 4, 5, View::Query),
            (3, 5, 5, View::Query),
            (3, 4, 6, View::Query),
            (3, 4, 5, View::Key),
            (3, 4, 5, View::Local(0)),
            (4, 3, 5, View::Query),
        ] {
            assert_ne!(base, draw(seed, epoch, image, view), "{seed} {epoch} {image} {view:?}");
        }
    }
}
