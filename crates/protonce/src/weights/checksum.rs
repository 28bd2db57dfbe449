//! One number for an encoder's tensors, the same in every format.

use sha2::{Digest, Sha256};
use tch::{Kind, Tensor};

use crate::tensors::{NamedTensors, TensorError, bytes};

/// SHA-256 of an encoder's tensors, as 64 hexadecimal digits: the same whatever file they lie in.
///
/// Covers names, shapes and float32 numbers in the order of the names; not the counts of batches that
/// PyTorch keeps beside the statistics, since nothing is computed from them.
///
/// # Errors
/// When libtorch cannot bring a tensor into memory.
pub fn checksum(tensors: &NamedTensors) -> Result<String, TensorError> {
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
        hash.update(bytes(&tensor.to_kind(Kind::Float))?);
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
