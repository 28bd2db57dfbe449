//! k-means as the published code asks faiss for it: Lloyd's iterations, the best of several starts.

use rand::SeedableRng;
use rand::seq::index;
use rand_chacha::ChaCha8Rng;

use crate::KMeansError;
use crate::collective::{Collective, SingleProcess};
use crate::distance::{normalise, squared_distance};
use crate::host_points::{HostPoints, first_unfit};
use crate::init::{self, Init};
use crate::lloyd::{Finished, Iteration, Lloyd, objective};
use crate::parts::Parts;
use crate::points::{Metric, Points};
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

/// Where a clustering begins.
#[derive(Debug, Clone, Copy)]
pub enum Start<'a> {
    /// At centroids that [`KMeans::init`] draws, [`KMeans::starts`] times.
    Drawn,
    /// Once, at the means of clusters that the points were in before: \[points\], −1 where unknown.
    /// Where they cannot be as many clusters as are asked for, as [`Start::Drawn`].
    Clusters(&'a [i64]),
    /// Once, at these centroids: [clusters, dim].
    Centroids(&'a [f32]),
}

/// Points grouped around centroids: those of all processes, in each of them.
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
        let start = before.map_or(Start::Drawn, Start::Clusters);
        let threads = Threads::new(self.threads)?;
        self.fit_on(points, clusters, start, collective, &threads, progress)
    }

    /// The same from any start and on `threads`, by which `progress` or another thread can stop it;
    /// [`KMeans::threads`] does not count.
    ///
    /// # Errors
    /// As [`fit_with`](KMeans::fit_with); when centroids to begin with are not `clusters` of finite
    /// values; and [`KMeansError::Stopped`] when it was stopped.
    pub fn fit_on<P: Points>(
        &self,
        points: &P,
        clusters: usize,
        start: Start<'_>,
        collective: &dyn Collective,
        threads: &Threads,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Clustering, KMeansError> {
        let parts = Parts::of(points.count(), collective)?;
        let count = parts.total();
        check(count, points.dim(), clusters, start)?;
        let start = match start {
            Start::Clusters(before) if !can_be(clusters, before) => Start::Drawn,
            start => start,
        };
        let lloyd = Lloyd { iterations: self.iterations, threads };
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        let sample = self.max_points_per_centroid.max(1).saturating_mul(clusters);
        let drawn = (sample < count).then(|| index::sample(&mut random, count, sample).into_vec());
        let dealt = drawn.as_ref().map(|drawn| parts.deal(points, drawn)).transpose()?;
        let (training, training_parts) = match &dealt {
            Some((training, parts)) => (training, parts),
            None => (points, &parts),
        };
        let starts = if matches!(start, Start::Drawn) { self.starts.max(1) } else { 1 };
        let mut best: Option<Finished> = None;
        for number in 0..starts {
            let mut told =
                |done| progress(number * self.iterations + done, starts * self.iterations);
            let centroids = match start {
                Start::Centroids(centroids) => first_centroids(points, centroids),
                Start::Clusters(before) => {
                    lloyd.means_of(points, &parts, clusters, before, &mut random)?
                }
                Start::Drawn => {
                    let (points, parts) = (training, training_parts);
                    init::centroids(self.init, points, parts, clusters, &mut random, threads)?
                }
            };
            if threads.stopped() {
                return Err(KMeansError::Stopped);
            }
            let finished =
                lloyd.run(training, training_parts, centroids, &mut random, &mut told)?;
            if threads.stopped() {
                return Err(KMeansError::Stopped);
            }
            if best.as_ref().is_none_or(|best| finished.objective() < best.objective()) {
                best = Some(finished);
            }
        }
        let Some(Finished { centroids, assignment, history }) = best else {
            return Err(KMeansError::NoClusters);
        };
        let assignment = match drawn {
            Some(_) => points.assign_once(&centroids, threads),
            None => assignment,
        };
        if threads.stopped() {
            return Err(KMeansError::Stopped);
        }
        let squared = parts.gather_f32(&assignment.squared)?;
        let nearest = parts.gather(&assignment.nearest)?;
        Ok(Clustering {
            centroids,
            dim: points.dim(),
            objective: objective(&squared),
            distances: squared.into_iter().map(f32::sqrt).collect(),
            assignment: nearest.into_iter().map(i64::from).collect(),
            history,
        })
    }

    /// Puts the clusters of `finer`, a clustering of `points`, together to `clusters` larger ones, so that
    /// the two are levels of a tree: points that share a cluster there share one here.
    ///
    /// k-means groups the centroids of `finer`, which are few; a centroid of the result is the mean of all
    /// points below it, and distances are those of the points. The history is that of grouping centroids.
    /// `threads` and `progress` are as for [`fit_on`](KMeans::fit_on).
    ///
    /// # Errors
    /// When there are more clusters than `finer` has, or no clusters, or `finer` is of another number of
    /// points; and [`KMeansError::Stopped`] when it was stopped.
    pub fn merge<P: Points>(
        &self,
        points: &P,
        finer: &Clustering,
        clusters: usize,
        collective: &dyn Collective,
        threads: &Threads,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Clustering, KMeansError> {
        let (dim, metric) = (points.dim(), points.metric());
        let parts = Parts::of(points.count(), collective)?;
        if finer.assignment.len() != parts.total() {
            let (found, expected) = (finer.assignment.len(), parts.total());
            return Err(KMeansError::Before { found, expected });
        }
        let centroids = HostPoints::new(&finer.centroids[..], dim, metric)?;
        // Every process has all centroids and groups them in the same way.
        let alone = &SingleProcess;
        let parents = self.fit_on(&centroids, clusters, Start::Drawn, alone, threads, progress)?;
        let assignment: Vec<i64> =
            finer.assignment.iter().map(|&cluster| parents.assignment[cluster as usize]).collect();
        let lloyd = Lloyd { iterations: self.iterations, threads };
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        let centroids = lloyd.means_of(points, &parts, clusters, &assignment, &mut random)?;
        let values = points.values();
        let own = |cluster: i64| &centroids[cluster as usize * dim..][..dim];
        let squared: Vec<f32> = values
            .chunks_exact(dim)
            .zip(&assignment[parts.own()])
            .map(|(point, &cluster)| squared_distance(point, own(cluster)))
            .collect();
        let squared = parts.gather_f32(&squared)?;
        Ok(Clustering {
            objective: objective(&squared),
            distances: squared.into_iter().map(f32::sqrt).collect(),
            centroids,
            dim,
            assignment,
            history: parents.history,
        })
    }
}

/// Whether `count` points of `dim` values can be clustered around so many `clusters` from `start`.
fn check(count: usize, dim: usize, clusters: usize, start: Start<'_>) -> Result<(), KMeansError> {
    if clusters < 1 {
        return Err(KMeansError::NoClusters);
    }
    if clusters > count {
        return Err(KMeansError::TooManyClusters { clusters, points: count });
    }
    match start {
        Start::Clusters(before) if before.len() != count => {
            Err(KMeansError::Before { found: before.len(), expected: count })
        }
        Start::Centroids(centroids) if centroids.len() != clusters * dim => {
            Err(KMeansError::Centroids { found: centroids.len(), clusters, dim })
        }
        Start::Centroids(centroids) => match first_unfit(centroids) {
            Some((place, value)) => {
                let centroid = place / dim;
                Err(match value.is_finite() {
                    true => KMeansError::CentroidTooLarge { centroid },
                    false => KMeansError::CentroidNotFinite { centroid },
                })
            }
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

/// Whether the clusters that points were in `before` can be so many `clusters`: too few known points
/// cannot fill them.
fn can_be(clusters: usize, before: &[i64]) -> bool {
    let known = before.iter().filter(|&&cluster| cluster >= 0).count();
    known >= clusters && before.iter().all(|&cluster| cluster < clusters as i64)
}

/// Given `centroids`, of length 1 where the metric of `points` asks for that.
fn first_centroids<P: Points>(points: &P, centroids: &[f32]) -> Vec<f32> {
    let mut centroids = centroids.to_vec();
    if points.metric() == Metric::Spherical {
        centroids.chunks_mut(points.dim()).for_each(normalise);
    }
    centroids
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HostPoints;
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
            let (alone, threads) = (&SingleProcess, Threads::new(1).unwrap());
            let merge = |clusters| {
                options.merge(&points, &finer, clusters, alone, &threads, &mut |_, _| ())
            };
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
    fn given_centroids_are_where_it_begins() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        for (dim, clusters, metric) in
            [(8, 20, Metric::Euclidean), (3, 2, Metric::Euclidean), (5, 7, Metric::Spherical)]
        {
            let rows: Vec<f32> = (0..400 * dim).map(|_| random.random_range(-1.0..1.0)).collect();
            let points = HostPoints::new(&rows[..], dim, metric).unwrap();
            let threads = Threads::new(2).unwrap();
            let from = |options: KMeans, start| {
                let ignore = &mut |_, _| ();
                options.fit_on(&points, clusters, start, &SingleProcess, &threads, ignore).unwrap()
            };
            let whole = from(KMeans { starts: 1, ..KMeans::default() }, Start::Drawn);
            // In two parts, the second of which begins where the first has ended.
            let first =
                from(KMeans { starts: 1, iterations: 1, ..KMeans::default() }, Start::Drawn);
            assert!(first.centroids != whole.centroids, "it has ended within one iteration");
            let rest = KMeans { iterations: 19, ..KMeans::default() };
            let second = from(rest, Start::Centroids(&first.centroids));
            assert!(second.centroids == whole.centroids && second.assignment == whole.assignment);
            // Nothing moves what has come to rest.
            let settled =
                from(KMeans { iterations: 300, starts: 1, ..KMeans::default() }, Start::Drawn);
            let again = from(KMeans::default(), Start::Centroids(&settled.centroids));
            assert!(again.centroids == settled.centroids && again.history.len() == 2);
        }
    }

    #[test]
    fn a_clustering_that_is_stopped_ends_without_a_result() {
        let rows: Vec<f32> = (0..2000).map(|value| (value * value % 977) as f32).collect();
        let points = HostPoints::new(&rows[..], 2, Metric::Euclidean).unwrap();
        for (init, stop_at) in [(Init::Random, 1), (Init::PlusPlus, 2), (Init::Parallel, 3)] {
            let threads = Threads::new(2).unwrap();
            let mut told = 0;
            let stopping = &mut |done, _| {
                told = done;
                if done == stop_at {
                    threads.stop();
                }
            };
            let options = KMeans { init, iterations: 1000, ..KMeans::default() };
            let stopped =
                options.fit_on(&points, 100, Start::Drawn, &SingleProcess, &threads, stopping);
            assert!(matches!(stopped, Err(KMeansError::Stopped)));
            assert_eq!(told, stop_at);
        }
        for init in [Init::Random, Init::PlusPlus, Init::Parallel] {
            let threads = Threads::new(2).unwrap();
            threads.stop();
            let options = KMeans { init, ..KMeans::default() };
            let ignore = &mut |_, _| ();
            let stopped =
                options.fit_on(&points, 100, Start::Drawn, &SingleProcess, &threads, ignore);
            assert!(matches!(stopped, Err(KMeansError::Stopped)), "{init:?}");
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
        for value in [2e15, -1e20, f32::MAX] {
            rows[6] = value;
            let text = refused(&rows, Metric::Euclidean, 2);
            assert!(
                text.contains("point 3 has a value beyond") && !text.contains("finite"),
                "{text}"
            );
        }
        assert!(refused(&rows[..9], Metric::Euclidean, 2).contains("9 values are no points of 2"));
        let points = HostPoints::new(vec![0.0; 10], 2, Metric::Euclidean).unwrap();
        let fitted =
            KMeans::default().fit_with(&points, 2, Some(&[0, 1]), &SingleProcess, &mut |_, _| ());
        assert!(fitted.err().unwrap().to_string().contains("2 points"));
        let threads = Threads::new(1).unwrap();
        for (centroids, sentence) in [
            (&[0.0; 3][..], "3 values are no 2 centroids of 2 dimensions"),
            (&[0.0, 0.0, f32::NAN, 0.0], "centroid 1 to begin with is not finite"),
            (&[f32::INFINITY, 0.0, 0.0, 0.0], "centroid 0 to begin with is not finite"),
            (&[0.0, 0.0, 0.0, -1e19], "centroid 1 to begin with has a value beyond"),
        ] {
            let start = Start::Centroids(centroids);
            let ignore = &mut |_, _| ();
            let fitted =
                KMeans::default().fit_on(&points, 2, start, &SingleProcess, &threads, ignore);
            assert!(fitted.err().unwrap().to_string().contains(sentence));
        }
    }
}
