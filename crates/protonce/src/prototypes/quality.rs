//! Whether a clustering is worth training on, in numbers that can be watched.

use protonce_kmeans::Quality;
use tch::Tensor;

use super::{Clustering, Metric, Points, PrototypeError, squared_distance};

/// [`Quality`] of a clustering and the concentrations of its clusters, float32 [clusters].
pub fn quality(clustering: &Clustering, concentration: &Tensor, agreement: Option<f64>) -> Quality {
    let clusters = clustering.centroids.size()[0] as usize;
    let assignment = Vec::<i64>::try_from(&clustering.assignment).unwrap_or_default();
    let concentration = Vec::<f32>::try_from(concentration).unwrap_or_default();
    Quality::new(&assignment, clusters, clustering.objective, &concentration, agreement)
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
