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

/// What happens to an image on its way to becoming a view.
#[derive(Clone, Debug, PartialEq)]
pub struct ViewParameters {
    /// The part of the image that is kept.
    pub crop: CropBox,
    /// Colour jitter in the order it is applied; empty when the view is not jittered.
    pub jitter: Vec<JitterStep>,
    /// Whether the view turns grey.
    pub grey: bool,
    /// Standard deviation of the blur in pixels, if there is one.
    pub blur: Option<f32>,
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
            false => Vec::new(),
        };
        let grey = random.chance(config.grey_probability);
        let blur = random
            .chance(config.blur_probability)
            .then(|| random.uniform(config.blur_sigma) as f32);
        let flip = random.chance(config.flip_probability);
        ViewParameters { crop, jitter, grey, blur, flip }
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
fn jitter(config: &ViewConfig, random: &mut ViewRandom) -> Vec<JitterStep> {
    let mut order = [0, 1, 2, 3];
    for last in (1..order.len()).rev() {
        order.swap(last, random.below(last + 1));
    }
    let mut steps = Vec::with_capacity(order.len());
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
