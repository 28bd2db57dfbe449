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

use crate::checkpoint::{Checkpoint, CheckpointState};
use crate::checkpoints::{self, remove_folder};
use crate::error::{read_error, write_error};
use crate::event_log::EventWriter;
use crate::lock::Lock;
use crate::paths::{
    checkpoints_folder, config_file, convolutions_file, embeddings_file, events_file,
    position_name, prototypes_file, prototypes_folder,
};
use crate::{
    Config, Event, Granularity, PrototypesFile, RunError, TensorData, read_events,
    write_embeddings, write_file,
};

/// An open run, which no other process can open while this one has it.
pub struct RunFolder {
    path: PathBuf,
    events: EventWriter,
    /// Epochs and steps of the last checkpoint that is known to be whole.
    last: Option<(usize, usize)>,
    _lock: Lock,
}

/// A run that was opened.
pub struct Opened {
    /// The run.
    pub folder: RunFolder,
    /// What it goes on from; none at its beginning.
    pub checkpoint: Option<Checkpoint>,
    /// What the user should know, one sentence each.
    pub remarks: Vec<String>,
}

impl RunFolder {
    /// Makes sure that there is no run in `path`, nor what is left of one.
    ///
    /// # Errors
    /// When there is one.
    pub fn vacant(path: &Path) -> Result<(), RunError> {
        if config_file(path).exists() {
            return Err(RunError::Exists(path.to_owned()));
        }
        let events = fs::metadata(events_file(path)).is_ok_and(|events| events.len() > 0);
        match events || checkpoints::any(path) {
            true => Err(RunError::Remains(path.to_owned())),
            false => Ok(()),
        }
    }

    /// Starts a run in `path`, which must not hold one. `conv_plan` says how convolutions are
    /// computed, in whatever form the encoder gives it.
    ///
    /// # Errors
    /// When there is a run, another process has begun one, or the folder cannot be written.
    pub fn create(
        path: &Path,
        config: &Config,
        conv_plan: &impl Serialize,
    ) -> Result<Opened, RunError> {
        fs::create_dir_all(path).map_err(write_error(path))?;
        let (lock, remark) = Lock::take(path)?;
        // Another process may have begun one, and even have ended, while this one prepared.
        RunFolder::vacant(path)?;
        for folder in [checkpoints_folder(path), prototypes_folder(path)] {
            fs::create_dir_all(&folder).map_err(write_error(&folder))?;
        }
        let events = EventWriter::open(path, 0)?;
        let folder = RunFolder { path: path.to_owned(), events, last: None, _lock: lock };
        let file = convolutions_file(path);
        let text = serde_json::to_vec_pretty(conv_plan).map_err(read_error(&file))?;
        write_file(&file, &text)?;
        // Last: a folder with settings is a run.
        folder.write_settings(config)?;
        Ok(Opened { folder, checkpoint: None, remarks: remark.into_iter().collect() })
    }

    /// Opens the run in `path` to continue it from its last whole checkpoint, if it has one. Events
    /// that were written after that checkpoint are dropped with the next one: they will happen again.
    ///
    /// # Errors
    /// When there is no run, another process trains in it, its files cannot be read or written, or it
    /// had checkpoints of which none is left whole.
    pub fn resume(path: &Path) -> Result<Opened, RunError> {
        if !config_file(path).exists() {
            return Err(RunError::NotARun(path.to_owned()));
        }
        let (lock, remark) = Lock::take(path)?;
        let mut remarks: Vec<String> = remark.into_iter().collect();
        let found = checkpoints::last_whole(path)?;
        if found.is_none() && had_checkpoint(path) {
            return Err(RunError::Lost(path.to_owned()));
        }
        sweep(path);
        let checkpoint = found.map(|(checkpoint, more)| {
            remarks.extend(more);
            checkpoint
        });
        // A copy may lack what is empty.
        for folder in [checkpoints_folder(path), prototypes_folder(path)] {
            fs::create_dir_all(&folder).map_err(write_error(&folder))?;
        }
        let state = checkpoint.as_ref().map(|checkpoint| &checkpoint.state);
        let kept = state.map_or(0, |state| state.events);
        let events = EventWriter::open(path, kept)?;
        if events.length() < kept {
            remarks.push(
                "events.jsonl is shorter than it was at the checkpoint: what happened before has a gap"
                    .to_owned(),
            );
        }
        let last = state.map(|state| (state.epoch, state.step));
        let folder = RunFolder { path: path.to_owned(), events, last, _lock: lock };
        Ok(Opened { folder, checkpoint, remarks })
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
        let text = toml::to_string(&config.without_secrets()).map_err(read_error(&file))?;
        write_file(&file, text.as_bytes())
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder of the last checkpoint.
    pub fn last(&self) -> Option<PathBuf> {
        checkpoints::last(&self.path)
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

    /// Writes a checkpoint, makes it the last one and removes those that it replaces: earlier ones that
    /// were only passing, and of the others all but the newest `keep` (0: keeps all). `prototypes` is
    /// the epoch whose E-step's prototypes are needed to go on from it.
    ///
    /// # Errors
    /// When it cannot be written; the last checkpoint is then the one before.
    pub fn save<E: AsRef<str>, T: AsRef<str>>(
        &mut self,
        state: &CheckpointState,
        encoder: &[(E, impl TensorData)],
        training: &[(T, impl TensorData)],
        prototypes: Option<usize>,
        keep: usize,
    ) -> Result<(), RunError> {
        let position = (state.epoch, state.step);
        if self.last == Some(position) {
            // Stopped where it was resumed: everything is on disk already.
            return Ok(());
        }
        // What the checkpoint says of the events must be true after a power cut too.
        self.events.sync()?;
        checkpoints::write(&self.path, state, encoder, training, prototypes, keep)?;
        self.last = Some(position);
        Ok(())
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

/// Whether the events of the run in `run` tell of a checkpoint that was written: more happened after its
/// event. The last event alone may be of one that a kill or a full disk prevented.
fn had_checkpoint(run: &Path) -> bool {
    let events = read_events(run).unwrap_or_default();
    let earlier = events.len().saturating_sub(1);
    events[..earlier].iter().any(|event| matches!(event, Event::Checkpoint { .. }))
}

/// Removes what a killed process left half-written in the run in `run`, and no other hidden file.
fn sweep(run: &Path) {
    let is_ours = |name: &str| {
        let number = name.rsplit('.').next().unwrap_or_default();
        let scratch = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        name.starts_with('.') && scratch
            || name.starts_with(".epoch-")
            || name.starts_with(".removed-")
            || name == ".last"
    };
    for folder in [run.to_owned(), checkpoints_folder(run), prototypes_folder(run)] {
        let Ok(entries) = fs::read_dir(folder) else { continue };
        for entry in entries.flatten() {
            if is_ours(&entry.file_name().to_string_lossy()) {
                // Best effort: what stays is harmless and replaced by the next write.
                let _ = remove_folder(&entry.path());
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}
