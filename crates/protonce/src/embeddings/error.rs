//! Why embeddings cannot be written or read.

use std::io;
use std::path::PathBuf;

use crate::tensors::TensorError;
use crate::world::WorldError;
use protonce_images::views::LoaderError;

/// Why embeddings cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmbeddingsError {
    /// The images.
    #[error(transparent)]
    Loader(#[from] LoaderError),
    /// The processes that share the work.
    #[error(transparent)]
    World(#[from] WorldError),
    /// A name with none of the known endings.
    #[error(
        "{0} is of no known format: expected a name that ends in .npy, .safetensors, .parquet or .csv"
    )]
    Format(PathBuf),
    /// No image at all could be read.
    #[error("none of the {images} images can be read, the first says: {reason}")]
    NothingReadable {
        /// Images there are.
        images: usize,
        /// Why the first cannot.
        reason: String,
    },
    /// A file cannot be written.
    #[error("cannot write {path}: {reason}; choose a writable --out with free space")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: io::Error,
    },
    /// A parquet file, by a build without the feature.
    #[error(
        "{0} cannot be written: this build has no parquet (feature `parquet` of protonce); choose .npy, \
         .safetensors or .csv"
    )]
    NoParquet(PathBuf),
    /// Rows that libtorch cannot bring into memory.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

/// Why a file of embeddings or labels cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The system cannot.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A name with none of the known endings.
    #[error("{path} is of no known format: expected a name that ends in {expected}")]
    Format {
        /// The file.
        path: PathBuf,
        /// The endings.
        expected: &'static str,
    },
    /// A parquet file, for a build without the feature.
    #[error(
        "{0} cannot be read: this build has no parquet (feature `parquet` of protonce); convert it to \
         .npy or .safetensors"
    )]
    NoParquet(PathBuf),
    /// A file that is not what its name says.
    #[error("{path} is damaged or not what its name says: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Something else than asked for in the file.
    #[error("{path} has {found}: expected {expected}")]
    Contents {
        /// The file.
        path: PathBuf,
        /// What is there.
        found: String,
        /// What should be.
        expected: String,
    },
}
