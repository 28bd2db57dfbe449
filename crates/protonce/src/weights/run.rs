//! The encoder of a run's checkpoint.

use std::path::{Path, PathBuf};

use super::{Card, Weights, WeightsError};
use crate::pretrain::run_folder;

/// The folder of the checkpoint that `path`, a run or a checkpoint, stands for.
pub(super) fn checkpoint(path: &Path) -> Option<PathBuf> {
    let folders = [path.join("checkpoints/last"), path.to_owned()];
    folders.into_iter().find(|folder| folder.join("state.json").exists())
}

/// The weights of the checkpoint that `path` stands for.
pub(super) fn read(path: &Path) -> Result<Weights, WeightsError> {
    let folder = checkpoint(path).ok_or_else(|| WeightsError::NoWeights(path.to_owned()))?;
    let position = run_folder::read_position(&folder)?;
    let tensors = run_folder::read_tensors(&folder.join("encoder.safetensors"))?;
    let card = Card::of_run(&folder, &position);
    let (encoder, views) = (position.encoder, position.views);
    Ok(Weights { encoder, views, tensors, card, left_out: Vec::new() })
}
