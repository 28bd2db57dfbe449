//! Objects as the users of this crate see them: a [`Value`] answers what it is and what it contains.

use super::Pickle;
use super::names::PlainClass;
use super::object::{Id, Inline, Object};
use crate::limits::MAX_DIMENSIONS;
use crate::{Dtype, PthError};

/// An object of a checkpoint.
#[derive(Debug, Clone, Copy)]
pub struct Value<'a> {
    pub(super) pickle: &'a Pickle,
    pub(super) id: Id,
}

impl<'a> Value<'a> {
    fn object(self) -> &'a Object {
        &self.pickle.objects[self.id as usize]
    }

    fn at(self, id: Id) -> Value<'a> {
        Value { pickle: self.pickle, id }
    }

    /// Keys and values of a dict, or of the attributes of an `argparse.Namespace`; none of
    /// anything else.
    pub fn entries(self) -> Option<impl DoubleEndedIterator<Item = (Value<'a>, Value<'a>)>> {
        let items = match self.object() {
            Object::Dict(items) => items,
            Object::Plain { class: PlainClass::Namespace, state: Some(state), .. } => {
                match self.at(*state).object() {
                    Object::Dict(items) => items,
                    _ => return None,
                }
            }
            _ => return None,
        };
        Some(items.iter().map(move |&(key, value)| (self.at(key), self.at(value))))
    }

    /// The value under a text key of a dict. Of several, the last counts, as in Python.
    pub fn get(self, key: &str) -> Option<Value<'a>> {
        self.entries()?.rev().find(|(known, _)| known.as_str() == Some(key)).map(|(_, value)| value)
    }

    /// Attributes of an object of a class that has no meaning here. They may lead back to it.
    pub(crate) fn attributes(self) -> Option<Value<'a>> {
        match *self.object() {
            Object::Plain { class: PlainClass::Opaque, state: Some(state), .. } => {
                Some(self.at(state))
            }
            _ => None,
        }
    }

    /// The number of the object, which two values share when they are one object.
    pub(crate) fn identity(self) -> u32 {
        self.id
    }

    /// Items of a list, tuple or set.
    pub fn items(self) -> Option<impl Iterator<Item = Value<'a>>> {
        match self.object() {
            Object::List(items) | Object::Tuple(items) | Object::Set(items) => {
                Some(items.iter().map(move |&id| self.at(id)))
            }
            _ => None,
        }
    }

    /// Text.
    pub fn as_str(self) -> Option<&'a str> {
        match self.object() {
            Object::Text(span) => Some(self.pickle.text(*span)),
            _ => None,
        }
    }

    /// A whole number.
    pub fn as_i64(self) -> Option<i64> {
        match self.object() {
            Object::Int(number) => Some(*number),
            _ => None,
        }
    }

    /// A number with a fraction.
    pub fn as_f64(self) -> Option<f64> {
        match self.object() {
            Object::Float(number) => Some(*number),
            _ => None,
        }
    }

    /// Yes or no.
    pub fn as_bool(self) -> Option<bool> {
        match self.object() {
            Object::Bool(value) => Some(*value),
            _ => None,
        }
    }

    fn as_bytes(self) -> Option<Inline> {
        match self.object() {
            Object::Bytes(span) => Some(Inline(*span)),
            _ => None,
        }
    }

    /// Whether this is a tensor.
    pub fn is_tensor(self) -> bool {
        matches!(self.object(), Object::Tensor { .. }) || self.numpy_state().is_some()
    }

    /// The storage's key, its count of numbers, and this tensor's type, offset, shape and strides.
    pub(crate) fn tensor_claim(self) -> Result<Option<TensorClaim<'a>>, PthError> {
        let Object::Tensor { storage, offset, shape, strides } = *self.object() else {
            return Ok(None);
        };
        let Object::Storage { dtype, key, count } = *self.at(storage).object() else {
            return Ok(None);
        };
        let key = self.pickle.text(key);
        let wrong = |what| PthError::Tensor(format!("{what} of storage {key:?} is no such thing"));
        let offset = self.at(offset).size().ok_or_else(|| wrong("the offset"))?;
        let shape = self.at(shape).sizes().ok_or_else(|| wrong("the shape"))?;
        let strides = self.at(strides).sizes().ok_or_else(|| wrong("the strides"))?;
        Ok(Some(TensorClaim { key, dtype, count, offset, shape, strides }))
    }

    fn size(self) -> Option<u64> {
        u64::try_from(self.as_i64()?).ok()
    }

    fn sizes(self) -> Option<Vec<u64>> {
        match self.object() {
            Object::Tuple(items) | Object::List(items) if items.len() <= MAX_DIMENSIONS => {
                items.iter().map(|&id| self.at(id).size()).collect()
            }
            _ => None,
        }
    }

    fn numpy_state(self) -> Option<Vec<Value<'a>>> {
        match self.object() {
            Object::Plain { class: PlainClass::NumpyArray, state: Some(state), .. } => {
                let state: Vec<Value<'a>> = self.at(*state).items()?.collect();
                (state.len() == 5).then_some(state)
            }
            _ => None,
        }
    }

    /// Type, shape and bytes of a numpy array that lies in the pickle itself.
    pub(crate) fn numpy(self) -> Result<Option<(Dtype, Vec<u64>, Inline)>, PthError> {
        let Some(state) = self.numpy_state() else { return Ok(None) };
        let parsed = || {
            let shape = state[1].sizes()?;
            let dtype = state[2].numpy_dtype()?;
            let in_columns = state[3].as_bool()? && shape.len() > 1;
            Some((dtype, shape, state[4].as_bytes()?)).filter(|_| !in_columns)
        };
        let wrong = || "a numpy array is not made of plain numbers in row order".to_owned();
        parsed().map(Some).ok_or_else(|| PthError::Tensor(wrong()))
    }

    /// The type that a `numpy.dtype('f4', False, True)` with byte order `<` or `|` stands for.
    fn numpy_dtype(self) -> Option<Dtype> {
        let Object::Plain { class: PlainClass::NumpyDtype, arguments, state } = *self.object()
        else {
            return None;
        };
        let name = self.at(arguments).items()?.next()?.as_str()?;
        if let Some(state) = state
            && self.at(state).items()?.nth(1)?.as_str()? == ">"
        {
            return None;
        }
        Dtype::ALL.into_iter().find(|dtype| dtype.numpy() == Some(name))
    }
}

/// What a tensor of the pickle says of itself; not yet compared with the file.
pub(crate) struct TensorClaim<'a> {
    pub(crate) key: &'a str,
    pub(crate) dtype: Dtype,
    pub(crate) count: u64,
    pub(crate) offset: u64,
    pub(crate) shape: Vec<u64>,
    pub(crate) strides: Vec<u64>,
}

impl std::fmt::Display for Value<'_> {
    /// Numbers and text as Python shows them, containers by what and how many they hold.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.object() {
            Object::None => write!(f, "None"),
            Object::Bool(value) => write!(f, "{value}"),
            Object::Int(number) => write!(f, "{number}"),
            Object::Float(number) => write!(f, "{number}"),
            Object::Text(span) => write!(f, "{}", self.pickle.text(*span)),
            Object::Bytes(span) => write!(f, "{} bytes", span.length),
            Object::List(items) | Object::Tuple(items) | Object::Set(items) => {
                write!(f, "{} items", items.len())
            }
            Object::Dict(items) => write!(f, "{} entries", items.len()),
            Object::Tensor { .. } => write!(f, "a tensor"),
            _ => write!(f, "an object"),
        }
    }
}
