//! The folder of one run: settings, events, checkpoints and prototypes on disk.
//!
//! What training does goes in; a folder comes out that can be resumed and read at any instant. Whatever
//! is written here is written beside its place, forced to disk and renamed, so that a run may be killed
//! at any time.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::checkpoint::{self, Checkpoint, CheckpointState, remove_folder};
use crate::error::{read_error, write_error};
use crate::event_log::EventWriter;
use crate::paths::{
    checkpoints_folder, config_file, convolutions_file, embeddings_file, position_name,
    prototypes_file, prototypes_folder,
};
use crate::{
    Config, Event, Granularity, PrototypesFile, RunError, TensorData, write_embeddings, write_file,
};

/// An open run.
pub struct RunFolder {
    path: PathBuf,
    events: EventWriter,
}

impl RunFolder {
    /// Makes sure that there is no run in `path`.
    ///
    /// # Errors
    /// When there is one.
    pub fn vacant(path: &Path) -> Result<(), RunError> {
        match config_file(path).exists() {
            true => Err(RunError::Exists(path.to_owned())),
            false => Ok(()),
        }
    }

    /// Starts a run in `path`, which must not hold one. `conv_plan` says how convolutions are
    /// computed, in whatever form the encoder gives it.
    ///
    /// # Errors
    /// When there is a run, or the folder cannot be written.
    pub fn create(
        path: &Path,
        config: &Config,
        conv_plan: &impl Serialize,
    ) -> Result<RunFolder, RunError> {
        RunFolder::vacant(path)?;
        for folder in [path.to_owned(), checkpoints_folder(path), prototypes_folder(path)] {
            fs::create_dir_all(&folder).map_err(write_error(&folder))?;
        }
        let run = RunFolder { path: path.to_owned(), events: EventWriter::open(path, 0)? };
        let file = convolutions_file(path);
        let text = serde_json::to_vec_pretty(conv_plan).map_err(read_error(&file))?;
        write_file(&file, &text)?;
        // Last: a folder with settings is a run.
        run.write_settings(config)?;
        Ok(run)
    }

    /// Opens the run in `path` to continue it from its last checkpoint, if it has one. Events
    /// that were written after that checkpoint are dropped: they will happen again.
    ///
    /// # Errors
    /// When there is no run, or its files cannot be read or written.
    pub fn resume(path: &Path) -> Result<(RunFolder, Option<Checkpoint>), RunError> {
        if !config_file(path).exists() {
            return Err(RunError::NotARun(path.to_owned()));
        }
        sweep(path);
        let checkpoint =
            checkpoint::last(path).map(|folder| Checkpoint::read(&folder)).transpose()?;
        if let Some(checkpoint) = &checkpoint {
            // Damage is noticed before any event is dropped.
            checkpoint.encoder()?;
            checkpoint.training()?;
        }
        let kept = checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.state.events);
        let events = EventWriter::open(path, kept)?;
        Ok((RunFolder { path: path.to_owned(), events }, checkpoint))
    }

    /// How convolutions are computed, as the run began; the default of `T` in a run from before this
    /// was written down.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn conv_plan<T: DeserializeOwned + Default>(&self) -> Result<T, RunError> {
        let file = convolutions_file(&self.path);
        match fs::read(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(T::default()),
            text => {
                serde_json::from_slice(&text.map_err(read_error(&file))?).map_err(read_error(&file))
            }
        }
    }

    /// The settings of the run in `path`, as a layer.
    ///
    /// # Errors
    /// When there is no run or its settings cannot be read.
    pub fn settings(path: &Path) -> Result<toml::Table, RunError> {
        let file = config_file(path);
        if !file.exists() {
            return Err(RunError::NotARun(path.to_owned()));
        }
        let text = fs::read_to_string(&file).map_err(read_error(&file))?;
        text.parse().map_err(read_error(&file))
    }

    /// Writes the run's settings: when it begins, and when it goes on with some that may change.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write_settings(&self, config: &Config) -> Result<(), RunError> {
        let file = config_file(&self.path);
        let text = toml::to_string(config).map_err(read_error(&file))?;
        write_file(&file, text.as_bytes())
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder of the last checkpoint.
    pub fn last(&self) -> Option<PathBuf> {
        checkpoint::last(&self.path)
    }

    /// Appends a line to `events.jsonl`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn record(&mut self, event: &Event) -> Result<(), RunError> {
        self.events.append(event)
    }

    /// Bytes of `events.jsonl`.
    pub fn events_length(&self) -> u64 {
        self.events.length()
    }

    /// The path of a checkpoint, relative to the run.
    pub fn checkpoint_path(&self, epoch: usize, step: usize) -> String {
        format!("checkpoints/{}", position_name(epoch, step))
    }

    /// Writes a checkpoint, makes it the last one and removes all but the newest `keep` (0: keeps
    /// all).
    ///
    /// # Errors
    /// When it cannot be written; the last checkpoint is then the one before.
    pub fn save<E: AsRef<str>, T: AsRef<str>>(
        &mut self,
        state: &CheckpointState,
        encoder: &[(E, impl TensorData)],
        training: &[(T, impl TensorData)],
        keep: usize,
    ) -> Result<(), RunError> {
        let target = self.path.join(self.checkpoint_path(state.epoch, state.step));
        if self.last() == fs::canonicalize(&target).ok() && target.exists() {
            // Stopped where it was resumed: everything is on disk already.
            return Ok(());
        }
        // What the checkpoint says of the events must be true after a power cut too.
        self.events.sync()?;
        checkpoint::write(&self.path, state, encoder, training, keep)
    }

    /// Writes the prototypes of the E-step that begins `epoch`.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn save_prototypes(
        &self,
        epoch: usize,
        granularities: &[Granularity],
    ) -> Result<(), RunError> {
        Ok(PrototypesFile::write(&prototypes_file(&self.path, epoch), granularities)?)
    }

    /// Reads the prototypes of the E-step that began `epoch`.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn read_prototypes(&self, epoch: usize) -> Result<Vec<Granularity>, RunError> {
        Ok(PrototypesFile::open(&prototypes_file(&self.path, epoch))?.read()?)
    }

    /// Writes the embeddings that the newest prototypes were made of: float32 \[images, dim\].
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn save_embeddings(&self, embeddings: impl TensorData) -> Result<(), RunError> {
        Ok(write_embeddings(&embeddings_file(&self.path), embeddings)?)
    }
}

/// Removes what a killed process left half-written in the run in `run`.
fn sweep(run: &Path) {
    for folder in [run.to_owned(), checkpoints_folder(run), prototypes_folder(run)] {
        let Ok(entries) = fs::read_dir(folder) else { continue };
        for entry in entries.flatten() {
            if entry.file_name().to_string_lossy().starts_with('.') {
                // Best effort: what stays is harmless and replaced by the next write.
                let _ = remove_folder(&entry.path());
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}
