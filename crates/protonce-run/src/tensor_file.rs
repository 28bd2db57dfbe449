//! Safetensors files, the format of every tensor that a run keeps: named arrays go in and come out,
//! each read when it is asked for.
//!
//! The files of a large data set are larger than the memory of a small machine, so that
//! [`TensorFile::open`] reads the header alone and [`TensorFile::rows`] hands values on in blocks.
//! A reader names the type and the shape that it expects; anything else is an error that says
//! what was found. [`write_tensors`] writes what the `safetensors` crate would, but tensor by tensor, and
//! through a renamed scratch file.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use safetensors::SafeTensorError;
pub use safetensors::tensor::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

/// The format's own limit on the header, in bytes.
const LONGEST_HEADER: u64 = 100_000_000;

/// Bytes that are read at a time.
const BLOCK: usize = 4 << 20;

/// Why a file of tensors cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum TensorFileError {
    /// The system cannot read it.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It cannot be written.
    #[error("cannot write {}: {source}; choose a writable --out with free space", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is damaged or of another format.
    #[error("{} is not a whole safetensors file ({source}); make it again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with its header.
        source: SafeTensorError,
    },
    /// A tensor is missing, or of another type or shape than expected.
    #[error("{}: tensor {name} should be {expected} but is {found}", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        name: String,
        /// Type and shape that were expected.
        expected: String,
        /// Type and shape that were found, or "missing".
        found: String,
    },
}

/// Something that can be written as a tensor.
pub trait TensorData {
    /// The type of an element.
    fn dtype(&self) -> Dtype;
    /// The length of each dimension.
    fn shape(&self) -> &[usize];
    /// The elements, little-endian and row by row.
    ///
    /// # Errors
    /// When they cannot be brought into memory.
    fn bytes(&self) -> io::Result<Cow<'_, [u8]>>;
}

/// A tensor as its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawTensor {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl RawTensor {
    /// `values` as a float32 tensor of this shape.
    pub fn f32s(shape: &[usize], values: &[f32]) -> RawTensor {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        RawTensor { dtype: Dtype::F32, shape: shape.to_vec(), bytes }
    }

    /// `values` as an int64 tensor of this shape.
    pub fn i64s(shape: &[usize], values: &[i64]) -> RawTensor {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        RawTensor { dtype: Dtype::I64, shape: shape.to_vec(), bytes }
    }
}

impl TensorData for RawTensor {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn bytes(&self) -> io::Result<Cow<'_, [u8]>> {
        Ok(Cow::Borrowed(&self.bytes))
    }
}

/// Writes named tensors, whole or not at all, with `metadata` in the header where there is any. They
/// lie in the file by descending width of their type, then by name, as in every safetensors file.
///
/// # Errors
/// [`TensorFileError::Write`] when that fails; what was there before stays.
pub fn write_tensors<N: AsRef<str>, T: TensorData>(
    file: &Path,
    tensors: &[(N, T)],
    metadata: Option<HashMap<String, String>>,
) -> Result<(), TensorFileError> {
    protonce_disk::replace(file, |scratch| {
        let mut out = BufWriter::new(File::create(scratch)?);
        write_to(&mut out, tensors, metadata)?;
        out.flush()
    })
    .map_err(|source| TensorFileError::Write { path: file.to_owned(), source })
}

fn write_to<N: AsRef<str>, T: TensorData>(
    out: &mut impl Write,
    tensors: &[(N, T)],
    metadata: Option<HashMap<String, String>>,
) -> io::Result<()> {
    let mut order: Vec<(&str, &T)> = tensors.iter().map(|(name, t)| (name.as_ref(), t)).collect();
    order.sort_by(|(name, tensor), (other_name, other)| {
        other.dtype().cmp(&tensor.dtype()).then(name.cmp(other_name))
    });
    let mut end = 0;
    let infos = order.iter().map(|(name, tensor)| {
        let begin = end;
        end += tensor.shape().iter().product::<usize>() * tensor.dtype().bitsize() / 8;
        let (dtype, shape) = (tensor.dtype(), tensor.shape().to_vec());
        ((*name).to_owned(), TensorInfo { dtype, shape, data_offsets: (begin, end) })
    });
    let header = Metadata::new(metadata, infos.collect()).map_err(io::Error::other)?;
    let mut header = serde_json::to_vec(&header)?;
    // Tensors begin at a multiple of eight bytes.
    header.resize(header.len().next_multiple_of(8), b' ');
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    for (name, tensor) in order {
        let bytes = tensor.bytes()?;
        let expected = tensor.shape().iter().product::<usize>() * tensor.dtype().bitsize() / 8;
        if bytes.len() != expected {
            let found = bytes.len();
            let reason = format!("tensor {name} has {found} bytes where its shape has {expected}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
        out.write_all(&bytes)?;
    }
    Ok(())
}

/// An open safetensors file, of which only the header was read.
pub struct TensorFile {
    path: PathBuf,
    file: File,
    header: Metadata,
    /// Where the tensors begin.
    start: u64,
}

impl TensorFile {
    /// Opens a file and reads its header.
    ///
    /// # Errors
    /// [`TensorFileError::Read`], or [`TensorFileError::Damaged`] where the file is cut short or no
    /// safetensors file.
    pub fn open(path: &Path) -> Result<TensorFile, TensorFileError> {
        let failed = |source| TensorFileError::Read { path: path.to_owned(), source };
        let damaged = |source| TensorFileError::Damaged { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let mut prefix = [0; 8];
        file.read_exact(&mut prefix).map_err(|_| damaged(SafeTensorError::HeaderTooSmall))?;
        let header_length = u64::from_le_bytes(prefix);
        if header_length > LONGEST_HEADER {
            return Err(damaged(SafeTensorError::HeaderTooLarge));
        }
        let mut bytes = vec![0; header_length as usize];
        file.read_exact(&mut bytes).map_err(|_| damaged(SafeTensorError::InvalidHeaderLength))?;
        let header: Metadata = serde_json::from_slice(&bytes)
            .map_err(|error| damaged(SafeTensorError::InvalidHeaderDeserialization(error)))?;
        let start = header_length + 8;
        if start + header.data_len() as u64 != length {
            return Err(damaged(SafeTensorError::MetadataIncompleteBuffer));
        }
        Ok(TensorFile { path: path.to_owned(), file, header, start })
    }

    /// The file itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The text entries of the header.
    pub fn metadata(&self) -> Option<&HashMap<String, String>> {
        self.header.metadata().as_ref()
    }

    /// The names of the tensors, in the order in which they lie in the file.
    pub fn names(&self) -> Vec<String> {
        self.header.offset_keys()
    }

    /// The type and shape of a tensor; none where there is none of that name.
    pub fn describe(&self, name: &str) -> Option<(Dtype, &[usize])> {
        let info = self.header.info(name)?;
        Some((info.dtype, &info.shape))
    }

    /// The shape of a tensor, its type and shape checked; `None` stands for any length.
    ///
    /// # Errors
    /// [`TensorFileError::Tensor`] when it is missing or another.
    pub fn check(
        &self,
        name: &str,
        dtype: Dtype,
        shape: &[Option<usize>],
    ) -> Result<&[usize], TensorFileError> {
        Ok(&self.find(name, dtype, shape)?.shape)
    }

    /// All of a float32 tensor, row by row.
    ///
    /// # Errors
    /// [`TensorFileError::Tensor`] when it is missing or another, [`TensorFileError::Read`].
    pub fn f32s(
        &mut self,
        name: &str,
        shape: &[Option<usize>],
    ) -> Result<Vec<f32>, TensorFileError> {
        let info = self.find(name, Dtype::F32, shape)?.clone();
        let mut values = Vec::with_capacity(info.shape.iter().product());
        self.blocks(&info, 4, |block| values.extend(floats(block)))?;
        Ok(values)
    }

    /// All of an int64 tensor, row by row.
    ///
    /// # Errors
    /// [`TensorFileError::Tensor`] when it is missing or another, [`TensorFileError::Read`].
    pub fn i64s(
        &mut self,
        name: &str,
        shape: &[Option<usize>],
    ) -> Result<Vec<i64>, TensorFileError> {
        let info = self.find(name, Dtype::I64, shape)?.clone();
        let mut values = Vec::with_capacity(info.shape.iter().product());
        self.blocks(&info, 8, |block| {
            values.extend(block.as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes)));
        })?;
        Ok(values)
    }

    /// Hands on the rows of a float32 tensor \[rows, dim\], in order, each with its number. No more
    /// than a few megabytes are in memory at a time.
    ///
    /// # Errors
    /// [`TensorFileError::Tensor`] when it is missing or another, [`TensorFileError::Read`].
    pub fn rows(
        &mut self,
        name: &str,
        rows: Option<usize>,
        dim: usize,
        mut row: impl FnMut(usize, &[f32]),
    ) -> Result<(), TensorFileError> {
        let info = self.find(name, Dtype::F32, &[rows, Some(dim)])?.clone();
        let mut number = 0;
        let mut values: Vec<f32> = Vec::new();
        self.blocks(&info, 4 * dim, |block| {
            values.clear();
            values.extend(floats(block));
            for part in values.chunks_exact(dim.max(1)) {
                row(number, part);
                number += 1;
            }
        })
    }

    /// All of a tensor of any type.
    ///
    /// # Errors
    /// [`TensorFileError::Tensor`] when it is missing, [`TensorFileError::Read`].
    pub fn raw(&mut self, name: &str) -> Result<RawTensor, TensorFileError> {
        let info = self.header.info(name).ok_or_else(|| TensorFileError::Tensor {
            path: self.path.clone(),
            name: name.to_owned(),
            expected: "there".to_owned(),
            found: "missing".to_owned(),
        })?;
        let info = info.clone();
        let mut bytes = Vec::with_capacity(info.data_offsets.1 - info.data_offsets.0);
        self.blocks(&info, 1, |block| bytes.extend_from_slice(block))?;
        Ok(RawTensor { dtype: info.dtype, shape: info.shape, bytes })
    }

    /// Where a tensor lies, its type and shape checked.
    fn find(
        &self,
        name: &str,
        dtype: Dtype,
        shape: &[Option<usize>],
    ) -> Result<&TensorInfo, TensorFileError> {
        let mismatch = |found: String| {
            let lengths: Vec<String> =
                shape.iter().map(|length| length.map_or("any".into(), |n| n.to_string())).collect();
            TensorFileError::Tensor {
                path: self.path.clone(),
                name: name.to_owned(),
                expected: format!("{dtype:?} [{}]", lengths.join(", ")),
                found,
            }
        };
        let info = self.header.info(name).ok_or_else(|| mismatch("missing".to_owned()))?;
        let fits = info.shape.len() == shape.len()
            && info.shape.iter().zip(shape).all(|(is, should)| should.is_none_or(|n| n == *is));
        if info.dtype != dtype || !fits {
            return Err(mismatch(format!("{:?} {:?}", info.dtype, info.shape)));
        }
        Ok(info)
    }

    /// Hands the bytes of a tensor on in order, in blocks of a multiple of `unit` bytes.
    fn blocks(
        &mut self,
        info: &TensorInfo,
        unit: usize,
        mut block: impl FnMut(&[u8]),
    ) -> Result<(), TensorFileError> {
        let failed = |source| TensorFileError::Read { path: self.path.clone(), source };
        let size = (BLOCK / unit.max(1)).max(1) * unit.max(1);
        let (begin, end) = info.data_offsets;
        self.file.seek(SeekFrom::Start(self.start + begin as u64)).map_err(failed)?;
        let mut left = end - begin;
        let mut bytes = vec![0; size.min(left)];
        while left > 0 {
            let part = &mut bytes[..size.min(left)];
            self.file.read_exact(part).map_err(failed)?;
            block(part);
            left -= part.len();
        }
        Ok(())
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

    #[test]
    fn what_was_written_is_read_and_checked_by_name_type_and_shape() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tensors.safetensors");
        let numbers: Vec<f32> = (0..6u8).map(f32::from).collect();
        let tensors = [
            ("rows", RawTensor::f32s(&[3, 2], &numbers)),
            ("positions", RawTensor::i64s(&[2], &[-1, 1 << 40])),
            ("none", RawTensor::f32s(&[0, 2], &[])),
        ];
        let metadata = HashMap::from([("by".to_owned(), "a test".to_owned())]);
        write_tensors(&path, &tensors, Some(metadata.clone())).unwrap();
        let mut file = TensorFile::open(&path).unwrap();
        assert_eq!(file.metadata(), Some(&metadata));
        assert_eq!(file.names(), ["positions", "none", "rows"]);
        assert_eq!(file.f32s("rows", &[None, Some(2)]).unwrap(), numbers);
        assert_eq!(file.i64s("positions", &[Some(2)]).unwrap(), [-1, 1 << 40]);
        assert!(file.f32s("none", &[None, None]).unwrap().is_empty());
        assert_eq!(file.raw("rows").unwrap(), tensors[0].1);
        let mut rows = Vec::new();
        file.rows("rows", Some(3), 2, |number, row| rows.push((number, row.to_vec()))).unwrap();
        assert_eq!(rows, [(0, vec![0.0, 1.0]), (1, vec![2.0, 3.0]), (2, vec![4.0, 5.0])]);
        for (error, said) in [
            (file.f32s("rows", &[Some(4), None]), "rows should be F32 [4, any] but is F32 [3, 2]"),
            (file.f32s("positions", &[None]), "positions should be F32 [any] but is I64 [2]"),
            (file.f32s("gone", &[None]), "gone should be F32 [any] but is missing"),
        ] {
            let error = error.unwrap_err().to_string();
            assert!(error.contains(said) && error.contains("tensors.safetensors"), "{error}");
        }
    }

    #[test]
    fn the_bytes_are_those_of_the_safetensors_crate() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tensors.safetensors");
        for length in 0..9 {
            let values = vec![1.5; length];
            let name = "x".repeat(length + 1);
            let tensors = [
                (name.as_str(), RawTensor::f32s(&[length], &values)),
                ("b", RawTensor::i64s(&[1, 1], &[3])),
                ("a", RawTensor::f32s(&[], &[2.5])),
            ];
            write_tensors(&path, &tensors, None).unwrap();
            let views = tensors.iter().map(|(name, tensor)| {
                let view = safetensors::tensor::TensorView::new(
                    tensor.dtype,
                    tensor.shape.clone(),
                    &tensor.bytes,
                );
                (*name, view.unwrap())
            });
            let expected = safetensors::serialize(views, None).unwrap();
            assert!(std::fs::read(&path).unwrap() == expected, "{length}");
        }
    }

    #[test]
    fn a_tensor_whose_bytes_do_not_fit_its_shape_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tensors.safetensors");
        let error = write_tensors(&path, &[("x", RawTensor::f32s(&[3], &[1.0]))], None);
        assert!(error.unwrap_err().to_string().contains("x has 4 bytes"));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
