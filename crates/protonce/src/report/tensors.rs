//! Safetensors files of a run, read piece by piece: an expectation step of a large data set is
//! larger than a report may be.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use safetensors::SafeTensorError;
use safetensors::tensor::{Dtype, Metadata};

use super::ReportError;

/// The format's own limit, in bytes.
const LONGEST_HEADER: u64 = 100_000_000;

/// An open safetensors file, of which only the header was read.
pub(super) struct TensorFile {
    path: PathBuf,
    file: File,
    metadata: Metadata,
    /// Where the tensors begin.
    start: u64,
}

/// Where one tensor lies.
pub(super) struct Place {
    pub(super) shape: Vec<usize>,
    /// Bytes from the start of the file.
    begin: u64,
    end: u64,
}

impl TensorFile {
    pub(super) fn open(path: &Path) -> Result<TensorFile, ReportError> {
        let failed = |source| ReportError::Read { path: path.to_owned(), source };
        let damaged = |source| ReportError::Damaged { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let mut prefix = [0; 8];
        file.read_exact(&mut prefix).map_err(|_| damaged(SafeTensorError::HeaderTooSmall))?;
        let header = u64::from_le_bytes(prefix);
        if header > LONGEST_HEADER {
            return Err(damaged(SafeTensorError::HeaderTooLarge));
        }
        let mut bytes = vec![0; header as usize];
        file.read_exact(&mut bytes).map_err(|_| damaged(SafeTensorError::InvalidHeaderLength))?;
        let metadata: Metadata = serde_json::from_slice(&bytes)
            .map_err(|error| damaged(SafeTensorError::InvalidHeaderDeserialization(error)))?;
        let start = header + 8;
        if start + metadata.data_len() as u64 != length {
            return Err(damaged(SafeTensorError::MetadataIncompleteBuffer));
        }
        Ok(TensorFile { path: path.to_owned(), file, metadata, start })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is a tensor of that name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.metadata.info(name).is_some()
    }

    /// The tensor of that name, its type and shape checked; `None` stands for any length.
    pub(super) fn find(
        &self,
        name: &str,
        dtype: Dtype,
        shape: &[Option<usize>],
    ) -> Result<Place, ReportError> {
        let mismatch = |found: String| {
            let lengths: Vec<String> =
                shape.iter().map(|length| length.map_or("any".into(), |n| n.to_string())).collect();
            ReportError::Tensor {
                path: self.path.clone(),
                name: name.to_owned(),
                expected: format!("{dtype:?} [{}]", lengths.join(", ")),
                found,
            }
        };
        let info = self.metadata.info(name).ok_or_else(|| mismatch("missing".to_owned()))?;
        let fits = info.shape.len() == shape.len()
            && info.shape.iter().zip(shape).all(|(is, should)| should.is_none_or(|n| n == *is));
        if info.dtype != dtype || !fits {
            return Err(mismatch(format!("{:?} {:?}", info.dtype, info.shape)));
        }
        let (begin, end) = info.data_offsets;
        Ok(Place {
            shape: info.shape.clone(),
            begin: self.start + begin as u64,
            end: self.start + end as u64,
        })
    }

    /// Hands the bytes of a tensor on in order, in blocks of a multiple of `unit` bytes.
    fn blocks(
        &mut self,
        place: &Place,
        unit: usize,
        mut block: impl FnMut(&[u8]),
    ) -> Result<(), ReportError> {
        let failed = |source| ReportError::Read { path: self.path.clone(), source };
        let size = ((4 << 20) / unit.max(1)).max(1) * unit.max(1);
        self.file.seek(SeekFrom::Start(place.begin)).map_err(failed)?;
        let mut left = (place.end - place.begin) as usize;
        let mut bytes = vec![0; size.min(left)];
        while left > 0 {
            let part = &mut bytes[..size.min(left)];
            self.file.read_exact(part).map_err(failed)?;
            block(part);
            left -= part.len();
        }
        Ok(())
    }

    /// All of an i64 tensor, as i32: positions of prototypes, −1 for none.
    pub(super) fn positions(&mut self, place: &Place) -> Result<Vec<i32>, ReportError> {
        let mut values = Vec::with_capacity(place.shape.iter().product());
        self.blocks(place, 8, |block| {
            let (numbers, _) = block.as_chunks();
            values.extend(
                numbers.iter().map(|bytes| i32::try_from(i64::from_le_bytes(*bytes)).unwrap_or(-1)),
            );
        })?;
        Ok(values)
    }

    /// All of a float tensor.
    pub(super) fn floats(&mut self, place: &Place) -> Result<Vec<f32>, ReportError> {
        let mut values = Vec::with_capacity(place.shape.iter().product());
        self.blocks(place, 4, |block| values.extend(floats(block)))?;
        Ok(values)
    }

    /// Hands on a float tensor [rows, dim] row by row.
    pub(super) fn rows(
        &mut self,
        place: &Place,
        mut row: impl FnMut(usize, &[f32]),
    ) -> Result<(), ReportError> {
        let dim = place.shape.last().copied().unwrap_or(0);
        let mut number = 0;
        let mut values: Vec<f32> = Vec::new();
        self.blocks(place, 4 * dim, |block| {
            values.clear();
            values.extend(floats(block));
            for part in values.chunks_exact(dim.max(1)) {
                row(number, part);
                number += 1;
            }
        })
    }
}

fn floats(bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_none_are_refused_in_one_sentence() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("epoch-0001.safetensors");
        for bytes in [&b""[..], b"abc", b"\xff\xff\xff\xff\xff\xff\xff\xff{}", &[0; 40]] {
            std::fs::write(&path, bytes).unwrap();
            let error = TensorFile::open(&path).err().unwrap().to_string();
            assert!(error.contains("not a whole safetensors file"), "{error}");
        }
    }
}
