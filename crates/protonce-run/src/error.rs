//! Why a run folder cannot be read or written, each time with the file and what to do.

use std::io;
use std::path::{Path, PathBuf};

use crate::TensorFileError;

/// What can go wrong with a run folder.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// There is a run already.
    #[error("{0} already holds a run: continue it with --resume, or choose another --out")]
    Exists(PathBuf),
    /// There is what a run leaves, but not its settings.
    #[error(
        "{0} has checkpoints or events of a run, but no config.toml: restore that and continue with \
         --resume, or choose another --out"
    )]
    Remains(PathBuf),
    /// There was a checkpoint and there is none now.
    #[error(
        "{0} tells in events.jsonl of a checkpoint, but has none: restore its checkpoints, or choose \
         another --out for a new run"
    )]
    Lost(PathBuf),
    /// None of the checkpoints is whole.
    #[error(
        "{run} has no whole checkpoint ({reason}): restore one, or choose another --out for a new run"
    )]
    NoneWhole {
        /// The run.
        run: PathBuf,
        /// What is wrong with the newest.
        reason: String,
    },
    /// Another process trains in the same folder.
    #[error(
        "{run} is in use: {holder} trains there; wait for its end or stop it, or choose another --out"
    )]
    InUse {
        /// The run.
        run: PathBuf,
        /// The process and its host, as far as that can be read.
        holder: String,
    },
    /// There is no run.
    #[error("{0} is no run: expected a folder with config.toml in it")]
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
    /// A file of tensors.
    #[error(transparent)]
    Tensors(#[from] TensorFileError),
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

/// A [`RunError::Write`] of `path`.
pub(crate) fn write_error(path: &Path) -> impl FnOnce(io::Error) -> RunError + '_ {
    move |source| RunError::Write { path: path.to_owned(), source }
}

/// A [`RunError::Read`] of `path`.
pub(crate) fn read_error<E: std::fmt::Display>(path: &Path) -> impl FnOnce(E) -> RunError + '_ {
    move |reason| RunError::Read { path: path.to_owned(), reason: reason.to_string() }
}
