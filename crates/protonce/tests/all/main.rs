//! The library as a program uses it. One binary, since each would link libtorch anew.

// Helpers of tests fail as tests do; the exemption in clippy.toml covers test functions only.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod parity;
mod stop;
mod transfer;
mod weights;

use std::path::Path;

use protonce_images::data::Dataset;

/// Twelve 16-px images of each of two colours.
fn images(folder: &Path) -> Dataset {
    for (class, colour) in [("blue", [30, 40, 200]), ("red", [200, 60, 30])] {
        std::fs::create_dir_all(folder.join(class)).unwrap();
        for number in 0..12u8 {
            let image = image::RgbImage::from_fn(16, 16, |x, y| {
                let stripe = 20 * ((x + y + u32::from(number)) % 3) as u8;
                image::Rgb(colour.map(|value| value + stripe))
            });
            image.save(folder.join(format!("{class}/{number:02}.png"))).unwrap();
        }
    }
    Dataset::open(folder.to_str().unwrap()).unwrap()
}
