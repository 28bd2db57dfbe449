//! How well clusters stand apart, in one number.

use crate::Clustering;
use crate::distance::squared_distance;
use crate::matrix::Matrix;
use crate::points::Points;

/// How much nearer points are to their own centroid, a, than to the next, b: the mean of (b − a) / b over
/// up to 4096 points (the simplified silhouette of Hruschka et al. 2006). From 0, no structure, to 1.
pub fn silhouette<P: Points>(points: &P, clustering: &Clustering) -> f64 {
    const MOST: usize = 4096;
    let (count, dim) = (points.count(), points.dim());
    let chosen: Vec<usize> = (0..count).step_by(count.div_ceil(MOST)).collect();
    let selected = points.select(&chosen);
    let mut sum = 0.0;
    for point in selected.values().chunks(dim) {
        let mut nearest = [f32::INFINITY; 2];
        let centroids = Matrix { values: &clustering.centroids, dim };
        for centroid in (0..centroids.count()).map(|number| centroids.row(number)) {
            let squared = squared_distance(point, centroid);
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
    sum / chosen.len() as f64
}
