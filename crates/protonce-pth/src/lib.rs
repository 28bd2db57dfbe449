//! PyTorch checkpoint files, read without executing anything, and written.
//!
//! `torch.save` writes a pickle: a little program that a stack machine runs to rebuild Python
//! objects, and that may call any function there is. Here the machine knows tensors, numbers, text and
//! plain containers and nothing else; whatever a file asks for beyond that is an error that names
//! it. A [`Checkpoint`] is opened, its objects are walked as [`Value`]s, and the tensors that are
//! wanted are read, each from its place in the file.
//!
//! All three layouts are known: the zip archive of today, the stream of pickles that
//! PyTorch wrote until 1.6, and a bare pickle of numpy arrays, as detectron2 has them.
//!
//! A hostile file can make the reader allocate no more than twice its own length plus 64 MiB: sizes
//! are believed only as far as the file has bytes for them, see the constants in `pickle` and
//! `archive`.

mod archive;
mod checkpoint;
mod error;
mod pickle;
mod write;

pub use checkpoint::{Checkpoint, Layout, Tensor};
pub use error::PthError;
pub use pickle::Value;
pub use write::{Item, write_numpy, write_zip};

/// The type of a tensor's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// float64
    F64,
    /// float32
    F32,
    /// float16
    F16,
    /// bfloat16
    BF16,
    /// int64
    I64,
    /// int32
    I32,
    /// int16
    I16,
    /// int8
    I8,
    /// uint8
    U8,
    /// bool, a byte each
    Bool,
}

impl Dtype {
    /// Bytes of one number.
    pub fn size(self) -> u64 {
        match self {
            Dtype::F64 | Dtype::I64 => 8,
            Dtype::F32 | Dtype::I32 => 4,
            Dtype::F16 | Dtype::BF16 | Dtype::I16 => 2,
            Dtype::I8 | Dtype::U8 | Dtype::Bool => 1,
        }
    }

    /// PyTorch's storage class of this type.
    fn storage(self) -> &'static str {
        match self {
            Dtype::F64 => "DoubleStorage",
            Dtype::F32 => "FloatStorage",
            Dtype::F16 => "HalfStorage",
            Dtype::BF16 => "BFloat16Storage",
            Dtype::I64 => "LongStorage",
            Dtype::I32 => "IntStorage",
            Dtype::I16 => "ShortStorage",
            Dtype::I8 => "CharStorage",
            Dtype::U8 => "ByteStorage",
            Dtype::Bool => "BoolStorage",
        }
    }

    /// numpy's name of this type, little-endian; it has none for bfloat16.
    fn numpy(self) -> Option<&'static str> {
        match self {
            Dtype::F64 => Some("f8"),
            Dtype::F32 => Some("f4"),
            Dtype::F16 => Some("f2"),
            Dtype::BF16 => None,
            Dtype::I64 => Some("i8"),
            Dtype::I32 => Some("i4"),
            Dtype::I16 => Some("i2"),
            Dtype::I8 => Some("i1"),
            Dtype::U8 => Some("u1"),
            Dtype::Bool => Some("b1"),
        }
    }

    const ALL: [Dtype; 10] = [
        Dtype::F64,
        Dtype::F32,
        Dtype::F16,
        Dtype::BF16,
        Dtype::I64,
        Dtype::I32,
        Dtype::I16,
        Dtype::I8,
        Dtype::U8,
        Dtype::Bool,
    ];
}
