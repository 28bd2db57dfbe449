//! Whether two encoders are the same, and where they differ.

use serde::Serialize;
use sha2::{Digest, Sha256};
use tch::{Device, Kind, Tensor};

use super::Weights;
use super::export::bytes;
use crate::pretrain::run_folder::NamedTensors;

/// SHA-256 of an encoder's tensors, as 64 hexadecimal digits: the same whatever file they lie in.
///
/// Covers names, shapes and float32 numbers in the order of the names; not the counts of batches that
/// PyTorch keeps beside the statistics, since nothing is computed from them.
pub fn checksum(tensors: &NamedTensors) -> String {
    let mut sorted: Vec<&(String, Tensor)> =
        tensors.iter().filter(|(name, _)| !name.ends_with("num_batches_tracked")).collect();
    sorted.sort_by(|a, b| a.0.cmp(&b.0));
    let mut hash = Sha256::new();
    for (name, tensor) in sorted {
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name.as_bytes());
        let shape = tensor.size();
        hash.update((shape.len() as u64).to_le_bytes());
        for side in shape {
            hash.update(side.to_le_bytes());
        }
        hash.update(bytes(tensor, Kind::Float));
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// How one tensor differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "change", rename_all = "lowercase")]
pub enum Change {
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
    pub changed: Vec<(String, Change)>,
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
            None => Change::Removed,
            Some(b) if a.size() != b.size() => Change::Shape { before: a.size(), after: b.size() },
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
            difference.changed.push((name.clone(), Change::Added));
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

fn numbers(a: &Tensor, b: &Tensor) -> Option<Change> {
    let double = |tensor: &Tensor| tensor.to_device(Device::Cpu).to_kind(Kind::Double).view([-1]);
    let (a, b) = (double(a), double(b));
    if a.equal(&b) {
        return None;
    }
    let gap = &b - &a;
    let length = |x: &Tensor| x.dot(x).double_value(&[]).sqrt();
    Some(Change::Numbers {
        largest: gap.abs().max().double_value(&[]),
        relative: length(&gap) / length(&a),
        cosine: a.dot(&b).double_value(&[]) / (length(&a) * length(&b)),
    })
}
