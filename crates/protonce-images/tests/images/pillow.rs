//! Every operation of the two recipes against Pillow and torchvision.

use protonce_images::views::{
    BlurScratch, CropBox, Decoder, Image, Planes, Resizer, brightness, contrast, flip,
    gaussian_blur, grey, hue, saturation,
};
use safetensors::SafeTensors;
use serde_json::Value;

use crate::fixtures;

/// Cases in `views.json` whose operation is `operation`, each with its input and expected output.
fn cases(operation: &str) -> Vec<(Value, Image, Image)> {
    let described: Vec<Value> = serde_json::from_slice(&fixtures::load("views.json")).unwrap();
    let numbers = fixtures::load("views.safetensors");
    let numbers = SafeTensors::deserialize(&numbers).unwrap();
    let image = |name: String| {
        let tensor = numbers.tensor(&name).unwrap();
        let [height, width, 3] = *tensor.shape() else { panic!("{name} is not an RGB image") };
        Image { width, height, pixels: tensor.data().to_vec() }
    };
    let cases: Vec<_> = described
        .into_iter()
        .filter(|case| case["op"].as_str().unwrap().starts_with(operation))
        .map(|case| {
            let name = case["name"].as_str().unwrap().to_owned();
            (case, image(format!("{name}.in")), image(format!("{name}.out")))
        })
        .collect();
    assert!(!cases.is_empty(), "no reference numbers for {operation}");
    cases
}

/// The same pixels, without exception: every operation repeats Pillow's arithmetic.
fn assert_identical(case: &Value, found: &Image, expected: &Image) {
    assert_eq!((found.width, found.height), (expected.width, expected.height), "{case}");
    let differences: Vec<u8> =
        found.pixels.iter().zip(&expected.pixels).map(|(a, b)| a.abs_diff(*b)).collect();
    let largest = differences.iter().copied().max().unwrap();
    let mean = differences.iter().map(|&d| f64::from(d)).sum::<f64>() / differences.len() as f64;
    assert_eq!(largest, 0, "{case}: largest difference {largest}, mean {mean}");
}

fn number(case: &Value, key: &str) -> f32 {
    case[key].as_f64().unwrap() as f32
}

fn pixels(case: &Value, key: &str) -> usize {
    case[key].as_u64().unwrap() as usize
}

#[test]
fn resized_crop_is_pillows() {
    for (case, input, expected) in cases("resized_crop") {
        let crop = CropBox {
            left: pixels(&case, "left"),
            top: pixels(&case, "top"),
            width: pixels(&case, "width"),
            height: pixels(&case, "height"),
        };
        let size = pixels(&case, "size");
        let mut found = Planes::default();
        Resizer::default().resize(&input, crop, (size, size), &mut found);
        assert_identical(&case, &found.to_image(), &expected);
    }
}

#[test]
fn evaluation_view_is_torchvisions() {
    for (case, input, expected) in cases("resize short side to 73, centre crop 64") {
        let mut found = Planes::default();
        Resizer::default().resize_and_center_crop(&input, 73, 64, &mut found);
        assert_identical(&case, &found.to_image(), &expected);
    }
}

#[test]
fn colour_jitter_is_pillows() {
    type Operation = fn(&mut Planes, f32);
    let operations: [(&str, Operation); 4] = [
        ("brightness", brightness),
        ("contrast", contrast),
        ("saturation", saturation),
        ("hue", hue),
    ];
    for (name, operation) in operations {
        for (case, image, expected) in cases(name) {
            let mut view = Planes::from(&image);
            operation(&mut view, number(&case, "factor"));
            assert_identical(&case, &view.to_image(), &expected);
        }
    }
}

#[test]
fn grey_and_flip_are_pillows() {
    for (case, image, expected) in cases("grayscale") {
        let mut view = Planes::from(&image);
        grey(&mut view);
        assert_identical(&case, &view.to_image(), &expected);
    }
    for (case, image, expected) in cases("hflip") {
        let mut view = Planes::from(&image);
        flip(&mut view);
        assert_identical(&case, &view.to_image(), &expected);
    }
}

#[test]
fn gaussian_blur_is_pillows() {
    for (case, image, expected) in cases("gaussian_blur") {
        let mut view = Planes::from(&image);
        gaussian_blur(&mut view, number(&case, "sigma"), &mut BlurScratch::default());
        assert_identical(&case, &view.to_image(), &expected);
    }
}

#[test]
fn plain_jpegs_are_decoded_to_libjpegs_pixels() {
    let bytes = include_bytes!("../fixtures/jpegs.safetensors");
    let tensors = safetensors::SafeTensors::deserialize(bytes).unwrap();
    let (mut decoder, mut image) = (Decoder::default(), Image::default());
    let mut cases = 0;
    for name in tensors.names() {
        let Some(case) = name.strip_suffix("/jpeg") else { continue };
        let jpeg = tensors.tensor(name).unwrap();
        let expected = tensors.tensor(&format!("{case}/pixels")).unwrap();
        decoder.decode(jpeg.data(), &mut image).unwrap();
        assert_eq!(expected.shape(), [image.height, image.width, 3], "{case}");
        assert!(image.pixels == expected.data(), "{case}");
        // A part alone has the same pixels.
        for (left, top, right, bottom) in [(0, 0, 2, 1), (1, 0, 1, 1), (1, 1, 0, 0)] {
            let mut part = CropBox { left: 0, top: 0, width: 0, height: 0 };
            let (mut fresh, mut pixels) = (Decoder::default(), Image::default());
            let choose = |width: usize, height: usize| {
                let (left, top) = (width * left / 3, height * top / 3);
                let (right, bottom) = (width - width * right / 4, height - height * bottom / 3);
                part = CropBox { left, top, width: right - left, height: bottom - top };
                part
            };
            fresh.decode_part(jpeg.data(), &mut pixels, choose).unwrap();
            for y in part.top..part.top + part.height {
                let row = (y * image.width + part.left) * 3
                    ..(y * image.width + part.left + part.width) * 3;
                assert!(pixels.pixels[row.clone()] == image.pixels[row], "{case} {part:?} row {y}");
            }
        }
        cases += 1;
    }
    assert_eq!(cases, 56);
}
