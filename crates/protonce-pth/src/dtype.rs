//! Types of numbers, and what PyTorch and numpy call them.

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
    pub(crate) fn storage(self) -> &'static str {
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
    pub(crate) fn numpy(self) -> Option<&'static str> {
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

    /// Every type.
    pub(crate) const ALL: [Dtype; 10] = [
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
