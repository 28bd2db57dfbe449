//! A check that no object contains itself: walking the objects would never end. What is passed over is
//! walked by nothing but a search with an end of its own, and often leads back to its owner.

use super::Pickle;
use super::names::PlainClass;
use super::object::{Id, Object};
use crate::PthError;

/// Refuses a pickle in which an object contains itself, directly or through others.
///
/// A depth-first walk with a stack of its own: a file nests objects as deeply as it likes.
pub(super) fn refuse(pickle: &Pickle) -> Result<(), PthError> {
    #[derive(Clone, Copy, PartialEq)]
    enum State {
        New,
        Open,
        Done,
    }
    let mut states = vec![State::New; pickle.objects.len()];
    let mut path: Vec<(Id, std::vec::IntoIter<Id>)> = Vec::new();
    for start in 0..pickle.objects.len() as Id {
        if states[start as usize] != State::New {
            continue;
        }
        states[start as usize] = State::Open;
        path.push((start, children(pickle, start).into_iter()));
        while let Some((id, left)) = path.last_mut() {
            match left.next() {
                Some(child) => match states[child as usize] {
                    State::New => {
                        states[child as usize] = State::Open;
                        path.push((child, children(pickle, child).into_iter()));
                    }
                    State::Open => {
                        let reason = "an object contains itself".to_owned();
                        return Err(PthError::Pickle { reason, position: pickle.bytes.len() });
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

fn children(pickle: &Pickle, id: Id) -> Vec<Id> {
    match &pickle.objects[id as usize] {
        Object::List(items) | Object::Tuple(items) | Object::Set(items) => items.clone(),
        Object::Dict(items) => items.iter().flat_map(|&(key, value)| [key, value]).collect(),
        Object::Tensor { storage, offset, shape, strides } => {
            vec![*storage, *offset, *shape, *strides]
        }
        Object::Plain { class: PlainClass::Opaque, .. } => Vec::new(),
        Object::Plain { arguments, state, .. } => {
            std::iter::once(*arguments).chain(*state).collect()
        }
        _ => Vec::new(),
    }
}
