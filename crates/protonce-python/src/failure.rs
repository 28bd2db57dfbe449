//! Errors of the libraries as Python exceptions: the same sentence under the type that Python has for
//! its kind.

use protonce_images::data::{DataError, StoreError, StoreProblem};
use protonce_images::views::{DecodeError, LoaderError};
use protonce_kmeans::KMeansError;
use protonce_run::{ConfigError, RunError};
use pyo3::PyErr;
use pyo3::exceptions::{PyFileNotFoundError, PyOSError, PyRuntimeError, PyValueError};

/// Why a call from Python fails.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Images that cannot be found or read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A setting that does not exist or cannot have its value.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A run that cannot be read.
    #[error(transparent)]
    Run(#[from] RunError),
    /// Batches that cannot be made.
    #[error(transparent)]
    Loader(#[from] LoaderError),
    /// Bytes that are no image.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// Points that cannot be clustered.
    #[error(transparent)]
    KMeans(#[from] KMeansError),
    /// An argument that the other types say nothing about.
    #[error("{0}")]
    Argument(String),
    /// Threads that the system does not give.
    #[error("cannot start a thread ({0}): ask for fewer")]
    Thread(std::io::Error),
    /// A bug.
    #[error("met a bug, please report it: {0}")]
    Panic(String),
    /// What Python itself has raised.
    #[error(transparent)]
    Python(#[from] PyErr),
}

impl From<Failure> for PyErr {
    fn from(failure: Failure) -> PyErr {
        let sentence = failure.to_string();
        match failure {
            Failure::Python(error) => error,
            Failure::Data(DataError::Missing { .. }) => PyFileNotFoundError::new_err(sentence),
            Failure::Data(DataError::Store(StoreError { problem, .. })) if is_missing(&problem) => {
                PyFileNotFoundError::new_err(sentence)
            }
            Failure::Data(DataError::Unreadable { .. } | DataError::Store(_))
            | Failure::Loader(LoaderError::Store(_)) => PyOSError::new_err(sentence),
            Failure::Loader(LoaderError::Thread(_) | LoaderError::Panicked { .. })
            | Failure::KMeans(KMeansError::Threads(_) | KMeansError::Stopped)
            | Failure::Thread(_)
            | Failure::Panic(_) => PyRuntimeError::new_err(sentence),
            _ => PyValueError::new_err(sentence),
        }
    }
}

/// Whether there is nothing at an address.
fn is_missing(problem: &StoreProblem) -> bool {
    use StoreProblem::{Missing, MissingBucket, NothingMatches};
    matches!(problem, Missing | MissingBucket | NothingMatches)
}

impl Failure {
    /// The failure that a panic is told as.
    pub fn from_panic(panic: &(dyn std::any::Any + Send)) -> Failure {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        Failure::Panic(text.unwrap_or_else(|| "a panic without a message".to_owned()))
    }
}
