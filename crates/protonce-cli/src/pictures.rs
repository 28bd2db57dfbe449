//! Images of a data set as they are drawn into pictures.

use image::RgbImage;
use protonce_images::views::decode;

/// An encoded image; none where it cannot be decoded.
pub fn rgb(bytes: &[u8]) -> Option<RgbImage> {
    let image = decode(bytes).ok()?;
    RgbImage::from_raw(image.width as u32, image.height as u32, image.pixels)
}
