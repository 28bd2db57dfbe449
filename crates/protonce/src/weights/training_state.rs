//! What only further training needs of a file of weights.

use std::path::Path;

use protonce_run::Checkpoint;
use tch::Tensor;

use super::WeightsError;
use super::pth::{read_tensor, state_dict};
use super::read::looks_like_safetensors;
use crate::tensors::{NamedTensors, read_all};

/// What only further training needs of the weights in `path`, for the published layout: the momentum
/// encoder (`momentum_encoder.NAME`), the `queue` [r, dim] and the `queue_position` \[1\]; empty where there
/// is nothing.
///
/// # Errors
/// When the file cannot be read.
pub fn training_state(path: &Path) -> Result<NamedTensors, WeightsError> {
    if let Some(folder) = Checkpoint::find(path) {
        let checkpoint = Checkpoint::read(&folder)?;
        let mut training = read_all(&mut checkpoint.training()?)?;
        training.retain(|(name, _)| name != "velocity");
        let position = checkpoint.state.queue_position;
        training.push(("queue_position".to_owned(), Tensor::from_slice(&[position])));
        return Ok(training);
    }
    let unreadable = |reason| WeightsError::Read { path: path.to_owned(), reason };
    if looks_like_safetensors(path).map_err(unreadable)? {
        return Ok(NamedTensors::new());
    }
    let mut training = NamedTensors::new();
    let (mut file, found) = state_dict(path)?;
    for (name, tensor) in found {
        let own = match name.split_once("encoder_k.") {
            Some((_, name)) => format!("momentum_encoder.{name}"),
            None => match name.rsplit('.').next() {
                Some("queue") => "queue".to_owned(),
                Some("queue_ptr") => "queue_position".to_owned(),
                _ => continue,
            },
        };
        let tensor = read_tensor(path, &mut file, &tensor)?;
        // Published: one key per column.
        let tensor = if own == "queue" { tensor.transpose(0, 1) } else { tensor };
        training.push((own, tensor));
    }
    Ok(training)
}
