//! What happens in a run, as it is written to `events.jsonl` and told to whoever watches.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use protonce_kmeans::Quality;

/// Means over some steps.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Measures {
    /// InfoNCE + ProtoNCE.
    pub loss: f64,
    /// InfoNCE.
    pub instance_loss: f64,
    /// Share of queries that score their own key highest, in percent.
    pub instance_accuracy: f64,
    /// The mean of the granularities' prototype terms; none before the first E-step.
    pub prototype_loss: Option<f64>,
    /// Share of queries that score their own prototype highest, in percent.
    pub prototype_accuracy: Option<f64>,
}

/// One line of `events.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Event {
    /// Some steps went by.
    Step {
        /// The epoch, counted from 0.
        epoch: usize,
        /// Steps of this epoch done.
        step: usize,
        /// Steps of an epoch.
        steps: usize,
        /// Means over the steps since the last such event.
        #[serde(flatten)]
        measures: Measures,
        /// The learning rate.
        learning_rate: f64,
        /// Images since the last such event.
        images: usize,
        /// Seconds since the last such event.
        seconds: f64,
        /// Images a second.
        images_per_second: f64,
        /// Seconds of these in which training waited for views.
        waited: f64,
    },
    /// An epoch ended.
    Epoch {
        /// Its number, counted from 0.
        epoch: usize,
        /// Means over its steps.
        #[serde(flatten)]
        measures: Measures,
        /// The learning rate.
        learning_rate: f64,
        /// Images trained on.
        images: usize,
        /// Seconds of its M-step.
        seconds: f64,
    },
    /// Whether the views of an epoch's M-step were there in time.
    Loader {
        /// The epoch, counted from 0.
        epoch: usize,
        /// Threads that made views.
        threads: usize,
        /// Images of which views were made.
        images: usize,
        /// Seconds of the M-step.
        seconds: f64,
        /// Seconds of these in which training waited for views.
        waited: f64,
    },
    /// An E-step ended.
    Expectation {
        /// The epoch that it begins; after training, the number of epochs.
        epoch: usize,
        /// Images that were clustered.
        images: usize,
        /// Those of them for which a key of the epoch before served as embedding.
        reused: usize,
        /// One entry a granularity.
        granularities: Vec<Quality>,
        /// Seconds spent on embeddings.
        embedding_seconds: f64,
        /// Seconds spent on k-means and concentrations.
        clustering_seconds: f64,
    },
    /// An image could not be read and is left out.
    Skipped {
        /// Its index.
        index: usize,
        /// Its name.
        name: String,
        /// Why.
        reason: String,
    },
    /// The representation was measured.
    Evaluation {
        /// Epochs trained.
        epoch: usize,
        /// Weighted kNN of backbone features: top-1 accuracy in percent by number of neighbours.
        knn: BTreeMap<i64, f64>,
        /// Accuracy of guessing the most frequent class, in percent.
        chance: f64,
        /// Seconds it took.
        seconds: f64,
    },
    /// The run can be resumed from here.
    Checkpoint {
        /// Epochs completed.
        epoch: usize,
        /// Steps of the next epoch completed.
        step: usize,
        /// The folder, relative to the run.
        path: String,
    },
}

/// Long work of which the end is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Embedding images for the E-step.
    Embedding,
    /// Clustering embeddings; counted in iterations.
    Clustering,
    /// Training; counted in images of the epoch.
    Training,
    /// Computing features for an evaluation.
    Features,
    /// Measuring which ways of convolving are fastest; counted in shapes.
    Tuning,
}

/// Told while a run goes on.
pub enum Progress<'a> {
    /// Something that is also a line of `events.jsonl`.
    Event(&'a Event),
    /// `done` of `total` units of some work.
    Task {
        /// Which work.
        task: Task,
        /// Units done.
        done: usize,
        /// Units in all.
        total: usize,
    },
    /// A sentence that the user should know.
    Warning(&'a str),
}

/// Whoever watches a run: a progress bar, a test, nobody.
pub type Observer<'a> = dyn FnMut(Progress<'_>) + 'a;
