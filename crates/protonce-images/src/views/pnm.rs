//! PBM, PGM and PPM, in text and in binary. Packed files store pixels as binary PPM.

use super::decode::{DecodeError, Image, check_size};

/// Whether bytes begin as one of these formats does, or as a relative that is not read.
pub(super) fn is_pnm(bytes: &[u8]) -> bool {
    matches!(bytes, [b'P', b'1'..=b'7' | b'f' | b'F', rest, ..] if rest.is_ascii_whitespace())
}

/// Appends an image as it is: width, height, then its pixels.
pub(super) fn write(image: &Image, bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(format!("P6\n{} {}\n255\n", image.width, image.height).as_bytes());
    bytes.extend_from_slice(&image.pixels);
}

/// Decodes an image. Values are scaled from their largest (`maxval`) to 255.
pub(super) fn decode(bytes: &[u8], image: &mut Image) -> Result<(), DecodeError> {
    let malformed =
        |reason: &str| DecodeError::Malformed { format: "PNM", reason: reason.to_owned() };
    let kind = bytes.get(1).copied().unwrap_or_default();
    let channels = match kind {
        b'1' | b'2' | b'4' | b'5' => 1,
        b'3' | b'6' => 3,
        _ => {
            let reason = format!("P{}, which is PAM or has floating-point values", kind as char);
            return Err(DecodeError::Unsupported { format: "PNM", reason });
        }
    };
    let bilevel = matches!(kind, b'1' | b'4');
    let mut words = Words { rest: &bytes[2..] };
    let mut number = || {
        words.number().ok_or_else(|| malformed("expected a width, a height and a largest value"))
    };
    let (width, height) = (number()?, number()?);
    let most = if bilevel { 1 } else { number()? };
    check_size(width, height)?;
    if !(1..=65535).contains(&most) {
        return Err(malformed("the largest value is not within 1 and 65535"));
    }
    let (width, height) = (width as usize, height as usize);
    let count = width * height * channels;
    let short = || malformed("it has fewer pixels than width times height");
    let scale = |value: u64| (value.min(most) as f64 / most as f64 * 255.0).round_ties_even() as u8;
    let samples = &mut image.pixels;
    samples.clear();
    match kind {
        b'1' => {
            let digits = words.rest.iter().filter(|byte| !byte.is_ascii_whitespace()).take(count);
            samples.extend(digits.map(|&digit| if digit == b'0' { 255 } else { 0 }));
        }
        b'2' | b'3' => {
            while samples.len() < count {
                samples.push(scale(words.number().ok_or_else(short)?));
            }
        }
        _ => {
            // One blank ends the header.
            let data = words.rest.get(1..).ok_or_else(short)?;
            let row_bytes = width.div_ceil(8);
            match (bilevel, most) {
                (true, _) => {
                    for row in data.chunks_exact(row_bytes).take(height) {
                        let bit = |x: usize| row[x / 8] >> (7 - x % 8) & 1;
                        samples.extend((0..width).map(|x| if bit(x) == 0 { 255 } else { 0 }));
                    }
                }
                (_, 255) => samples.extend_from_slice(data.get(..count).ok_or_else(short)?),
                (_, ..255) => samples.extend(data.iter().take(count).map(|&v| scale(v.into()))),
                _ => {
                    let pairs = data.as_chunks::<2>().0.iter().take(count);
                    samples.extend(pairs.map(|&pair| scale(u16::from_be_bytes(pair).into())));
                }
            }
        }
    }
    if samples.len() != count {
        return Err(short());
    }
    if channels == 1 {
        *samples = samples.iter().flat_map(|&grey| [grey; 3]).collect();
    }
    (image.width, image.height) = (width, height);
    Ok(())
}

/// Numbers between blanks and comments.
struct Words<'a> {
    rest: &'a [u8],
}

impl Words<'_> {
    fn number(&mut self) -> Option<u64> {
        loop {
            match self.rest.first()? {
                b'#' => {
                    let end = self.rest.iter().position(|byte| matches!(byte, b'\n' | b'\r'))?;
                    self.rest = &self.rest[end..];
                }
                blank if blank.is_ascii_whitespace() => self.rest = &self.rest[1..],
                _ => break,
            }
        }
        let digits = self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (number, rest) = self.rest.split_at(digits);
        self.rest = rest;
        std::str::from_utf8(number).ok()?.parse::<u32>().ok().map(u64::from)
    }
}
