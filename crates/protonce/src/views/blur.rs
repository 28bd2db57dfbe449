//! Pillow's Gaussian blur: three box blurs along each axis, with boxes of fractional width.
//!
//! Source: Gwosdek, Grewenig, Bruhn, Weickert, "Theoretical Foundations of Gaussian Convolution by
//! Extended Box Filtering" (2011), as in Pillow's `ImagingGaussianBlur`.

use super::Image;
use crate::widest::widest;

const PASSES: usize = 3;

/// Blurs with standard deviation `sigma` in pixels (Pillow's `GaussianBlur(radius=sigma)`).
///
/// Pixels beyond the border repeat the border. `scratch` is working memory, kept between calls.
pub fn gaussian_blur(image: &mut Image, sigma: f32, scratch: &mut Vec<u8>) {
    if image.pixels.is_empty() {
        return;
    }
    let window = Window::new(box_radius(sigma));
    along_rows(image, &window, scratch);
    along_columns(image, &window, scratch);
}

widest! {
    /// A row with its borders repeated, then sums of shifted copies of itself.
    fn along_rows(image: &mut Image, window: &Window, scratch: &mut Vec<u8>) {
        let row_bytes = image.width * 3;
        let margin = (window.radius + 1) * 3;
        let mut sums = vec![0; row_bytes];
        scratch.resize(row_bytes + 2 * margin, 0);
        for row in image.pixels.chunks_exact_mut(row_bytes) {
            for _ in 0..PASSES {
                scratch[margin..margin + row_bytes].copy_from_slice(row);
                for offset in (0..margin).step_by(3) {
                    scratch[offset..offset + 3].copy_from_slice(&row[..3]);
                    let end = margin + row_bytes + offset;
                    scratch[end..end + 3].copy_from_slice(&row[row_bytes - 3..]);
                }
                window.apply(row, &mut sums, |step| &scratch[step * 3..step * 3 + row_bytes]);
            }
        }
    }
}

widest! {
    /// The same with whole rows as the elements, all columns at once.
    fn along_columns(image: &mut Image, window: &Window, scratch: &mut Vec<u8>) {
        let row_bytes = image.width * 3;
        let last = image.height - 1;
        let mut sums = vec![0; row_bytes];
        for _ in 0..PASSES {
            scratch.clear();
            scratch.extend_from_slice(&image.pixels);
            for (y, row) in image.pixels.chunks_exact_mut(row_bytes).enumerate() {
                window.apply(row, &mut sums, |step| {
                    let source = (y + step).saturating_sub(window.radius + 1).min(last);
                    &scratch[source * row_bytes..(source + 1) * row_bytes]
                });
            }
        }
    }
}

/// A box of fractional width in 8.24 fixed point.
struct Window {
    /// Elements on either side of the centre that count in full.
    radius: usize,
    /// Weight of each of those and of the centre.
    full: u32,
    /// Weight of the one element beyond them on either side.
    edge: u32,
}

impl Window {
    fn new(radius: f32) -> Window {
        const ONE: u32 = 1 << 24;
        let whole = radius as u32;
        let full = (ONE as f32 / (radius * 2.0 + 1.0)) as u32;
        Window { radius: whole as usize, full, edge: (ONE - (whole * 2 + 1) * full) / 2 }
    }

    /// Writes the weighted sum of 2·radius + 3 neighbours, where `shifted(step)` is the row `step`
    /// positions after the first neighbour.
    #[inline(always)]
    fn apply<'a>(&self, row: &mut [u8], sums: &mut [u32], shifted: impl Fn(usize) -> &'a [u8]) {
        const HALF: u32 = 1 << 23;
        sums.fill(0);
        for step in 1..=2 * self.radius + 1 {
            for (sum, &value) in sums.iter_mut().zip(shifted(step)) {
                *sum += u32::from(value);
            }
        }
        let edges = shifted(0).iter().zip(shifted(2 * self.radius + 2));
        for ((value, &sum), (&before, &after)) in row.iter_mut().zip(&*sums).zip(edges) {
            let beyond = u32::from(before) + u32::from(after);
            *value = ((sum * self.full + beyond * self.edge + HALF) >> 24) as u8;
        }
    }
}

/// Radius of the box whose `PASSES`-fold application has variance `sigma`²; equation 7, 11 and 14
/// of the source, in Pillow's mix of precisions.
fn box_radius(sigma: f32) -> f32 {
    let variance = sigma * sigma / PASSES as f32;
    let length = (12.0 * f64::from(variance) + 1.0).sqrt() as f32;
    let whole = ((f64::from(length) - 1.0) / 2.0).floor() as f32;
    let missing = (2.0 * whole + 1.0) * (whole * (whole + 1.0) - 3.0 * variance);
    whole + missing / (6.0 * (variance - (whole + 1.0) * (whole + 1.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_even_image_stays_as_it_is_however_wide_the_blur() {
        for (width, height) in [(1, 1), (2, 5), (7, 1)] {
            for sigma in [0.0, 0.1, 2.0, 40.0] {
                let mut image = Image { width, height, pixels: vec![137; width * height * 3] };
                gaussian_blur(&mut image, sigma, &mut Vec::new());
                assert!(image.pixels.iter().all(|&value| value == 137), "{width}x{height} {sigma}");
            }
        }
    }

    #[test]
    fn a_wide_blur_has_the_asked_variance() {
        let (side, sigma) = (81, 6.0);
        let mut image = Image { width: side, height: side, pixels: vec![0; side * side * 3] };
        // A bright column spreads along rows only; its profile is the kernel.
        for row in image.pixels.chunks_exact_mut(side * 3) {
            row[side / 2 * 3..side / 2 * 3 + 3].fill(255);
        }
        gaussian_blur(&mut image, sigma, &mut Vec::new());
        let row = &image.pixels[..side * 3];
        let weight = |x: usize| f64::from(row[x * 3]);
        let total: f64 = (0..side).map(weight).sum();
        let variance: f64 =
            (0..side).map(|x| weight(x) * (x as f64 - (side / 2) as f64).powi(2) / total).sum();
        assert!((variance.sqrt() - f64::from(sigma)).abs() < 0.3, "{}", variance.sqrt());
    }
}
