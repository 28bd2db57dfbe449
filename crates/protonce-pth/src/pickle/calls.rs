//! What Python would call, and what is made instead: tensors, storages, plain objects.

use super::machine::Machine;
use super::names::{self, KnownName, PlainClass};
use super::object::{Id, Object};
use crate::PthError;
use crate::limits::MAX_NAMES;

impl Machine<'_> {
    /// Puts a name on the stack, and refuses one that runs programs or code.
    pub(super) fn global(&mut self, module: &str, name: &str) -> Result<(), PthError> {
        // A name from a hostile file may be of any length and alphabet.
        let shown = || format!("{module}.{name}").escape_debug().take(100).collect::<String>();
        let Some(known) = names::find(module, name) else {
            return Err(PthError::Global { name: shown(), position: self.input.instruction() });
        };
        if known == KnownName::Plain(PlainClass::Opaque) && self.passed_over.len() < MAX_NAMES {
            let shown = shown();
            if !self.passed_over.contains(&shown) {
                self.passed_over.push(shown);
            }
        }
        self.push(Object::Global(known))
    }

    /// What a call of a known name would have made.
    pub(super) fn make(&mut self) -> Result<(), PthError> {
        let [callee, arguments] = self.pop_some(2)?[..] else {
            return Err(self.input.wrong("a call without arguments"));
        };
        self.call(callee, arguments)
    }

    /// As [`Machine::make`], with arguments by name, which nothing known here has.
    pub(super) fn make_by_names(&mut self) -> Result<(), PthError> {
        self.pop()?;
        self.make()
    }

    fn call(&mut self, callee: Id, arguments: Id) -> Result<(), PthError> {
        let known = match self.objects[callee as usize] {
            Object::Global(known) => known,
            // What a class that is passed over makes may be called in turn, as functools.partial is.
            Object::Plain { class: class @ PlainClass::Opaque, .. } => KnownName::Plain(class),
            _ => return Err(self.input.wrong("a call of what is no name")),
        };
        let Object::Tuple(items) = &self.objects[arguments as usize] else {
            return Err(self.input.wrong("arguments that are no tuple"));
        };
        match (known, &items[..]) {
            (KnownName::OrderedDict, []) => self.push(Object::Dict(Vec::new())),
            (KnownName::OrderedDict, &[pairs]) => {
                let pairs = self.pairs(pairs)?;
                self.push(Object::Dict(pairs))
            }
            (KnownName::RebuildTensor, &[storage, offset, shape, strides])
            | (KnownName::RebuildTensorV2, &[storage, offset, shape, strides, _, _])
            | (KnownName::RebuildTensorV2, &[storage, offset, shape, strides, _, _, _]) => {
                match self.objects[storage as usize] {
                    Object::Storage { .. } => {
                        self.push(Object::Tensor { storage, offset, shape, strides })
                    }
                    // Numbers of a type that no encoder has.
                    Object::Plain { class: PlainClass::Opaque, .. } => self.push_id(storage),
                    _ => Err(self.input.wrong("a tensor without a storage")),
                }
            }
            (KnownName::RebuildParameter, &[tensor, _, _] | &[tensor, _, _, _])
                if matches!(
                    self.objects[tensor as usize],
                    Object::Tensor { .. } | Object::Plain { class: PlainClass::Opaque, .. }
                ) =>
            {
                self.push_id(tensor)
            }
            // A tensor with attributes, or of a class of its own: what would make the plain one.
            (KnownName::RebuildFromType, &[function, _, arguments, _]) => {
                match self.objects[function as usize] {
                    Object::Global(
                        KnownName::RebuildTensor
                        | KnownName::RebuildTensorV2
                        | KnownName::RebuildParameter,
                    ) => self.call(function, arguments),
                    _ => self.opaque(arguments),
                }
            }
            (KnownName::Size, &[sizes]) => self.push_id(sizes),
            (KnownName::Plain(PlainClass::NumpyReconstruct), _) => {
                let class = PlainClass::NumpyArray;
                self.push(Object::Plain { class, arguments, state: None })
            }
            (KnownName::Plain(class), _) => {
                self.push(Object::Plain { class, arguments, state: None })
            }
            (known, items) => {
                let reason = format!("{known:?} with {} arguments", items.len());
                Err(self.input.wrong(reason))
            }
        }
    }

    fn opaque(&mut self, arguments: Id) -> Result<(), PthError> {
        self.push(Object::Plain { class: PlainClass::Opaque, arguments, state: None })
    }

    /// A list of pairs, as Python 2 wrote an OrderedDict.
    fn pairs(&self, list: Id) -> Result<Vec<(Id, Id)>, PthError> {
        let (Object::List(pairs) | Object::Tuple(pairs)) = &self.objects[list as usize] else {
            return Err(self.input.wrong("a dict of what are no pairs"));
        };
        let pair = |&pair: &Id| match &self.objects[pair as usize] {
            Object::List(pair) | Object::Tuple(pair) if pair.len() == 2 => Ok((pair[0], pair[1])),
            _ => Err(self.input.wrong("a dict of what are no pairs")),
        };
        pairs.iter().map(pair).collect()
    }

    /// Keeps the state that Python would give to an object after it is made.
    pub(super) fn build(&mut self) -> Result<(), PthError> {
        let new_state = self.pop()?;
        let top = self.top()?;
        match &mut self.objects[top as usize] {
            Object::Plain { state, .. } => *state = Some(new_state),
            // Attributes of a dict, such as the `_metadata` of a state dict, or of a tensor.
            Object::Dict(_) | Object::Tensor { .. } => {}
            _ => return Err(self.input.wrong("a state for what has none")),
        }
        Ok(())
    }

    /// A storage, which lies outside the pickle and is described by ('storage', class, key, device,
    /// count[, none]). PyTorch before 1.6 put the classes of modules there too, with their source.
    pub(super) fn storage(&mut self) -> Result<(), PthError> {
        let id = self.pop()?;
        let Object::Tuple(items) = &self.objects[id as usize] else {
            return Err(self.input.wrong("a storage that is described by no tuple"));
        };
        let objects: Vec<&Object> = items.iter().map(|&id| &self.objects[id as usize]).collect();
        match objects[..] {
            [
                Object::Text(word),
                &Object::Global(KnownName::Storage(dtype)),
                &Object::Text(key),
                Object::Text(_),
                &Object::Int(count),
            ]
            | [
                Object::Text(word),
                &Object::Global(KnownName::Storage(dtype)),
                &Object::Text(key),
                Object::Text(_),
                &Object::Int(count),
                Object::None,
            ] if self.input.bytes(*word) == b"storage" => match u64::try_from(count) {
                Ok(count) => self.push(Object::Storage { dtype, key, count }),
                Err(_) => Err(self.input.wrong(format!("a storage of {count} numbers"))),
            },
            [
                Object::Text(word),
                Object::Global(KnownName::Plain(PlainClass::Opaque)),
                Object::Text(_),
                Object::Text(_),
                Object::Int(_),
                ..,
            ] if self.input.bytes(*word) == b"storage" => self.opaque(id),
            [Object::Text(word), Object::Global(KnownName::Plain(PlainClass::Opaque)), ..]
                if self.input.bytes(*word) == b"module" =>
            {
                self.push_id(items[1])
            }
            _ => Err(self.input.wrong("something outside the pickle that is no storage")),
        }
    }
}
