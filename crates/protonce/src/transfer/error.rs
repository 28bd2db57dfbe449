//! What can be wrong with an evaluation.

use std::path::PathBuf;

use crate::tensors::TensorError;
use protonce_encoder::EncoderError;
use protonce_images::data::DataError;
use protonce_images::views::LoaderError;

/// An evaluation that cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransferError {
    /// Images that cannot be found.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Images that cannot be loaded.
    #[error(transparent)]
    Loader(#[from] LoaderError),
    /// Weights that do not fit.
    #[error(transparent)]
    Encoder(#[from] EncoderError),
    /// A tensor that cannot be brought into memory or a file.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// Features that cannot be kept.
    #[error("cannot keep features in {}: {reason}", path.display())]
    Cache {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: std::io::Error,
    },
    /// A set of images has no labels.
    #[error("{name} has no labels: expected one folder of images a class, or a list with labels")]
    NoLabels {
        /// The data argument.
        name: String,
    },
    /// A class of the test images that no training image has.
    #[error(
        "class \"{class}\" of {test} does not exist in {train}: expected the same class folders in both (training has {known})"
    )]
    UnknownClass {
        /// The class.
        class: String,
        /// The test images' data argument.
        test: String,
        /// The training images' data argument.
        train: String,
        /// The classes that exist.
        known: String,
    },
    /// There is nothing to tell apart.
    #[error("{name} has one class only, \"{class}\": expected two or more to tell apart")]
    OneClass {
        /// The data argument.
        name: String,
        /// The class.
        class: String,
    },
    /// A class with fewer training images than were to be drawn.
    #[error(
        "class \"{class}\" has {found} training images: expected {needed} or more; ask for fewer shots"
    )]
    TooFewShots {
        /// The class.
        class: String,
        /// Training images it has.
        found: usize,
        /// Training images it needs.
        needed: usize,
    },
    /// A class that no test image is of.
    #[error(
        "no test image is of class \"{class}\": expected one or more, for its precision to be measured"
    )]
    NotTested {
        /// The class.
        class: String,
    },
    /// Not one image of a set could be read.
    #[error("not one image of {name} can be read: look at it with `protonce data check`")]
    NoFeatures {
        /// The data argument.
        name: String,
    },
    /// Features that are not numbers, as those of an encoder that diverged.
    #[error("the features of {name} are not finite: expected the weights of a run that converged")]
    NotFinite {
        /// The data argument.
        name: String,
    },
    /// Fine-tuning whose loss is no number.
    #[error("fine-tuning diverged in epoch {epoch}: use smaller learning rates")]
    Diverged {
        /// The epoch, from 1.
        epoch: usize,
    },
    /// A list that names images that are not there.
    #[error(
        "{} names \"{name}\", which {data} does not have ({missing} of {total} are missing): expected \
         the names of its training images",
        list.display()
    )]
    NotListed {
        /// The list.
        list: PathBuf,
        /// The first missing name.
        name: String,
        /// How many are missing.
        missing: usize,
        /// How many are named.
        total: usize,
        /// The data argument.
        data: String,
    },
    /// An option out of range.
    #[error("\"{option}\" is {found}: expected {expected}")]
    Option {
        /// The option.
        option: &'static str,
        /// Its value.
        found: String,
        /// What it should be.
        expected: &'static str,
    },
}
