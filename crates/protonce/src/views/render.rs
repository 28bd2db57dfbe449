//! Puts the operations in a recipe's order.

use super::{
    Image, JitterStep, Recipe, Resizer, ViewConfig, ViewParameters, brightness, contrast, flip,
    gaussian_blur, grey, hue, saturation,
};

/// Makes views of decoded images; keeps its working memory between images, one a thread.
#[derive(Debug)]
pub struct Renderer {
    recipe: Recipe,
    image_size: usize,
    eval_resize: usize,
    resizer: Resizer,
    view: Image,
    scratch: Vec<u8>,
    /// Normalised value of every byte, a table a channel.
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
            recipe: config.recipe,
            image_size: config.image_size,
            eval_resize: config.eval_resize,
            resizer: Resizer::default(),
            view: Image::default(),
            scratch: Vec::new(),
            normalised,
        }
    }

    /// A training view of `image` before normalisation, `image_size` pixels square.
    ///
    /// # Panics
    /// When the crop is empty or reaches outside the image.
    pub fn training(&mut self, image: &Image, parameters: &ViewParameters) -> &Image {
        let size = (self.image_size, self.image_size);
        self.resizer.resize(image, parameters.crop, size, &mut self.view);
        match self.recipe {
            Recipe::V1 => {
                self.grey(parameters);
                self.jitter(parameters);
            }
            Recipe::V2 => {
                self.jitter(parameters);
                self.grey(parameters);
                if let Some(sigma) = parameters.blur {
                    gaussian_blur(&mut self.view, sigma, &mut self.scratch);
                }
            }
        }
        if parameters.flip {
            flip(&mut self.view.pixels, self.view.width);
        }
        &self.view
    }

    /// The evaluation view of `image` before normalisation: its centre, `image_size` pixels square.
    ///
    /// # Panics
    /// When the image is empty.
    pub fn evaluation(&mut self, image: &Image) -> &Image {
        let (short_side, size) = (self.eval_resize, self.image_size);
        self.resizer.resize_and_center_crop(image, short_side, size, &mut self.view);
        &self.view
    }

    /// Writes the view made last, scaled to [0, 1], less the mean, over the standard deviation.
    ///
    /// `output` is row-major [height, width, 3].
    pub fn normalise_into(&self, output: &mut [f32]) {
        let [red, green, blue] = &self.normalised;
        for (to, pixel) in output.chunks_exact_mut(3).zip(self.view.pixels.chunks_exact(3)) {
            to[0] = red[usize::from(pixel[0])];
            to[1] = green[usize::from(pixel[1])];
            to[2] = blue[usize::from(pixel[2])];
        }
    }

    fn grey(&mut self, parameters: &ViewParameters) {
        if parameters.grey {
            grey(&mut self.view.pixels);
        }
    }

    fn jitter(&mut self, parameters: &ViewParameters) {
        for step in &parameters.jitter {
            let pixels = &mut self.view.pixels;
            match *step {
                JitterStep::Brightness(factor) => brightness(pixels, factor),
                JitterStep::Contrast(factor) => contrast(pixels, factor),
                JitterStep::Saturation(factor) => saturation(pixels, factor),
                JitterStep::Hue(shift) => hue(pixels, shift),
            }
        }
    }
}
