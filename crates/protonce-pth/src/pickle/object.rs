//! What a pickle is made of: objects that refer to each other by number, and to the pickle's bytes by
//! position, so that nothing is copied and a file can share objects as it likes.

use super::names::{KnownName, PlainClass};
use crate::Dtype;

/// Number of an object.
pub(super) type Id = u32;

/// Where the numbers of a numpy array lie in the pickle.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Inline(pub(super) Span);

/// Bytes of the pickle itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Span {
    pub(super) start: u32,
    pub(super) length: u32,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Object {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Span),
    Bytes(Span),
    List(Vec<Id>),
    Tuple(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Set(Vec<Id>),
    Global(KnownName),
    /// A stretch of numbers outside the pickle.
    Storage {
        dtype: Dtype,
        key: Span,
        count: u64,
    },
    /// A view of a storage; `shape` and `strides` are tuples, checked when a tensor is asked for.
    Tensor {
        storage: Id,
        offset: Id,
        shape: Id,
        strides: Id,
    },
    /// A plain Python object: what it was made from and, where there is one, its state.
    Plain {
        class: PlainClass,
        arguments: Id,
        state: Option<Id>,
    },
}
