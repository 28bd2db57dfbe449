//! Checkpoints: what a run needs to go on to the same bits, and the encoder that others want of it.
//!
//! A checkpoint is a folder of four files: `encoder.safetensors`, the query encoder under
//! torchvision's names; `training.safetensors`, everything else that training changes; `state.json`,
//! where the run stands; and `SHA256SUMS`, by which damage is noticed.

use std::fs;
use std::path::{Path, PathBuf};

use protonce_images::views::{Unreadable, ViewConfig};
use serde::{Deserialize, Serialize};

use crate::error::read_error;
use crate::{EncoderConfig, RunError, TensorFile, TensorFileError, checkpoints, checksums};

/// The files that every checkpoint has, beside their checksums.
pub(crate) const ENCODER: &str = "encoder.safetensors";
pub(crate) const TRAINING: &str = "training.safetensors";
pub(crate) const STATE: &str = "state.json";

/// Where a run stands, beside its tensors: `state.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckpointState {
    /// Epochs completed.
    pub epoch: usize,
    /// Steps of the next epoch completed.
    pub step: usize,
    /// The row of the queue that the next key replaces.
    pub queue_position: i64,
    /// Images found unreadable so far.
    pub unreadable: Vec<Unreadable>,
    /// Whether the next checkpoint replaces it: it was made because of the time or a signal, not because
    /// so many epochs were done.
    #[serde(default)]
    pub passing: bool,
    /// Sums over the logged steps of a started epoch, so that its means are those of the whole epoch.
    #[serde(with = "exact")]
    pub epoch_sums: Vec<f64>,
    /// The same over the steps that are not logged yet.
    #[serde(default, with = "exact")]
    pub unlogged_sums: Vec<f64>,
    /// What went by in a started epoch.
    #[serde(default)]
    pub epoch_so_far: Interval,
    /// The part of it that is logged.
    #[serde(default)]
    pub epoch_logged: Interval,
    /// Length of `events.jsonl` in bytes when this was written.
    pub events: u64,
    /// Names and labels of the images, as one number.
    pub data_fingerprint: String,
    /// The encoder's shapes.
    pub encoder: EncoderConfig,
    /// What its views look like: size and normalisation of the images it wants.
    pub views: ViewConfig,
}

/// What went by in some steps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Images trained on.
    pub images: usize,
    /// Seconds of wall time.
    pub seconds: f64,
    /// Seconds of these in which training waited for views.
    pub waited: f64,
}

/// A checkpoint on disk.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    folder: PathBuf,
    /// Where the run stands.
    pub state: CheckpointState,
    /// Whether its files were compared with their checksums.
    verified: bool,
}

impl Checkpoint {
    /// Reads the state of the checkpoint in `folder`.
    ///
    /// # Errors
    /// When there is none or it is damaged.
    pub fn read(folder: &Path) -> Result<Checkpoint, RunError> {
        let file = folder.join(STATE);
        let text = fs::read(&file).map_err(read_error(&file))?;
        let state = serde_json::from_slice(&text).map_err(read_error(&file))?;
        Ok(Checkpoint { folder: folder.to_owned(), state, verified: false })
    }

    /// The checkpoint in `folder`, once all that a run needs to go on from there is found whole.
    ///
    /// # Errors
    /// Which of its files is missing or damaged.
    pub(crate) fn verified(folder: &Path) -> Result<Checkpoint, RunError> {
        let checkpoint = Checkpoint::read(folder)?;
        // Of the checkpoints of earlier versions, which have no checksums, this much can be said.
        open(&folder.join(ENCODER))?;
        open(&folder.join(TRAINING))?;
        checksums::check_all(folder, &[ENCODER, TRAINING, STATE])?;
        Ok(Checkpoint { verified: true, ..checkpoint })
    }

    /// The folder of the checkpoint that `path` stands for: the checkpoint itself, or a run or its
    /// `checkpoints/last`, of which the last one counts.
    pub fn find(path: &Path) -> Option<PathBuf> {
        if path.join(STATE).exists() {
            return Some(path.to_owned());
        }
        let run = match path.ends_with("checkpoints/last") {
            true => path.parent()?.parent()?,
            false => path,
        };
        checkpoints::last(run)
    }

    /// The folder itself.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The query encoder under torchvision's names.
    ///
    /// # Errors
    /// When the file is missing or damaged.
    pub fn encoder(&self) -> Result<TensorFile, RunError> {
        self.tensors(ENCODER)
    }

    /// Momentum encoder, optimiser and queue.
    ///
    /// # Errors
    /// When the file is missing or damaged.
    pub fn training(&self) -> Result<TensorFile, RunError> {
        self.tensors(TRAINING)
    }

    fn tensors(&self, name: &str) -> Result<TensorFile, RunError> {
        if !self.verified {
            checksums::check(&self.folder, &[name])?;
        }
        open(&self.folder.join(name))
    }
}

/// What [`protonce_images::data::Dataset::fingerprint`] said of the images that the run in `run`
/// learns from, as its last checkpoint tells; none before there is one.
pub fn data_fingerprint(run: &Path) -> Option<String> {
    let checkpoint = Checkpoint::read(&checkpoints::last(run)?).ok()?;
    Some(checkpoint.state.data_fingerprint)
}

fn open(file: &Path) -> Result<TensorFile, RunError> {
    TensorFile::open(file).map_err(|error| match error {
        // The advice differs: a checkpoint cannot be made again, but there may be an earlier one.
        TensorFileError::Damaged { path, source } => read_error(&path)(source),
        TensorFileError::Read { path, source } => read_error(&path)(source),
        other => other.into(),
    })
}

/// Numbers of which every bit counts, as text: what reads numbers in JSON may be off by the last bit,
/// and JSON has no word for "not a number".
mod exact {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Text(String),
        /// By earlier versions.
        Number(f64),
    }

    pub(super) fn serialize<S: Serializer>(values: &[f64], to: S) -> Result<S::Ok, S::Error> {
        values.iter().map(f64::to_string).collect::<Vec<_>>().serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<f64>, D::Error> {
        let value = |written| match written {
            Written::Text(text) => text.parse().map_err(D::Error::custom),
            Written::Number(number) => Ok(number),
        };
        Vec::<Written>::deserialize(from)?.into_iter().map(value).collect()
    }
}
