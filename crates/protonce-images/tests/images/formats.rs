//! Every promised format is decoded, and nothing that is no image is taken for one.

use std::io::Cursor;

use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, ImageEncoder, ImageFormat, Luma, Rgb, RgbImage, Rgba};
use protonce_images::views::{DecodeError, Image, decode};

fn encode(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// Smooth, so that JPEG loses little.
fn picture() -> RgbImage {
    RgbImage::from_fn(48, 32, |x, y| Rgb([(x * 5) as u8, (y * 7) as u8, 128]))
}

const FORMATS: [ImageFormat; 6] = [
    ImageFormat::Jpeg,
    ImageFormat::Png,
    ImageFormat::WebP,
    ImageFormat::Bmp,
    ImageFormat::Gif,
    ImageFormat::Tiff,
];

fn assert_close(found: &Image, expected: &[u8], tolerance: u8, what: &str) {
    assert_eq!(found.pixels.len(), expected.len(), "{what}");
    let largest = found.pixels.iter().zip(expected).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
    assert!(largest <= tolerance, "{what}: largest difference {largest}");
}

#[test]
fn every_format_gives_the_picture_back() {
    for format in FORMATS {
        let image = decode(&encode(picture(), format)).unwrap();
        assert_eq!((image.width, image.height), (48, 32), "{format:?}");
        let tolerance = match format {
            ImageFormat::Jpeg => 24,
            // Palette of 256 colours.
            ImageFormat::Gif => 32,
            _ => 0,
        };
        assert_close(&image, &picture(), tolerance, &format!("{format:?}"));
    }
}

#[test]
fn grey_images_become_three_equal_channels() {
    let grey = image::GrayImage::from_fn(20, 10, |x, _| Luma([x as u8 * 10]));
    for format in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::Bmp, ImageFormat::Tiff] {
        let image = decode(&encode(grey.clone(), format)).unwrap();
        let expected: Vec<u8> = grey.as_raw().iter().flat_map(|&value| [value; 3]).collect();
        assert_close(&image, &expected, 3, &format!("{format:?}"));
        assert!(image.pixels.chunks(3).all(|p| p[0] == p[1] && p[1] == p[2]));
    }
}

#[test]
fn sixteen_bits_become_eight() {
    let deep = image::ImageBuffer::from_fn(4, 2, |x, _| Rgb([x as u16 * 257 * 60, 0, 65535u16]));
    let expected: Vec<u8> = (0..8).flat_map(|i| [(i % 4) * 60, 0, 255]).collect();
    for format in [ImageFormat::Png, ImageFormat::Tiff] {
        let image = decode(&encode(deep.clone(), format)).unwrap();
        assert_close(&image, &expected, 0, &format!("{format:?}"));
    }
}

#[test]
fn palettes_are_looked_up() {
    let mut bytes = Vec::new();
    {
        let mut encoder = png::Encoder::new(&mut bytes, 3, 1);
        encoder.set_color(png::ColorType::Indexed);
        encoder.set_palette(vec![1, 2, 3, 40, 50, 60]);
        encoder.set_trns(vec![255, 0]);
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(&[0, 1, 0]).unwrap();
    }
    assert_eq!(decode(&bytes).unwrap().pixels, [1, 2, 3, 255, 255, 255, 1, 2, 3]);
}

#[test]
fn transparency_lies_over_white() {
    let colours = [[10, 20, 30, 255], [10, 20, 30, 0], [0, 100, 200, 128]];
    let image = image::RgbaImage::from_fn(3, 1, |x, _| Rgba(colours[x as usize]));
    let expected = [10, 20, 30, 255, 255, 255, 127, 177, 227];
    for format in [ImageFormat::Png, ImageFormat::WebP, ImageFormat::Tiff] {
        let decoded = decode(&encode(image.clone(), format)).unwrap();
        assert_close(&decoded, &expected, 0, &format!("{format:?}"));
    }
}

/// An 8×8 JPEG of four components, one value each, with Adobe's marker and the given transform.
fn four_component_jpeg(transform: Option<u8>, values: [u8; 4]) -> Vec<u8> {
    let mut bytes = vec![0xff, 0xd8];
    let mut segment = |marker: u8, body: &[u8]| {
        bytes.extend([0xff, marker]);
        bytes.extend((body.len() as u16 + 2).to_be_bytes());
        bytes.extend(body);
    };
    if let Some(transform) = transform {
        segment(0xee, &[b"Adobe".as_slice(), &[0, 100, 0, 0, 0, 0, transform]].concat());
    }
    // The constant term is eight times the value, so a step of eight makes it the value.
    segment(0xdb, &[&[0][..], &[8; 64]].concat());
    segment(0xc0, &[8, 0, 8, 0, 8, 4, 1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0, 4, 0x11, 0]);
    // Constant terms: the number of bits as a code of four bits. Others: "no more" as one zero.
    let mut lengths = [0; 16];
    lengths[3] = 12;
    segment(0xc4, &[&[0][..], &lengths, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]].concat());
    lengths = [0; 16];
    lengths[0] = 1;
    segment(0xc4, &[&[0x10][..], &lengths, &[0]].concat());
    segment(0xda, &[4, 1, 0, 2, 0, 3, 0, 4, 0, 0, 63, 0]);
    let mut bits = String::new();
    for value in values {
        let difference = i32::from(value) - 128;
        let size = (32 - difference.unsigned_abs().leading_zeros()) as usize;
        let coded = if difference < 0 { difference + (1 << size) - 1 } else { difference };
        bits += &format!("{size:04b}");
        if size > 0 {
            bits += &format!("{coded:0size$b}");
        }
        bits += "0";
    }
    while !bits.len().is_multiple_of(8) {
        bits += "1";
    }
    for start in (0..bits.len()).step_by(8) {
        let byte = u8::from_str_radix(&bits[start..start + 8], 2).unwrap();
        bytes.push(byte);
        if byte == 0xff {
            bytes.push(0);
        }
    }
    bytes.extend([0xff, 0xd9]);
    bytes
}

#[test]
fn four_channel_jpegs_are_read_as_adobe_writes_them() {
    // Stored inverted: 255 is no ink. With no black ink the colour is what is stored.
    for transform in [Some(0), None] {
        let image = decode(&four_component_jpeg(transform, [200, 100, 50, 255])).unwrap();
        assert_eq!((image.width, image.height), (8, 8));
        assert_close(&image, &[200, 100, 50].repeat(64), 1, "CMYK");
        let image = decode(&four_component_jpeg(transform, [200, 100, 50, 128])).unwrap();
        assert_close(&image, &[100, 50, 25].repeat(64), 1, "CMYK with black");
    }
    // Y = 0 without chroma is paper; black ink alone darkens.
    let image = decode(&four_component_jpeg(Some(2), [0, 128, 128, 255])).unwrap();
    assert_close(&image, &[255; 192], 1, "YCCK");
    let image = decode(&four_component_jpeg(Some(2), [55, 128, 128, 128])).unwrap();
    assert_close(&image, &[100; 192], 1, "YCCK with black");
}

#[test]
fn the_orientation_in_the_metadata_is_applied() {
    // Left half red, right half blue.
    let image =
        RgbImage::from_fn(32, 16, |x, _| if x < 16 { Rgb([255, 0, 0]) } else { Rgb([0, 0, 255]) });
    let rotated = |orientation: u8| {
        let exif = [
            b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".as_slice(),
            &[orientation, 0, 0, 0, 0, 0, 0, 0],
        ]
        .concat();
        let mut bytes = Vec::new();
        let mut encoder = JpegEncoder::new_with_quality(&mut bytes, 100);
        encoder.set_exif_metadata(exif).unwrap();
        encoder.write_image(&image, 32, 16, image::ExtendedColorType::Rgb8).unwrap();
        decode(&bytes).unwrap()
    };
    let red_at = |image: &Image, x: usize, y: usize| image.pixels[(y * image.width + x) * 3] > 128;
    let upright = rotated(1);
    assert_eq!((upright.width, upright.height), (32, 16));
    assert!(red_at(&upright, 2, 8) && !red_at(&upright, 30, 8));
    let mirrored = rotated(2);
    assert!(!red_at(&mirrored, 2, 8) && red_at(&mirrored, 30, 8));
    // 6: a camera held upright; the left of the file is the top of the scene.
    let turned = rotated(6);
    assert_eq!((turned.width, turned.height), (16, 32));
    assert!(red_at(&turned, 8, 2) && !red_at(&turned, 8, 30));
    let turned = rotated(8);
    assert!(!red_at(&turned, 8, 2) && red_at(&turned, 8, 30));
}

#[test]
fn what_ends_early_is_an_error_and_not_grey_garbage() {
    assert_eq!(decode(&[]), Err(DecodeError::Empty));
    assert_eq!(decode(b"a text file"), Err(DecodeError::UnknownFormat));
    for format in FORMATS {
        let bytes = encode(picture(), format);
        for kept in [3, 20, bytes.len() / 2, bytes.len() * 9 / 10] {
            let result = decode(&bytes[..kept]);
            assert!(result.is_err(), "{format:?} cut to {kept} of {}", bytes.len());
        }
    }
    let jpeg = encode(picture(), ImageFormat::Jpeg);
    assert_eq!(decode(&jpeg[..jpeg.len() - 2]), Err(DecodeError::Truncated));
    // A download that reserved its space and never filled it.
    let mut zeroed = jpeg.clone();
    let half = jpeg.len() / 2;
    zeroed[half..].fill(0);
    assert_eq!(decode(&zeroed), Err(DecodeError::Truncated));
}

#[test]
fn a_thumbnails_end_is_not_the_images_end() {
    let jpeg = encode(picture(), ImageFormat::Jpeg);
    let thumbnail = encode(RgbImage::new(8, 8), ImageFormat::Jpeg);
    let mut bytes = vec![0xff, 0xd8, 0xff, 0xe2];
    bytes.extend((thumbnail.len() as u16 + 2).to_be_bytes());
    bytes.extend(&thumbnail);
    bytes.extend(&jpeg[2..]);
    assert!(decode(&bytes).is_ok());
    assert_eq!(decode(&bytes[..bytes.len() - 40]), Err(DecodeError::Truncated));
}

#[test]
fn a_small_file_cannot_claim_much_memory() {
    let mut png = encode(picture(), ImageFormat::Png);
    png[16..24].copy_from_slice(&[0, 1, 0, 0, 0, 1, 0, 0]);
    let crc = crc32(&png[12..29]);
    png[29..33].copy_from_slice(&crc.to_be_bytes());
    let error = decode(&png).unwrap_err();
    assert_eq!(error, DecodeError::TooLarge { width: 65536, height: 65536 });

    let mut jpeg = encode(picture(), ImageFormat::Jpeg);
    let frame = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    jpeg[frame + 5..frame + 9].fill(0xff);
    let error = decode(&jpeg).unwrap_err();
    assert_eq!(error, DecodeError::TooLarge { width: 65535, height: 65535 });
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 * (crc & 1)))
    })
}

/// Decodes each of `sources` with so many kinds of `damage`, which all come out as images or errors, at
/// least so many of them as `images`: else the damage would test too little.
pub fn damage(sources: &[Vec<u8>], damage: usize, images: usize) {
    let mut state = 1u64;
    let mut random = |bound: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % bound
    };
    let (mut found, mut panics) = (0, Vec::new());
    for (number, source) in sources.iter().enumerate() {
        for _ in 0..damage {
            let mut bytes = source.clone();
            for _ in 0..1 + random(6) {
                // Half of the damage to the headers, where it does the most.
                let reach = if random(2) == 0 { bytes.len().min(64) } else { bytes.len() };
                let position = random(reach);
                bytes[position] = random(256) as u8;
            }
            if random(4) == 0 {
                bytes.truncate(random(bytes.len()));
            }
            match decode(&bytes) {
                Ok(image) => {
                    found += 1;
                    assert_eq!(image.pixels.len(), image.width * image.height * 3);
                }
                Err(error) if error.to_string().contains("panicked") => {
                    panics.push((number, error))
                }
                Err(_) => {}
            }
        }
    }
    assert!(found > images, "the damage left only {found} images: it tests too little");
    assert!(panics.is_empty(), "{panics:?}");
}

#[test]
fn thousands_of_damaged_files_are_images_or_errors() {
    let mut sources: Vec<Vec<u8>> = FORMATS.iter().map(|&f| encode(picture(), f)).collect();
    sources.push(four_component_jpeg(Some(2), [1, 2, 3, 4]));
    damage(&sources, 500, 100);
}
