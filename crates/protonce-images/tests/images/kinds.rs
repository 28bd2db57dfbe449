//! Images of many kinds against the pixels of Pillow.

use protonce_images::views::{DecodeError, decode};
use safetensors::SafeTensors;

use crate::fixtures;

/// Decodes all kinds whose names begin with `kind`; returns how many there are.
fn decode_all(kind: &str) -> usize {
    let bytes = fixtures::load("kinds.safetensors");
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut names: Vec<&str> =
        tensors.names().into_iter().filter_map(|name| name.strip_suffix("/file")).collect();
    names.retain(|name| name.starts_with(kind));
    names.sort_unstable();
    let mut wrong = Vec::new();
    for name in &names {
        let part = |part: &str| tensors.tensor(&format!("{name}/{part}")).unwrap();
        let (pixels, tolerance) = (part("pixels"), part("tolerance").data()[0]);
        match decode(part("file").data()) {
            Err(error) => wrong.push(format!("{name}: {error}")),
            Ok(image) if [image.height, image.width, 3] != pixels.shape() => {
                wrong.push(format!("{name}: {} x {}", image.width, image.height));
            }
            Ok(image) => {
                let pairs = image.pixels.iter().zip(pixels.data());
                let largest = pairs.map(|(a, b)| a.abs_diff(*b)).max().unwrap();
                if largest > tolerance {
                    wrong.push(format!("{name}: largest difference {largest}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), names.len(), wrong.join("\n"));
    names.len()
}

#[test]
fn every_kind_of_tiff_has_pillows_pixels() {
    assert_eq!(decode_all("tiff "), 138);
}

#[test]
fn png_is_turned_as_exif_in_a_text_chunk_says() {
    assert_eq!(decode_all("png "), 63);
}

#[test]
fn pnm_has_pillows_pixels() {
    assert_eq!(decode_all("pnm "), 39);
}

#[cfg(feature = "jpeg-xl")]
#[test]
fn jpeg_xl_has_libjxls_pixels() {
    assert_eq!(decode_all("jxl "), 12);
}
