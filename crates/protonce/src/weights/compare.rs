//! Where two encoders differ.

use serde::Serialize;
use tch::{Device, Kind, Tensor};

use super::Weights;
use crate::tensors::NamedTensors;

/// How one tensor differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "change", rename_all = "lowercase")]
pub enum TensorChange {
    /// Only the first encoder has it.
    Removed,
    /// Only the second has it.
    Added,
    /// Its shapes.
    Shape {
        /// In the first.
        before: Vec<i64>,
        /// In the second.
        after: Vec<i64>,
    },
    /// Its numbers.
    Numbers {
        /// Largest difference of two numbers.
        largest: f64,
        /// Length of the difference over the length of the first.
        relative: f64,
        /// Cosine of the angle between them.
        cosine: f64,
    },
}

/// What is different between two encoders.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// Tensors that are equal, bit for bit.
    pub equal: usize,
    /// The others.
    pub changed: Vec<(String, TensorChange)>,
    /// Settings of shape and views that differ: name, first, second.
    pub settings: Vec<(String, String, String)>,
}

impl Difference {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.settings.is_empty()
    }
}

/// Compares tensor by tensor.
pub fn diff(before: &Weights, after: &Weights) -> Difference {
    let mut difference = Difference { equal: 0, changed: Vec::new(), settings: Vec::new() };
    let find = |tensors: &NamedTensors, name: &str| {
        tensors.iter().find(|(known, _)| known == name).map(|(_, tensor)| tensor.shallow_clone())
    };
    for (name, a) in &before.tensors {
        let change = match find(&after.tensors, name) {
            None => TensorChange::Removed,
            Some(b) if a.size() != b.size() => {
                TensorChange::Shape { before: a.size(), after: b.size() }
            }
            Some(b) => match numbers(a, &b) {
                Some(change) => change,
                None => {
                    difference.equal += 1;
                    continue;
                }
            },
        };
        difference.changed.push((name.clone(), change));
    }
    for (name, _) in &after.tensors {
        if find(&before.tensors, name).is_none() {
            difference.changed.push((name.clone(), TensorChange::Added));
        }
    }
    let settings = |weights: &Weights| {
        let encoder = serde_json::to_value(&weights.encoder).unwrap_or_default();
        let views = serde_json::to_value(&weights.views).unwrap_or_default();
        [encoder, views].into_iter().filter_map(|value| value.as_object().cloned()).flatten()
    };
    for ((name, a), (_, b)) in settings(before).zip(settings(after)) {
        if a != b {
            difference.settings.push((name, a.to_string(), b.to_string()));
        }
    }
    difference
}

fn numbers(a: &Tensor, b: &Tensor) -> Option<TensorChange> {
    let double = |tensor: &Tensor| tensor.to_device(Device::Cpu).to_kind(Kind::Double).view([-1]);
    let (a, b) = (double(a), double(b));
    if a.equal(&b) {
        return None;
    }
    let gap = &b - &a;
    let length = |x: &Tensor| x.dot(x).double_value(&[]).sqrt();
    Some(TensorChange::Numbers {
        largest: gap.abs().max().double_value(&[]),
        relative: length(&gap) / length(&a),
        cosine: a.dot(&b).double_value(&[]) / (length(&a) * length(&b)),
    })
}
