//! The views of the images of one step: what a loader hands over.

use serde::{Deserialize, Serialize};

/// Views of the images of one step.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// The images that could be read, in the order in which they were asked for.
    pub indices: Vec<usize>,
    /// Query and key views for pretraining, query views for supervised training, centre crops for
    /// evaluation. Each is row-major [`indices.len()`, `image_size`, `image_size`, 3], normalised:
    /// permuted to channels first it is a channels-last tensor without a copy.
    pub views: Vec<Vec<f32>>,
    /// Side of a view in pixels.
    pub image_size: usize,
    /// The small views of multi-crop training, as many as were asked for, laid out like `views` with
    /// a side of `local_size` pixels.
    pub local_views: Vec<Vec<f32>>,
    /// Side of a small view in pixels.
    pub local_size: usize,
    /// The images asked for that could not be read, in that order.
    pub unreadable: Vec<Unreadable>,
}

/// An image that was left out, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unreadable {
    /// Its index in the data set.
    pub index: usize,
    /// Its name in the data set.
    pub name: String,
    /// What went wrong, as a sentence.
    pub reason: String,
}
