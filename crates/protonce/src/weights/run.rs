//! The encoder of a run's checkpoint.

use std::path::Path;

use protonce_run::{Checkpoint, CheckpointState};

use super::{Card, Weights, WeightsError};
use crate::tensors::read_all;

/// The weights of the checkpoint that `path`, a run or a checkpoint, stands for.
pub(super) fn read(path: &Path) -> Result<Weights, WeightsError> {
    let folder = Checkpoint::find(path).ok_or_else(|| WeightsError::NoWeights(path.to_owned()))?;
    let checkpoint = Checkpoint::read(&folder)?;
    let tensors = read_all(&mut checkpoint.encoder()?)?;
    let card = Card::of_run(&checkpoint);
    let CheckpointState { encoder, views, .. } = checkpoint.state;
    Ok(Weights { encoder, views, tensors, card, left_out: Vec::new(), notes: Vec::new() })
}
