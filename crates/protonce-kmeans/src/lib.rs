//! Exact k-means.

mod clustering_metrics;
mod quality;

pub use clustering_metrics::{Agreement, agreement, normalised_mutual_information};
pub use quality::Quality;
