//! The run folder: settings, events, checkpoints and prototypes on disk.
//!
//! Whatever is written here is written beside its place, forced to disk and renamed, so that a run
//! that is killed at any instant leaves a folder that can be resumed and read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

use crate::encoder::convolution::ConvPlan;
use protonce_disk::{self as disk, sync_folder};
use protonce_images::views::{Unreadable, ViewConfig};
use protonce_run::Config;
use protonce_run::EncoderConfig;
use protonce_run::Event;

/// What can go wrong with a run folder.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// There is a run already.
    #[error("{0} already holds a run: continue it with --resume, or choose another --out")]
    Exists(PathBuf),
    /// There is no run.
    #[error(
        "{0} holds no run to continue: expected a config.toml in it; start one without --resume"
    )]
    NotARun(PathBuf),
    /// A file cannot be written.
    #[error("cannot write {path}: {source}; choose a writable --out with free space")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file cannot be read.
    #[error(
        "cannot read {path}: {reason}; it is damaged or from another program, use an earlier checkpoint"
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// Settings that would make it another run.
    #[error(
        "cannot go on with {name} = {new}, the run has {old}: leave --{name} out, or start a new run"
    )]
    Conflict {
        /// The setting.
        name: String,
        /// The run's value.
        old: String,
        /// The value that was given.
        new: String,
    },
    /// A checkpoint has a tensor that this program does not write.
    #[error(
        "the checkpoint has an unexpected tensor \"{0}\": it is damaged or from another version"
    )]
    Unexpected(String),
}

fn write_error(path: &Path) -> impl FnOnce(io::Error) -> RunError + '_ {
    move |source| RunError::Write { path: path.to_owned(), source }
}

fn read_error<E: std::fmt::Display>(path: &Path) -> impl FnOnce(E) -> RunError + '_ {
    move |reason| RunError::Read { path: path.to_owned(), reason: reason.to_string() }
}

/// Named tensors, in the order in which they are written.
pub type NamedTensors = Vec<(String, Tensor)>;

/// Where a run stands, beside its tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Position {
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
    /// Length of `events.jsonl` when this was written.
    pub events: u64,
    /// Names and labels of the images, as one number.
    pub data_fingerprint: String,
    /// The encoder's shapes.
    pub encoder: EncoderConfig,
    /// What its views look like: size and normalisation of the images it wants.
    pub views: ViewConfig,
}

/// A checkpoint as it is read back.
pub struct Checkpoint {
    /// Where the run stands.
    pub position: Position,
    /// The query encoder under torchvision's names.
    pub encoder: NamedTensors,
    /// Momentum encoder, optimiser and queue.
    pub training: NamedTensors,
}

/// The file of the ways of convolving; empty where the usual ones are taken.
const CHOICES: &str = "convolutions.json";

/// An open run.
pub struct RunFolder {
    path: PathBuf,
    events: File,
    events_length: u64,
}

impl RunFolder {
    /// Makes sure that there is no run in `path`.
    ///
    /// # Errors
    /// When there is one.
    pub fn vacant(path: &Path) -> Result<(), RunError> {
        match path.join("config.toml").exists() {
            true => Err(RunError::Exists(path.to_owned())),
            false => Ok(()),
        }
    }

    /// Starts a run in `path`, which must not hold one.
    ///
    /// # Errors
    /// When it does, or cannot be written.
    pub fn create(
        path: &Path,
        config: &Config,
        conv_plan: &ConvPlan,
    ) -> Result<RunFolder, RunError> {
        RunFolder::vacant(path)?;
        let settings = path.join("config.toml");
        for folder in [path.to_owned(), path.join("checkpoints"), path.join("prototypes")] {
            fs::create_dir_all(&folder).map_err(write_error(&folder))?;
        }
        let events = open_events(path)?;
        events.set_len(0).map_err(write_error(path))?;
        let file = path.join(CHOICES);
        let text = serde_json::to_vec_pretty(conv_plan).map_err(read_error(&file))?;
        write_file(&file, &text)?;
        let text = toml::to_string(config).map_err(read_error(&settings))?;
        // Last: a folder with settings is a run.
        write_file(&settings, text.as_bytes())?;
        Ok(RunFolder { path: path.to_owned(), events, events_length: 0 })
    }

    /// Opens the run in `path` to continue it from its last checkpoint, if it has one. Events
    /// that were written after that checkpoint are dropped: they will happen again.
    ///
    /// # Errors
    /// When there is no run, or its files cannot be read or written.
    pub fn resume(path: &Path) -> Result<(RunFolder, Option<Checkpoint>), RunError> {
        if !path.join("config.toml").exists() {
            return Err(RunError::NotARun(path.to_owned()));
        }
        let events = open_events(path)?;
        let mut run = RunFolder { path: path.to_owned(), events, events_length: 0 };
        run.sweep();
        let checkpoint = match run.last() {
            Some(folder) => Some(read_checkpoint(&folder)?),
            None => None,
        };
        let kept = checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.position.events);
        let file = path.join("events.jsonl");
        run.events.set_len(kept).map_err(write_error(&file))?;
        run.events.seek(SeekFrom::Start(kept)).map_err(write_error(&file))?;
        run.events_length = kept;
        Ok((run, checkpoint))
    }

    /// The ways of convolving that the run began with.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn conv_plan(&self) -> Result<ConvPlan, RunError> {
        let file = self.path.join(CHOICES);
        match fs::read(&file) {
            // A run from before there were any.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(ConvPlan::default()),
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
        let file = path.join("config.toml");
        if !file.exists() {
            return Err(RunError::NotARun(path.to_owned()));
        }
        let text = fs::read_to_string(&file).map_err(read_error(&file))?;
        text.parse().map_err(read_error(&file))
    }

    /// Replaces the run's settings, when it goes on with some that may change.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn update_settings(&self, config: &Config) -> Result<(), RunError> {
        let file = self.path.join("config.toml");
        let text = toml::to_string(config).map_err(read_error(&file))?;
        write_file(&file, text.as_bytes())
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder of the last checkpoint.
    pub fn last(&self) -> Option<PathBuf> {
        let link = self.path.join("checkpoints/last");
        link.join("state.json").exists().then(|| fs::canonicalize(&link).unwrap_or(link))
    }

    /// Appends a line to `events.jsonl`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn record(&mut self, event: &Event) -> Result<(), RunError> {
        let file = self.path.join("events.jsonl");
        let mut line = serde_json::to_vec(event).map_err(read_error(&file))?;
        line.push(b'\n');
        // In one call, so that whoever reads along never sees half a line.
        self.events.write_all(&line).map_err(write_error(&file))?;
        self.events_length += line.len() as u64;
        Ok(())
    }

    /// Bytes of `events.jsonl`.
    pub fn events_length(&self) -> u64 {
        self.events_length
    }

    /// The path of a checkpoint, relative to the run.
    pub fn checkpoint_path(&self, epoch: usize, step: usize) -> String {
        format!("checkpoints/{}", checkpoint_name(epoch, step))
    }

    /// Writes a checkpoint, makes it the last one and removes all but the newest `keep` (0: keeps
    /// all).
    ///
    /// # Errors
    /// When it cannot be written; the last checkpoint is then the one before.
    pub fn save(
        &mut self,
        position: &Position,
        encoder: &NamedTensors,
        training: &NamedTensors,
        keep: usize,
    ) -> Result<(), RunError> {
        let checkpoints = self.path.join("checkpoints");
        let name = checkpoint_name(position.epoch, position.step);
        let scratch = checkpoints.join(format!(".{name}"));
        let target = checkpoints.join(&name);
        let failed = |source| RunError::Write { path: target.clone(), source };
        if self.last() == fs::canonicalize(&target).ok() && target.exists() {
            // Stopped where it was resumed: everything is on disk already.
            return Ok(());
        }
        // What the checkpoint says of the events must be true after a power cut too.
        self.events.sync_data().map_err(failed)?;
        remove_folder(&scratch).map_err(failed)?;
        fs::create_dir(&scratch).map_err(failed)?;
        write_tensors(&scratch.join("encoder.safetensors"), encoder)?;
        write_tensors(&scratch.join("training.safetensors"), training)?;
        let state = serde_json::to_vec_pretty(position).map_err(read_error(&target))?;
        write_file(&scratch.join("state.json"), &state)?;
        sync_folder(&scratch).map_err(failed)?;
        // A resumed run may come to the same point again, with the same contents.
        remove_folder(&target).map_err(failed)?;
        fs::rename(&scratch, &target).map_err(failed)?;
        point_at(&checkpoints.join("last"), &name).map_err(failed)?;
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

    /// Writes `prototypes/NAME.safetensors`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save_prototypes(&self, name: &str, tensors: &NamedTensors) -> Result<(), RunError> {
        write_tensors(&self.path.join(format!("prototypes/{name}.safetensors")), tensors)
    }

    /// Reads `prototypes/NAME.safetensors`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read_prototypes(&self, name: &str) -> Result<NamedTensors, RunError> {
        read_tensors(&self.path.join(format!("prototypes/{name}.safetensors")))
    }

    /// Removes what a killed process left half-written.
    fn sweep(&self) {
        for folder in ["", "checkpoints", "prototypes"] {
            let Ok(entries) = fs::read_dir(self.path.join(folder)) else { continue };
            for entry in entries.flatten() {
                if entry.file_name().to_string_lossy().starts_with('.') {
                    // Best effort: what stays is harmless and replaced by the next write.
                    let _ = remove_folder(&entry.path());
                    let _ = fs::remove_file(entry.path());
                }
            }
        }
    }
}

/// What [`protonce_images::data::Dataset::fingerprint`] said of the images that the run in `run` learns
/// from, as its last checkpoint tells; none before there is one.
pub fn data_fingerprint(run: &Path) -> Option<String> {
    read_position(&run.join("checkpoints/last")).ok().map(|position| position.data_fingerprint)
}

fn checkpoint_name(epoch: usize, step: usize) -> String {
    match step {
        0 => format!("epoch-{epoch:04}"),
        step => format!("epoch-{epoch:04}-step-{step:06}"),
    }
}

/// The epoch and step that a name of a run's files tells, as `epoch-0020`,
/// `epoch-0020-step-000300` or `epoch-0020.safetensors`. Names are told apart by these numbers and
/// not as text, in which epoch 10000 comes before epoch 9999.
fn position_in_name(name: &str) -> Option<(usize, usize)> {
    let name = name.strip_suffix(".safetensors").unwrap_or(name);
    let (epoch, step) = name.strip_prefix("epoch-")?.split_once("-step-").unzip();
    let epoch = epoch.or_else(|| name.strip_prefix("epoch-"))?;
    Some((epoch.parse().ok()?, step.map_or(Ok(0), str::parse).ok()?))
}

/// Names in a folder that tell an epoch, oldest first.
fn numbered_names(folder: &Path) -> Vec<((usize, usize), String)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter_map(|name| Some((position_in_name(&name)?, name)))
        .collect();
    names.sort();
    names
}

/// The files of the expectation steps of the run in `run`, `prototypes/epoch-NNNN.safetensors`,
/// each with its epoch, oldest first; none when there are none yet.
pub fn prototype_files(run: &Path) -> Vec<(usize, PathBuf)> {
    let folder = run.join("prototypes");
    let names = numbered_names(&folder).into_iter();
    let names = names.filter(|(_, name)| name.ends_with(".safetensors"));
    names.map(|((epoch, _), name)| (epoch, folder.join(name))).collect()
}

pub(crate) fn read_position(folder: &Path) -> Result<Position, RunError> {
    let file = folder.join("state.json");
    let text = fs::read(&file).map_err(read_error(&file))?;
    serde_json::from_slice(&text).map_err(read_error(&file))
}

fn read_checkpoint(folder: &Path) -> Result<Checkpoint, RunError> {
    Ok(Checkpoint {
        position: read_position(folder)?,
        encoder: read_tensors(&folder.join("encoder.safetensors"))?,
        training: read_tensors(&folder.join("training.safetensors"))?,
    })
}

fn open_events(run: &Path) -> Result<File, RunError> {
    let file = run.join("events.jsonl");
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true).open(&file).map_err(write_error(&file))
}

pub(crate) fn read_tensors(file: &Path) -> Result<NamedTensors, RunError> {
    Tensor::read_safetensors(file).map_err(read_error(file))
}

/// Writes a safetensors file, whole or not at all.
///
/// # Errors
/// When it cannot be written; what was there before stays.
pub fn write_tensors(file: &Path, tensors: &NamedTensors) -> Result<(), RunError> {
    let tensors: NamedTensors = tensors
        .iter()
        .map(|(name, tensor)| (name.clone(), tensor.to_device(Device::Cpu).contiguous()))
        .collect();
    replace(file, |scratch| Tensor::write_safetensors(&tensors, scratch).map_err(io::Error::other))
}

/// Writes a file, whole or not at all.
///
/// # Errors
/// When it cannot be written; what was there before stays.
pub fn write_file(file: &Path, contents: &[u8]) -> Result<(), RunError> {
    replace(file, |scratch| fs::write(scratch, contents))
}

/// [`disk::replace`] with an error that names the file.
pub(crate) fn replace(
    file: &Path,
    write: impl FnOnce(&Path) -> io::Result<()>,
) -> Result<(), RunError> {
    disk::replace(file, write).map_err(write_error(file))
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
fn remove_folder(folder: &Path) -> io::Result<()> {
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

/// The events of a run as JSON values; a torn last line, left by a kill, is passed over.
///
/// # Errors
/// When the file cannot be read.
pub fn read_events(run: &Path) -> Result<Vec<serde_json::Value>, RunError> {
    let file = run.join("events.jsonl");
    let mut text = String::new();
    File::open(&file).and_then(|mut f| f.read_to_string(&mut text)).map_err(read_error(&file))?;
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_ordered_by_number() {
        let run = tempfile::tempdir().unwrap();
        let folder = run.path().join("prototypes");
        fs::create_dir(&folder).unwrap();
        for epoch in [10_000, 9_999, 2, 100_000] {
            fs::write(folder.join(format!("{}.safetensors", checkpoint_name(epoch, 0))), "")
                .unwrap();
        }
        for other in ["embeddings.safetensors", ".epoch-0003.safetensors", "epoch-x.safetensors"] {
            fs::write(folder.join(other), "").unwrap();
        }
        let epochs: Vec<usize> =
            prototype_files(run.path()).into_iter().map(|(epoch, _)| epoch).collect();
        assert_eq!(epochs, [2, 9_999, 10_000, 100_000]);
        assert_eq!(position_in_name(&checkpoint_name(10_000, 7)), Some((10_000, 7)));
        assert_eq!(position_in_name("last"), None);
    }
}
