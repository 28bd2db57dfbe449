//! The E-step: embeddings in; assignment, prototypes and concentration of each granularity out.
//!
//! The embeddings of all images are clustered once per granularity; centroids, L2-normalised,
//! become prototypes, and how tightly a cluster's members lie around its centroid becomes that
//! prototype's temperature (PCL §3.2 and §3.3).

mod concentration;
mod kmeans;
mod nearest;
mod points;
mod quality;
mod starts;

pub use concentration::concentration;
pub use kmeans::{Clustering, Iteration, KMeans, Metric, Start};
pub use nearest::squared_distance;
pub use points::Points;
pub use quality::{medoids, quality, silhouette};

use tch::{Device, Kind, Tensor};

use crate::encoder::normalise_rows;

/// What can be wrong with a clustering that was asked for.
#[derive(Debug, thiserror::Error)]
pub enum PrototypeError {
    /// A granularity has more clusters than there are images.
    #[error(
        "cannot form {clusters} clusters from {images} images: ask for {images} or fewer, or for \"auto\""
    )]
    TooManyClusters {
        /// Clusters asked for.
        clusters: i64,
        /// Images there are.
        images: i64,
    },
    /// A granularity without clusters.
    #[error("a granularity of 0 clusters was asked for: expected 1 or more")]
    NoClusters,
    /// An embedding is not a number.
    #[error(
        "the embedding of image {row} is not finite: if it comes from training, that has diverged, resume with a lower learning rate"
    )]
    NotFinite {
        /// Its row.
        row: i64,
    },
    /// An embedding without a direction, where directions are compared.
    #[error(
        "the embedding of image {row} is zero and has no direction: leave it out, or use the L2 metric"
    )]
    Zero {
        /// Its row.
        row: i64,
    },
}

/// One granularity of the E-step's result.
pub struct Prototypes {
    /// The prototype of each image: int64 [n] on the CPU, where negatives are drawn; −1 for an image
    /// that could not be read.
    pub assignment: Tensor,
    /// L2-normalised centroids: float32 [k, dim].
    pub prototypes: Tensor,
    /// φ, each prototype's temperature: float32 [k].
    pub concentration: Tensor,
}

/// How the E-step scales the concentrations (PCL §3.3).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ConcentrationOptions {
    /// τ, which the concentrations average to.
    pub temperature: f64,
    /// α, which keeps small clusters from looking concentrated.
    pub smoothing: f64,
}

impl Prototypes {
    /// The prototypes of `clustering`, whose rows are the embeddings of `images`, for a data set of
    /// `count` images.
    pub fn new(
        clustering: &Clustering,
        images: &[i64],
        count: usize,
        options: ConcentrationOptions,
    ) -> Prototypes {
        let _guard = tch::no_grad_guard();
        let Clustering { centroids, assignment, distances, .. } = clustering;
        let concentration = concentration(distances, assignment, centroids.size()[0], options);
        let everywhere = Tensor::full([count as i64], -1, (Kind::Int64, Device::Cpu));
        Prototypes {
            assignment: everywhere.index_copy(0, &Tensor::from_slice(images), assignment),
            prototypes: normalise_rows(centroids),
            concentration: concentration.to_device(centroids.device()),
        }
    }
}
