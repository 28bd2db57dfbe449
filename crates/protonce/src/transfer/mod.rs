//! What a representation is worth: features and labels in, accuracies out.
//!
//! Enters: a [`FrozenEncoder`] and labelled images, whose features are computed once and kept in a
//! [`FeatureCache`]. Leaves: one figure per evaluation. [`knn_accuracy`] trains nothing; [`Logistic`],
//! [`LinearProbe`] and [`Svm`] train linear classifiers on frozen features; [`FineTune`] trains the whole
//! network. [`published`] figures stand beside ours.

mod classifier;
mod error;
mod feature_cache;
mod fine_tune;
mod floors;
mod frozen_encoder;
mod knn;
mod labels;
mod lbfgs;
mod linear_probe;
mod logistic;
mod published;
mod subset;
mod supervised;
mod svm;

pub use classifier::{LinearClassifier, TopAccuracy, top_accuracy};
pub use error::TransferError;
pub use feature_cache::FeatureCache;
pub use fine_tune::{FineTune, FineTuned};
pub use floors::{TrivialFeatures, trivial_floors};
pub use frozen_encoder::FrozenEncoder;
pub use knn::{Knn, KnnAccuracy, Recall, knn_accuracy, neighbours, recall};
pub use labels::common_labels;
pub use linear_probe::LinearProbe;
pub use logistic::{Logistic, LogisticFit};
pub use published::{Published, published};
pub use subset::{listed, share_of_each_class};
pub use supervised::{SupervisedProgress, SupervisedSgd};
pub use svm::{
    FeatureMatrix, Plane, Svm, SvmMeasure, SvmResult, SvmSet, average_precision, svm_results,
};
