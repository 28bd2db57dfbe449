//! Small pictures of images, alone or by the hundred in one sheet.

use std::collections::BTreeMap;
use std::io;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::codecs::jpeg::JpegEncoder;
use image::imageops::{FilterType, resize};
use image::{ExtendedColorType, ImageEncoder, Rgb, RgbImage};

use crate::canvas::WHITE;
use protonce_images::data::Dataset;
use protonce_images::views::decode;

/// Tiles across and down a sheet.
pub(crate) const SHEET: u32 = 16;

const UNREADABLE: Rgb<u8> = Rgb([206, 206, 210]);

/// An image of a data set, whole, in a square of `side` pixels; a grey box when it cannot be read.
pub(crate) fn thumbnail(dataset: &Dataset, index: usize, side: u32) -> RgbImage {
    match pixels(dataset, index) {
        Some(image) => fit(&image, side),
        None => unreadable(side),
    }
}

/// The pixels of an image, if it can be read.
pub(crate) fn pixels(dataset: &Dataset, index: usize) -> Option<RgbImage> {
    let mut bytes = Vec::new();
    dataset.read(index, &mut bytes).ok()?;
    let image = decode(&bytes).ok()?;
    RgbImage::from_raw(image.width as u32, image.height as u32, image.pixels)
}

/// The whole image, as large as a square of this side allows, centred on white.
pub(crate) fn fit(image: &RgbImage, side: u32) -> RgbImage {
    let longest = image.width().max(image.height());
    if image.width() == 0 || image.height() == 0 {
        return unreadable(side);
    }
    let scaled = |length: u32| {
        let exact = u64::from(length) * u64::from(side) / u64::from(longest);
        (exact as u32).clamp(1, side.max(1))
    };
    let (width, height) = (scaled(image.width()), scaled(image.height()));
    let filter = if longest > side { FilterType::Lanczos3 } else { FilterType::CatmullRom };
    let mut square = RgbImage::from_pixel(side, side, Rgb(WHITE));
    let (left, top) = ((side.max(width) - width) / 2, (side.max(height) - height) / 2);
    let resized = resize(image, width, height, filter);
    image::imageops::replace(&mut square, &resized, i64::from(left), i64::from(top));
    square
}

/// A grey box with a diagonal: an image that could not be read.
pub(crate) fn unreadable(side: u32) -> RgbImage {
    RgbImage::from_fn(side, side, |x, y| if x.abs_diff(y) <= 1 { Rgb(WHITE) } else { UNREADABLE })
}

/// JPEG bytes of a picture.
pub(crate) fn jpeg(picture: &RgbImage) -> io::Result<Vec<u8>> {
    const QUALITY: u8 = 82;
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, QUALITY)
        .write_image(picture, picture.width(), picture.height(), ExtendedColorType::Rgb8)
        .map_err(io::Error::other)?;
    Ok(bytes)
}

/// The side of the thumbnails of a data set, in pixels: a multiple of 16, so that tiles of a JPEG
/// sheet do not bleed into each other, and not much larger than the images are. Few images may be
/// larger than many.
pub(crate) fn side_for(dataset: &Dataset, wanted: usize) -> u32 {
    const PROBES: usize = 16;
    let step = (dataset.len() / PROBES).max(1);
    let mut sides: Vec<u32> = (0..dataset.len())
        .step_by(step)
        .filter_map(|index| pixels(dataset, index))
        .map(|image| image.width().max(image.height()))
        .collect();
    sides.sort_unstable();
    match sides.get(sides.len() / 2).copied().unwrap_or(0) {
        0..=40 => 32,
        41..=80 => 64,
        _ if wanted <= 2500 => 96,
        _ => 64,
    }
}

/// Sheets of thumbnails, as JPEG in base64, and how many thumbnails they hold.
pub(crate) struct Sheets {
    pub(crate) sheets: Vec<String>,
    pub(crate) tiles: usize,
}

/// Puts the first of `images` into sheets of [`SHEET`] by [`SHEET`] tiles, row by row: as many as
/// `budget` bytes of base64 hold.
///
/// `progress` is told how many images are done.
pub(crate) fn sheets(
    dataset: &Dataset,
    images: &[usize],
    side: u32,
    budget: usize,
    progress: &mut dyn FnMut(usize),
) -> io::Result<Sheets> {
    let per_sheet = (SHEET * SHEET) as usize;
    let threads = protonce_images::threads(0);
    let mut done = Sheets { sheets: Vec::new(), tiles: 0 };
    let mut size = 0;
    // One sheet per thread at a time: the budget is known only once sheets are drawn.
    for wave in images.chunks(per_sheet * threads) {
        let drawn = std::thread::scope(|scope| {
            let drawing: Vec<_> = wave
                .chunks(per_sheet)
                .map(|part| scope.spawn(move || sheet(dataset, part, side)))
                .collect();
            let sheets: Vec<io::Result<String>> = drawing
                .into_iter()
                .map(|thread| match thread.join() {
                    Ok(sheet) => sheet,
                    Err(panic) => std::panic::resume_unwind(panic),
                })
                .collect();
            sheets
        });
        for (part, sheet) in wave.chunks(per_sheet).zip(drawn) {
            let sheet = sheet?;
            size += sheet.len();
            if size > budget {
                return Ok(done);
            }
            done.sheets.push(sheet);
            done.tiles += part.len();
        }
        progress(done.tiles);
    }
    Ok(done)
}

fn sheet(dataset: &Dataset, images: &[usize], side: u32) -> io::Result<String> {
    let rows = (images.len() as u32).div_ceil(SHEET);
    let mut sheet = RgbImage::from_pixel(SHEET * side, rows * side, Rgb(WHITE));
    // By index: an archive is then read forwards.
    let tiles: BTreeMap<usize, u32> =
        images.iter().enumerate().map(|(tile, &index)| (index, tile as u32)).collect();
    for (index, tile) in tiles {
        let (x, y) = (tile % SHEET * side, tile / SHEET * side);
        let picture = thumbnail(dataset, index, side);
        image::imageops::replace(&mut sheet, &picture, i64::from(x), i64::from(y));
    }
    Ok(STANDARD.encode(jpeg(&sheet)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_of_any_shape_are_fitted_whole() {
        for (width, height) in [(1, 1), (300, 2), (2, 300), (64, 64)] {
            let fitted = fit(&RgbImage::new(width, height), 64);
            assert_eq!(fitted.dimensions(), (64, 64));
            assert_eq!(*fitted.get_pixel(31, 31), Rgb([0, 0, 0]), "{width} by {height}");
        }
        assert_eq!(*fit(&RgbImage::new(0, 0), 64).get_pixel(0, 9), UNREADABLE);
    }

    #[test]
    fn sheets_hold_every_tile_in_its_place_and_keep_to_their_budget() {
        let folder = tempfile::tempdir().unwrap();
        let colour = |index: usize| Rgb([(index % 2 * 200) as u8, 30, (index % 3 * 100) as u8]);
        for index in 0..600 {
            let path = folder.path().join(format!("{index:03}.png"));
            if index == 5 {
                std::fs::write(path, "broken").unwrap();
            } else {
                RgbImage::from_pixel(9, 9, colour(index)).save(path).unwrap();
            }
        }
        let dataset = Dataset::open(folder.path().to_str().unwrap()).unwrap();
        assert_eq!(side_for(&dataset, 600), 32);
        let images: Vec<usize> = (0..600).rev().collect();
        let all = sheets(&dataset, &images, 32, usize::MAX, &mut |_| {}).unwrap();
        assert_eq!((all.sheets.len(), all.tiles), (3, 600));
        for place in [0usize, 17, 255, 256, 511, 594, 599] {
            let bytes = STANDARD.decode(&all.sheets[place / 256]).unwrap();
            let sheet = image::load_from_memory(&bytes).unwrap().to_rgb8();
            let tile = (place % 256) as u32;
            let found = sheet.get_pixel(tile % 16 * 32 + 8, tile / 16 * 32 + 16).0;
            let expected = match images[place] {
                5 => UNREADABLE,
                index => colour(index),
            };
            let near = found.iter().zip(expected.0).all(|(a, b)| a.abs_diff(b) < 12);
            assert!(near, "place {place}: {found:?}, not {expected:?}");
        }
        let budget = all.sheets[0].len() + all.sheets[1].len();
        let some = sheets(&dataset, &images, 32, budget, &mut |_| {}).unwrap();
        assert_eq!((some.sheets.len(), some.tiles), (2, 512));
    }
}
