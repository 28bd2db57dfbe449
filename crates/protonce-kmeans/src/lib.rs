//! Exact k-means for embeddings, several times faster than plain iterations, and measures of clusterings.
//!
//! *Enters*: points, as a slice of float32 values and their dimension, borrowed from wherever they are
//! (a memory-mapped file is fine). *Leaves*: a [`Clustering`] in plain vectors, the same to the bit as
//! plain float32 Lloyd's iterations give from the same starts, for any number of threads. *Why it
//! exists*: looking at every centroid for every point is the cost of k-means, and approximate libraries
//! save it by answering another question; here inequalities rule nearly all centroids out and the answer
//! stays that of the definition.
//!
//! ```
//! use protonce_kmeans::{HostPoints, KMeans, Metric, Threads, silhouette};
//!
//! // Two heaps of points in the plane.
//! let rows = [0.0, 0.1, 0.1, 0.0, 0.0, 0.0, 9.0, 9.1, 9.1, 9.0, 9.0, 9.0];
//! let points = HostPoints::new(&rows[..], 2, Metric::Euclidean)?;
//! let clustering = KMeans { seed: 1, ..KMeans::default() }.fit(&points, 2)?;
//! let (first, second) = clustering.assignment.split_at(3);
//! assert!(first != second && first.iter().all(|&cluster| cluster == first[0]));
//! assert!(silhouette(&points, &clustering, &Threads::new(1)?) > Some(0.9));
//! # Ok::<(), protonce_kmeans::KMeansError>(())
//! ```
//!
//! Beside k-means: [`agreement`] compares clusters with labels, by the measures of scikit-learn;
//! [`silhouette`] tells how well clusters stand apart; [`Quality`] and [`concentration`] are what
//! prototypical contrastive learning, which this crate was written for, asks of its clusters.
//!
//! Two seams lead out of the crate. [`Points`] is what k-means asks of points that lie elsewhere, such
//! as on a GPU; [`Collective`] is what it asks of a group of processes that cluster together.

mod assignment;
mod clustering_metrics;
mod collective;
mod concentration;
mod distance;
mod error;
mod host_points;
mod init;
mod kmeans;
mod lloyd;
mod matrix;
mod nearest;
mod parts;
mod points;
mod quality;
mod silhouette;
mod sums;
mod threads;

pub use assignment::{Assignment, Effort};
pub use clustering_metrics::{Agreement, agreement, normalised_mutual_information};
pub use collective::{Collective, CollectiveError, SingleProcess};
pub use concentration::{ConcentrationOptions, concentration};
pub use distance::squared_distance;
pub use error::KMeansError;
pub use host_points::HostPoints;
pub use init::Init;
pub use kmeans::{Clustering, KMeans, Start};
pub use lloyd::Iteration;
pub use nearest::Search;
pub use points::{Metric, Points};
pub use quality::{Quality, Source};
pub use silhouette::silhouette;
pub use sums::Members;
pub use threads::Threads;
