//! Embeddings as they were read: mapped into memory where they lie in the file as float32, copied
//! otherwise.

use std::ops::Range;

use memmap2::Mmap;

/// Rows of embeddings from a file.
pub struct Embeddings {
    pub(super) storage: Storage,
    pub(super) dim: usize,
}

pub(super) enum Storage {
    /// The bytes `range` of a mapped file, for which [`as_floats`] has values.
    Mapped { map: Mmap, range: Range<usize> },
    /// Values that had to be converted.
    Copied(Vec<f32>),
}

impl Embeddings {
    /// The values, row by row.
    pub fn values(&self) -> &[f32] {
        match &self.storage {
            Storage::Mapped { map, range } => as_floats(&map[range.clone()]).unwrap_or(&[]),
            Storage::Copied(values) => values,
        }
    }

    /// The length of a row.
    pub fn dim(&self) -> usize {
        self.dim
    }
}

/// Bytes as the float32 values they are, where they lie as the processor wants them.
pub(super) fn as_floats(bytes: &[u8]) -> Option<&[f32]> {
    if cfg!(target_endian = "big") {
        return None;
    }
    // SAFETY: every pattern of bits is a float32.
    let (before, values, after) = unsafe { bytes.align_to::<f32>() };
    (before.is_empty() && after.is_empty()).then_some(values)
}
