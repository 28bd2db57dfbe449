//! Planes of samples → pixels: upsampling of the chroma, then colours.

use super::super::{CropBox, Image};
use super::Plane;
use protonce_simd::multiversion;

/// Turns planes into pixels; keeps its rows between images.
#[derive(Debug, Default)]
pub(super) struct Converter {
    /// A row of blue and of red differences at full width.
    chroma: [Vec<u8>; 2],
    /// A row of sums of two rows.
    sums: Vec<u16>,
}

impl Converter {
    /// Writes the pixels in `part`; the first plane has the image's size, the others the same or
    /// half of it in width, height or both.
    pub(super) fn convert(
        &mut self,
        planes: &[Plane],
        to_rgb: bool,
        part: CropBox,
        image: &mut Image,
    ) -> Option<()> {
        let (width, height) = (image.width, image.height);
        let columns = part.left..part.left + part.width;
        for y in part.top..part.top + part.height {
            let row = &mut image.pixels[y * width * 3..(y + 1) * width * 3];
            let row = &mut row[columns.start * 3..columns.end * 3];
            let luma = &planes.first()?.row(y)[columns.clone()];
            let [_, blue, red] = planes else {
                grey_to_rgb(luma, row);
                continue;
            };
            for (plane, output) in [blue, red].into_iter().zip(&mut self.chroma) {
                let halved = (plane.width != width, plane.height != height);
                upsample(plane, y, halved, columns.end, output, &mut self.sums);
            }
            let [blue, red] = &self.chroma;
            let (blue, red) = (&blue[columns.clone()], &red[columns.clone()]);
            match to_rgb {
                true => convert_row(luma, blue, red, row),
                false => interleave(luma, blue, red, row),
            }
        }
        Some(())
    }
}

impl Plane {
    fn row(&self, y: usize) -> &[u8] {
        &self.samples[y * self.stride..(y + 1) * self.stride]
    }
}

/// Row `y` of the image out of a plane that may be halved (across, down), up to column `end`.
fn upsample(
    plane: &Plane,
    y: usize,
    halved: (bool, bool),
    end: usize,
    output: &mut Vec<u8>,
    sums: &mut Vec<u16>,
) {
    // Even, and as long as whole pairs need.
    output.resize(plane.stride * 2, 0);
    // Triangles need neighbours on both sides.
    let triangle = plane.width > 2;
    match halved {
        (false, false) => output[..end].copy_from_slice(&plane.row(y)[..end]),
        (true, false) if triangle => widen(&plane.row(y)[..plane.width], output),
        (true, true) if triangle => {
            sum_rows(plane, y, sums);
            widen_sums(&sums[..plane.width], output);
        }
        (false, true) => {
            sum_rows(plane, y, sums);
            let half = if y.is_multiple_of(2) { 1 } else { 2 };
            for (to, &sum) in output.iter_mut().zip(&sums[..end]) {
                *to = ((sum + half) >> 2) as u8;
            }
        }
        (true, down) => {
            let row = plane.row(if down { y / 2 } else { y });
            for (pair, &sample) in output.chunks_exact_mut(2).zip(row) {
                pair.fill(sample);
            }
        }
    }
}

/// Three times the nearer row and once the farther; rows beyond the image repeat its last.
fn sum_rows(plane: &Plane, y: usize, sums: &mut Vec<u16>) {
    let near = y / 2;
    let far =
        if y.is_multiple_of(2) { near.saturating_sub(1) } else { (near + 1).min(plane.height - 1) };
    sums.resize(plane.stride, 0);
    add_rows(plane.row(near), plane.row(far), sums);
}

multiversion! {
    fn add_rows(near: &[u8], far: &[u8], sums: &mut [u16]) {
        for ((sum, &near), &far) in sums.iter_mut().zip(near).zip(far) {
            *sum = u16::from(near) * 3 + u16::from(far);
        }
    }
}

multiversion! {
    /// Two samples of each, a quarter away from it on either side.
    fn widen(row: &[u8], output: &mut [u8]) {
        let last = row.len() - 1;
        output[0] = row[0];
        output[1] = ((u16::from(row[0]) * 3 + u16::from(row[1]) + 2) >> 2) as u8;
        let middle = output[2..].chunks_exact_mut(2);
        for (pair, neighbours) in middle.zip(row.windows(3)) {
            let [before, here, after] = [neighbours[0], neighbours[1], neighbours[2]];
            let three = u16::from(here) * 3;
            pair[0] = ((three + u16::from(before) + 1) >> 2) as u8;
            pair[1] = ((three + u16::from(after) + 2) >> 2) as u8;
        }
        output[2 * last] = ((u16::from(row[last]) * 3 + u16::from(row[last - 1]) + 1) >> 2) as u8;
        output[2 * last + 1] = row[last];
    }
}

multiversion! {
    /// The same for sums that are four times as large.
    fn widen_sums(sums: &[u16], output: &mut [u8]) {
        let last = sums.len() - 1;
        output[0] = ((sums[0] * 4 + 8) >> 4) as u8;
        output[1] = ((sums[0] * 3 + sums[1] + 7) >> 4) as u8;
        let middle = output[2..].chunks_exact_mut(2);
        for (pair, neighbours) in middle.zip(sums.windows(3)) {
            let [before, here, after] = [neighbours[0], neighbours[1], neighbours[2]];
            pair[0] = ((here * 3 + before + 8) >> 4) as u8;
            pair[1] = ((here * 3 + after + 7) >> 4) as u8;
        }
        output[2 * last] = ((sums[last] * 3 + sums[last - 1] + 8) >> 4) as u8;
        output[2 * last + 1] = ((sums[last] * 4 + 7) >> 4) as u8;
    }
}

multiversion! {
    /// ITU-R 601 in 16-bit fixed point, rounded as libjpeg's tables are.
    fn convert_row(luma: &[u8], blue: &[u8], red: &[u8], row: &mut [u8]) {
        const HALF: i32 = 1 << 15;
        let pixels = row.chunks_exact_mut(3);
        for (((pixel, &luma), &blue), &red) in pixels.zip(luma).zip(blue).zip(red) {
            let (luma, blue, red) = (i32::from(luma), i32::from(blue) - 128, i32::from(red) - 128);
            let clamp = |value: i32| value.clamp(0, 255) as u8;
            pixel[0] = clamp(luma + ((91881 * red + HALF) >> 16));
            pixel[1] = clamp(luma + ((-22554 * blue - 46802 * red + HALF) >> 16));
            pixel[2] = clamp(luma + ((116130 * blue + HALF) >> 16));
        }
    }
}

multiversion! {
    fn interleave(red: &[u8], green: &[u8], blue: &[u8], row: &mut [u8]) {
        for (((pixel, &red), &green), &blue) in row.chunks_exact_mut(3).zip(red).zip(green).zip(blue) {
            pixel[0] = red;
            pixel[1] = green;
            pixel[2] = blue;
        }
    }
}

multiversion! {
    fn grey_to_rgb(luma: &[u8], row: &mut [u8]) {
        for (pixel, &luma) in row.chunks_exact_mut(3).zip(luma) {
            pixel.fill(luma);
        }
    }
}
