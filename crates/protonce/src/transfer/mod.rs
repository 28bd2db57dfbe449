//! What a representation is worth: features and labels in, accuracies out.
//!
//! Enters: a [`FrozenEncoder`] and labelled images, whose features are computed once and kept. Leaves:
//! one figure an evaluation. [`knn_accuracy`] and [`agreement`] of clusters with labels train nothing;
//! [`Logistic`], [`Probe`] and [`Svm`] train linear classifiers on frozen features; [`FineTune`] trains
//! the whole network. [`published`] figures stand beside ours.

mod agreement;
mod error;
mod features;
mod knn;
mod labels;
mod logistic;
mod probe;
mod published;
mod semi;
mod svm;

pub use agreement::{Agreement, agreement, normalised_mutual_information};
pub use error::TransferError;
pub use features::{FeatureCache, FrozenEncoder};
pub use knn::{Knn, KnnAccuracy, Recall, knn_accuracy, neighbours, recall};
pub use labels::common_labels;
pub use logistic::{LinearClassifier, Logistic, LogisticFit, TopAccuracy, top_accuracy};
pub use probe::{Probe, Step};
pub use published::{Published, published};
pub use semi::{FineTune, FineTuned, listed, share_of_each_class};
pub use svm::{Plane, Rows, Svm, SvmMeasure, SvmResult, SvmSet, average_precision, svm_results};
