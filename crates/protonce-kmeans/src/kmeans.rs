//! k-means as the published code asks faiss for it: Lloyd's iterations, the best of several starts.

use rand::SeedableRng;
use rand::seq::index;
use rand_chacha::ChaCha8Rng;

use crate::KMeansError;
use crate::collective::{Collective, SingleProcess};
use crate::distance::squared_distance;
use crate::host_points::HostPoints;
use crate::init::{self, Init};
use crate::lloyd::{Finished, Iteration, Lloyd};
use crate::points::Points;
use crate::threads::Threads;

/// The options of k-means.
#[derive(Debug, Clone, Copy)]
pub struct KMeans {
    /// Rounds of assignment and update, at most: it ends when no point changes its cluster.
    pub iterations: usize,
    /// Starts, of which the best is kept.
    pub starts: usize,
    /// Points per cluster that training uses at most; further points are only assigned.
    pub max_points_per_centroid: usize,
    /// Where the first centroids come from.
    pub init: Init,
    /// What the random choices follow from.
    pub seed: u64,
    /// Threads; 0: one per core. The result does not depend on how many there are.
    pub threads: usize,
}

impl Default for KMeans {
    /// The published settings, seed 0, one thread per core.
    fn default() -> KMeans {
        KMeans {
            iterations: 20,
            starts: 5,
            max_points_per_centroid: 1000,
            init: Init::Random,
            seed: 0,
            threads: 0,
        }
    }
}

/// Points grouped around centroids.
#[derive(Debug, Clone)]
pub struct Clustering {
    /// Means of the clusters, one after the other: [clusters, dim].
    pub centroids: Vec<f32>,
    /// The values of a centroid.
    pub dim: usize,
    /// The nearest centroid of every point: \[points\].
    pub assignment: Vec<i64>,
    /// L2 distance of every point to it: \[points\].
    pub distances: Vec<f32>,
    /// Sum of squared distances over the points of all processes.
    pub objective: f64,
    /// The best start's assignments, one after the other, over the points it trained on.
    pub history: Vec<Iteration>,
}

impl Clustering {
    /// How many clusters there are.
    pub fn clusters(&self) -> usize {
        self.centroids.len() / self.dim
    }

    /// The point nearest to each centroid: \[clusters\], −1 for an empty cluster.
    pub fn medoids(&self) -> Vec<i64> {
        let mut medoids = vec![(f32::INFINITY, -1); self.clusters()];
        for (point, (&cluster, &distance)) in
            self.assignment.iter().zip(&self.distances).enumerate()
        {
            let medoid = &mut medoids[cluster as usize];
            if distance < medoid.0 {
                *medoid = (distance, point as i64);
            }
        }
        medoids.into_iter().map(|(_, point)| point).collect()
    }
}

impl KMeans {
    /// Clusters `points` around `clusters` centroids.
    ///
    /// For [`HostPoints`](crate::HostPoints) the result is that of plain float32 Lloyd's iterations from
    /// the same starts, to the bit: nearest by [`squared_distance`](crate::squared_distance), of equally
    /// near ones the first; means summed in float64.
    ///
    /// # Errors
    /// When there are more clusters than points, or no clusters, or the threads cannot be started.
    pub fn fit<P: Points>(&self, points: &P, clusters: usize) -> Result<Clustering, KMeansError> {
        self.fit_with(points, clusters, None, &SingleProcess, &mut |_, _| ())
    }

    /// The same, for a clustering that goes on from an earlier one, spans several processes, or is
    /// watched.
    ///
    /// `before` is which clusters the points were in, if they were (\[points\], −1 where unknown): then
    /// there is one start, from the means of these, unless they were other clusters than `clusters`.
    /// `progress` is told how many of all iterations are done.
    ///
    /// # Errors
    /// As [`fit`](KMeans::fit); and when `before` is not of as many points.
    pub fn fit_with<P: Points>(
        &self,
        points: &P,
        clusters: usize,
        before: Option<&[i64]>,
        collective: &dyn Collective,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Clustering, KMeansError> {
        let count = points.count();
        if clusters < 1 {
            return Err(KMeansError::NoClusters);
        }
        if clusters > count {
            return Err(KMeansError::TooManyClusters { clusters, points: count });
        }
        if let Some(found) = before.map(<[i64]>::len).filter(|&found| found != count) {
            return Err(KMeansError::Before { found, expected: count });
        }
        // Too few known points cannot fill the clusters.
        let usable = |before: &&[i64]| {
            let known = before.iter().filter(|&&cluster| cluster >= 0).count();
            known >= clusters && before.iter().all(|&cluster| cluster < clusters as i64)
        };
        let before = before.filter(usable);
        let threads = Threads::new(self.threads)?;
        let lloyd = Lloyd { iterations: self.iterations, threads: &threads, collective };
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        let sample = self.max_points_per_centroid.max(1).saturating_mul(clusters);
        let drawn = (sample < count).then(|| index::sample(&mut random, count, sample).into_vec());
        let selected = drawn.as_ref().map(|drawn| points.select(drawn));
        let training = selected.as_ref().unwrap_or(points);
        let starts = if before.is_some() { 1 } else { self.starts.max(1) };
        let mut best: Option<Finished> = None;
        for start in 0..starts {
            let mut told =
                |done| progress(start * self.iterations + done, starts * self.iterations);
            let centroids = match before {
                Some(before) => lloyd.means_of(points, clusters, before, &mut random),
                None => {
                    let mut first =
                        init::centroids(self.init, training, clusters, &mut random, &threads);
                    collective.broadcast(&mut first);
                    first
                }
            };
            let finished = lloyd.run(training, centroids, &mut random, &mut told);
            if best.as_ref().is_none_or(|best| finished.objective() < best.objective()) {
                best = Some(finished);
            }
        }
        let Some(Finished { centroids, assignment, history }) = best else {
            return Err(KMeansError::NoClusters);
        };
        let assignment = match drawn {
            Some(_) => points.assign_once(&centroids, &threads),
            None => assignment,
        };
        Ok(Clustering {
            centroids,
            dim: points.dim(),
            objective: lloyd.objective(&assignment.squared),
            distances: assignment.squared.iter().map(|squared| squared.sqrt()).collect(),
            assignment: assignment.nearest.into_iter().map(i64::from).collect(),
            history,
        })
    }

    /// Puts the clusters of `finer`, a clustering of `points`, together to `clusters` larger ones, so that
    /// the two are levels of a tree: points that share a cluster there share one here.
    ///
    /// k-means groups the centroids of `finer`, which are few; a centroid of the result is the mean of all
    /// points below it, and distances are those of the points. The history is that of grouping centroids.
    /// `progress` is as for [`fit_with`](KMeans::fit_with).
    ///
    /// # Errors
    /// When there are more clusters than `finer` has, or no clusters, or `finer` is of another number of
    /// points, or threads cannot be started.
    pub fn merge<P: Points>(
        &self,
        points: &P,
        finer: &Clustering,
        clusters: usize,
        collective: &dyn Collective,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Clustering, KMeansError> {
        let (dim, metric) = (points.dim(), points.metric());
        if finer.assignment.len() != points.count() {
            let (found, expected) = (finer.assignment.len(), points.count());
            return Err(KMeansError::Before { found, expected });
        }
        let centroids = HostPoints::new(&finer.centroids[..], dim, metric)?;
        // Every process has all centroids and groups them in the same way.
        let parents = self.fit_with(&centroids, clusters, None, &SingleProcess, progress)?;
        let assignment: Vec<i64> =
            finer.assignment.iter().map(|&cluster| parents.assignment[cluster as usize]).collect();
        let threads = Threads::new(self.threads)?;
        let lloyd = Lloyd { iterations: self.iterations, threads: &threads, collective };
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        let centroids = lloyd.means_of(points, clusters, &assignment, &mut random);
        let values = points.values();
        let own = |cluster: i64| &centroids[cluster as usize * dim..][..dim];
        let squared: Vec<f32> = values
            .chunks_exact(dim)
            .zip(&assignment)
            .map(|(point, &cluster)| squared_distance(point, own(cluster)))
            .collect();
        Ok(Clustering {
            objective: lloyd.objective(&squared),
            distances: squared.into_iter().map(f32::sqrt).collect(),
            centroids,
            dim,
            assignment,
            history: parents.history,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{HostPoints, Metric};
    use rand::RngExt;

    fn fit(options: KMeans, rows: &[f32], dim: usize, clusters: usize) -> Clustering {
        options.fit(&HostPoints::new(rows, dim, Metric::Euclidean).unwrap(), clusters).unwrap()
    }

    #[test]
    fn as_many_clusters_as_rows_puts_each_row_in_its_own() {
        let rows: Vec<f32> = (0..12).map(|value| value as f32).collect();
        let clustering = fit(KMeans::default(), &rows, 2, 6);
        assert_eq!(clustering.objective, 0.0);
        let mut assignment = clustering.assignment;
        assignment.sort();
        assert_eq!(assignment, [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn identical_rows_and_more_clusters_than_values_come_to_an_end() {
        for init in [Init::Random, Init::PlusPlus, Init::Parallel] {
            let clustering = fit(KMeans { init, ..KMeans::default() }, &[1.0; 150], 3, 10);
            assert!(clustering.objective < 1e-3);
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_bits() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let rows: Vec<f32> = (0..4000).map(|_| random.random_range(-1.0..1.0)).collect();
        let fit = |seed| fit(KMeans { seed, ..KMeans::default() }, &rows, 8, 20).centroids;
        assert_eq!(fit(3), fit(3));
        assert_ne!(fit(3), fit(4));
    }

    #[test]
    fn medoids_are_the_nearest_points_and_empty_clusters_have_none() {
        let clustering = Clustering {
            centroids: vec![0.0, 5.0, 9.0],
            dim: 1,
            assignment: vec![2, 0, 2, 0],
            distances: vec![0.5, 0.25, 0.125, 0.25],
            objective: 0.0,
            history: Vec::new(),
        };
        assert_eq!(clustering.medoids(), [1, -1, 2]);
    }

    #[test]
    fn merged_clusters_are_the_next_level_of_a_tree() {
        // Four heaps in two pairs, each of 25 points, and further ones that belong nowhere.
        let mut random = ChaCha8Rng::seed_from_u64(3);
        let corners = [[0.0, 0.0], [0.0, 2.0], [9.0, 0.0], [9.0, 2.0]];
        let mut rows: Vec<f32> = (0..100)
            .flat_map(|row| corners[row % 4].map(|value| value + random.random_range(-0.2..0.2)))
            .collect();
        rows.extend([4.0, 1.0]);
        for metric in [Metric::Euclidean, Metric::Spherical] {
            rows[0] = 0.5;
            let points = HostPoints::new(&rows[..], 2, metric).unwrap();
            let options = KMeans { init: Init::PlusPlus, ..KMeans::default() };
            let finer = options.fit(&points, 8).unwrap();
            let merge =
                |clusters| options.merge(&points, &finer, clusters, &SingleProcess, &mut |_, _| ());
            let coarser = merge(3).unwrap();
            let mut parents = [None; 8];
            for (&fine, &coarse) in finer.assignment.iter().zip(&coarser.assignment) {
                assert_eq!(*parents[fine as usize].get_or_insert(coarse), coarse);
            }
            // The centroids are means of points, the distances and the objective those to them.
            let unit = points.values();
            let mut objective = 0.0;
            for (row, point) in unit.chunks(2).enumerate() {
                let own = &coarser.centroids[coarser.assignment[row] as usize * 2..][..2];
                let distance = (point[0] - own[0]).hypot(point[1] - own[1]);
                assert!((coarser.distances[row] - distance).abs() < 1e-5);
                objective += f64::from(distance * distance);
            }
            assert!((coarser.objective - objective).abs() < 1e-4 * objective.max(1.0));
            for (cluster, centroid) in coarser.centroids.chunks(2).enumerate() {
                let members = || unit.chunks(2).zip(&coarser.assignment);
                let of =
                    members().filter(|(_, own)| **own == cluster as i64).map(|(point, _)| point);
                let count = of.clone().count() as f32;
                let mut mean =
                    of.fold([0.0; 2], |sum, point| [sum[0] + point[0], sum[1] + point[1]]);
                mean = mean.map(|value| value / count);
                if metric == Metric::Spherical {
                    let length = mean[0].hypot(mean[1]);
                    mean = mean.map(|value| value / length);
                }
                assert!((centroid[0] - mean[0]).abs() + (centroid[1] - mean[1]).abs() < 1e-4);
            }
            assert!(merge(0).is_err() && merge(9).is_err());
        }
    }

    #[test]
    fn impossible_requests_are_refused() {
        let mut rows = vec![0.0; 10];
        let refused = |rows: &[f32], metric, clusters| {
            let points = HostPoints::new(rows, 2, metric);
            let fitted = points.and_then(|points| KMeans::default().fit(&points, clusters));
            fitted.err().unwrap().to_string()
        };
        assert!(refused(&rows, Metric::Euclidean, 6).contains("6 clusters from 5 points"));
        assert!(refused(&rows, Metric::Euclidean, 0).contains("0 clusters"));
        assert!(refused(&rows, Metric::Spherical, 2).contains("point 0 is zero"));
        for value in [f32::NAN, f32::INFINITY] {
            rows[6] = value;
            assert!(refused(&rows, Metric::Euclidean, 2).contains("point 3 is not finite"));
        }
        assert!(refused(&rows[..9], Metric::Euclidean, 2).contains("9 values are no points of 2"));
        let points = HostPoints::new(vec![0.0; 10], 2, Metric::Euclidean).unwrap();
        let fitted =
            KMeans::default().fit_with(&points, 2, Some(&[0, 1]), &SingleProcess, &mut |_, _| ());
        assert!(fitted.err().unwrap().to_string().contains("2 points"));
    }
}
