//! Files of bare pixels, one image after another, as CIFAR and STL-10 are published.
//!
//! Everything downstream takes encoded images, so an image is handed out as BMP: a header in front of
//! the same numbers.

use std::fs::File;
use std::path::PathBuf;

use super::DataError;
use super::storage::read_exact_at;

/// Files of one length, each holding images of one size.
#[derive(Debug)]
pub(super) struct RawFiles {
    /// In order, with their paths.
    pub files: Vec<(File, PathBuf)>,
    /// Images per file.
    pub images: usize,
    /// Bytes from one image to the next.
    pub stride: usize,
    /// Bytes in front of an image's pixels.
    pub skip: usize,
    /// Width and height in pixels.
    pub side: usize,
    /// Whether a channel's pixels go column by column (STL-10) instead of row by row (CIFAR). The
    /// channels red, green and blue follow one another.
    pub by_columns: bool,
}

const HEADER: usize = 54;

impl RawFiles {
    /// Replaces `bytes` by image `number`, counted through the files.
    pub fn read(&self, number: usize, bytes: &mut Vec<u8>) -> Result<(), DataError> {
        let (file, path) = &self.files[number / self.images];
        let offset = (number % self.images) * self.stride + self.skip;
        let plane = self.side * self.side;
        let mut pixels = vec![0; 3 * plane];
        read_exact_at(file, &mut pixels, offset as u64)
            .map_err(|source| DataError::Unreadable { path: path.clone(), source })?;
        // Rows of a BMP fill up to whole groups of four bytes.
        let row_bytes = (3 * self.side).next_multiple_of(4);
        bytes.clear();
        bytes.resize(HEADER + row_bytes * self.side, 0);
        header(bytes, self.side as u32);
        for y in 0..self.side {
            let row = &mut bytes[HEADER + y * row_bytes..][..3 * self.side];
            for (x, pixel) in row.chunks_exact_mut(3).enumerate() {
                let offset = if self.by_columns { x * self.side + y } else { y * self.side + x };
                // Blue comes first in a BMP.
                for (channel, value) in pixel.iter_mut().rev().enumerate() {
                    *value = pixels[channel * plane + offset];
                }
            }
        }
        Ok(())
    }
}

/// The header of a BMP of 24 bits per pixel, rows from the top.
fn header(bytes: &mut [u8], side: u32) {
    let length = bytes.len() as u32;
    bytes[..2].copy_from_slice(b"BM");
    for (offset, value) in [
        (2, length),
        (10, HEADER as u32),
        (14, 40),
        (18, side),
        // A negative height means rows from the top.
        (22, side.wrapping_neg()),
        // One plane of 24 bits.
        (26, 1 | 24 << 16),
        (34, length - HEADER as u32),
    ] {
        bytes[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
    }
}
