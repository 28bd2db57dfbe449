//! The E-step: embeddings in; assignment, prototypes and concentration of each granularity out.
//!
//! The embeddings of all images are clustered once per granularity; centroids, L2-normalised,
//! become prototypes, and how tightly a cluster's members lie around its centroid becomes that
//! prototype's temperature (PCL §3.2 and §3.3).

mod concentration;
mod kmeans;

pub use concentration::concentration;
pub use kmeans::{Clustering, KMeans, assign};

use tch::{Kind, Tensor};

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
        "the embedding of image {row} is not finite: training has diverged, resume with a lower learning rate"
    )]
    NotFinite {
        /// Its row.
        row: i64,
    },
}

/// One granularity of the E-step's result.
pub struct Prototypes {
    /// The prototype of each image: int64 [n], −1 for an image that could not be read.
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

/// Clusters `embeddings` (float32 [rows, dim], one row for each image of `images`) into
/// `clusters` prototypes, for a data set of `count` images.
///
/// `seed` decides the random starts. The published code seeds each granularity by its position.
///
/// Also returns the sum of squared distances of all rows to their centroids.
///
/// # Errors
/// When there are more clusters than rows, no clusters, or a row that is not finite.
pub fn cluster(
    embeddings: &Tensor,
    images: &[i64],
    count: i64,
    clusters: i64,
    options: ConcentrationOptions,
    seed: u64,
) -> Result<(Prototypes, f64), PrototypeError> {
    let clustering = KMeans::default().fit(embeddings, clusters, seed)?;
    let concentration =
        concentration(&clustering.distances, &clustering.assignment, clusters, options);
    let device = embeddings.device();
    let rows = Tensor::from_slice(images).to_device(device);
    let assignment = Tensor::full([count], -1, (Kind::Int64, device));
    let assignment = assignment.index_copy(0, &rows, &clustering.assignment);
    let prototypes = normalise_rows(&clustering.centroids);
    Ok((Prototypes { assignment, prototypes, concentration }, clustering.objective))
}
