//! Pillow's Gaussian blur: three box blurs along each axis, with boxes of fractional width.
//!
//! Source: Gwosdek, Grewenig, Bruhn, Weickert, "Theoretical Foundations of Gaussian Convolution by
//! Extended Box Filtering" (2011), as in Pillow's `ImagingGaussianBlur`.

use super::Planes;
use protonce_simd::multiversion;

const PASSES: usize = 3;

/// Working memory of a blur, kept between calls.
#[derive(Debug, Default)]
pub struct BlurScratch {
    padded: Vec<u8>,
    sums: Vec<u16>,
}

/// Blurs with standard deviation `sigma` in pixels (Pillow's `GaussianBlur(radius=sigma)`).
///
/// Pixels beyond the border repeat the border. Up to a deviation of 100 sums fit in 16 bits; a larger
/// one counts as 100.
pub fn gaussian_blur(view: &mut Planes, sigma: f32, scratch: &mut BlurScratch) {
    if view.samples.is_empty() {
        return;
    }
    let window = Window::new(box_radius(sigma.min(100.0)));
    let (width, height) = (view.width, view.height);
    scratch.sums.resize(width, 0);
    for plane in view.channels_mut() {
        along_rows(plane, width, &window, scratch);
        along_columns(plane, width, height, &window, scratch);
    }
}

multiversion! {
    /// A row with its borders repeated, then sums of shifted copies of itself.
    fn along_rows(
        plane: &mut [u8],
        width: usize,
        window: &Window,
        scratch: &mut BlurScratch,
    ) {
        let BlurScratch { padded, sums } = scratch;
        let margin = window.radius + 1;
        padded.resize(width + 2 * margin, 0);
        for row in plane.chunks_exact_mut(width) {
            for _ in 0..PASSES {
                padded[..margin].fill(row[0]);
                padded[margin..margin + width].copy_from_slice(row);
                padded[margin + width..].fill(row[width - 1]);
                window.apply(row, sums, |step| &padded[step..step + width]);
            }
        }
    }
}

multiversion! {
    /// The same with whole rows as the elements, all columns at once.
    fn along_columns(
        plane: &mut [u8],
        width: usize,
        height: usize,
        window: &Window,
        scratch: &mut BlurScratch,
    ) {
        let BlurScratch { padded, sums } = scratch;
        for _ in 0..PASSES {
            padded.clear();
            padded.extend_from_slice(plane);
            for (y, row) in plane.chunks_exact_mut(width).enumerate() {
                window.apply(row, sums, |step| {
                    let source = (y + step).saturating_sub(window.radius + 1).min(height - 1);
                    &padded[source * width..(source + 1) * width]
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

    #[inline(always)]
    fn weigh(&self, sum: u16, before: u8, after: u8) -> u8 {
        const HALF: u32 = 1 << 23;
        let beyond = u32::from(before) + u32::from(after);
        ((u32::from(sum) * self.full + beyond * self.edge + HALF) >> 24) as u8
    }

    /// Writes the weighted sum of 2·radius + 3 neighbours, where `shifted(step)` is the row `step`
    /// positions after the first neighbour.
    #[inline(always)]
    fn apply<'a>(&self, row: &mut [u8], sums: &mut [u16], shifted: impl Fn(usize) -> &'a [u8]) {
        let width = row.len();
        match self.radius {
            // The usual widths, whose sums fit in registers.
            0 => {
                let (a, b, c) = (&shifted(0)[..width], &shifted(1)[..width], &shifted(2)[..width]);
                for x in 0..width {
                    row[x] = self.weigh(u16::from(b[x]), a[x], c[x]);
                }
            }
            1 => {
                let (a, b, c) = (&shifted(0)[..width], &shifted(1)[..width], &shifted(2)[..width]);
                let (d, e) = (&shifted(3)[..width], &shifted(4)[..width]);
                for x in 0..width {
                    row[x] =
                        self.weigh(u16::from(b[x]) + u16::from(c[x]) + u16::from(d[x]), a[x], e[x]);
                }
            }
            radius => {
                sums.fill(0);
                for step in 1..=2 * radius + 1 {
                    for (sum, &value) in sums.iter_mut().zip(shifted(step)) {
                        *sum = sum.wrapping_add(u16::from(value));
                    }
                }
                let edges = shifted(0).iter().zip(shifted(2 * radius + 2));
                for ((value, &sum), (&before, &after)) in row.iter_mut().zip(&*sums).zip(edges) {
                    *value = self.weigh(sum, before, after);
                }
            }
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
                let mut view = Planes { width, height, samples: vec![137; width * height * 3] };
                gaussian_blur(&mut view, sigma, &mut BlurScratch::default());
                assert!(view.samples.iter().all(|&value| value == 137), "{width}x{height} {sigma}");
            }
        }
    }

    #[test]
    fn a_wide_blur_has_the_asked_variance() {
        let (side, sigma) = (81, 6.0);
        let mut view = Planes { width: side, height: side, samples: vec![0; side * side * 3] };
        // A bright column spreads along rows only; its profile is the kernel.
        for row in view.samples.chunks_exact_mut(side) {
            row[side / 2] = 255;
        }
        gaussian_blur(&mut view, sigma, &mut BlurScratch::default());
        let row = &view.samples[..side];
        let weight = |x: usize| f64::from(row[x]);
        let total: f64 = (0..side).map(weight).sum();
        let variance: f64 =
            (0..side).map(|x| weight(x) * (x as f64 - (side / 2) as f64).powi(2) / total).sum();
        assert!((variance.sqrt() - f64::from(sigma)).abs() < 0.3, "{}", variance.sqrt());
    }
}
