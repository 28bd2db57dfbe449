//! Colour and mirror operations on interleaved 8-bit RGB, as Pillow computes them.
//!
//! All work in place on `pixels`, a sequence of (red, green, blue) triples.

/// Brightness of a pixel in 0..=255: Pillow's `L`, ITU-R 601 weights in 16-bit fixed point.
fn luma(pixel: &[u8]) -> u8 {
    let sum =
        19595 * u32::from(pixel[0]) + 38470 * u32::from(pixel[1]) + 7471 * u32::from(pixel[2]);
    ((sum + 0x8000) >> 16) as u8
}

/// `from` + factor · (`to` − `from`), cut off to a byte: Pillow's `Image.blend`.
///
/// Float to integer conversion saturates in Rust, which is the clipping Pillow does by hand when
/// the factor extrapolates.
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

/// Blends with the grey image (`ImageEnhance.Color`).
pub fn saturation(pixels: &mut [u8], factor: f32) {
    for pixel in pixels.chunks_exact_mut(3) {
        let grey = luma(pixel);
        for value in pixel {
            *value = blend(grey, *value, factor);
        }
    }
}

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

/// Pillow's `rgb2hsv`: the mix of single and double precision decides roundings, so it is kept.
fn to_hsv([red, green, blue]: [u8; 3]) -> [u8; 3] {
    let highest = red.max(green).max(blue);
    let lowest = red.min(green).min(blue);
    if highest == lowest {
        return [0, 0, highest];
    }
    let range = f32::from(highest - lowest);
    let saturation = range / f32::from(highest);
    let red_part = f32::from(highest - red) / range;
    let green_part = f32::from(highest - green) / range;
    let blue_part = f32::from(highest - blue) / range;
    let sixths = if red == highest {
        blue_part - green_part
    } else if green == highest {
        (2.0 + f64::from(red_part) - f64::from(blue_part)) as f32
    } else {
        (4.0 + f64::from(green_part) - f64::from(red_part)) as f32
    };
    // Into [0, 1): the sum is in (0.8, 1.9), so dropping its integer part is the remainder.
    let turn = (f64::from(sixths) / 6.0 + 1.0).fract() as f32;
    [(f64::from(turn) * 255.0) as u8, (f64::from(saturation) * 255.0) as u8, highest]
}

/// Pillow's `hsv2rgb`.
fn to_rgb([hue, saturation, value]: [u8; 3]) -> [u8; 3] {
    if saturation == 0 {
        return [value; 3];
    }
    let sixths = f64::from(hue) * 6.0 / 255.0;
    let sector = sixths as u8;
    let remainder = f64::from((sixths - f64::from(sector)) as f32);
    let saturation = f64::from((f64::from(saturation) / 255.0) as f32);
    let scale = |share: f64| (f64::from(value) * share).round() as u8;
    let low = scale(1.0 - saturation);
    let falling = scale(1.0 - saturation * remainder);
    let rising = scale(1.0 - saturation * (1.0 - remainder));
    match sector % 6 {
        0 => [value, rising, low],
        1 => [falling, value, low],
        2 => [low, value, rising],
        3 => [low, falling, value],
        4 => [rising, low, value],
        _ => [value, low, falling],
    }
}

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
