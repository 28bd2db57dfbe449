//! A picture of what the views of some images look like.

use image::{Rgb, RgbImage, imageops};

use super::{
    CropBox, Decoder, Image, Planes, Renderer, Resizer, View, ViewConfig, ViewParameters,
    ViewRandom,
};
use crate::data::Dataset;

const GAP: u32 = 4;

/// A row for each of `images` images spread over the data set: the image, then the views that it has
/// in as many epochs as make `pairs` pairs of full views and their small ones, at their true size.
///
/// An image that cannot be read has an empty row.
pub fn view_grid(
    dataset: &Dataset,
    config: &ViewConfig,
    images: usize,
    pairs: usize,
    seed: u64,
) -> RgbImage {
    let side = config.image_size as u32;
    let local = if config.local_views > 0 { config.local_size as u32 } else { 0 };
    let row_height = side.max(local) + GAP;
    let views = config.pretraining_views();
    let pair_width = 2 * (side + GAP) + config.local_views as u32 * (local + GAP);
    let rows = images.min(dataset.len());
    let mut picture = RgbImage::from_pixel(
        side + GAP + pairs as u32 * pair_width + GAP,
        rows as u32 * row_height + GAP,
        Rgb([255; 3]),
    );
    let (key_config, local_config) = (config.key(), config.local());
    let mut renderers = [Renderer::new(config), Renderer::new(&local_config)];
    let (mut decoder, mut resizer) = (Decoder::default(), Resizer::default());
    let (mut bytes, mut image, mut original) = (Vec::new(), Image::default(), Planes::default());
    for row in 0..rows {
        let index = row * dataset.len() / rows;
        let read = dataset.read(index, &mut bytes).is_ok();
        if !read || decoder.decode(&bytes, &mut image).is_err() {
            continue;
        }
        let top = row as u32 * row_height + GAP;
        let longest = image.width.max(image.height);
        let fitted = |length: usize| (length * config.image_size / longest).max(1);
        let size = (fitted(image.width), fitted(image.height));
        resizer.resize(&image, CropBox::whole(&image), size, &mut original);
        paste(&mut picture, &original, GAP, top);
        let mut left = GAP + side + GAP;
        for epoch in 0..pairs as u64 {
            for &view in &views {
                let (drawn_with, small) = match view {
                    View::Query => (config, 0),
                    View::Key => (&key_config, 0),
                    View::Local(_) => (&local_config, 1),
                };
                let mut random = ViewRandom::new(seed, epoch, index as u64, view);
                let parameters =
                    ViewParameters::draw(drawn_with, image.width, image.height, &mut random);
                let made = renderers[small].training(&image, &parameters);
                paste(&mut picture, made, left, top);
                left += made.width as u32 + GAP;
            }
        }
    }
    picture
}

fn paste(picture: &mut RgbImage, view: &Planes, left: u32, top: u32) {
    let Image { width, height, pixels } = view.to_image();
    if let Some(view) = RgbImage::from_raw(width as u32, height as u32, pixels) {
        imageops::replace(picture, &view, left.into(), top.into());
    }
}
