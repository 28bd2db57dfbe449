//! What a view looks like: the settings, and those of the two published sets of augmentations.

use crate::random::View;
use crate::settings::{OutOfRange, Rule};

crate::names! {
    /// Which augmentations make a view, and in which order.
    pub enum Augmentations: "recipe of views" {
        /// Resized crop → grey → jitter → solarise → flip → normalise (MoCo v1, PCL v1).
        V1 = "v1",
        /// Resized crop → jitter → grey → blur → solarise → flip → normalise (MoCo v2, PCL v2).
        V2 = "v2",
    }
}

crate::names! {
    /// What the views of the momentum encoder are like.
    #[derive(Default)]
    pub enum KeyViews: "kind of key views" {
        /// Drawn as those of the queries.
        #[default]
        Strong = "strong",
        /// Cropped and mirrored only.
        Weak = "weak",
    }
}

crate::settings! {
    /// Everything that decides how views are drawn and made.
    ///
    /// Probabilities are in [0, 1]; pairs are `[low, high]`. Source of the defaults, which are
    /// [`ViewConfig::v2`] at 224 px: the published code's `main_pcl.py`; ranges mean what they mean
    /// in torchvision.
    pub struct ViewConfig {
        ["Views"]
        /// Random views: `v2` adds blur to `v1` and jitters four times out of five.
        #[serde(rename = "views")]
        augmentations: Augmentations = Augmentations::V2, named("views");

        /// Side of a view in pixels.
        image_size: usize = 224, shown_as("PIXELS"), side();

        /// Short side of the image before the centre crop of the E-step and evaluations; unless said,
        /// the image size up to 64 px, where images are shown whole, and 8/7 of it above.
        eval_resize: usize = eval_resize(224), shown_as("PIXELS");

        /// Area of a random crop; a higher minimum keeps small objects recognisable.
        ///
        /// A share of the image's area.
        crop_scale: [f64; 2] = [0.2, 1.0], shown_as("MIN,MAX"), scale();

        /// Width over height of a random crop.
        ///
        /// Before it is resized to a square.
        crop_ratio: [f64; 2] = [3.0 / 4.0, 4.0 / 3.0], shown_as("MIN,MAX"),
            expect("[low, high] with 0 < low <= high", |&[low, high]| 0.0 < low && low <= high);

        /// Strengths of brightness, contrast, saturation and hue jitter. Lower them where colour
        /// tells things apart.
        ///
        /// The first three draw a factor from [max(0, 1 − s), 1 + s], hue a shift from [−s, s] of a
        /// turn (s at most 0.5).
        jitter: [f64; 4] = [0.4, 0.4, 0.4, 0.1], shown_as("B,C,S,H"),
            expect(
                "[brightness, contrast, saturation, hue], none negative, hue at most 0.5",
                |jitter| jitter.iter().all(|&strength| strength >= 0.0) && jitter[3] <= 0.5
            );

        /// How often a view is jittered.
        jitter_probability: f64 = 0.8, probability();

        /// How often a view turns grey.
        grey_probability: f64 = 0.2, probability();

        /// How often a view is blurred; 0 is better at 32 px.
        ///
        /// Augmentations v2 only.
        blur_probability: f64 = 0.5, probability();

        /// Deviation of the blur in pixels.
        blur_sigma: [f64; 2] = [0.1, 2.0], shown_as("MIN,MAX"),
            expect(
                "[low, high] in pixels with 0 <= low <= high <= 100",
                |&[low, high]| 0.0 <= low && low <= high && high <= 100.0
            );

        /// How often the bright parts of a view are inverted (BYOL: 0.2 for one of two views).
        #[serde(default)]
        solarise_probability: f64 = 0.0, probability();

        /// The least value, of 0 to 255, that solarising inverts.
        #[serde(default = "middle")]
        solarise_threshold: u8 = middle(), shown_as("LEVEL");

        /// How often a view is mirrored; 0 where left and right matter (text, signs).
        flip_probability: f64 = 0.5, probability();

        /// Views of the keys: `strong`, as those of the queries (published), or `weak`, cropped and
        /// mirrored only, which are steadier to be drawn to.
        ///
        /// Source: MSF's weak and strong views.
        #[serde(default)]
        key_views: KeyViews = KeyViews::Strong;

        /// Small views per image besides the two full ones (multi-crop): queries that have to find the
        /// key and the prototypes of the whole image.
        ///
        /// Source: SwAV, DINO.
        #[serde(default)]
        local_views: usize = 0, shown_as("N"), expect("at most 64", |&views| views <= 64);

        /// Side of a small view in pixels; 96 for 224, 16 for 32.
        #[serde(default = "local_size")]
        local_size: usize = local_size(), shown_as("PIXELS"), side();

        /// Area of a small view's crop.
        ///
        /// A share of the image's area.
        #[serde(default = "local_crop_scale")]
        local_crop_scale: [f64; 2] = local_crop_scale(), shown_as("MIN,MAX"), scale();

        /// Subtracted from red, green and blue after scaling to 0–1.
        mean: [f64; 3] = [0.485, 0.456, 0.406], shown_as("R,G,B"),
            expect("three finite numbers", |_| true);

        /// Divides red, green and blue afterwards.
        std: [f64; 3] = [0.229, 0.224, 0.225], shown_as("R,G,B"),
            expect("three positive numbers", |std| std.iter().all(|&std| std > 0.0));
    }
}

impl Rule<usize> {
    /// A side of a view in pixels.
    fn side(self) -> Self {
        self.expect("between 1 and 4096 pixels", |side| (1..=MAX_IMAGE_SIZE).contains(side))
    }
}

impl Rule<[f64; 2]> {
    /// The least and the greatest share of an area.
    fn scale(self) -> Self {
        self.expect("[low, high] with 0 < low <= high <= 1", |&[low, high]| {
            0.0 < low && low <= high && high <= 1.0
        })
    }
}

impl Rule<f64> {
    /// How often something happens.
    fn probability(self) -> Self {
        let holds = |share: &f64| (0.0..=1.0).contains(share);
        self.shown_as("P").expect("a probability between 0 and 1", holds)
    }
}

/// The short side, in pixels, of which the centre is evaluated: 256 for 224, as everywhere in the
/// field, and the same proportion for other sizes. Images of up to 64 px are small because they
/// show one thing and little else, which a crop would cut.
fn eval_resize(image_size: usize) -> usize {
    if image_size <= 64 { image_size } else { (image_size * 8 + 3) / 7 }
}

fn middle() -> u8 {
    128
}

fn local_size() -> usize {
    96
}

fn local_crop_scale() -> [f64; 2] {
    [0.05, 0.2]
}

impl ViewConfig {
    /// The random views of an image in pretraining: those of the query encoder and of the momentum
    /// encoder, and as many small ones as are set.
    pub fn pretraining_views(&self) -> Vec<View> {
        let local = (0..self.local_views as u32).map(View::Local);
        [View::Query, View::Key].into_iter().chain(local).collect()
    }

    /// What the views of the keys are like.
    pub fn key(&self) -> ViewConfig {
        match self.key_views {
            KeyViews::Strong => self.clone(),
            KeyViews::Weak => ViewConfig {
                jitter_probability: 0.0,
                grey_probability: 0.0,
                blur_probability: 0.0,
                solarise_probability: 0.0,
                ..self.clone()
            },
        }
    }

    /// What the small views are like: everything but size and crop is that of the full ones.
    pub fn local(&self) -> ViewConfig {
        ViewConfig {
            image_size: self.local_size,
            eval_resize: self.eval_resize.max(self.local_size),
            crop_scale: self.local_crop_scale,
            ..self.clone()
        }
    }

    /// The views of MoCo v1 and PCL v1.
    pub fn v1(image_size: usize) -> ViewConfig {
        ViewConfig {
            augmentations: Augmentations::V1,
            jitter: [0.4; 4],
            jitter_probability: 1.0,
            blur_probability: 0.0,
            ..ViewConfig::v2(image_size)
        }
    }

    /// The views of MoCo v2 and PCL v2.
    pub fn v2(image_size: usize) -> ViewConfig {
        let eval_resize = eval_resize(image_size);
        ViewConfig { image_size, eval_resize, ..ViewConfig::default() }
    }

    /// The views on which classifiers are trained: a crop of at least 8 % of the area and a flip, of
    /// the size and normalisation of these views (the published code's `eval_cls_imagenet.py`).
    pub fn supervised(&self) -> ViewConfig {
        ViewConfig {
            crop_scale: [0.08, 1.0],
            crop_ratio: [3.0 / 4.0, 4.0 / 3.0],
            jitter_probability: 0.0,
            grey_probability: 0.0,
            blur_probability: 0.0,
            solarise_probability: 0.0,
            flip_probability: 0.5,
            ..self.clone()
        }
    }

    /// Checks every setting, and that the centre crop fits into the resized image.
    ///
    /// # Errors
    /// Names the first setting that is out of range and what it should be.
    pub fn validate(&self) -> Result<(), OutOfRange> {
        self.check_each()?;
        if (self.image_size..=2 * MAX_IMAGE_SIZE).contains(&self.eval_resize) {
            return Ok(());
        }
        Err(OutOfRange {
            name: "eval-resize".to_owned(),
            found: self.eval_resize.to_string(),
            expected: "at least image-size and at most 8192 pixels",
        })
    }
}

/// Larger views than anyone trains on; keeps sizes of buffers far from overflow.
const MAX_IMAGE_SIZE: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evaluation_keeps_the_proportion_of_256_to_224_and_small_images_whole() {
        assert_eq!(ViewConfig::v2(224).eval_resize, 256);
        assert_eq!(ViewConfig::v1(96).eval_resize, 110);
        assert_eq!(ViewConfig::v1(64).eval_resize, 64);
        assert_eq!(ViewConfig::v2(32).eval_resize, 32);
    }

    #[test]
    fn both_sets_of_augmentations_are_valid_and_survive_being_written() {
        for config in [ViewConfig::v1(224), ViewConfig::v2(32)] {
            config.validate().unwrap();
            let text = serde_json::to_string(&config).unwrap();
            assert_eq!(serde_json::from_str::<ViewConfig>(&text).unwrap(), config);
        }
    }

    #[test]
    fn a_setting_out_of_range_is_named() {
        type Break = fn(&mut ViewConfig);
        let broken: [(&str, Break); 15] = [
            ("image-size", |config| config.image_size = 0),
            ("eval-resize", |config| config.eval_resize = 31),
            ("crop-scale", |config| config.crop_scale = [0.0, 1.0]),
            ("crop-scale", |config| config.crop_scale = [f64::NAN, 1.0]),
            ("crop-ratio", |config| config.crop_ratio = [2.0, 1.0]),
            ("jitter", |config| config.jitter[3] = 0.6),
            ("jitter", |config| config.jitter[0] = -0.1),
            ("grey-probability", |config| config.grey_probability = 1.1),
            ("blur-sigma", |config| config.blur_sigma = [0.1, f64::INFINITY]),
            ("mean", |config| config.mean[1] = f64::NAN),
            ("std", |config| config.std[2] = 0.0),
            ("solarise-probability", |config| config.solarise_probability = -1.0),
            ("local-views", |config| config.local_views = 65),
            ("local-size", |config| config.local_size = 0),
            ("local-crop-scale", |config| config.local_crop_scale = [0.5, 0.4]),
        ];
        for (setting, change) in broken {
            let mut config = ViewConfig::v2(32);
            change(&mut config);
            assert_eq!(config.validate().unwrap_err().name, setting);
        }
    }
}
