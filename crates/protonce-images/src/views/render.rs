//! Makes a view: crops, resizes and augments a decoded image, in the published order.

use super::blur::BlurScratch;
use super::{
    Augmentations, Image, JitterStep, Planes, Resizer, ViewConfig, ViewParameters, brightness,
    contrast, flip, gaussian_blur, grey, hue, saturation, solarise,
};
use protonce_simd::multiversion;

/// Makes views of decoded images; keeps its working memory between images, so each thread has
/// one.
#[derive(Debug)]
pub struct Renderer {
    augmentations: Augmentations,
    image_size: usize,
    eval_resize: usize,
    resizer: Resizer,
    solarise_threshold: u8,
    view: Planes,
    scratch: BlurScratch,
    /// Normalised value of every byte, one table per channel.
    normalised: [[f32; 256]; 3],
}

impl Renderer {
    /// A renderer of the views that `config` describes.
    pub fn new(config: &ViewConfig) -> Renderer {
        let normalised = std::array::from_fn(|channel| {
            let (mean, std) = (config.mean[channel] as f32, config.std[channel] as f32);
            std::array::from_fn(|value| (value as f32 / 255.0 - mean) / std)
        });
        Renderer {
            augmentations: config.augmentations,
            image_size: config.image_size,
            eval_resize: config.eval_resize,
            resizer: Resizer::default(),
            solarise_threshold: config.solarise_threshold,
            view: Planes::default(),
            scratch: BlurScratch::default(),
            normalised,
        }
    }

    /// A training view of `image` before normalisation, `image_size` pixels square.
    ///
    /// # Panics
    /// When the crop is empty or reaches outside the image.
    pub fn training(&mut self, image: &Image, parameters: &ViewParameters) -> &Planes {
        let size = (self.image_size, self.image_size);
        self.resizer.resize(image, parameters.crop, size, &mut self.view);
        match self.augmentations {
            Augmentations::V1 => {
                self.grey(parameters);
                self.jitter(parameters);
            }
            Augmentations::V2 => {
                self.jitter(parameters);
                self.grey(parameters);
                if let Some(sigma) = parameters.blur {
                    gaussian_blur(&mut self.view, sigma, &mut self.scratch);
                }
            }
        }
        if parameters.solarise {
            solarise(&mut self.view, self.solarise_threshold);
        }
        if parameters.flip {
            flip(&mut self.view);
        }
        &self.view
    }

    /// The evaluation view of `image` before normalisation: its centre, `image_size` pixels square.
    ///
    /// # Panics
    /// When the image is empty.
    pub fn evaluation(&mut self, image: &Image) -> &Planes {
        let (short_side, size) = (self.eval_resize, self.image_size);
        self.resizer.resize_and_center_crop(image, short_side, size, &mut self.view);
        &self.view
    }

    /// Writes the view made last, scaled to [0, 1], less the mean, over the standard deviation.
    ///
    /// `output` is row-major [height, width, 3].
    pub fn normalise_into(&self, output: &mut [f32]) {
        let [red, green, blue] = self.view.channels();
        look_up(red, green, blue, &self.normalised, output);
    }

    fn grey(&mut self, parameters: &ViewParameters) {
        if parameters.grey {
            grey(&mut self.view);
        }
    }

    fn jitter(&mut self, parameters: &ViewParameters) {
        for step in parameters.jitter.iter() {
            let view = &mut self.view;
            match *step {
                JitterStep::Brightness(factor) => brightness(view, factor),
                JitterStep::Contrast(factor) => contrast(view, factor),
                JitterStep::Saturation(factor) => saturation(view, factor),
                JitterStep::Hue(shift) => hue(view, shift),
            }
        }
    }
}

multiversion! {
    /// Every sample's value in its channel's table, interleaved.
    fn look_up(
        red: &[u8],
        green: &[u8],
        blue: &[u8],
        tables: &[[f32; 256]; 3],
        output: &mut [f32],
    ) {
        let [reds, greens, blues] = tables;
        let pixels = output.chunks_exact_mut(3);
        for (((pixel, &red), &green), &blue) in pixels.zip(red).zip(green).zip(blue) {
            pixel[0] = reds[usize::from(red)];
            pixel[1] = greens[usize::from(green)];
            pixel[2] = blues[usize::from(blue)];
        }
    }
}
