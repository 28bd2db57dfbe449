//! Prototypes as training uses them and as a run folder keeps them.

use protonce_run::Granularity;
use tch::{Device, Tensor};

use crate::prototypes::Prototypes;
use crate::tensors::{NamedTensors, TensorError, values};

/// What the run folder keeps of each granularity.
///
/// # Errors
/// When a tensor cannot be brought into memory.
pub(super) fn to_file(granularities: &[Prototypes]) -> Result<Vec<Granularity>, TensorError> {
    let stored = |granularity: &Prototypes| {
        Ok(Granularity {
            assignment: values(&granularity.assignment)?,
            prototypes: values(&granularity.prototypes)?,
            dim: granularity.prototypes.size()[1] as usize,
            concentration: values(&granularity.concentration)?,
        })
    };
    granularities.iter().map(stored).collect()
}

/// What training needs of each granularity: assignments on the CPU, the rest on `device`.
pub(super) fn from_file(granularities: &[Granularity], device: Device) -> Vec<Prototypes> {
    let restored = |granularity: &Granularity| {
        let shape = [granularity.count() as i64, granularity.dim as i64];
        Prototypes {
            assignment: Tensor::from_slice(&granularity.assignment),
            prototypes: Tensor::from_slice(&granularity.prototypes).view(shape).to_device(device),
            concentration: Tensor::from_slice(&granularity.concentration).to_device(device),
        }
    };
    granularities.iter().map(restored).collect()
}

/// The tensors of each granularity, for another process.
pub(super) fn to_tensors(granularities: &[Prototypes]) -> NamedTensors {
    let tensors = |granularity: &Prototypes| {
        [
            ("assignment", granularity.assignment.shallow_clone()),
            ("prototypes", granularity.prototypes.shallow_clone()),
            ("concentration", granularity.concentration.shallow_clone()),
        ]
    };
    let all = granularities.iter().flat_map(tensors);
    all.map(|(name, tensor)| (name.to_owned(), tensor)).collect()
}

/// What [`to_tensors`] took apart.
pub(super) fn from_tensors(tensors: NamedTensors, device: Device) -> Vec<Prototypes> {
    let mut tensors = tensors.into_iter().map(|(_, tensor)| tensor);
    std::iter::from_fn(|| {
        Some(Prototypes {
            assignment: tensors.next()?,
            prototypes: tensors.next()?.to_device(device),
            concentration: tensors.next()?.to_device(device),
        })
    })
    .collect()
}
