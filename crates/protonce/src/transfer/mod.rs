//! What a representation is worth: features and labels in, accuracies out.
//!
//! Enters: a [`FrozenEncoder`] and labelled images, whose features are computed once and kept. Leaves:
//! one figure an evaluation. [`knn_accuracy`] and [`agreement`] of clusters with labels train nothing;
//! [`Logistic`], [`LinearProbe`] and [`Svm`] train linear classifiers on frozen features; [`FineTune`] trains
//! the whole network. [`published`] figures stand beside ours.

mod error;
mod features;
mod fine_tune;
mod knn;
mod labels;
mod linear_probe;
mod logistic;
mod published;
mod svm;

pub use error::TransferError;
pub use features::{FeatureCache, FrozenEncoder};
pub use fine_tune::{FineTune, FineTuned, listed, share_of_each_class};
pub use knn::{Knn, KnnAccuracy, Recall, knn_accuracy, neighbours, recall};
pub use labels::common_labels;
pub use linear_probe::{LinearProbe, Step};
pub use logistic::{LinearClassifier, Logistic, LogisticFit, TopAccuracy, top_accuracy};
pub use published::{Published, published};
pub use svm::{Plane, Rows, Svm, SvmMeasure, SvmResult, SvmSet, average_precision, svm_results};
