//! Colour and mirror operations on interleaved 8-bit RGB, as Pillow computes them.
//!
//! All work in place on `pixels`, a sequence of (red, green, blue) triples.

use crate::widest::widest;

/// Brightness of a pixel in 0..=255: Pillow's `L`, ITU-R 601 weights in 16-bit fixed point.
#[inline(always)]
fn luma(pixel: &[u8]) -> u8 {
    let sum =
        19595 * u32::from(pixel[0]) + 38470 * u32::from(pixel[1]) + 7471 * u32::from(pixel[2]);
    ((sum + 0x8000) >> 16) as u8
}

/// `from` + factor · (`to` − `from`), cut off to a byte: Pillow's `Image.blend`.
///
/// Float to integer conversion saturates in Rust, which is the clipping Pillow does by hand when
/// the factor extrapolates.
#[inline(always)]
fn blend(from: u8, to: u8, factor: f32) -> u8 {
    (f32::from(from) + factor * (f32::from(to) - f32::from(from))) as u8
}

/// Blends every byte with one constant, through a table.
fn blend_with_constant(pixels: &mut [u8], constant: u8, factor: f32) {
    let table: [u8; 256] = std::array::from_fn(|value| blend(constant, value as u8, factor));
    for value in pixels {
        *value = table[usize::from(*value)];
    }
}

/// Blends with black: factor 0 is black, 1 the image, above 1 brighter (`ImageEnhance.Brightness`).
pub fn brightness(pixels: &mut [u8], factor: f32) {
    blend_with_constant(pixels, 0, factor);
}

/// Blends with the image's mean grey, rounded to a byte (`ImageEnhance.Contrast`).
pub fn contrast(pixels: &mut [u8], factor: f32) {
    let count = pixels.len() / 3;
    if count == 0 {
        return;
    }
    let sum: u64 = pixels.chunks_exact(3).map(|pixel| u64::from(luma(pixel))).sum();
    let mean = (sum as f64 / count as f64 + 0.5) as u8;
    blend_with_constant(pixels, mean, factor);
}

widest! {
    /// Blends with the grey image (`ImageEnhance.Color`).
    pub fn saturation(pixels: &mut [u8], factor: f32) {
        for pixel in pixels.chunks_exact_mut(3) {
            let grey = luma(pixel);
            for value in pixel {
                *value = blend(grey, *value, factor);
            }
        }
    }
}

widest! {
    /// Turns the hue by `shift` full turns, in [−0.5, 0.5], through Pillow's 8-bit HSV.
    ///
    /// Eight bits of hue lose colour, and so does Pillow: a published representation was trained on
    /// colours with this loss.
    pub fn hue(pixels: &mut [u8], shift: f32) {
        // The shift in steps of hue, cut off towards zero, wrapping around the circle.
        let steps = (f64::from(shift) * 255.0) as i32 as u8;
        for pixel in pixels.chunks_exact_mut(3) {
            let [hue, saturation, value] = to_hsv([pixel[0], pixel[1], pixel[2]]);
            pixel.copy_from_slice(&to_rgb([hue.wrapping_add(steps), saturation, value]));
        }
    }
}

/// Pillow's `rgb2hsv`: the mix of single and double precision decides roundings, so it is kept.
#[inline(always)]
fn to_hsv([red, green, blue]: [u8; 3]) -> [u8; 3] {
    let highest = red.max(green).max(blue);
    let lowest = red.min(green).min(blue);
    if highest == lowest {
        return [0, 0, highest];
    }
    // The hue lies at the highest channel's corner of the circle, in sixths, moved by how far the
    // other two are from it.
    let (ahead, behind, corner) = if red == highest {
        (blue, green, 0.0)
    } else if green == highest {
        (red, blue, 2.0)
    } else {
        (green, red, 4.0)
    };
    let range = f32::from(highest - lowest);
    let ahead = f32::from(highest - ahead) / range;
    let behind = f32::from(highest - behind) / range;
    let sixths = match corner {
        0.0 => ahead - behind,
        corner => (corner + f64::from(ahead) - f64::from(behind)) as f32,
    };
    // Into [0, 1): the sum is in (0.8, 1.9), so what is above 1 is the remainder.
    let turn = f64::from(sixths) / 6.0 + 1.0;
    let turn = (if turn >= 1.0 { turn - 1.0 } else { turn }) as f32;
    let saturation = range / f32::from(highest);
    [(f64::from(turn) * 255.0) as u8, (f64::from(saturation) * 255.0) as u8, highest]
}

/// Pillow's `hsv2rgb`.
#[inline(always)]
fn to_rgb([hue, saturation, value]: [u8; 3]) -> [u8; 3] {
    let Hue { order, remainder } = HUES[usize::from(hue)];
    let saturation = SATURATIONS[usize::from(saturation)];
    // Rounds to nearest; without saturation all three are the value itself.
    let scale = |share: f64| (f64::from(value) * share + 0.5) as u8;
    let parts = [
        value,
        scale(1.0 - saturation),
        scale(1.0 - saturation * remainder),
        scale(1.0 - saturation * (1.0 - remainder)),
    ];
    order.map(|part| parts[usize::from(part & 3)])
}

/// What a hue of 0..=255 means.
#[derive(Clone, Copy)]
struct Hue {
    /// Which of value, low, falling and rising (0 to 3) is red, green and blue.
    order: [u8; 3],
    /// How far into its sixth of the circle it is.
    remainder: f64,
}

const HUES: [Hue; 256] = {
    const ORDERS: [[u8; 3]; 6] = [[0, 3, 1], [2, 0, 1], [1, 0, 3], [1, 2, 0], [3, 1, 0], [0, 1, 2]];
    let mut hues = [Hue { order: [0; 3], remainder: 0.0 }; 256];
    let mut hue = 0;
    while hue < 256 {
        let sixths = hue as f64 * 6.0 / 255.0;
        let sector = sixths as usize;
        let remainder = (sixths - sector as f64) as f32 as f64;
        hues[hue] = Hue { order: ORDERS[sector % 6], remainder };
        hue += 1;
    }
    hues
};

const SATURATIONS: [f64; 256] = {
    let mut saturations = [0.0; 256];
    let mut saturation = 0;
    while saturation < 256 {
        saturations[saturation] = (saturation as f64 / 255.0) as f32 as f64;
        saturation += 1;
    }
    saturations
};

/// Replaces colour by its brightness in all three channels (`RandomGrayscale`).
pub fn grey(pixels: &mut [u8]) {
    for pixel in pixels.chunks_exact_mut(3) {
        pixel.fill(luma(pixel));
    }
}

/// Mirrors left to right an image of `width` pixels a row.
pub fn flip(pixels: &mut [u8], width: usize) {
    for row in pixels.chunks_exact_mut(width.max(1) * 3) {
        let (mut left, mut right) = (0, width.saturating_sub(1));
        while left < right {
            for channel in 0..3 {
                row.swap(left * 3 + channel, right * 3 + channel);
            }
            left += 1;
            right -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pillow's two conversions written as in its source, without tables and shortcuts.
    fn pillow_hue([red, green, blue]: [u8; 3], steps: u8) -> [u8; 3] {
        let (highest, lowest) = (red.max(green).max(blue), red.min(green).min(blue));
        let (mut hue, mut saturation) = (0, 0);
        if highest != lowest {
            let range = f32::from(highest - lowest);
            let [rc, gc, bc] = [red, green, blue].map(|value| f32::from(highest - value) / range);
            let sixths = if red == highest {
                bc - gc
            } else if green == highest {
                (2.0 + f64::from(rc) - f64::from(bc)) as f32
            } else {
                (4.0 + f64::from(gc) - f64::from(rc)) as f32
            };
            let turn = ((f64::from(sixths) / 6.0 + 1.0) % 1.0) as f32;
            hue = (f64::from(turn) * 255.0) as u8;
            saturation = (f64::from(range / f32::from(highest)) * 255.0) as u8;
        }
        hue = hue.wrapping_add(steps);
        if saturation == 0 {
            return [highest; 3];
        }
        let sector = (f64::from(hue) * 6.0 / 255.0).floor();
        let rest = f64::from((f64::from(hue) * 6.0 / 255.0 - sector) as f32);
        let share = f64::from((f64::from(saturation) / 255.0) as f32);
        let p = (f64::from(highest) * (1.0 - share)).round() as u8;
        let q = (f64::from(highest) * (1.0 - share * rest)).round() as u8;
        let t = (f64::from(highest) * (1.0 - share * (1.0 - rest))).round() as u8;
        match sector as u8 % 6 {
            0 => [highest, t, p],
            1 => [q, highest, p],
            2 => [p, highest, t],
            3 => [p, q, highest],
            4 => [t, p, highest],
            _ => [highest, p, q],
        }
    }

    #[test]
    fn hue_is_pillows_for_every_third_level_of_every_channel() {
        let colours: Vec<[u8; 3]> = (0..86usize.pow(3))
            .map(|i| [i % 86, i / 86 % 86, i / 86 / 86].map(|level| level as u8 * 3))
            .collect();
        for shift in [-0.5, -0.1, 0.0, 0.07, 0.31] {
            let mut pixels = colours.concat();
            hue(&mut pixels, shift);
            let steps = (f64::from(shift) * 255.0) as i32 as u8;
            for (found, &colour) in pixels.chunks_exact(3).zip(&colours) {
                assert_eq!(found, pillow_hue(colour, steps), "{colour:?} by {shift}");
            }
        }
    }

    #[test]
    fn an_odd_width_flips_around_its_middle() {
        let mut pixels = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18];
        flip(&mut pixels, 3);
        assert_eq!(pixels, [7, 8, 9, 4, 5, 6, 1, 2, 3, 16, 17, 18, 13, 14, 15, 10, 11, 12]);
    }
}
