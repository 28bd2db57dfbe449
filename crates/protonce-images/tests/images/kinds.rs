//! Images of many kinds against the pixels of Pillow.

use protonce_images::data::{Dataset, IMAGE_EXTENSIONS};
use protonce_images::views::{DecodeError, decode};
use safetensors::SafeTensors;

use crate::fixtures;
use crate::formats::damage;

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

#[test]
fn what_is_not_supported_is_not_called_damaged() {
    let bytes = fixtures::load("kinds.safetensors");
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let tiff = tensors.tensor("tiff ycbcr 24x18/file").unwrap().data().to_vec();
    // The entry of a tag in the first directory, as Pillow writes it: little-endian.
    let changed = |tag: u16, value: u16| {
        let mut tiff = tiff.clone();
        let begin = u32::from_le_bytes(tiff[4..8].try_into().unwrap()) as usize + 2;
        let mut entries = (begin..).step_by(12);
        let entry = entries.find(|&at| tiff[at..at + 2] == tag.to_le_bytes()).unwrap();
        tiff[entry + 8..entry + 10].copy_from_slice(&value.to_le_bytes());
        tiff
    };
    for (what, bytes) in [
        ("old-style JPEG", changed(259, 6)),
        ("group 3 fax", changed(259, 3)),
        ("a mask", changed(262, 4)),
        ("logarithmic light", changed(262, 32845)),
        ("PAM", b"P7\nWIDTH 1\nHEIGHT 1\nDEPTH 1\nMAXVAL 255\nENDHDR\n\0".to_vec()),
        ("floating-point PGM", b"Pf\n1 1\n-1.0\n\0\0\0\0".to_vec()),
    ] {
        let error = decode(&bytes).unwrap_err();
        assert!(matches!(error, DecodeError::Unsupported { .. }), "{what}: {error}");
        let message = error.to_string();
        assert!(message.contains("not supported") && message.contains("convert it"), "{message}");
    }
}

#[test]
fn what_is_found_in_place_of_an_image_is_named() {
    for (bytes, words) in [
        (&b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"[..], "it is a HEIC image"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "it is a HEIC image"),
        (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf", "it is an AVIF image"),
        (b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2", "it is a video"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "it is a JPEG 2000 image"),
        (b"  <!DOCTYPE html><html><body>403 Forbidden</body></html>", "it is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "git lfs pull"),
        (b"<?xml version=\"1.0\"?><svg/>", "it is SVG"),
        (b"8BPS\0\x01", "it is a Photoshop document"),
        (b"%PDF-1.7", "it is a PDF document"),
    ] {
        let error = decode(bytes).unwrap_err();
        assert!(matches!(error, DecodeError::OtherFormat { .. }), "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn every_extension_that_people_use_counts_as_an_image() {
    let folder = tempfile::tempdir().unwrap();
    let common = [
        "jpg", "JPEG", "jpe", "JFIF", "jif", "png", "apng", "webp", "bmp", "dib", "gif", "tif",
        "TIFF", "ppm", "pgm", "pbm", "pnm",
    ];
    for (number, extension) in common.iter().enumerate() {
        std::fs::write(folder.path().join(format!("{number}.{extension}")), "").unwrap();
    }
    let dataset = Dataset::open(folder.path().to_str().unwrap()).unwrap();
    assert_eq!(dataset.len(), common.len());
    assert!(dataset.remarks().is_empty());
    assert_eq!(IMAGE_EXTENSIONS.len(), common.len() + usize::from(cfg!(feature = "jpeg-xl")));
}

#[test]
fn damaged_files_of_these_kinds_are_images_or_errors() {
    let bytes = fixtures::load("kinds.safetensors");
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut names: Vec<&str> =
        tensors.names().into_iter().filter(|name| name.ends_with(" 17x9/file")).collect();
    names.sort_unstable();
    let sources: Vec<Vec<u8>> =
        names.iter().map(|name| tensors.tensor(name).unwrap().data().to_vec()).collect();
    damage(&sources, 40, 500);
}
