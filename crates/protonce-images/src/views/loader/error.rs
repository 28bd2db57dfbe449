//! Why a loader cannot start or go on.

use crate::data::StoreError;
use crate::settings::OutOfRange;

/// A loader that cannot start, or cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoaderError {
    /// A view setting is out of range.
    #[error(transparent)]
    Config(#[from] OutOfRange),
    /// A batch names an image that the data set does not have.
    #[error("the plan asks for image {index}: expected less than {length}, the number of images")]
    IndexOutOfRange {
        /// The image asked for.
        index: usize,
        /// Images in the data set.
        length: usize,
    },
    /// The operating system gives no more threads.
    #[error("cannot start a loader thread ({0}): expected one per core; use fewer threads")]
    Thread(std::io::Error),
    /// The store in which the images lie cannot be read, or an image has changed there.
    #[error(transparent)]
    Store(StoreError),
    /// A thread met a bug in this program.
    #[error("making views of image {index} ({name}) panicked: {message}; please report this")]
    Panicked {
        /// The image in work.
        index: usize,
        /// Its name.
        name: String,
        /// The panic's message.
        message: String,
    },
}
