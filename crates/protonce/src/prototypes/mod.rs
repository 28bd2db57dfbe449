//! The E-step: embeddings in; assignment, prototypes and concentration of each granularity out.
//!
//! The embeddings of all images are clustered once per granularity; centroids, L2-normalised,
//! become prototypes, and how tightly a cluster's members lie around its centroid becomes that
//! prototype's temperature (PCL §3.2 and §3.3). The clustering itself is [`protonce_kmeans`]'s; here
//! are the two things that need tensors: [`Points`] on any device, and [`Prototypes`] to train on.

mod device_points;
mod effective_rank;
mod points;

pub use device_points::DevicePoints;
pub use effective_rank::{effective_rank, spread};
pub use points::{Points, PrototypeError};

use protonce_kmeans::Clustering;
use tch::{Device, Kind, Tensor};

use protonce_encoder::normalise_rows;

/// One granularity of the E-step's result.
pub struct Prototypes {
    /// The prototype of each image: int64 \[n\] on the CPU, where negatives are drawn; −1 for an image
    /// that could not be read.
    pub assignment: Tensor,
    /// L2-normalised centroids: float32 [k, dim].
    pub prototypes: Tensor,
    /// φ, each prototype's temperature: float32 \[k\].
    pub concentration: Tensor,
}

impl Prototypes {
    /// The prototypes of `clustering`, whose points are the embeddings of `images`, for a data set of
    /// `count` images. `concentration` is that of each cluster. Training is on `device`.
    pub fn new(
        clustering: &Clustering,
        concentration: &[f32],
        images: &[i64],
        count: usize,
        device: Device,
    ) -> Prototypes {
        let _guard = tch::no_grad_guard();
        let everywhere = Tensor::full([count as i64], -1, (Kind::Int64, Device::Cpu));
        let assignment = Tensor::from_slice(&clustering.assignment);
        let centroids = Tensor::from_slice(&clustering.centroids);
        let centroids = centroids.view([-1, clustering.dim as i64]).to_device(device);
        Prototypes {
            assignment: everywhere.index_copy(0, &Tensor::from_slice(images), &assignment),
            prototypes: normalise_rows(&centroids),
            concentration: Tensor::from_slice(concentration).to_device(device),
        }
    }
}
