//! Checkpoints: what a run needs to go on to the same bits, and the encoder that others want of it.
//!
//! A checkpoint is a folder of three files: `encoder.safetensors`, the query encoder under
//! torchvision's names; `training.safetensors`, everything else that training changes; and
//! `state.json`, where the run stands. It is written beside its place and renamed, and
//! `checkpoints/last` is a link that is replaced in one step.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use protonce_disk::sync_folder;
use protonce_images::views::{Unreadable, ViewConfig};
use serde::{Deserialize, Serialize};

use crate::error::{read_error, write_error};
use crate::paths::{checkpoints_folder, last_checkpoint, numbered_names, position_name};
use crate::{EncoderConfig, RunError, TensorData, TensorFile, TensorFileError, write_file};

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
    /// Sums over the steps of a started epoch, so that its means are those of the whole epoch.
    pub epoch_sums: Vec<f64>,
    /// Length of `events.jsonl` in bytes when this was written.
    pub events: u64,
    /// Names and labels of the images, as one number.
    pub data_fingerprint: String,
    /// The encoder's shapes.
    pub encoder: EncoderConfig,
    /// What its views look like: size and normalisation of the images it wants.
    pub views: ViewConfig,
}

/// A checkpoint on disk.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    folder: PathBuf,
    /// Where the run stands.
    pub state: CheckpointState,
}

impl Checkpoint {
    /// Reads the state of the checkpoint in `folder`.
    ///
    /// # Errors
    /// When there is none or it is damaged.
    pub fn read(folder: &Path) -> Result<Checkpoint, RunError> {
        let file = folder.join("state.json");
        let text = fs::read(&file).map_err(read_error(&file))?;
        let state = serde_json::from_slice(&text).map_err(read_error(&file))?;
        Ok(Checkpoint { folder: folder.to_owned(), state })
    }

    /// The folder of the checkpoint that `path` stands for: a run, of which the last one counts, or
    /// the checkpoint itself.
    pub fn find(path: &Path) -> Option<PathBuf> {
        let folders = [last_checkpoint(path), path.to_owned()];
        folders.into_iter().find(|folder| folder.join("state.json").exists())
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
        open(&self.folder.join("encoder.safetensors"))
    }

    /// Momentum encoder, optimiser and queue.
    ///
    /// # Errors
    /// When the file is missing or damaged.
    pub fn training(&self) -> Result<TensorFile, RunError> {
        open(&self.folder.join("training.safetensors"))
    }
}

/// What [`protonce_images::data::Dataset::fingerprint`] said of the images that the run in `run`
/// learns from, as its last checkpoint tells; none before there is one.
pub fn data_fingerprint(run: &Path) -> Option<String> {
    let checkpoint = Checkpoint::read(&last_checkpoint(run)).ok()?;
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

/// The last checkpoint of the run in `run`, wherever links lead.
pub(crate) fn last(run: &Path) -> Option<PathBuf> {
    let link = last_checkpoint(run);
    link.join("state.json").exists().then(|| fs::canonicalize(&link).unwrap_or(link))
}

/// Writes a checkpoint of the run in `run`, makes it the last one and removes all but the newest
/// `keep` (0: keeps all).
pub(crate) fn write<E: AsRef<str>, T: AsRef<str>>(
    run: &Path,
    state: &CheckpointState,
    encoder: &[(E, impl TensorData)],
    training: &[(T, impl TensorData)],
    keep: usize,
) -> Result<(), RunError> {
    let checkpoints = checkpoints_folder(run);
    let name = position_name(state.epoch, state.step);
    let scratch = checkpoints.join(format!(".{name}"));
    let target = checkpoints.join(&name);
    let failed = |source| write_error(&target)(source);
    remove_folder(&scratch).map_err(failed)?;
    fs::create_dir(&scratch).map_err(failed)?;
    crate::write_tensors(&scratch.join("encoder.safetensors"), encoder, None)?;
    crate::write_tensors(&scratch.join("training.safetensors"), training, None)?;
    let text = serde_json::to_vec_pretty(state).map_err(read_error(&target))?;
    write_file(&scratch.join("state.json"), &text)?;
    sync_folder(&scratch).map_err(failed)?;
    // A resumed run may come to the same point again, with the same contents.
    remove_folder(&target).map_err(failed)?;
    fs::rename(&scratch, &target).map_err(failed)?;
    point_at(&last_checkpoint(run), &name).map_err(failed)?;
    sync_folder(&checkpoints).map_err(failed)?;
    if keep > 0 {
        let mut names = numbered_names(&checkpoints);
        names.retain(|(_, other)| *other != name);
        names.truncate(names.len().saturating_sub(keep - 1));
        for (_, old) in names {
            remove_folder(&checkpoints.join(old)).map_err(failed)?;
        }
    }
    Ok(())
}

/// Makes `link` a symbolic link to `target` in one step, whatever it was before.
fn point_at(link: &Path, target: &str) -> io::Result<()> {
    let scratch = link.with_file_name(".last");
    match fs::remove_file(&scratch) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::os::unix::fs::symlink(target, &scratch)?;
    fs::rename(&scratch, link)
}

/// Removes a folder if it exists. It is renamed first: half a checkpoint must not look like one.
pub(crate) fn remove_folder(folder: &Path) -> io::Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let doomed = folder.with_file_name(format!(".removed-{}", name.trim_start_matches('.')));
    if folder != doomed {
        if doomed.exists() {
            fs::remove_dir_all(&doomed)?;
        }
        fs::rename(folder, &doomed)?;
    }
    fs::remove_dir_all(&doomed)
}
