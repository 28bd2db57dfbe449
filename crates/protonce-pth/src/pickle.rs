//! The stack machine, without the ability to call anything.
//!
//! A pickle goes in as bytes; a [`Pickle`] comes out: objects in one vector that refer to each other by
//! number, so that a file can share objects as it likes and never makes this program recurse.

use std::collections::HashMap;

use crate::{Dtype, PthError};

/// Most bytes a pickle may have: the tensors' numbers are not in it, and the largest ResNet's
/// names with momentum encoder and optimiser come to less than a megabyte.
pub(crate) const MAX_PICKLE: u64 = 16 << 20;

/// Most objects pushed on the stack in all. ResNet-152 with momentum encoder and optimiser has about
/// 60 000. At about 100 bytes each with every table, this bounds memory at 26 MiB.
const MAX_OBJECTS: usize = 1 << 18;

/// Most dimensions a tensor may have.
const MAX_DIMENSIONS: usize = 8;

/// Number of an object.
type Id = u32;

/// Where the numbers of a numpy array lie in the pickle.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Inline(Span);

/// Bytes of the pickle itself.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Span {
    start: u32,
    length: u32,
}

#[derive(Debug, Clone, PartialEq)]
enum Object {
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
    Global(Global),
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

/// A name that the pickle may ask for. None of them is ever called.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildTensorV2,
    RebuildParameter,
    Size,
    Storage(Dtype),
    Plain(PlainClass),
}

/// What is kept as it is written, and not interpreted further unless a [`Value`] is asked to.
#[derive(Debug, Clone, Copy, PartialEq)]
enum PlainClass {
    /// Its state is a dict.
    Namespace,
    NumpyDtype,
    NumpyScalar,
    NumpyReconstruct,
    NumpyArray,
    /// `_codecs.encode`: bytes, as protocol 2 writes them.
    Encode,
    Other,
}

/// Module, name and meaning of everything that may be asked for, besides the storage classes.
const GLOBALS: [(&str, &str, Global); 25] = {
    use PlainClass::*;
    [
        ("collections", "OrderedDict", Global::OrderedDict),
        ("torch._utils", "_rebuild_tensor", Global::RebuildTensor),
        ("torch._utils", "_rebuild_tensor_v2", Global::RebuildTensorV2),
        ("torch._utils", "_rebuild_parameter", Global::RebuildParameter),
        ("torch", "Size", Global::Size),
        ("argparse", "Namespace", Global::Plain(Namespace)),
        ("numpy", "dtype", Global::Plain(NumpyDtype)),
        ("numpy", "ndarray", Global::Plain(NumpyArray)),
        ("numpy.core.multiarray", "scalar", Global::Plain(NumpyScalar)),
        ("numpy._core.multiarray", "scalar", Global::Plain(NumpyScalar)),
        ("numpy.core.multiarray", "_reconstruct", Global::Plain(NumpyReconstruct)),
        ("numpy._core.multiarray", "_reconstruct", Global::Plain(NumpyReconstruct)),
        ("_codecs", "encode", Global::Plain(Encode)),
        ("builtins", "set", Global::Plain(Other)),
        ("__builtin__", "set", Global::Plain(Other)),
        ("builtins", "frozenset", Global::Plain(Other)),
        ("builtins", "dict", Global::Plain(Other)),
        ("builtins", "list", Global::Plain(Other)),
        ("builtins", "int", Global::Plain(Other)),
        ("builtins", "float", Global::Plain(Other)),
        ("collections", "defaultdict", Global::Plain(Other)),
        ("collections", "Counter", Global::Plain(Other)),
        ("pathlib", "PosixPath", Global::Plain(Other)),
        ("pathlib", "PurePosixPath", Global::Plain(Other)),
        ("torch", "device", Global::Plain(Other)),
    ]
};

/// `torch.float32` and its kin are names too.
const TORCH_DTYPES: [&str; 10] = [
    "float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool",
];

fn global(module: &str, name: &str) -> Option<Global> {
    let known = GLOBALS.iter().find(|(m, n, _)| (*m, *n) == (module, name));
    let storage = || Dtype::ALL.into_iter().find(|dtype| dtype.storage() == name);
    match known {
        Some(&(_, _, global)) => Some(global),
        None if module == "torch" && TORCH_DTYPES.contains(&name) => {
            Some(Global::Plain(PlainClass::Other))
        }
        None if module == "torch" => storage().map(Global::Storage),
        None => None,
    }
}

/// The objects of one pickle.
#[derive(Debug)]
pub(crate) struct Pickle {
    bytes: Vec<u8>,
    objects: Vec<Object>,
    root: Id,
}

impl Pickle {
    /// Parses the pickle at the start of `bytes`, all of which it keeps, and says where it ends.
    pub(crate) fn parse(bytes: Vec<u8>, start: usize) -> Result<(Pickle, usize), PthError> {
        // Positions in the pickle are kept in 32 bits.
        if bytes.len() as u64 > u64::from(u32::MAX) {
            let what = format!("a pickle of {} bytes", bytes.len());
            return Err(PthError::TooLarge { what, limit: u32::MAX.into() });
        }
        let mut machine = Machine {
            bytes: &bytes,
            position: start,
            instruction: start,
            objects: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            pushed: 0,
        };
        let root = machine.run()?;
        let end = machine.position;
        let objects = machine.objects;
        let pickle = Pickle { bytes, objects, root };
        pickle.refuse_cycles()?;
        Ok((pickle, end))
    }

    /// Hands the bytes back, to parse another pickle after this one.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Forgets the bytes after `end`, where the pickle ends.
    pub(crate) fn truncate(&mut self, end: usize) {
        self.bytes.truncate(end);
        self.bytes.shrink_to_fit();
    }

    pub(crate) fn inline(&self, place: Inline) -> &[u8] {
        self.span(place.0)
    }

    pub(crate) fn root(&self) -> Value<'_> {
        Value { pickle: self, id: self.root }
    }

    /// Key, type and count of numbers of every storage that is spoken of.
    pub(crate) fn storages(&self) -> impl Iterator<Item = (&str, Dtype, u64)> {
        self.objects.iter().filter_map(|object| match *object {
            Object::Storage { dtype, key, count } => Some((self.text(key), dtype, count)),
            _ => None,
        })
    }

    /// Every tensor.
    pub(crate) fn tensors(&self) -> impl Iterator<Item = Value<'_>> {
        let ids = (0..).zip(&self.objects);
        ids.filter(|(_, object)| matches!(object, Object::Tensor { .. }))
            .map(|(id, _)| Value { pickle: self, id })
    }

    fn text(&self, span: Span) -> &str {
        // Checked when the object was made.
        std::str::from_utf8(self.span(span)).unwrap_or_default()
    }

    fn span(&self, span: Span) -> &[u8] {
        &self.bytes[span.start as usize..][..span.length as usize]
    }

    fn children(&self, id: Id) -> Vec<Id> {
        match &self.objects[id as usize] {
            Object::List(items) | Object::Tuple(items) | Object::Set(items) => items.clone(),
            Object::Dict(items) => items.iter().flat_map(|&(key, value)| [key, value]).collect(),
            Object::Tensor { storage, offset, shape, strides } => {
                vec![*storage, *offset, *shape, *strides]
            }
            Object::Plain { arguments, state, .. } => {
                std::iter::once(*arguments).chain(*state).collect()
            }
            _ => Vec::new(),
        }
    }

    /// An object that contains itself would make whoever walks the objects walk for ever.
    fn refuse_cycles(&self) -> Result<(), PthError> {
        #[derive(Clone, Copy, PartialEq)]
        enum State {
            New,
            Open,
            Done,
        }
        let mut states = vec![State::New; self.objects.len()];
        let mut path: Vec<(Id, std::vec::IntoIter<Id>)> = Vec::new();
        for start in 0..self.objects.len() as Id {
            if states[start as usize] != State::New {
                continue;
            }
            states[start as usize] = State::Open;
            path.push((start, self.children(start).into_iter()));
            while let Some((id, children)) = path.last_mut() {
                match children.next() {
                    Some(child) => match states[child as usize] {
                        State::New => {
                            states[child as usize] = State::Open;
                            path.push((child, self.children(child).into_iter()));
                        }
                        State::Open => {
                            let reason = "an object contains itself".to_owned();
                            return Err(PthError::Pickle { reason, position: self.bytes.len() });
                        }
                        State::Done => {}
                    },
                    None => {
                        states[*id as usize] = State::Done;
                        path.pop();
                    }
                }
            }
        }
        Ok(())
    }
}

/// An object of a checkpoint.
#[derive(Debug, Clone, Copy)]
pub struct Value<'a> {
    pickle: &'a Pickle,
    id: Id,
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
    pub(crate) fn view(self) -> Result<Option<View<'a>>, PthError> {
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
        Ok(Some(View { key, dtype, count, offset, shape, strides }))
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

    /// Type, shape and place of a numpy array that lies in the pickle itself.
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

/// What a tensor of the pickle says of itself; believed by nobody yet.
pub(crate) struct View<'a> {
    pub(crate) key: &'a str,
    pub(crate) dtype: Dtype,
    pub(crate) count: u64,
    pub(crate) offset: u64,
    pub(crate) shape: Vec<u64>,
    pub(crate) strides: Vec<u64>,
}

/// The machine while it runs.
struct Machine<'a> {
    bytes: &'a [u8],
    position: usize,
    /// Where the instruction in work begins.
    instruction: usize,
    objects: Vec<Object>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    pushed: usize,
}

impl<'a> Machine<'a> {
    fn run(&mut self) -> Result<Id, PthError> {
        loop {
            self.instruction = self.position;
            let [code] = self.take()?;
            match code {
                // PROTO, FRAME: what follows is versioned and framed; neither matters here.
                b'\x80' => match self.take()? {
                    [2..=5] => {}
                    [other] => return Err(self.wrong(format!("protocol {other}"))),
                },
                b'\x95' => drop(self.take::<8>()?),
                // STOP
                b'.' => return self.pop(),
                // MARK, POP, POP_MARK, DUP
                b'(' => {
                    self.count()?;
                    self.marks.push(self.stack.len());
                }
                b'0' => drop(self.pop()?),
                b'1' => drop(self.pop_mark()?),
                b'2' => {
                    let top = self.top()?;
                    self.push_id(top)?;
                }
                // NONE, NEWTRUE, NEWFALSE
                b'N' => self.push(Object::None)?,
                b'\x88' => self.push(Object::Bool(true))?,
                b'\x89' => self.push(Object::Bool(false))?,
                // BININT, BININT1, BININT2, LONG1, LONG4
                b'J' => {
                    let number = i32::from_le_bytes(self.take()?);
                    self.push(Object::Int(number.into()))?;
                }
                b'K' => {
                    let number = u8::from_le_bytes(self.take()?);
                    self.push(Object::Int(number.into()))?;
                }
                b'M' => {
                    let number = u16::from_le_bytes(self.take()?);
                    self.push(Object::Int(number.into()))?;
                }
                b'\x8a' => {
                    let [length] = self.take()?;
                    self.long(length.into())?;
                }
                b'\x8b' => {
                    let length = u32::from_le_bytes(self.take()?);
                    self.long(length.into())?;
                }
                // BINFLOAT
                b'G' => {
                    let number = f64::from_be_bytes(self.take()?);
                    self.push(Object::Float(number))?;
                }
                // BINUNICODE, SHORT_BINUNICODE, BINUNICODE8; BINSTRING, SHORT_BINSTRING (Python 2)
                b'X' | b'T' => {
                    let length = u32::from_le_bytes(self.take()?);
                    self.text(length.into())?;
                }
                b'\x8c' | b'U' => {
                    let [length] = self.take()?;
                    self.text(length.into())?;
                }
                b'\x8d' => {
                    let length = u64::from_le_bytes(self.take()?);
                    self.text(length)?;
                }
                // BINBYTES, SHORT_BINBYTES, BINBYTES8
                b'B' => {
                    let length = u32::from_le_bytes(self.take()?);
                    let span = self.span(length.into())?;
                    self.push(Object::Bytes(span))?;
                }
                b'C' => {
                    let [length] = self.take()?;
                    let span = self.span(length.into())?;
                    self.push(Object::Bytes(span))?;
                }
                b'\x8e' => {
                    let length = u64::from_le_bytes(self.take()?);
                    let span = self.span(length)?;
                    self.push(Object::Bytes(span))?;
                }
                // EMPTY_LIST, LIST, APPEND, APPENDS
                b']' => self.push(Object::List(Vec::new()))?,
                b'l' => {
                    let items = self.pop_mark()?;
                    self.push(Object::List(items))?;
                }
                b'a' => {
                    let item = self.pop()?;
                    self.append(vec![item])?;
                }
                b'e' => {
                    let items = self.pop_mark()?;
                    self.append(items)?;
                }
                // EMPTY_TUPLE, TUPLE, TUPLE1, TUPLE2, TUPLE3
                b')' => self.push(Object::Tuple(Vec::new()))?,
                b't' => {
                    let items = self.pop_mark()?;
                    self.push(Object::Tuple(items))?;
                }
                b'\x85'..=b'\x87' => {
                    let items = self.pop_some(usize::from(code - b'\x84'))?;
                    self.push(Object::Tuple(items))?;
                }
                // EMPTY_DICT, DICT, SETITEM, SETITEMS
                b'}' => self.push(Object::Dict(Vec::new()))?,
                b'd' => {
                    let items = self.pop_mark()?;
                    self.push(Object::Dict(Vec::new()))?;
                    self.set(&items)?;
                }
                b's' => {
                    let items = self.pop_some(2)?;
                    self.set(&items)?;
                }
                b'u' => {
                    let items = self.pop_mark()?;
                    self.set(&items)?;
                }
                // EMPTY_SET, FROZENSET, ADDITEMS
                b'\x8f' => self.push(Object::Set(Vec::new()))?,
                b'\x91' => {
                    let items = self.pop_mark()?;
                    self.push(Object::Set(items))?;
                }
                b'\x90' => {
                    let items = self.pop_mark()?;
                    self.append(items)?;
                }
                // BINPUT, LONG_BINPUT, MEMOIZE; BINGET, LONG_BINGET
                b'q' => {
                    let [number] = self.take()?;
                    self.memoise(number.into())?;
                }
                b'r' => {
                    let number = u32::from_le_bytes(self.take()?);
                    self.memoise(number)?;
                }
                b'\x94' => self.memoise(self.memo.len() as u32)?,
                b'h' => {
                    let [number] = self.take()?;
                    self.recall(number.into())?;
                }
                b'j' => {
                    let number = u32::from_le_bytes(self.take()?);
                    self.recall(number)?;
                }
                // GLOBAL, STACK_GLOBAL
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.global(module, name)?;
                }
                b'\x93' => {
                    let names = self.pop_some(2)?;
                    let text = |id: Id| match self.objects[id as usize] {
                        Object::Text(span) => std::str::from_utf8(self.bytes(span)).ok(),
                        _ => None,
                    };
                    match (text(names[0]), text(names[1])) {
                        (Some(module), Some(name)) => self.global(module, name)?,
                        _ => return Err(self.wrong("a name that is no text")),
                    }
                }
                // REDUCE, NEWOBJ: "call" and "make an instance".
                b'R' | b'\x81' => self.make()?,
                // BUILD: "give it this state".
                b'b' => self.build()?,
                // BINPERSID: a storage.
                b'Q' => self.storage()?,
                other => {
                    let (name, position) = (instruction_name(other), self.instruction);
                    return Err(PthError::Instruction { name, position });
                }
            }
        }
    }

    fn wrong(&self, reason: impl Into<String>) -> PthError {
        PthError::Pickle { reason: reason.into(), position: self.instruction }
    }

    fn slice(&mut self, length: u64) -> Result<&'a [u8], PthError> {
        let left = &self.bytes[self.position..];
        match usize::try_from(length).ok().and_then(|length| left.get(..length)) {
            Some(slice) => {
                self.position += slice.len();
                Ok(slice)
            }
            None => {
                Err(self.wrong(format!("{length} bytes are promised, {} are left", left.len())))
            }
        }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], PthError> {
        let slice = self.slice(N as u64)?;
        slice.try_into().map_err(|_| self.wrong("too short"))
    }

    fn span(&mut self, length: u64) -> Result<Span, PthError> {
        // Both fit: a pickle has at most MAX_PICKLE bytes.
        let start = self.position as u32;
        let length = self.slice(length)?.len() as u32;
        Ok(Span { start, length })
    }

    fn bytes(&self, span: Span) -> &'a [u8] {
        &self.bytes[span.start as usize..][..span.length as usize]
    }

    /// Up to the end of the line, which is not part of it.
    fn line(&mut self) -> Result<&'a str, PthError> {
        let left = &self.bytes[self.position..];
        let Some(length) = left.iter().position(|&byte| byte == b'\n') else {
            return Err(self.wrong("a name without an end"));
        };
        self.position += length + 1;
        std::str::from_utf8(&left[..length]).map_err(|_| self.wrong("a name that is no text"))
    }

    fn text(&mut self, length: u64) -> Result<(), PthError> {
        let span = self.span(length)?;
        match std::str::from_utf8(self.bytes(span)) {
            Ok(_) => self.push(Object::Text(span)),
            // Python 2 wrote bytes and text alike.
            Err(_) => self.push(Object::Bytes(span)),
        }
    }

    /// A little-endian two's complement number of any length.
    fn long(&mut self, length: u64) -> Result<(), PthError> {
        let bytes = self.slice(length)?;
        if bytes.len() > 8 {
            return Err(self.wrong("a whole number longer than 64 bits"));
        }
        let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let mut number = [if negative { 0xff } else { 0 }; 8];
        number[..bytes.len()].copy_from_slice(bytes);
        self.push(Object::Int(i64::from_le_bytes(number)))
    }

    fn count(&mut self) -> Result<(), PthError> {
        self.pushed += 1;
        if self.pushed > MAX_OBJECTS {
            let what = format!("more than {MAX_OBJECTS} objects");
            return Err(PthError::TooLarge { what, limit: MAX_OBJECTS as u64 });
        }
        Ok(())
    }

    fn push_id(&mut self, id: Id) -> Result<(), PthError> {
        self.count()?;
        self.stack.push(id);
        Ok(())
    }

    fn push(&mut self, object: Object) -> Result<(), PthError> {
        self.count()?;
        self.objects.push(object);
        self.stack.push(self.objects.len() as Id - 1);
        Ok(())
    }

    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn top(&self) -> Result<Id, PthError> {
        match self.stack.last() {
            Some(&top) if self.stack.len() > self.floor() => Ok(top),
            _ => Err(self.wrong("an object is needed where there is none")),
        }
    }

    fn pop(&mut self) -> Result<Id, PthError> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn pop_some(&mut self, count: usize) -> Result<Vec<Id>, PthError> {
        match self.stack.len().checked_sub(count) {
            Some(start) if start >= self.floor() => Ok(self.stack.split_off(start)),
            _ => Err(self.wrong("an object is needed where there is none")),
        }
    }

    fn pop_mark(&mut self) -> Result<Vec<Id>, PthError> {
        match self.marks.pop() {
            Some(mark) => Ok(self.stack.split_off(mark)),
            None => Err(self.wrong("an end without a beginning")),
        }
    }

    fn append(&mut self, more: Vec<Id>) -> Result<(), PthError> {
        let list = self.top()?;
        match &mut self.objects[list as usize] {
            Object::List(items) | Object::Set(items) => items.extend(more),
            _ => return Err(self.wrong("items for what is no list")),
        }
        Ok(())
    }

    fn set(&mut self, items: &[Id]) -> Result<(), PthError> {
        let dict = self.top()?;
        let (pairs, []) = items.as_chunks::<2>() else {
            return Err(self.wrong("a key without a value"));
        };
        match &mut self.objects[dict as usize] {
            Object::Dict(entries) => entries.extend(pairs.iter().map(|&[key, value]| (key, value))),
            // A Counter or defaultdict: what is in it is of no interest.
            Object::Plain { .. } => {}
            _ => return Err(self.wrong("entries for what is no dict")),
        }
        Ok(())
    }

    fn memoise(&mut self, number: u32) -> Result<(), PthError> {
        self.count()?;
        let top = self.top()?;
        self.memo.insert(number, top);
        Ok(())
    }

    fn recall(&mut self, number: u32) -> Result<(), PthError> {
        match self.memo.get(&number) {
            Some(&id) => self.push_id(id),
            None => Err(self.wrong(format!("object {number} is recalled before it is kept"))),
        }
    }

    fn global(&mut self, module: &str, name: &str) -> Result<(), PthError> {
        match global(module, name) {
            Some(global) => self.push(Object::Global(global)),
            None => {
                // A name from a hostile file may be of any length and alphabet.
                let shown: String = format!("{module}.{name}").escape_debug().take(100).collect();
                Err(PthError::Global { name: shown, position: self.instruction })
            }
        }
    }

    /// What a call of a known name would have made.
    fn make(&mut self) -> Result<(), PthError> {
        let [callee, arguments] = self.pop_some(2)?[..] else {
            return Err(self.wrong("a call without arguments"));
        };
        let Object::Global(global) = self.objects[callee as usize] else {
            return Err(self.wrong("a call of what is no name"));
        };
        let Object::Tuple(items) = &self.objects[arguments as usize] else {
            return Err(self.wrong("arguments that are no tuple"));
        };
        match (global, &items[..]) {
            (Global::OrderedDict, []) => self.push(Object::Dict(Vec::new())),
            (Global::OrderedDict, &[pairs]) => {
                let pairs = self.pairs(pairs)?;
                self.push(Object::Dict(pairs))
            }
            (Global::RebuildTensor, &[storage, offset, shape, strides])
            | (Global::RebuildTensorV2, &[storage, offset, shape, strides, _, _])
            | (Global::RebuildTensorV2, &[storage, offset, shape, strides, _, _, _]) => {
                match self.objects[storage as usize] {
                    Object::Storage { .. } => {
                        self.push(Object::Tensor { storage, offset, shape, strides })
                    }
                    _ => Err(self.wrong("a tensor without a storage")),
                }
            }
            (Global::RebuildParameter, &[tensor, _, _])
                if matches!(self.objects[tensor as usize], Object::Tensor { .. }) =>
            {
                self.push_id(tensor)
            }
            (Global::Size, &[sizes]) => self.push_id(sizes),
            (Global::Plain(PlainClass::NumpyReconstruct), _) => {
                let class = PlainClass::NumpyArray;
                self.push(Object::Plain { class, arguments, state: None })
            }
            (Global::Plain(class), _) => self.push(Object::Plain { class, arguments, state: None }),
            (global, items) => {
                let reason = format!("{global:?} with {} arguments", items.len());
                Err(self.wrong(reason))
            }
        }
    }

    /// A list of pairs, as Python 2 wrote an OrderedDict.
    fn pairs(&self, list: Id) -> Result<Vec<(Id, Id)>, PthError> {
        let (Object::List(pairs) | Object::Tuple(pairs)) = &self.objects[list as usize] else {
            return Err(self.wrong("a dict of what are no pairs"));
        };
        let pair = |&pair: &Id| match &self.objects[pair as usize] {
            Object::List(pair) | Object::Tuple(pair) if pair.len() == 2 => Ok((pair[0], pair[1])),
            _ => Err(self.wrong("a dict of what are no pairs")),
        };
        pairs.iter().map(pair).collect()
    }

    fn build(&mut self) -> Result<(), PthError> {
        let new_state = self.pop()?;
        let top = self.top()?;
        match &mut self.objects[top as usize] {
            Object::Plain { state, .. } => *state = Some(new_state),
            // Attributes of a dict, such as the `_metadata` of a state dict.
            Object::Dict(_) => {}
            _ => return Err(self.wrong("a state for what has none")),
        }
        Ok(())
    }

    /// ('storage', class, key, device, count[, none])
    fn storage(&mut self) -> Result<(), PthError> {
        let id = self.pop()?;
        let Object::Tuple(items) = &self.objects[id as usize] else {
            return Err(self.wrong("a storage that is described by no tuple"));
        };
        let objects: Vec<&Object> = items.iter().map(|&id| &self.objects[id as usize]).collect();
        match objects[..] {
            [
                Object::Text(word),
                &Object::Global(Global::Storage(dtype)),
                &Object::Text(key),
                Object::Text(_),
                &Object::Int(count),
            ]
            | [
                Object::Text(word),
                &Object::Global(Global::Storage(dtype)),
                &Object::Text(key),
                Object::Text(_),
                &Object::Int(count),
                Object::None,
            ] if self.bytes(*word) == b"storage" => match u64::try_from(count) {
                Ok(count) => self.push(Object::Storage { dtype, key, count }),
                Err(_) => Err(self.wrong(format!("a storage of {count} numbers"))),
            },
            _ => Err(self.wrong("something outside the pickle that is no storage")),
        }
    }
}

/// Python's name of an instruction that is refused.
fn instruction_name(code: u8) -> String {
    let name = match code {
        b'i' => "INST",
        b'o' => "OBJ",
        b'\x92' => "NEWOBJ_EX",
        b'\x82' => "EXT1",
        b'\x83' => "EXT2",
        b'\x84' => "EXT4",
        b'P' => "PERSID",
        b'\x96' => "BYTEARRAY8",
        b'\x97' => "NEXT_BUFFER",
        b'\x98' => "READONLY_BUFFER",
        // Protocols 0 and 1, which torch.save never used.
        b'I' => "INT",
        b'L' => "LONG",
        b'F' => "FLOAT",
        b'S' => "STRING",
        b'V' => "UNICODE",
        b'p' => "PUT",
        b'g' => "GET",
        other => return format!("{other:#04x}"),
    };
    name.to_owned()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(bytes: &[u8]) -> Result<Pickle, PthError> {
        Pickle::parse(bytes.to_vec(), 0).map(|(pickle, _)| pickle)
    }

    #[test]
    fn containers_and_numbers_come_out_as_they_went_in() {
        // pickle.dumps({"a": [1, -2, 300, 70000, 2.5, None, True], "b": ("x", b"y")}, 2..=4), by hand
        let bytes =
            b"\x80\x04}(X\x01\x00\x00\x00a](K\x01J\xfe\xff\xff\xffM\x2c\x01J\x70\x11\x01\x00\
            G\x40\x04\x00\x00\x00\x00\x00\x00N\x88e\x8c\x01b\x8c\x01xC\x01y\x86u.";
        let pickle = parse(bytes).unwrap();
        let list: Vec<String> =
            pickle.root().get("a").unwrap().items().unwrap().map(|v| v.to_string()).collect();
        assert_eq!(list, ["1", "-2", "300", "70000", "2.5", "None", "true"]);
        assert!(pickle.root().get("c").is_none());
    }

    #[test]
    fn what_could_run_code_is_named() {
        let cases: [(&[u8], &str); 6] = [
            (b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.", "os.system"),
            (b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R.", "builtins.eval"),
            (b"(S'ls'\nios\nsystem\n.", "STRING"),
            (b"\x80\x02(ios\nsystem\n.", "INST"),
            (b"\x80\x02(c__builtin__\ngetattr\no.", "getattr"),
            (b"\x80\x02\x82\x01.", "EXT1"),
        ];
        for (bytes, name) in cases {
            let error = parse(bytes).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("byte "), "{error}");
        }
    }

    #[test]
    fn an_object_that_contains_itself_is_refused() {
        for bytes in [
            &b"\x80\x02]q\x00h\x00a."[..],
            b"\x80\x02}q\x00K\x01h\x00s.",
            b"\x80\x02]q\x00(]q\x01h\x00ah\x01e.",
        ] {
            assert!(parse(bytes).unwrap_err().to_string().contains("contains itself"));
        }
        // Sharing is no cycle, however often.
        assert!(parse(b"\x80\x02]q\x00](h\x00h\x00e.").is_ok());
    }

    #[test]
    fn a_broken_pickle_is_an_error() {
        for bytes in [
            &b""[..],
            b"\x80",
            b"\x80\x02.",
            b"\x80\x09N.",
            b"\x80\x02a.",
            b"\x80\x02Na.",
            b"\x80\x02]N(e0.",
            b"\x80\x02}NNNu.",
            b"\x80\x02h\x05.",
            b"\x80\x02X\xff\xff\xff\xffa.",
            b"\x80\x02\x8d\xff\xff\xff\xff\xff\xff\xff\xffa.",
            b"\x80\x02(N\x86.",
            b"\x80\x02e.",
            b"\x80\x02NNR.",
            b"\x80\x02NQ.",
            b"\x80\x02NNb.",
            b"\x80\x02ctorch\nSize",
        ] {
            let error = parse(bytes).unwrap_err();
            assert!(matches!(error, PthError::Pickle { .. }), "{bytes:?}: {error}");
        }
    }

    #[test]
    fn more_objects_than_any_checkpoint_has_are_refused() {
        let many = [&b"\x80\x02"[..], &vec![b']'; MAX_OBJECTS + 1], b"."].concat();
        assert!(matches!(parse(&many), Err(PthError::TooLarge { .. })));
    }
}
