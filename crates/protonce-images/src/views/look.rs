//! A first look at the images of a data set: how large they are.

use super::resize::CropBox;
use super::{Decoder, Image};
use crate::data::Dataset;

/// Images looked at: the median of more hardly differs.
const ENOUGH: usize = 128;

/// The median of the shorter sides, in pixels, of at most 128 images spread evenly over the data set.
///
/// None when not one of them can be read.
pub fn median_side(dataset: &Dataset) -> Option<usize> {
    let count = dataset.len().min(ENOUGH);
    let (mut decoder, mut image, mut bytes) = (Decoder::default(), Image::default(), Vec::new());
    let mut side = |position: usize| {
        let index = position * dataset.len() / count;
        dataset.read(index, &mut bytes).ok()?;
        let mut side = 0;
        let corner = |width: usize, height: usize| {
            side = width.min(height);
            CropBox { left: 0, top: 0, width: 1, height: 1 }
        };
        decoder.decode_part(&bytes, &mut image, corner).ok()?;
        Some(side)
    };
    let mut sides: Vec<usize> = (0..count).filter_map(&mut side).collect();
    sides.sort_unstable();
    sides.get(sides.len() / 2).copied()
}
