//! What a representation is worth: features and labels in, accuracies out.

mod agreement;
mod knn;

pub use agreement::{Agreement, agreement, normalised_mutual_information};
pub use knn::{Knn, KnnAccuracy, TransferError, common_labels, knn_accuracy};
