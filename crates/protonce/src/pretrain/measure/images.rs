//! Images for measuring where there are none at hand.

use std::io;
use std::path::Path;

use image::codecs::jpeg::JpegEncoder;
use image::{Rgb, RgbImage};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Writes `count` JPEGs that cost about as much to decode as photographs do: for views of up to 64
/// pixels as large as these, as data sets of small images are; otherwise 500 × 375.
///
/// # Errors
/// When they cannot be written.
pub fn write_images(folder: &Path, count: usize, image_size: usize) -> io::Result<()> {
    let side = image_size as u32;
    let [width, height] = if image_size <= 64 { [side, side] } else { [500, 375] };
    for number in 0..count {
        let mut random = ChaCha8Rng::seed_from_u64(number as u64);
        // Waves of all lengths, weaker where shorter, as in photographs.
        let waves: [[f32; 5]; 24] = std::array::from_fn(|wave| {
            let frequency = 1.5 * 1.25f32.powi(wave as i32);
            let angle = random.random_range(0.0..std::f32::consts::TAU);
            let (sine, cosine) = angle.sin_cos();
            let phase = random.random_range(0.0..std::f32::consts::TAU);
            let colour = random.random_range(0.0..std::f32::consts::TAU);
            [cosine * frequency, sine * frequency, phase, colour, 60.0 / frequency.sqrt()]
        });
        let image = RgbImage::from_fn(width, height, |x, y| {
            let [x, y] = [x, y].map(|place| place as f32 / width as f32);
            let mut pixel = [128.0f32; 3];
            for [along, across, phase, colour, strength] in waves {
                let value = strength * (along * x + across * y + phase).sin();
                for (channel, sum) in pixel.iter_mut().enumerate() {
                    *sum += value * (0.7 + 0.3 * (colour + channel as f32).cos());
                }
            }
            Rgb(pixel.map(|value| value as u8))
        });
        let file = std::fs::File::create(folder.join(format!("{number:05}.jpg")))?;
        JpegEncoder::new_with_quality(io::BufWriter::new(file), 90)
            .encode_image(&image)
            .map_err(io::Error::other)?;
    }
    Ok(())
}
