//! State dicts: tensors by name, wherever in a checkpoint they lie.
//!
//! Enters: the object that was saved. Leaves: a [`StateDict`] for each dict that holds tensors under text
//! keys, however deep, and for each whole module, whose tensors get the names that PyTorch's
//! `state_dict()` would give them.

use std::collections::{HashSet, VecDeque};

use crate::limits::{MAX_KEY, MAX_MEMBERS, MAX_MODULES, MAX_PATH, MEMBER};
use crate::pickle::Value;

/// Tensors by name, and where in the file they lie.
#[derive(Debug, Clone)]
pub struct StateDict<'a> {
    /// The keys that lead to it; none for what was saved itself.
    pub path: Vec<&'a str>,
    /// Names and tensors. Of several with one name the last counts, as in Python.
    pub tensors: Vec<(String, Value<'a>)>,
}

/// Every state dict in `root`, those nearest to it first. Those that are beyond the [limits](crate::limits)
/// of depth and size are not found.
pub(crate) fn find(root: Value<'_>) -> Vec<StateDict<'_>> {
    let mut found = Vec::new();
    let mut seen = HashSet::from([root.identity()]);
    let mut left = VecDeque::from([(Vec::new(), root)]);
    let mut members = MAX_MEMBERS;
    while let Some((path, value)) = left.pop_front() {
        let mut tensors = Vec::new();
        for (key, inner) in value.entries().into_iter().flatten() {
            let Some(key) = key.as_str().filter(|key| key.len() <= MAX_KEY) else { continue };
            if inner.is_tensor() {
                tensors.push((key.to_owned(), inner));
            } else if path.len() < MAX_PATH && seen.insert(inner.identity()) {
                left.push_back(([&path[..], &[key]].concat(), inner));
            }
        }
        if value.attributes().is_some() {
            tensors = module(value, &mut members);
        }
        if !tensors.is_empty() {
            found.push(StateDict { path, tensors });
        }
    }
    found
}

/// Parameters and buffers of a `torch.nn.Module` and of those in it; empty for anything else. `left` bounds
/// what all of them take, for modules may share others, and lead back to themselves.
fn module<'a>(root: Value<'a>, left: &mut usize) -> Vec<(String, Value<'a>)> {
    let mut tensors = Vec::new();
    let mut modules = VecDeque::from([(0, String::new(), root)]);
    while let Some((depth, prefix, module)) = modules.pop_front() {
        let Some(attributes) = module.attributes() else { continue };
        for table in ["_parameters", "_buffers", "_modules"] {
            let members = attributes.get(table).and_then(Value::entries).into_iter().flatten();
            for (name, member) in members {
                let Some(name) = name.as_str().filter(|name| name.len() <= MAX_KEY) else {
                    continue;
                };
                let name = format!("{prefix}{name}");
                match left.checked_sub(MEMBER + name.len()) {
                    Some(less) => *left = less,
                    None => return tensors,
                }
                if member.is_tensor() {
                    tensors.push((name, member));
                } else if depth < MAX_MODULES {
                    modules.push_back((depth + 1, format!("{name}."), member));
                }
            }
        }
    }
    tensors
}
