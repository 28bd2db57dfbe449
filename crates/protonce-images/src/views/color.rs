//! Colour and mirror operations on a view's 8-bit planes, as Pillow computes them.
//!
//! Plain loops over planes, which compilers vectorise without help. All
//! arithmetic is exact where Pillow's is rounded the same way, which the tests check for every colour
//! there is.

use super::Planes;
use protonce_simd::multiversion;

/// Brightness of a pixel in 0..=255: Pillow's `L`, ITU-R 601 weights in 16-bit fixed point.
#[inline(always)]
fn luma(red: u8, green: u8, blue: u8) -> u8 {
    let sum = 19595 * u32::from(red) + 38470 * u32::from(green) + 7471 * u32::from(blue);
    ((sum + 0x8000) >> 16) as u8
}

/// `from` + factor · (`to` − `from`), truncated to a byte: Pillow's `Image.blend`.
#[inline(always)]
fn blend(from: f32, to: u8, factor: f32) -> u8 {
    truncate(from + factor * (f32::from(to) - from))
}

/// Truncates to a byte; below 0 and NaN become 0, above 255 becomes 255.
#[inline(always)]
fn truncate(value: f32) -> u8 {
    // Comparisons that are false for NaN, in the form that compiles to one instruction each.
    let value = if value > 0.0 { value } else { 0.0 };
    let value = if value < 255.0 { value } else { 255.0 };
    // SAFETY: between 0 and 255.
    unsafe { value.to_int_unchecked::<i32>() as u8 }
}

multiversion! {
    fn blend_with_constant(samples: &mut [u8], constant: u8, factor: f32) {
        for sample in samples {
            *sample = blend(f32::from(constant), *sample, factor);
        }
    }
}

/// Blends with black: factor 0 is black, 1 the image, above 1 brighter (`ImageEnhance.Brightness`).
pub fn brightness(view: &mut Planes, factor: f32) {
    blend_with_constant(&mut view.samples, 0, factor);
}

/// Blends with the image's mean grey, rounded to a byte (`ImageEnhance.Contrast`).
pub fn contrast(view: &mut Planes, factor: f32) {
    let [red, green, blue] = view.channels();
    if red.is_empty() {
        return;
    }
    let (mut sum, count) = (0, red.len());
    // Blocks whose sums fit in 32 bits.
    const BLOCK: usize = 1 << 16;
    for ((red, green), blue) in red.chunks(BLOCK).zip(green.chunks(BLOCK)).zip(blue.chunks(BLOCK)) {
        add_luma(red, green, blue, &mut sum);
    }
    let mean = (sum as f64 / count as f64 + 0.5) as u8;
    blend_with_constant(&mut view.samples, mean, factor);
}

multiversion! {
    fn add_luma(red: &[u8], green: &[u8], blue: &[u8], total: &mut u64) {
        let mut sum = 0u32;
        for ((&red, &green), &blue) in red.iter().zip(green).zip(blue) {
            sum += u32::from(luma(red, green, blue));
        }
        *total += u64::from(sum);
    }
}

/// Blends with the grey image (`ImageEnhance.Color`).
pub fn saturation(view: &mut Planes, factor: f32) {
    let [red, green, blue] = view.channels_mut();
    blend_with_grey(red, green, blue, factor);
}

multiversion! {
    fn blend_with_grey(red: &mut [u8], green: &mut [u8], blue: &mut [u8], factor: f32) {
        for ((red, green), blue) in red.iter_mut().zip(green).zip(blue) {
            let grey = f32::from(luma(*red, *green, *blue));
            *red = blend(grey, *red, factor);
            *green = blend(grey, *green, factor);
            *blue = blend(grey, *blue, factor);
        }
    }
}

/// Turns the hue by `shift` full turns, in [−0.5, 0.5], through Pillow's 8-bit HSV.
///
/// Eight bits of hue lose colour, and so does Pillow: a published representation was trained on
/// colours with this loss.
pub fn hue(view: &mut Planes, shift: f32) {
    // The shift in steps of hue, truncated towards zero, wrapping around the circle.
    let steps = (f64::from(shift) * 255.0) as i32 as u8;
    let [red, green, blue] = view.channels_mut();
    turn_hue(red, green, blue, steps);
}

multiversion! {
    fn turn_hue(red: &mut [u8], green: &mut [u8], blue: &mut [u8], steps: u8) {
        for ((red, green), blue) in red.iter_mut().zip(green).zip(blue) {
            let colour = [i32::from(*red), i32::from(*green), i32::from(*blue)];
            let [hue, saturation, value] = to_hsv(colour);
            // Without saturation the hue changes nothing.
            let hue = (hue + i32::from(steps)) & 255;
            let colour = to_rgb([hue, saturation, value]);
            (*red, *green, *blue) = (colour[0] as u8, colour[1] as u8, colour[2] as u8);
        }
    }
}

/// Pillow's `rgb2hsv`. Where it rounds in double precision, single precision gives the same byte.
#[inline(always)]
fn to_hsv([red, green, blue]: [i32; 3]) -> [i32; 3] {
    let highest = red.max(green).max(blue);
    let lowest = red.min(green).min(blue);
    let middle = red + green + blue - highest - lowest;
    // A grey pixel has no range and black no value: any divisor gives saturation 0.
    let range = highest - lowest;
    let divisor = range.max(1) as f32;
    // The hue lies at the highest channel's corner of the circle, in sixths, and is drawn to one
    // side by the channel ahead of it, to the other by the one behind.
    let (red_highest, green_highest) = (red == highest, green == highest);
    let ahead = select(red_highest, blue, select(green_highest, red, green));
    let behind = select(red_highest, green, select(green_highest, blue, red));
    let corner = select(red_highest, 0, select(green_highest, 2, 4));
    let away = (highest - middle) as f32 / divisor;
    let sixths =
        if ahead <= behind { (corner + 1) as f32 - away } else { (corner - 1) as f32 + away };
    let turn = sixths / 6.0;
    let turn = if turn < 0.0 { turn + 1.0 } else { turn };
    let saturation = range as f32 / highest.max(1) as f32;
    [times_255(turn), times_255(saturation), highest]
}

/// The whole part of 255 · `share` for a share in [0, 1], as if the product were not rounded.
#[inline(always)]
fn times_255(share: f32) -> i32 {
    // SAFETY: the callers' quotients of bytes lie between 0 and 1.
    let whole = unsafe { (share * 255.0).to_int_unchecked::<i32>() };
    // 256 times the share is exact, and so is its difference to a number this near.
    whole - i32::from(share * 256.0 - (whole as f32) < share)
}

/// Pillow's `hsv2rgb`. All products are whole numbers below 2²⁴, exact in single precision, and no
/// quotient comes near enough to a half for its rounding to matter.
#[inline(always)]
fn to_rgb([hue, saturation, value]: [i32; 3]) -> [i32; 3] {
    // The sixth of the circle, and how far into it in 255ths.
    let sixths = hue * 6;
    let sector = (sixths * 257 + 257) >> 16;
    let remainder = sixths - sector * 255;
    let low = scale(value, saturation * 255);
    let falling = scale(value, saturation * remainder);
    let rising = scale(value, saturation * (255 - remainder));
    // Red, green and blue in each sixth; the circle's end is its beginning.
    let odd = sector & 1 == 1;
    let around = (sector == 5) | (sector == 0) | (sector == 6);
    let red = select(around, value, select(sector == 1, falling, select(sector == 4, rising, low)));
    let green_high = (sector == 1) | (sector == 2);
    let green_low = (sector == 4) | (sector == 5);
    let green = select(green_low, low, select(green_high, value, select(odd, falling, rising)));
    let blue_high = (sector == 3) | (sector == 4);
    let blue_low = (sector == 0) | (sector == 1) | (sector == 6);
    let blue = select(blue_low, low, select(blue_high, value, select(odd, falling, rising)));
    [red, green, blue]
}

/// `value` less its share of `less` in 65025, rounded to nearest.
#[inline(always)]
fn scale(value: i32, less: i32) -> i32 {
    let product = value as f32 * (65025 - less) as f32;
    // SAFETY: between 0 and 256.
    unsafe { (product * (1.0 / 65025.0) + 0.5).to_int_unchecked::<i32>() }
}

/// `yes` or `no`, both of which are computed already: a selection without a branch.
#[inline(always)]
fn select(holds: bool, yes: i32, no: i32) -> i32 {
    if holds { yes } else { no }
}

/// Replaces colour by its brightness in all three channels (`RandomGrayscale`).
pub fn grey(view: &mut Planes) {
    let [red, green, blue] = view.channels_mut();
    to_grey(red, green, blue);
}

multiversion! {
    fn to_grey(red: &mut [u8], green: &mut [u8], blue: &mut [u8]) {
        for ((red, green), blue) in red.iter_mut().zip(green).zip(blue) {
            let grey = luma(*red, *green, *blue);
            (*red, *green, *blue) = (grey, grey, grey);
        }
    }
}

/// Inverts every sample of at least `threshold` (`RandomSolarize`).
pub fn solarise(view: &mut Planes, threshold: u8) {
    for sample in &mut view.samples {
        *sample = if *sample >= threshold { 255 - *sample } else { *sample };
    }
}

/// Mirrors left to right.
pub fn flip(view: &mut Planes) {
    for row in view.samples.chunks_exact_mut(view.width.max(1)) {
        row.reverse();
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
        pillow_rgb(hue.wrapping_add(steps), saturation, highest)
    }

    fn pillow_rgb(hue: u8, saturation: u8, highest: u8) -> [u8; 3] {
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

    /// Every colour, once.
    fn every_colour() -> Planes {
        let mut samples = Vec::with_capacity(3 << 24);
        for channel in 0..3 {
            samples.extend((0..1u32 << 24).map(|colour| (colour >> (8 * channel)) as u8));
        }
        Planes { width: 4096, height: 4096, samples }
    }

    #[test]
    fn hue_is_pillows_for_every_colour() {
        let mut view = every_colour();
        let shift = 0.07;
        hue(&mut view, shift);
        let steps = (f64::from(shift) * 255.0) as i32 as u8;
        let [red, green, blue] = view.channels();
        for colour in 0..1usize << 24 {
            let from = [0, 8, 16].map(|bits| (colour >> bits) as u8);
            let found = [red[colour], green[colour], blue[colour]];
            assert_eq!(found, pillow_hue(from, steps), "{from:?}");
        }
    }

    #[test]
    fn every_hue_saturation_and_value_becomes_pillows_colour() {
        for hsv in 0..1u32 << 24 {
            let [hue, saturation, value] = [0, 8, 16].map(|bits| (hsv >> bits) as u8);
            let found = to_rgb([hue, saturation, value].map(i32::from)).map(|sample| sample as u8);
            assert_eq!(found, pillow_rgb(hue, saturation, value), "{hue} {saturation} {value}");
        }
    }

    #[test]
    fn blending_cuts_off_as_a_saturating_conversion_does() {
        for from in [0, 1, 77, 200, 255u8] {
            for to in 0..=255u8 {
                for factor in [0.0, 0.6, 1.0, 1.37, 2.5, f32::NAN] {
                    let exact = f32::from(from) + factor * (f32::from(to) - f32::from(from));
                    assert_eq!(blend(from.into(), to, factor), exact as u8);
                }
            }
        }
    }

    #[test]
    fn solarising_inverts_the_bright_samples() {
        let mut view = Planes { width: 1, height: 1, samples: vec![127, 128, 255] };
        solarise(&mut view, 128);
        assert_eq!(view.samples, [127, 127, 0]);
    }

    #[test]
    fn an_odd_width_flips_around_its_middle() {
        let mut view = Planes { width: 3, height: 1, samples: (1..=9).collect() };
        flip(&mut view);
        assert_eq!(view.samples, [3, 2, 1, 6, 5, 4, 9, 8, 7]);
    }
}
