//! Embeddings to be clustered, wherever they are.

use protonce_kmeans::{
    Clustering, Collective, HostPoints, KMeans, KMeansError, Metric, Points as _, Start, Threads,
    silhouette,
};
use tch::{Device, Tensor};

use super::DevicePoints;

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
        row: usize,
    },
    /// An embedding whose squared length overflows float32.
    #[error(
        "the embedding of image {row} has a value beyond ±1e15, so that distances overflow float32: divide \
         all embeddings by one number, which changes no clusters"
    )]
    TooLarge {
        /// Its row.
        row: usize,
    },
    /// An embedding without a direction, where directions are compared.
    #[error(
        "the embedding of image {row} is zero and has no direction: leave it out, or use the L2 metric"
    )]
    Zero {
        /// Its row.
        row: usize,
    },
    /// Anything else.
    #[error(transparent)]
    KMeans(KMeansError),
}

impl PrototypeError {
    /// The same of rows that are numbered from `first` on.
    pub fn counted_from(self, first: usize) -> PrototypeError {
        match self {
            PrototypeError::NotFinite { row } => PrototypeError::NotFinite { row: first + row },
            PrototypeError::Zero { row } => PrototypeError::Zero { row: first + row },
            other => other,
        }
    }
}

/// k-means speaks of points and of its interface; here they are embeddings of images.
impl From<KMeansError> for PrototypeError {
    fn from(error: KMeansError) -> PrototypeError {
        match error {
            KMeansError::TooManyClusters { clusters, points } => {
                let (clusters, images) = (clusters as i64, points as i64);
                PrototypeError::TooManyClusters { clusters, images }
            }
            KMeansError::NoClusters => PrototypeError::NoClusters,
            KMeansError::NotFinite { point } => PrototypeError::NotFinite { row: point },
            KMeansError::TooLarge { point } => PrototypeError::TooLarge { row: point },
            KMeansError::Zero { point } => PrototypeError::Zero { row: point },
            other => PrototypeError::KMeans(other),
        }
    }
}

/// Embeddings that are fit to be clustered: float32 [count, dim].
pub enum Points<'a> {
    /// In memory.
    Host(Box<HostPoints<'a>>),
    /// On a GPU.
    Device(DevicePoints),
}

impl<'a> Points<'a> {
    /// The rows of a tensor, float32 [count, dim], on the device where it is.
    ///
    /// # Errors
    /// When a row is not finite or too large for its squared length, or has no direction and `metric`
    /// needs one.
    pub fn from_tensor(rows: &Tensor, metric: Metric) -> Result<Points<'static>, PrototypeError> {
        if rows.device() != Device::Cpu {
            return Ok(Points::Device(DevicePoints::new(rows, metric)?));
        }
        let mut values = vec![0f32; rows.numel()];
        rows.contiguous().copy_data(&mut values, rows.numel());
        let points = HostPoints::new(values, rows.size()[1] as usize, metric)?;
        Ok(Points::Host(Box::new(points)))
    }

    /// Rows of `dim` values in memory, one after the other, to be clustered on `device`. For the CPU they
    /// are borrowed.
    ///
    /// # Errors
    /// When a row is not finite or too large for its squared length, or has no direction and `metric`
    /// needs one.
    pub fn from_values(
        values: &'a [f32],
        dim: usize,
        metric: Metric,
        device: Device,
    ) -> Result<Points<'a>, PrototypeError> {
        match device {
            Device::Cpu => Ok(Points::Host(Box::new(HostPoints::new(values, dim, metric)?))),
            _ => {
                let rows = Tensor::from_slice(values).view([-1, dim as i64]).to_device(device);
                Ok(Points::Device(DevicePoints::new(&rows, metric)?))
            }
        }
    }

    /// How many rows there are.
    pub fn count(&self) -> usize {
        match self {
            Points::Host(points) => points.count(),
            Points::Device(points) => points.count(),
        }
    }

    /// [`KMeans::fit_on`] for these rows, from clusters `before` or, without any, drawn ones.
    ///
    /// # Errors
    /// When there are more clusters than rows, or no clusters, or it was stopped.
    pub fn fit(
        &self,
        options: &KMeans,
        clusters: usize,
        before: Option<&[i64]>,
        collective: &dyn Collective,
        threads: &Threads,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Clustering, PrototypeError> {
        let start = before.map_or(Start::Drawn, Start::Clusters);
        Ok(match self {
            Points::Host(points) => {
                options.fit_on(&**points, clusters, start, collective, threads, progress)
            }
            Points::Device(points) => {
                options.fit_on(points, clusters, start, collective, threads, progress)
            }
        }?)
    }

    /// [`KMeans::merge`] of a clustering of these rows.
    ///
    /// # Errors
    /// When there are more clusters than `finer` has, or no clusters, or it was stopped.
    pub fn merge(
        &self,
        options: &KMeans,
        finer: &Clustering,
        clusters: usize,
        collective: &dyn Collective,
        threads: &Threads,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Clustering, PrototypeError> {
        Ok(match self {
            Points::Host(points) => {
                options.merge(&**points, finer, clusters, collective, threads, progress)
            }
            Points::Device(points) => {
                options.merge(points, finer, clusters, collective, threads, progress)
            }
        }?)
    }

    /// [`silhouette`] of a clustering of these rows, on so many threads of the host; 0: one per core.
    ///
    /// # Errors
    /// When threads cannot be started.
    pub fn silhouette(
        &self,
        clustering: &Clustering,
        threads: usize,
    ) -> Result<Option<f64>, PrototypeError> {
        let threads = Threads::new(threads)?;
        Ok(match self {
            Points::Host(points) => silhouette(&**points, clustering, &threads),
            Points::Device(points) => silhouette(points, clustering, &threads),
        })
    }
}
