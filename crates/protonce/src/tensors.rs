//! Between libtorch's tensors and everything else: plain vectors, and the tensor files of a run.
//!
//! A tensor on any device goes in, its values or a file of them come out, and the other way round. Every
//! conversion says when it fails: a default in place of values would train or report on nothing.

use std::borrow::Cow;
use std::io;
use std::path::Path;

use protonce_run::{Dtype, TensorData, TensorFile, TensorFileError, write_tensors};
use tch::kind::Element;
use tch::{Device, Kind, TchError, Tensor};

/// Named tensors, in the order in which they are written.
pub type NamedTensors = Vec<(String, Tensor)>;

/// Why a tensor and its values, or its file, do not come together.
#[derive(Debug, thiserror::Error)]
pub enum TensorError {
    /// The file.
    #[error(transparent)]
    File(#[from] TensorFileError),
    /// Values of another type than the tensor's.
    #[error("a tensor of {found:?} {shape:?} cannot be read as {expected:?}")]
    Kind {
        /// The type asked for.
        expected: Kind,
        /// The tensor's.
        found: Kind,
        /// Its shape.
        shape: Vec<i64>,
    },
    /// A type that libtorch does not compute with.
    #[error("{file}: tensor {name} is of type {dtype:?}, which libtorch does not compute with")]
    Dtype {
        /// The file.
        file: String,
        /// The tensor's name.
        name: String,
        /// Its type.
        dtype: Dtype,
    },
    /// libtorch itself.
    #[error(transparent)]
    Torch(#[from] TchError),
}

/// All values of a tensor of any shape on any device, row by row.
///
/// # Errors
/// [`TensorError::Kind`] when they are not of type `T`, [`TensorError::Torch`].
pub fn values<T: Element + Copy>(tensor: &Tensor) -> Result<Vec<T>, TensorError> {
    let found = tensor.f_kind()?;
    if found != T::KIND {
        return Err(TensorError::Kind { expected: T::KIND, found, shape: tensor.size() });
    }
    let mut values = vec![T::ZERO; tensor.numel()];
    tensor.f_copy_data(&mut values, tensor.numel())?;
    Ok(values)
}

/// The bytes of a tensor's values in its own type, little-endian and row by row.
///
/// # Errors
/// [`TensorError::Torch`] when they cannot be brought into memory.
pub fn bytes(tensor: &Tensor) -> Result<Vec<u8>, TensorError> {
    let tensor = tensor.f_to_device(Device::Cpu)?.f_contiguous()?;
    let mut bytes = vec![0; tensor.numel() * tensor.f_kind()?.elt_size_in_bytes()];
    tensor.f_copy_data_u8(&mut bytes, tensor.numel())?;
    Ok(bytes)
}

/// The type of the elements of a tensor file that libtorch calls `kind`; none where there is none.
pub fn dtype(kind: Kind) -> Option<Dtype> {
    Some(match kind {
        Kind::Bool => Dtype::BOOL,
        Kind::Uint8 => Dtype::U8,
        Kind::Int8 => Dtype::I8,
        Kind::Int16 => Dtype::I16,
        Kind::Int => Dtype::I32,
        Kind::Int64 => Dtype::I64,
        Kind::BFloat16 => Dtype::BF16,
        Kind::Half => Dtype::F16,
        Kind::Float => Dtype::F32,
        Kind::Double => Dtype::F64,
        _ => return None,
    })
}

/// What libtorch calls the type `dtype`; none where it computes with none such.
pub fn kind(dtype: Dtype) -> Option<Kind> {
    Some(match dtype {
        Dtype::BOOL => Kind::Bool,
        Dtype::U8 => Kind::Uint8,
        Dtype::I8 => Kind::Int8,
        Dtype::I16 => Kind::Int16,
        Dtype::I32 => Kind::Int,
        Dtype::I64 => Kind::Int64,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::F16 => Kind::Half,
        Dtype::F32 => Kind::Float,
        Dtype::F64 => Kind::Double,
        _ => return None,
    })
}

/// A tensor that can be written: dense, in the processor's memory, row by row.
pub struct Writable {
    tensor: Tensor,
    dtype: Dtype,
    shape: Vec<usize>,
}

impl Writable {
    /// Copies `tensor` to the processor's memory, unless it is there already.
    ///
    /// # Errors
    /// [`TensorError::Torch`] when its type is none of a tensor file, or it cannot be copied.
    pub fn new(tensor: &Tensor) -> Result<Writable, TensorError> {
        let found = tensor.f_kind()?;
        let dtype = dtype(found).ok_or_else(|| {
            TchError::Convert(format!("no tensor file holds values of type {found:?}"))
        })?;
        let tensor = tensor.f_to_device(Device::Cpu)?.f_contiguous()?;
        let shape = tensor.size().iter().map(|&length| length as usize).collect();
        Ok(Writable { tensor, dtype, shape })
    }

    /// Each of `tensors`, with its name.
    ///
    /// # Errors
    /// As [`Writable::new`].
    pub fn all(tensors: &NamedTensors) -> Result<Vec<(&str, Writable)>, TensorError> {
        tensors.iter().map(|(name, tensor)| Ok((name.as_str(), Writable::new(tensor)?))).collect()
    }
}

impl TensorData for Writable {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn bytes(&self) -> io::Result<Cow<'_, [u8]>> {
        let count = self.tensor.numel();
        let mut bytes = vec![0; count * self.dtype.bitsize() / 8];
        self.tensor.f_copy_data_u8(&mut bytes, count).map_err(io::Error::other)?;
        Ok(Cow::Owned(bytes))
    }
}

/// One tensor of a file, on the CPU.
///
/// # Errors
/// When there is none of that name, it cannot be read or is of a type that libtorch does not know.
pub fn read(file: &mut TensorFile, name: &str) -> Result<Tensor, TensorError> {
    let raw = file.raw(name)?;
    let kind = kind(raw.dtype()).ok_or_else(|| TensorError::Dtype {
        file: file.path().display().to_string(),
        name: name.to_owned(),
        dtype: raw.dtype(),
    })?;
    let shape: Vec<i64> = raw.shape().iter().map(|&length| length as i64).collect();
    let bytes = raw
        .bytes()
        .map_err(|source| TensorFileError::Read { path: file.path().to_owned(), source })?;
    Ok(Tensor::f_from_data_size(&bytes, &shape, kind)?)
}

/// All tensors of a file, on the CPU, in the order in which they lie in it.
///
/// # Errors
/// As [`read`].
pub fn read_all(file: &mut TensorFile) -> Result<NamedTensors, TensorError> {
    file.names().into_iter().map(|name| Ok((name.clone(), read(file, &name)?))).collect()
}

/// Writes a file of tensors, whole or not at all.
///
/// # Errors
/// When a tensor cannot be brought into memory or the file cannot be written; what was there before
/// stays.
pub fn write(file: &Path, tensors: &NamedTensors) -> Result<(), TensorError> {
    Ok(write_tensors(file, &Writable::all(tensors)?, None)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_row_by_row_and_never_as_another_type() {
        let tensor = Tensor::from_slice(&[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0]).view([2, 3]);
        assert_eq!(values::<f32>(&tensor).unwrap(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(values::<f32>(&tensor.tr()).unwrap(), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
        assert_eq!(values::<bool>(&tensor.gt(4.5).view([6])).unwrap()[3..], [false, true, true]);
        let error = values::<i64>(&tensor).unwrap_err().to_string();
        assert_eq!(error, "a tensor of Float [2, 3] cannot be read as Int64");
    }

    #[test]
    fn files_have_the_bytes_that_libtorchs_binding_writes_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let numbers = Tensor::arange(24, (Kind::Float, Device::Cpu)).view([2, 3, 4]);
        let tensors: NamedTensors = [
            ("layer1.0.conv1.weight", numbers.shallow_clone()),
            ("transposed", numbers.transpose(0, 2)),
            ("bn1.num_batches_tracked", Tensor::from(7i64)),
            ("queue", numbers.to_kind(Kind::Double)),
            ("half", numbers.to_kind(Kind::BFloat16)),
            ("none", numbers.narrow(0, 0, 0)),
            ("mask", numbers.gt(3.0)),
            ("a", numbers.to_kind(Kind::Half)),
            ("\"quoted\" ü", numbers.to_kind(Kind::Int)),
        ]
        .map(|(name, tensor)| (name.to_owned(), tensor))
        .into();
        // Each count of tensors gives another length of header to be padded.
        for count in 0..=tensors.len() {
            let some: NamedTensors = tensors[..count]
                .iter()
                .map(|(name, tensor)| (name.clone(), tensor.contiguous()))
                .collect();
            let [ours, theirs] = ["ours", "theirs"].map(|name| folder.path().join(name));
            write(
                &ours,
                &tensors[..count].iter().map(|(n, t)| (n.clone(), t.shallow_clone())).collect(),
            )
            .unwrap();
            Tensor::write_safetensors(&some, &theirs).unwrap();
            assert!(std::fs::read(&ours).unwrap() == std::fs::read(&theirs).unwrap(), "{count}");
            let read = read_all(&mut TensorFile::open(&ours).unwrap()).unwrap();
            assert_eq!(read.len(), count);
            for (name, tensor) in read {
                let (_, written) = some.iter().find(|(known, _)| *known == name).unwrap();
                assert_eq!((tensor.kind(), tensor.size()), (written.kind(), written.size()));
                assert!(tensor == *written, "{name}");
            }
        }
    }
}
