//! Whether a clustering is worth training on, in numbers that can be watched.

use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::{Clustering, Metric, Points, PrototypeError, squared_distance};

/// One granularity in numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// Clusters.
    pub clusters: i64,
    /// Mean squared distance of an embedding to its centroid.
    pub objective: f64,
    /// Clusters without an image.
    pub empty: i64,
    /// Clusters of one image.
    pub singletons: i64,
    /// Images of the largest cluster.
    pub largest: i64,
    /// How many clusters have 1, 2 to 3, 4 to 7, … images: the entry at i counts sizes from 2^i on.
    pub sizes: Vec<i64>,
    /// Least and largest concentration.
    pub concentration: [f64; 2],
    /// Normalised mutual information with the clusters of the E-step before: 1 where nothing changed.
    /// None where there was none.
    pub agreement: Option<f64>,
    /// What is wrong with it, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

impl Quality {
    /// Of a clustering and the concentrations of its clusters, float32 [clusters].
    pub fn new(clustering: &Clustering, concentration: &Tensor, agreement: Option<f64>) -> Quality {
        let clusters = clustering.centroids.size()[0];
        let sizes = clustering.assignment.bincount(None::<&Tensor>, clusters);
        let sizes = Vec::<i64>::try_from(&sizes).unwrap_or_default();
        let images: i64 = sizes.iter().sum();
        let largest = sizes.iter().copied().max().unwrap_or(0);
        let mut histogram = vec![0; largest.checked_ilog2().map_or(0, |last| last as usize + 1)];
        for place in sizes.iter().filter_map(|size| size.checked_ilog2()) {
            histogram[place as usize] += 1;
        }
        let of = |size: i64| sizes.iter().filter(|&&found| found == size).count() as i64;
        let mut quality = Quality {
            clusters,
            objective: clustering.objective / images.max(1) as f64,
            empty: of(0),
            singletons: of(1),
            largest,
            sizes: histogram,
            concentration: [
                concentration.min().double_value(&[]),
                concentration.max().double_value(&[]),
            ],
            agreement,
            warning: None,
        };
        quality.warning = quality.find_fault(images);
        quality
    }

    fn find_fault(&self, images: i64) -> Option<String> {
        let Quality { clusters, objective, empty, singletons, largest, .. } = self;
        if images > *clusters && *objective < 1e-7 {
            return Some(format!(
                "the embeddings of {clusters} prototypes are nearly equal (mean squared distance {objective:.1e}): the encoder has collapsed, try a lower --lr or a longer --warmup-epochs"
            ));
        }
        if *clusters >= 8 && *largest > images / 2 {
            return Some(format!(
                "one of {clusters} prototypes has {largest} of {images} images: the encoder is collapsing, try a lower --lr or a longer --warmup-epochs"
            ));
        }
        if 2 * (empty + singletons) > *clusters && images > 2 * clusters {
            return Some(format!(
                "{} of {clusters} prototypes have at most one image: ask for fewer --clusters",
                empty + singletons
            ));
        }
        None
    }
}

/// The row nearest to each centroid: int64 [clusters], −1 for an empty cluster.
pub fn medoids(clustering: &Clustering) -> Tensor {
    let clusters = clustering.centroids.size()[0] as usize;
    let nearest = Vec::<i64>::try_from(&clustering.assignment).unwrap_or_default();
    let distances = Vec::<f32>::try_from(&clustering.distances).unwrap_or_default();
    let mut medoids = vec![(f32::INFINITY, -1); clusters];
    for (row, (cluster, distance)) in nearest.into_iter().zip(distances).enumerate() {
        let medoid = &mut medoids[cluster as usize];
        if distance < medoid.0 {
            *medoid = (distance, row as i64);
        }
    }
    let rows: Vec<i64> = medoids.into_iter().map(|(_, row)| row).collect();
    Tensor::from_slice(&rows)
}

/// How much nearer rows are to their own centroid, a, than to the next, b: the mean of (b − a) / b over
/// up to 4096 rows (the simplified silhouette of Hruschka et al. 2006). From 0, no structure, to 1.
///
/// # Errors
/// When centroids are not finite.
pub fn silhouette(points: &Points, clustering: &Clustering) -> Result<f64, PrototypeError> {
    const ROWS: usize = 4096;
    let (count, dim) = (points.count(), points.dim());
    let chosen: Vec<usize> = (0..count).step_by(count.div_ceil(ROWS)).collect();
    let rows = points.values(&chosen);
    let centroids = Points::from_tensor(&clustering.centroids, Metric::Euclidean)?;
    let centroids = centroids.host_values();
    let mut sum = 0.0;
    for row in rows.chunks(dim) {
        let mut nearest = [f32::INFINITY; 2];
        for centroid in centroids.chunks(dim) {
            let squared = squared_distance(row, centroid);
            if squared < nearest[0] {
                nearest = [squared, nearest[0]];
            } else if squared < nearest[1] {
                nearest[1] = squared;
            }
        }
        let [own, next] = nearest.map(|squared| f64::from(squared).sqrt());
        if next.is_finite() && next > 0.0 {
            sum += (next - own) / next;
        }
    }
    Ok(sum / chosen.len() as f64)
}
