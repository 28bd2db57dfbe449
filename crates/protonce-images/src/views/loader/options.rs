//! What a loader is asked for: which images, which views of them, and on how many threads.

use crate::random::View;
use crate::views::ViewConfig;

/// What a [`Loader`](super::Loader) makes.
#[derive(Clone, Debug)]
pub struct LoaderOptions {
    /// What a view looks like.
    pub views: ViewConfig,
    /// The images of each batch, by their indices in the data set, in the order in which batches are
    /// wanted. A training epoch has shuffled them already.
    pub batches: Vec<Vec<usize>>,
    /// Which crops of an image.
    pub crops: Crops,
    /// Threads that make views; 0 means one per core.
    pub threads: usize,
}

/// Which crops of an image are made into views.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Crops {
    /// Random crops with random augmentations, which depend on (seed, epoch, image, view) alone.
    Random {
        /// The seed of the run.
        seed: u64,
        /// The epoch, counted from 0.
        epoch: u64,
        /// The views of every image: for pretraining
        /// [`ViewConfig::pretraining_views`], for supervised training the query view alone.
        views: Vec<View>,
    },
    /// The centre crop, for the E-step and for evaluation.
    Centre,
}

impl Crops {
    /// Sides in pixels of the views of an image, in their order.
    pub(super) fn sizes(&self, config: &ViewConfig) -> Vec<usize> {
        match self {
            Crops::Random { views, .. } => {
                let size = |view: &View| match view {
                    View::Query | View::Key => config.image_size,
                    View::Local(_) => config.local_size,
                };
                views.iter().map(size).collect()
            }
            Crops::Centre => vec![config.image_size],
        }
    }

    /// Whether view number `view` of an image is a small one.
    pub(super) fn is_local(&self, view: usize) -> bool {
        match self {
            Crops::Random { views, .. } => matches!(views.get(view), Some(View::Local(_))),
            Crops::Centre => false,
        }
    }
}
