//! Images that tests make for themselves.

use std::path::Path;

use image::{Rgb, RgbImage};

/// Writes `count` PNG images of each class into `folder/CLASS/`. A class has its colour, an image
/// its stripes.
pub fn write_classes(folder: &Path, classes: &[&str], count: u32) {
    for (number, class) in classes.iter().enumerate() {
        let folder = folder.join(class);
        std::fs::create_dir_all(&folder).unwrap();
        for index in 0..count {
            picture(number as u32, index).save(folder.join(format!("{index:03}.png"))).unwrap();
        }
    }
}

/// One 20-px image.
pub fn picture(class: u32, index: u32) -> RgbImage {
    RgbImage::from_fn(20, 20, |x, y| {
        let stripe = 60 * ((x + y * (index % 5)) / (2 + index % 3) % 2);
        let channel = |which: u32| {
            let base = if class % 3 == which { 150 } else { 40 };
            (base + stripe + index * 7 % 40) as u8
        };
        Rgb([channel(0), channel(1), channel(2)])
    })
}

/// The bytes of a JPEG image.
pub fn jpeg(class: u32, index: u32) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture(class, index).write_to(&mut bytes, image::ImageFormat::Jpeg).unwrap();
    bytes.into_inner()
}
