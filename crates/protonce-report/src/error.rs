//! Why a report cannot be made or shown, each time with what was expected and what to do.

use std::path::PathBuf;

/// Why a report could not be made or shown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// A file of the run could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file asked for.
        path: PathBuf,
        /// What the system or the encoder said.
        source: std::io::Error,
    },
    /// A file of tensors cannot be read, is damaged, or holds others than expected.
    #[error(transparent)]
    Tensors(#[from] protonce_run::TensorFileError),
    /// The file holds no prototypes, as after a run that never took an expectation step.
    #[error(
        "{} holds no prototypes; only a run with prototypes that got past its warm-up epochs has any",
        path.display()
    )]
    NoPrototypes {
        /// The file.
        path: PathBuf,
    },
    /// A granularity was asked for that the run does not have.
    #[error(
        "{} holds granularities 0 to {}, not {asked}; ask for one of those",
        path.display(), present - 1
    )]
    NoSuchGranularity {
        /// The file.
        path: PathBuf,
        /// The granularity asked for.
        asked: usize,
        /// How many there are.
        present: usize,
    },
    /// There is not one label per image.
    #[error("{labels} labels were given for {images} images; give one per image")]
    LabelCount {
        /// Labels given.
        labels: usize,
        /// Images that the prototypes were made of.
        images: usize,
    },
    /// Another number of images than the run's prototypes were made of.
    #[error(
        "{data} has {found} images but the run was made of {expected}: name the run's own images with --data"
    )]
    OtherData {
        /// The data argument.
        data: String,
        /// Its images.
        found: usize,
        /// The run's.
        expected: usize,
    },
    /// As many images, but others.
    #[error(
        "{data} is not what the run was made of (names or labels differ): name the run's own images with --data"
    )]
    OtherNames {
        /// The data argument.
        data: String,
    },
    /// The run's folder.
    #[error(transparent)]
    Run(#[from] protonce_run::RunError),
    /// The run's settings.
    #[error(transparent)]
    Config(#[from] protonce_run::ConfigError),
    /// The images that were asked for.
    #[error(transparent)]
    Data(#[from] protonce_images::data::DataError),
    /// A thumbnail or the page's data cannot be encoded.
    #[error("cannot encode the page: {0}")]
    Encode(String),
    /// No address to serve at.
    #[cfg(feature = "serve")]
    #[error("cannot listen at {address}: {source}; choose another --port, or 0 for any free one")]
    Listen {
        /// The address asked for.
        address: std::net::SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The server stopped.
    #[cfg(feature = "serve")]
    #[error("the server at {address} stopped: {source}; start it again")]
    Serve {
        /// Where it was.
        address: std::net::SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// A picture of this size cannot be made.
    #[error(
        "a picture of {width} by {height} pixels cannot be made; ask for fewer or smaller images"
    )]
    Size {
        /// Pixels across.
        width: u32,
        /// Pixels down.
        height: u32,
    },
    /// The built-in font does not parse; the build itself is broken.
    #[error("the built-in font cannot be read; this build is broken")]
    Font,
}
