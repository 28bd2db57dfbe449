//! The orientation in PNG files of older programs (ImageMagick, and libpng before its `eXIf`): EXIF
//! data as hexadecimal digits in a text chunk called "Raw profile type exif".

use std::io::Read;

use flate2::read::ZlibDecoder;
use image::metadata::Orientation;

/// More than EXIF data can be.
const LONGEST: u64 = 1 << 20;

/// The orientation that a text chunk says, if there is one.
pub(super) fn orientation(png: &[u8]) -> Option<Orientation> {
    let mut rest = png.get(8..)?;
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        let (kind, after) = after.split_first_chunk::<4>()?;
        let data = after.get(..length)?;
        rest = after.get(length + 4..)?;
        if let Some(exif) = exif(kind, data) {
            return Orientation::from_exif_chunk(&exif);
        }
    }
    None
}

/// The EXIF data of a chunk that holds them.
fn exif(kind: &[u8; 4], data: &[u8]) -> Option<Vec<u8>> {
    let end = data.iter().position(|&byte| byte == 0)?;
    let (keyword, text) = (&data[..end], &data[end + 1..]);
    if !matches!(keyword, b"Raw profile type exif" | b"Raw profile type APP1") {
        return None;
    }
    let inflated = |compressed: &[u8]| {
        let mut text = Vec::new();
        ZlibDecoder::new(compressed).take(LONGEST).read_to_end(&mut text).ok()?;
        Some(text)
    };
    let text = match kind {
        b"tEXt" => text.to_vec(),
        // A byte for the method, of which there is one.
        b"zTXt" => inflated(text.get(1..)?)?,
        b"iTXt" => {
            let (&[compressed, _], rest) = text.split_first_chunk::<2>()?;
            // Language and translated keyword.
            let mut parts = rest.splitn(3, |&byte| byte == 0);
            let text = parts.nth(2)?;
            if compressed == 1 { inflated(text)? } else { text.to_vec() }
        }
        _ => return None,
    };
    // A line with the profile's name, one with its length, then the digits.
    let mut lines = text.split(|&byte| byte == b'\n').skip_while(|line| line.is_empty());
    let _ = (lines.next()?, lines.next()?);
    let digits: Vec<u8> =
        lines.flatten().filter_map(|&c| (c as char).to_digit(16)).map(|d| d as u8).collect();
    let exif: Vec<u8> =
        digits.as_chunks::<2>().0.iter().map(|[high, low]| high << 4 | low).collect();
    let start = exif.strip_prefix(b"Exif\0\0").unwrap_or(&exif);
    Some(start.to_vec())
}
