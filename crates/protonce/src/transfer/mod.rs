//! What a representation is worth: features and labels in, accuracies out.

mod knn;

pub use knn::{Knn, KnnAccuracy, TransferError, common_labels, knn_accuracy};
