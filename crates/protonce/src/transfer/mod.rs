//! What a representation is worth: features and labels in, accuracies out.
//!
//! Enters: a [`FrozenEncoder`] and labelled images, whose features are computed once and kept. Leaves:
//! one figure an evaluation. [`knn_accuracy`] trains nothing; [`Logistic`] trains a linear classifier on
//! frozen features.

mod error;
mod features;
mod knn;
mod labels;
mod logistic;
mod svm;

pub use error::TransferError;
pub use features::{FeatureCache, FrozenEncoder};
pub use knn::{Knn, KnnAccuracy, knn_accuracy};
pub use labels::common_labels;
pub use logistic::{LinearClassifier, Logistic, LogisticFit, TopAccuracy, top_accuracy};
pub use svm::{Plane, Rows, Svm, SvmMeasure, SvmResult, SvmSet, average_precision, svm_results};
