//! How well clusters stand apart, in one number.

use crate::Clustering;
use crate::distance::squared_distance;
use crate::matrix::Matrix;
use crate::points::Points;
use crate::threads::Threads;

/// Points that are measured at most, spread evenly; each of them against all points.
const MOST: usize = 1024;

/// Points that a thread measures at once: every other point is read once for all of them.
const TOGETHER: usize = 16;

/// The mean silhouette (Rousseeuw 1987), as scikit-learn has it, of up to 1024 points: (b − a) / max(a, b),
/// where a is a point's mean distance to the others of its cluster and b that to the points of the
/// nearest other cluster; 0 for a point alone in its cluster. From −1 to 1, and near 0 where clusters cut
/// through heaps. Clusters without points count for nothing, and where fewer than two have any there is
/// no such number.
pub fn silhouette<P: Points>(
    points: &P,
    clustering: &Clustering,
    threads: &Threads,
) -> Option<f64> {
    let mut sizes = vec![0usize; clustering.clusters()];
    clustering.assignment.iter().for_each(|&cluster| sizes[cluster as usize] += 1);
    if sizes.iter().filter(|&&size| size > 0).count() < 2 {
        return None;
    }
    let values = points.values();
    let rows = Matrix { values: &values, dim: points.dim() };
    let measured: Vec<usize> =
        (0..rows.count()).step_by(rows.count().div_ceil(MOST).max(1)).collect();
    let mut found = vec![0f64; measured.len()];
    let pieces = measured.chunks(TOGETHER).zip(found.chunks_mut(TOGETHER));
    threads.share(pieces, |(measured, found)| {
        measure(rows, &clustering.assignment, &sizes, measured, found);
    });
    Some(found.iter().sum::<f64>() / found.len() as f64)
}

/// The silhouettes of the points `measured`.
fn measure(
    rows: Matrix<'_>,
    assignment: &[i64],
    sizes: &[usize],
    measured: &[usize],
    found: &mut [f64],
) {
    // Of each cluster, the sum of its points' distances to each of those measured.
    let mut sums = vec![[0f64; TOGETHER]; sizes.len()];
    for (other, &cluster) in assignment.iter().enumerate() {
        let other = rows.row(other);
        for (sum, &point) in sums[cluster as usize].iter_mut().zip(measured) {
            *sum += f64::from(squared_distance(other, rows.row(point))).sqrt();
        }
    }
    for (place, (&point, found)) in measured.iter().zip(found).enumerate() {
        let own = assignment[point] as usize;
        if sizes[own] < 2 {
            continue;
        }
        let within = sums[own][place] / (sizes[own] - 1) as f64;
        let others = sums.iter().zip(sizes).enumerate();
        let others = others.filter(|&(cluster, (_, &size))| cluster != own && size > 0);
        let nearest =
            others.map(|(_, (sum, &size))| sum[place] / size as f64).fold(f64::INFINITY, f64::min);
        let most = within.max(nearest);
        if most > 0.0 {
            *found = (nearest - within) / most;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{HostPoints, Metric};

    /// Rows [count, dim] around some heaps, `gap` apart, which numpy computes in the same way.
    fn rows(count: usize, dim: usize, heaps: usize, gap: f64) -> Vec<f32> {
        let value = |i: usize, d: usize| {
            let noise = ((i * 7919 + d * 104_729 + i * d * 31) % 1000) as f64 / 1000.0;
            (noise + gap * ((i % heaps) * (d + 1) % heaps) as f64) as f32
        };
        (0..count).flat_map(|i| (0..dim).map(move |d| value(i, d))).collect()
    }

    /// The silhouette of this assignment to so many clusters, on one thread and on three.
    fn found(
        rows: &[f32],
        dim: usize,
        clusters: usize,
        cluster: impl Fn(usize) -> i64,
    ) -> Option<f64> {
        let points = HostPoints::new(rows, dim, Metric::Euclidean).unwrap();
        let assignment: Vec<i64> = (0..points.count()).map(cluster).collect();
        let clustering = Clustering {
            centroids: vec![0.0; clusters * dim],
            dim,
            distances: vec![0.0; assignment.len()],
            assignment,
            objective: 0.0,
            history: Vec::new(),
        };
        let [one, three] =
            [1, 3].map(|count| silhouette(&points, &clustering, &Threads::new(count).unwrap()));
        assert_eq!(one, three);
        one
    }

    #[test]
    fn silhouettes_are_those_of_scikit_learn() {
        let near = |found: Option<f64>, right: f64| {
            let found = found.unwrap();
            assert!((found - right).abs() < 1e-6, "{found}, not {right}");
        };
        // silhouette_score of scikit-learn 1.9.1.
        near(found(&rows(60, 2, 3, 5.0), 2, 3, |i| i as i64 % 3), 0.933_162_246_888);
        near(found(&rows(60, 2, 3, 0.5), 2, 3, |i| i as i64 % 3), 0.364_336_203_759);
        near(found(&rows(200, 17, 4, 0.7), 17, 5, |i| i as i64 / 2 % 5), -0.022_696_137_265);
        near(found(&rows(1000, 5, 7, 1.0), 5, 7, |i| i as i64 % 7), 0.818_351_549_325);
        // One cluster of one, and six of ten clusters with points.
        let some = |i: usize| match i {
            7 => 4,
            i if i % 9 == 0 => 9,
            i => i as i64 % 3,
        };
        near(found(&rows(90, 3, 3, 2.0), 3, 10, some), 0.161_034_554_480);
        // The mean of silhouette_samples(…)[::3].
        near(found(&rows(2500, 4, 6, 1.5), 4, 6, |i| i as i64 % 6), 0.878_496_402_128);
        // Nine equal rows and another, with or without clusters that have none.
        let two: Vec<f32> = [[0.0, 1.0]; 9].into_iter().chain([[3.0, 0.0]]).flatten().collect();
        for clusters in [2, 8] {
            near(found(&two, 2, clusters, |i| i64::from(i == 9)), 0.9);
        }
        near(found(&[1.0; 20], 2, 2, |i| i as i64 % 2), 0.0);
    }

    #[test]
    fn one_cluster_has_no_silhouette_whatever_empty_ones_there_are() {
        for clusters in [1, 2, 8] {
            for rows in [rows(30, 2, 3, 1.0), vec![1.0; 60], vec![0.0; 2]] {
                assert_eq!(found(&rows, 2, clusters, |_| clusters as i64 - 1), None);
            }
        }
    }
}
