//! What a view looks like: the settings and the two published recipes.

use serde::{Deserialize, Serialize};

/// The order in which a recipe applies its operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Recipe {
    /// Resized crop → grey → jitter → solarise → flip → normalise (MoCo v1, PCL v1).
    V1,
    /// Resized crop → jitter → grey → blur → solarise → flip → normalise (MoCo v2, PCL v2).
    V2,
}

/// Everything that decides how views are drawn and made.
///
/// Probabilities are in [0, 1]; pairs are `[low, high]`. Source of the defaults: the published
/// code's `main_pcl.py`; ranges mean what they mean in torchvision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ViewConfig {
    /// Order of operations.
    #[serde(rename = "views")]
    pub recipe: Recipe,
    /// Side of a view in pixels.
    pub image_size: usize,
    /// Length in pixels the short side is resized to before the centre crop of an evaluation view.
    pub eval_resize: usize,
    /// Share of the image's area a random crop covers.
    pub crop_scale: [f64; 2],
    /// Width of a random crop over its height, before it is resized to a square.
    pub crop_ratio: [f64; 2],
    /// Strengths of brightness, contrast, saturation and hue jitter. The first three draw a factor
    /// from [max(0, 1 − s), 1 + s], hue a shift from [−s, s] of a turn (s at most 0.5).
    pub jitter: [f64; 4],
    /// How often a view is jittered.
    pub jitter_probability: f64,
    /// How often a view turns grey.
    pub grey_probability: f64,
    /// How often a view is blurred (recipe v2 only).
    pub blur_probability: f64,
    /// Standard deviation of the blur in pixels.
    pub blur_sigma: [f64; 2],
    /// How often the bright samples of a view are inverted (BYOL).
    #[serde(default)]
    pub solarise_probability: f64,
    /// The least sample, of 0 to 255, that is bright.
    #[serde(default = "middle")]
    pub solarise_threshold: u8,
    /// How often a view is mirrored left to right.
    pub flip_probability: f64,
    /// Small views an image besides the two full ones (multi-crop; SwAV).
    #[serde(default)]
    pub local_views: usize,
    /// Side of a small view in pixels.
    #[serde(default = "local_size")]
    pub local_size: usize,
    /// Share of the image's area that a small view covers.
    #[serde(default = "local_crop_scale")]
    pub local_crop_scale: [f64; 2],
    /// Subtracted from each channel (red, green, blue) after scaling to [0, 1].
    pub mean: [f64; 3],
    /// Each channel is divided by this afterwards.
    pub std: [f64; 3],
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
            recipe: Recipe::V1,
            jitter: [0.4; 4],
            jitter_probability: 1.0,
            blur_probability: 0.0,
            ..ViewConfig::v2(image_size)
        }
    }

    /// The views of MoCo v2 and PCL v2.
    pub fn v2(image_size: usize) -> ViewConfig {
        ViewConfig {
            recipe: Recipe::V2,
            image_size,
            eval_resize: eval_resize(image_size),
            crop_scale: [0.2, 1.0],
            crop_ratio: [3.0 / 4.0, 4.0 / 3.0],
            jitter: [0.4, 0.4, 0.4, 0.1],
            jitter_probability: 0.8,
            grey_probability: 0.2,
            blur_probability: 0.5,
            blur_sigma: [0.1, 2.0],
            solarise_probability: 0.0,
            solarise_threshold: middle(),
            flip_probability: 0.5,
            local_views: 0,
            local_size: local_size(),
            local_crop_scale: local_crop_scale(),
            mean: [0.485, 0.456, 0.406],
            std: [0.229, 0.224, 0.225],
        }
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
            flip_probability: 0.5,
            ..self.clone()
        }
    }

    /// Checks every setting.
    ///
    /// # Errors
    /// Names the first setting that is out of range and what it should be.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let check = |holds: bool, setting, found: &dyn std::fmt::Debug, expected| {
            let found = format!("{found:?}");
            if holds { Ok(()) } else { Err(ConfigError { setting, found, expected }) }
        };
        check(
            (1..=MAX_IMAGE_SIZE).contains(&self.image_size),
            "image_size",
            &self.image_size,
            "between 1 and 4096 pixels",
        )?;
        check(
            (self.image_size..=2 * MAX_IMAGE_SIZE).contains(&self.eval_resize),
            "eval_resize",
            &self.eval_resize,
            "at least image_size and at most 8192 pixels",
        )?;
        for (setting, scale) in
            [("crop_scale", self.crop_scale), ("local_crop_scale", self.local_crop_scale)]
        {
            let [low, high] = scale;
            let holds = 0.0 < low && low <= high && high <= 1.0;
            check(holds, setting, &scale, "[low, high] with 0 < low <= high <= 1")?;
        }
        check(
            (1..=MAX_IMAGE_SIZE).contains(&self.local_size),
            "local_size",
            &self.local_size,
            "between 1 and 4096 pixels",
        )?;
        check(self.local_views <= 64, "local_views", &self.local_views, "at most 64")?;
        let [low, high] = self.crop_ratio;
        check(
            0.0 < low && low <= high && high.is_finite(),
            "crop_ratio",
            &self.crop_ratio,
            "[low, high] with 0 < low <= high",
        )?;
        check(
            self.jitter.iter().all(|strength| (0.0..=f64::MAX).contains(strength))
                && self.jitter[3] <= 0.5,
            "jitter",
            &self.jitter,
            "[brightness, contrast, saturation, hue], none negative, hue at most 0.5",
        )?;
        for (setting, probability) in [
            ("jitter_probability", self.jitter_probability),
            ("grey_probability", self.grey_probability),
            ("blur_probability", self.blur_probability),
            ("solarise_probability", self.solarise_probability),
            ("flip_probability", self.flip_probability),
        ] {
            let holds = (0.0..=1.0).contains(&probability);
            check(holds, setting, &probability, "a probability between 0 and 1")?;
        }
        let [low, high] = self.blur_sigma;
        check(
            0.0 <= low && low <= high && high <= 100.0,
            "blur_sigma",
            &self.blur_sigma,
            "[low, high] in pixels with 0 <= low <= high <= 100",
        )?;
        check(
            self.mean.iter().all(|mean| mean.is_finite()),
            "mean",
            &self.mean,
            "three finite numbers",
        )?;
        check(
            self.std.iter().all(|&std| std.is_finite() && std > 0.0),
            "std",
            &self.std,
            "three positive numbers",
        )
    }
}

/// Larger views than anyone trains on; keeps sizes of buffers far from overflow.
const MAX_IMAGE_SIZE: usize = 4096;

/// A setting of [`ViewConfig`] that is out of range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the view setting {setting} is {found}: expected {expected}")]
pub struct ConfigError {
    /// Name of the setting.
    pub setting: &'static str,
    /// Its value.
    pub found: String,
    /// What it should be.
    pub expected: &'static str,
}

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
    fn both_recipes_are_valid_and_survive_being_written() {
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
            ("image_size", |config| config.image_size = 0),
            ("eval_resize", |config| config.eval_resize = 31),
            ("crop_scale", |config| config.crop_scale = [0.0, 1.0]),
            ("crop_scale", |config| config.crop_scale = [f64::NAN, 1.0]),
            ("crop_ratio", |config| config.crop_ratio = [2.0, 1.0]),
            ("jitter", |config| config.jitter[3] = 0.6),
            ("jitter", |config| config.jitter[0] = -0.1),
            ("grey_probability", |config| config.grey_probability = 1.1),
            ("blur_sigma", |config| config.blur_sigma = [0.1, f64::INFINITY]),
            ("mean", |config| config.mean[1] = f64::NAN),
            ("std", |config| config.std[2] = 0.0),
            ("solarise_probability", |config| config.solarise_probability = -1.0),
            ("local_views", |config| config.local_views = 65),
            ("local_size", |config| config.local_size = 0),
            ("local_crop_scale", |config| config.local_crop_scale = [0.5, 0.4]),
        ];
        for (setting, change) in broken {
            let mut config = ViewConfig::v2(32);
            change(&mut config);
            assert_eq!(config.validate().unwrap_err().setting, setting);
        }
    }
}
