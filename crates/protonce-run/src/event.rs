//! What happens in a run, as it is written to `events.jsonl` and told to anyone who watches.
//!
//! Logs of earlier versions lack some of the fields, and JSON has no word for "not a number": a number
//! that is missing or `null` is read as NaN, a count as 0.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use protonce_kmeans::Quality;

/// Means over some steps.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Measures {
    /// InfoNCE + ProtoNCE.
    #[serde(default = "nan", deserialize_with = "number")]
    pub loss: f64,
    /// InfoNCE.
    #[serde(default = "nan", deserialize_with = "number")]
    pub instance_loss: f64,
    /// Share of queries that score their own key highest, in percent.
    #[serde(default = "nan", deserialize_with = "number")]
    pub instance_accuracy: f64,
    /// The mean of the granularities' prototype terms; none before the first E-step.
    #[serde(default)]
    pub prototype_loss: Option<f64>,
    /// Share of queries that score their own prototype highest, in percent.
    #[serde(default)]
    pub prototype_accuracy: Option<f64>,
}

/// What nearest neighbours say without any learning: what an accuracy has to be above.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Floor {
    /// What is compared, for example "untrained network".
    pub name: String,
    /// Weighted kNN: top-1 accuracy in percent by number of neighbours.
    #[serde(default, deserialize_with = "accuracies")]
    pub knn: BTreeMap<i64, f64>,
}

/// One line of `events.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
        #[serde(default = "nan", deserialize_with = "number")]
        learning_rate: f64,
        /// Images since the last such event.
        #[serde(default)]
        images: usize,
        /// Seconds since the last such event.
        #[serde(default = "nan", deserialize_with = "number")]
        seconds: f64,
        /// Images per second.
        #[serde(default = "nan", deserialize_with = "number")]
        images_per_second: f64,
        /// Seconds of these in which training waited for views.
        #[serde(default = "nan", deserialize_with = "number")]
        waited: f64,
        /// Seconds of these in which this process waited for others; none where it is alone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        communicated: Option<f64>,
    },
    /// An epoch ended.
    Epoch {
        /// Its number, counted from 0.
        epoch: usize,
        /// Means over its steps.
        #[serde(flatten)]
        measures: Measures,
        /// The learning rate.
        #[serde(default = "nan", deserialize_with = "number")]
        learning_rate: f64,
        /// Images trained on.
        #[serde(default)]
        images: usize,
        /// Seconds of its M-step.
        #[serde(default = "nan", deserialize_with = "number")]
        seconds: f64,
    },
    /// Whether the views of an epoch's M-step were there in time.
    Loader {
        /// The epoch, counted from 0.
        epoch: usize,
        /// Threads that made views.
        #[serde(default)]
        threads: usize,
        /// Images of which views were made.
        #[serde(default)]
        images: usize,
        /// Seconds of the M-step.
        #[serde(default = "nan", deserialize_with = "number")]
        seconds: f64,
        /// Seconds of these in which training waited for views.
        #[serde(default = "nan", deserialize_with = "number")]
        waited: f64,
    },
    /// An E-step ended.
    Expectation {
        /// The epoch that it begins; after training, the number of epochs.
        epoch: usize,
        /// Images that were clustered.
        #[serde(default)]
        images: usize,
        /// Those of them for which a key of the epoch before served as embedding.
        #[serde(default)]
        reused: usize,
        /// One entry per granularity.
        #[serde(default)]
        granularities: Vec<Quality>,
        /// Directions that the embeddings fill, 1 to their dimension (RankMe).
        #[serde(default = "nan", deserialize_with = "number")]
        effective_rank: f64,
        /// How far the embeddings are spread out: 0 when all are the same, about 1 in all directions.
        #[serde(default = "nan", deserialize_with = "number")]
        spread: f64,
        /// Seconds spent on embeddings.
        #[serde(default = "nan", deserialize_with = "number")]
        embedding_seconds: f64,
        /// Seconds spent on k-means and concentrations.
        #[serde(default = "nan", deserialize_with = "number")]
        clustering_seconds: f64,
    },
    /// An image could not be read and is left out.
    Skipped {
        /// Its index.
        #[serde(default)]
        index: usize,
        /// Its name.
        #[serde(default)]
        name: String,
        /// Why.
        #[serde(default)]
        reason: String,
    },
    /// What the representation is to be compared with was measured, before training.
    Floors {
        /// The network that the run begins with comes first.
        floors: Vec<Floor>,
        /// Accuracy of guessing the most frequent class, in percent.
        #[serde(default = "nan", deserialize_with = "number")]
        chance: f64,
    },
    /// The representation was measured.
    Evaluation {
        /// Epochs trained.
        epoch: usize,
        /// Weighted kNN of backbone features: top-1 accuracy in percent by number of neighbours.
        #[serde(default, deserialize_with = "accuracies")]
        knn: BTreeMap<i64, f64>,
        /// Accuracy of guessing the most frequent class, in percent.
        #[serde(default = "nan", deserialize_with = "number")]
        chance: f64,
        /// Seconds it took.
        #[serde(default = "nan", deserialize_with = "number")]
        seconds: f64,
    },
    /// Several processes train together from here on.
    World {
        /// How many.
        processes: usize,
        /// Groups of batch norm, dealt to them evenly.
        #[serde(default)]
        groups: usize,
        /// Threads of tensor arithmetic in each.
        #[serde(default)]
        threads: usize,
        /// By what gradients are summed up: `gloo` or `nccl`.
        #[serde(default)]
        backend: String,
    },
    /// The run can be resumed from here.
    Checkpoint {
        /// Epochs completed.
        epoch: usize,
        /// Steps of the next epoch completed.
        #[serde(default)]
        step: usize,
        /// The folder, relative to the run.
        #[serde(default)]
        path: String,
    },
}

fn nan() -> f64 {
    f64::NAN
}

/// A number, or `null` for none.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

/// Accuracies by number of neighbours; those without a number of either kind are left out.
fn accuracies<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<i64, f64>, D::Error> {
    let found = BTreeMap::<String, Option<f64>>::deserialize(deserializer)?.into_iter();
    Ok(found.filter_map(|(k, top1)| Some((k.parse().ok()?, top1?))).collect())
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
    /// Measuring which algorithm is fastest for each convolution; counted in shapes.
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

/// What watches a run: a progress bar, a test, or nothing.
pub type Observer<'a> = dyn FnMut(Progress<'_>) + 'a;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_is_read_as_it_was_written() {
        let measures = Measures {
            loss: 1.5,
            instance_loss: 1.25,
            instance_accuracy: 50.0,
            prototype_loss: Some(0.25),
            prototype_accuracy: None,
        };
        let quality = Quality {
            clusters: 2,
            objective: 0.5,
            empty: 0,
            singletons: 1,
            largest: 3,
            sizes: vec![1, 1],
            concentration: [0.1, 0.2],
            agreement: None,
            warning: None,
        };
        for event in [
            Event::Step {
                epoch: 1,
                step: 2,
                steps: 3,
                measures,
                learning_rate: 0.1,
                images: 4,
                seconds: 2.0,
                images_per_second: 2.0,
                waited: 0.5,
                communicated: Some(0.25),
            },
            Event::Epoch { epoch: 1, measures, learning_rate: 0.1, images: 4, seconds: 2.0 },
            Event::Loader { epoch: 1, threads: 2, images: 3, seconds: 4.0, waited: 0.0 },
            Event::Expectation {
                epoch: 1,
                images: 4,
                reused: 0,
                granularities: vec![quality],
                effective_rank: 7.5,
                spread: 0.5,
                embedding_seconds: 1.0,
                clustering_seconds: 2.0,
            },
            Event::Skipped { index: 3, name: "a.png".into(), reason: "torn".into() },
            Event::Evaluation {
                epoch: 1,
                knn: [(20, 50.5), (200, 25.0)].into(),
                chance: 10.0,
                seconds: 1.0,
            },
            Event::Floors {
                floors: vec![Floor { name: "colours".into(), knn: [(20, 40.5)].into() }],
                chance: 10.0,
            },
            Event::World { processes: 4, groups: 8, threads: 2, backend: "gloo".into() },
            Event::Checkpoint { epoch: 1, step: 2, path: "checkpoints/epoch-0001".into() },
        ] {
            let line = serde_json::to_string(&event).unwrap();
            assert_eq!(serde_json::from_str::<Event>(&line).unwrap(), event, "{line}");
        }
    }

    #[test]
    fn what_a_line_leaves_open_is_not_a_number() {
        let line = "{\"event\":\"epoch\",\"epoch\":3,\"loss\":null,\"colour\":\"red\"}";
        let Event::Epoch { epoch, measures, seconds, images, .. } =
            serde_json::from_str(line).unwrap()
        else {
            panic!("another event")
        };
        assert_eq!((epoch, images, measures.prototype_loss), (3, 0, None));
        assert!(measures.loss.is_nan() && measures.instance_loss.is_nan() && seconds.is_nan());
    }
}
