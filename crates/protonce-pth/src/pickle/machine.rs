//! The stack machine that a pickle is a program for, without the ability to call anything.
//!
//! Instructions push objects, collect them into containers, and keep them for later. Where Python would
//! call a function, `calls` makes the object that the call would have made, or refuses.

use std::collections::HashMap;

use super::input::Input;
use super::object::{Id, Object};
use super::opcode;
use crate::PthError;
use crate::limits::MAX_OBJECTS;

/// The machine while it runs.
pub(super) struct Machine<'a> {
    pub(super) input: Input<'a>,
    pub(super) objects: Vec<Object>,
    stack: Vec<Id>,
    /// Heights of the stack at which something began that is collected later.
    marks: Vec<usize>,
    /// Objects that the pickle keeps under a number.
    memo: HashMap<u32, Id>,
    /// Objects pushed and numbers kept so far, which are limited.
    pushed: usize,
    /// Names of classes and functions without a meaning here, each once.
    pub(super) passed_over: Vec<String>,
}

impl<'a> Machine<'a> {
    /// A machine at the beginning of the pickle that begins at `start` of `bytes`.
    pub(super) fn new(bytes: &'a [u8], start: usize) -> Machine<'a> {
        Machine {
            input: Input::new(bytes, start),
            objects: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            pushed: 0,
            passed_over: Vec::new(),
        }
    }

    /// Runs to the end of the pickle and gives the object that it stands for.
    pub(super) fn run(&mut self) -> Result<Id, PthError> {
        loop {
            let code = self.input.opcode()?;
            match code {
                // What follows is versioned and framed; neither matters here.
                opcode::PROTO => match self.input.take()? {
                    [2..=5] => {}
                    [other] => return Err(self.input.wrong(format!("protocol {other}"))),
                },
                opcode::FRAME => drop(self.input.take::<8>()?),
                opcode::STOP => return self.pop(),
                opcode::MARK => {
                    self.count()?;
                    self.marks.push(self.stack.len());
                }
                opcode::POP => drop(self.pop()?),
                opcode::POP_MARK => drop(self.pop_mark()?),
                opcode::DUP => {
                    let top = self.top()?;
                    self.push_id(top)?;
                }
                opcode::NONE => self.push(Object::None)?,
                opcode::NEWTRUE => self.push(Object::Bool(true))?,
                opcode::NEWFALSE => self.push(Object::Bool(false))?,
                opcode::BININT => {
                    let number = i32::from_le_bytes(self.input.take()?);
                    self.push(Object::Int(number.into()))?;
                }
                opcode::BININT1 => {
                    let number = u8::from_le_bytes(self.input.take()?);
                    self.push(Object::Int(number.into()))?;
                }
                opcode::BININT2 => {
                    let number = u16::from_le_bytes(self.input.take()?);
                    self.push(Object::Int(number.into()))?;
                }
                opcode::LONG1 => {
                    let [length] = self.input.take()?;
                    self.long(length.into())?;
                }
                opcode::LONG4 => {
                    let length = u32::from_le_bytes(self.input.take()?);
                    self.long(length.into())?;
                }
                opcode::BINFLOAT => {
                    let number = f64::from_be_bytes(self.input.take()?);
                    self.push(Object::Float(number))?;
                }
                opcode::BINUNICODE | opcode::BINSTRING => {
                    let length = u32::from_le_bytes(self.input.take()?);
                    self.text(length.into())?;
                }
                opcode::SHORT_BINUNICODE | opcode::SHORT_BINSTRING => {
                    let [length] = self.input.take()?;
                    self.text(length.into())?;
                }
                opcode::BINUNICODE8 => {
                    let length = u64::from_le_bytes(self.input.take()?);
                    self.text(length)?;
                }
                opcode::BINBYTES => {
                    let length = u32::from_le_bytes(self.input.take()?);
                    let span = self.input.span(length.into())?;
                    self.push(Object::Bytes(span))?;
                }
                opcode::SHORT_BINBYTES => {
                    let [length] = self.input.take()?;
                    let span = self.input.span(length.into())?;
                    self.push(Object::Bytes(span))?;
                }
                opcode::BINBYTES8 => {
                    let length = u64::from_le_bytes(self.input.take()?);
                    let span = self.input.span(length)?;
                    self.push(Object::Bytes(span))?;
                }
                opcode::EMPTY_LIST => self.push(Object::List(Vec::new()))?,
                opcode::LIST => {
                    let items = self.pop_mark()?;
                    self.push(Object::List(items))?;
                }
                opcode::APPEND => {
                    let item = self.pop()?;
                    self.append(vec![item])?;
                }
                opcode::APPENDS => {
                    let items = self.pop_mark()?;
                    self.append(items)?;
                }
                opcode::EMPTY_TUPLE => self.push(Object::Tuple(Vec::new()))?,
                opcode::TUPLE => {
                    let items = self.pop_mark()?;
                    self.push(Object::Tuple(items))?;
                }
                opcode::TUPLE1 | opcode::TUPLE2 | opcode::TUPLE3 => {
                    let items = self.pop_some(usize::from(code - opcode::TUPLE1 + 1))?;
                    self.push(Object::Tuple(items))?;
                }
                opcode::EMPTY_DICT => self.push(Object::Dict(Vec::new()))?,
                opcode::DICT => {
                    let items = self.pop_mark()?;
                    self.push(Object::Dict(Vec::new()))?;
                    self.set(&items)?;
                }
                opcode::SETITEM => {
                    let items = self.pop_some(2)?;
                    self.set(&items)?;
                }
                opcode::SETITEMS => {
                    let items = self.pop_mark()?;
                    self.set(&items)?;
                }
                opcode::EMPTY_SET => self.push(Object::Set(Vec::new()))?,
                opcode::FROZENSET => {
                    let items = self.pop_mark()?;
                    self.push(Object::Set(items))?;
                }
                opcode::ADDITEMS => {
                    let items = self.pop_mark()?;
                    self.append(items)?;
                }
                opcode::BINPUT => {
                    let [number] = self.input.take()?;
                    self.memoise(number.into())?;
                }
                opcode::LONG_BINPUT => {
                    let number = u32::from_le_bytes(self.input.take()?);
                    self.memoise(number)?;
                }
                opcode::MEMOIZE => self.memoise(self.memo.len() as u32)?,
                opcode::BINGET => {
                    let [number] = self.input.take()?;
                    self.recall(number.into())?;
                }
                opcode::LONG_BINGET => {
                    let number = u32::from_le_bytes(self.input.take()?);
                    self.recall(number)?;
                }
                opcode::GLOBAL => {
                    let (module, name) = (self.input.line()?, self.input.line()?);
                    self.global(module, name)?;
                }
                opcode::STACK_GLOBAL => {
                    let names = self.pop_some(2)?;
                    let text = |id: Id| match self.objects[id as usize] {
                        Object::Text(span) => std::str::from_utf8(self.input.bytes(span)).ok(),
                        _ => None,
                    };
                    match (text(names[0]), text(names[1])) {
                        (Some(module), Some(name)) => self.global(module, name)?,
                        _ => return Err(self.input.wrong("a name that is no text")),
                    }
                }
                // "Call", and "make an instance".
                opcode::REDUCE | opcode::NEWOBJ => self.make()?,
                opcode::NEWOBJ_EX => self.make_by_names()?,
                // "Give it this state".
                opcode::BUILD => self.build()?,
                opcode::BINPERSID => self.storage()?,
                other => {
                    let (name, position) = (opcode::name(other), self.input.instruction());
                    return Err(PthError::Instruction { name, position });
                }
            }
        }
    }

    fn text(&mut self, length: u64) -> Result<(), PthError> {
        let span = self.input.span(length)?;
        match std::str::from_utf8(self.input.bytes(span)) {
            Ok(_) => self.push(Object::Text(span)),
            // Python 2 wrote bytes and text alike.
            Err(_) => self.push(Object::Bytes(span)),
        }
    }

    /// A little-endian two's complement number of any length.
    fn long(&mut self, length: u64) -> Result<(), PthError> {
        let span = self.input.span(length)?;
        let bytes = self.input.bytes(span);
        if bytes.len() > 8 {
            // The state of a random generator, perhaps: no number that anything here asks for.
            return self.push(Object::Bytes(span));
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

    pub(super) fn push_id(&mut self, id: Id) -> Result<(), PthError> {
        self.count()?;
        self.stack.push(id);
        Ok(())
    }

    pub(super) fn push(&mut self, object: Object) -> Result<(), PthError> {
        self.count()?;
        self.objects.push(object);
        self.stack.push(self.objects.len() as Id - 1);
        Ok(())
    }

    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    pub(super) fn top(&self) -> Result<Id, PthError> {
        match self.stack.last() {
            Some(&top) if self.stack.len() > self.floor() => Ok(top),
            _ => Err(self.input.wrong("an object is needed where there is none")),
        }
    }

    pub(super) fn pop(&mut self) -> Result<Id, PthError> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    pub(super) fn pop_some(&mut self, count: usize) -> Result<Vec<Id>, PthError> {
        match self.stack.len().checked_sub(count) {
            Some(start) if start >= self.floor() => Ok(self.stack.split_off(start)),
            _ => Err(self.input.wrong("an object is needed where there is none")),
        }
    }

    fn pop_mark(&mut self) -> Result<Vec<Id>, PthError> {
        match self.marks.pop() {
            Some(mark) => Ok(self.stack.split_off(mark)),
            None => Err(self.input.wrong("an end without a beginning")),
        }
    }

    fn append(&mut self, more: Vec<Id>) -> Result<(), PthError> {
        let list = self.top()?;
        match &mut self.objects[list as usize] {
            Object::List(items) | Object::Set(items) => items.extend(more),
            // A class of its own that is a list too.
            Object::Plain { .. } => {}
            _ => return Err(self.input.wrong("items for what is no list")),
        }
        Ok(())
    }

    fn set(&mut self, items: &[Id]) -> Result<(), PthError> {
        let dict = self.top()?;
        let (pairs, []) = items.as_chunks::<2>() else {
            return Err(self.input.wrong("a key without a value"));
        };
        match &mut self.objects[dict as usize] {
            Object::Dict(entries) => entries.extend(pairs.iter().map(|&[key, value]| (key, value))),
            // A Counter or defaultdict: what is in it is of no interest.
            Object::Plain { .. } => {}
            _ => return Err(self.input.wrong("entries for what is no dict")),
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
            None => Err(self.input.wrong(format!("object {number} is recalled before it is kept"))),
        }
    }
}
