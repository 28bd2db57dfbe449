//! A first look at the images of a data set: how large they are.

use super::resize::CropBox;
use super::{Decoder, Image};
use crate::data::{DataError, Dataset, StoreError};

/// Images looked at: the median of more hardly differs.
const ENOUGH: usize = 128;

/// The median of the shorter sides, in pixels, of at most 128 images spread evenly over the data set.
///
/// None when not one of them can be read.
///
/// # Errors
/// When the object store that the images lie in fails.
pub fn median_side(dataset: &Dataset) -> Result<Option<usize>, StoreError> {
    let count = dataset.len().min(ENOUGH);
    let (mut decoder, mut image, mut bytes) = (Decoder::default(), Image::default(), Vec::new());
    let mut side = |position: usize| {
        let index = position * dataset.len() / count;
        match dataset.read(index, &mut bytes) {
            Ok(()) => {}
            Err(DataError::Store(error)) => return Err(error),
            Err(_) => return Ok(None),
        }
        let mut side = 0;
        let corner = |width: usize, height: usize| {
            side = width.min(height);
            CropBox { left: 0, top: 0, width: 1, height: 1 }
        };
        let decoded = decoder.decode_part(&bytes, &mut image, corner);
        Ok(decoded.is_ok().then_some(side))
    };
    let sides: Result<Vec<Option<usize>>, StoreError> = (0..count).map(&mut side).collect();
    let mut sides: Vec<usize> = sides?.into_iter().flatten().collect();
    sides.sort_unstable();
    Ok(sides.get(sides.len() / 2).copied())
}
