//! k-means as the published code asks faiss for it: Lloyd's iterations, best of several starts.

use std::time::Instant;

use rand::seq::index;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use tch::Tensor;

use super::nearest::{Assignment, Effort, Search};
use super::points::{Points, Sums, normalise};
use super::{PrototypeError, starts};
use crate::world::World;

/// What "near" means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// L2 distance; centroids are means. What the published code uses.
    Euclidean,
    /// Angles: rows and centroids are L2-normalised.
    Spherical,
}

/// Where the first centroids come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Rows drawn at random, as in faiss.
    Random,
    /// Rows far from those drawn before (Arthur & Vassilvitskii 2007, "k-means++"). Takes one pass
    /// over the rows a cluster: for hundreds of clusters, not for thousands.
    PlusPlus,
    /// The same in five passes over the rows (Bahmani et al. 2012, "Scalable K-Means++").
    Parallel,
}

/// The options of Lloyd's k-means.
#[derive(Debug, Clone, Copy)]
pub struct KMeans {
    /// Rounds of assignment and update, at most: it ends when no row changes its cluster.
    pub iterations: usize,
    /// Starts, of which the best is kept.
    pub starts: usize,
    /// Rows a cluster that training uses at most; further rows are only assigned.
    pub max_points_per_centroid: usize,
    /// Where the first centroids come from.
    pub start: Start,
    /// What "near" means; that of the [`Points`] too.
    pub metric: Metric,
}

impl Default for KMeans {
    /// The published settings.
    fn default() -> KMeans {
        KMeans {
            iterations: 20,
            starts: 5,
            max_points_per_centroid: 1000,
            start: Start::Random,
            metric: Metric::Euclidean,
        }
    }
}

/// Rows grouped around centroids.
pub struct Clustering {
    /// Means of the clusters: float32 [k, dim], on the device of the rows.
    pub centroids: Tensor,
    /// The nearest centroid of every row: int64 [rows], on the CPU.
    pub assignment: Tensor,
    /// L2 distance of every row to it: float32 [rows], on the CPU.
    pub distances: Tensor,
    /// Sum of squared distances over the rows of all processes.
    pub objective: f64,
    /// The best start's assignments, one after the other, over the rows it trained on.
    pub history: Vec<Iteration>,
}

/// One assignment of rows to centroids.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Iteration {
    /// Sum of squared distances, over the rows of all processes.
    pub objective: f64,
    /// Rows that changed their cluster, in all processes.
    pub changed: u64,
    /// Scores from codes that this process computed.
    pub scored: u64,
    /// Distances in float32 that this process computed, besides one a row.
    pub measured: u64,
    /// Seconds, with the update of the centroids before it.
    pub seconds: f64,
}

/// One start, finished.
struct Finished {
    centroids: Vec<f32>,
    assignment: Assignment,
    history: Vec<Iteration>,
}

impl Finished {
    fn objective(&self) -> f64 {
        self.history.last().map_or(f64::INFINITY, |iteration| iteration.objective)
    }
}

impl KMeans {
    /// Clusters `points` around `clusters` centroids.
    ///
    /// `before` is which clusters the rows were in, if they were ([rows], −1 where unknown): then there
    /// is one start, from the means of these, unless they were other clusters than `clusters`.
    /// `progress` is told how many of all iterations are done.
    ///
    /// On the CPU the result is that of plain float32 Lloyd's iterations from the same starts, to the
    /// bit: nearest by [`squared_distance`](super::nearest::squared_distance), of equally near ones the
    /// first; means summed in float64.
    ///
    /// # Errors
    /// When there are more clusters than rows, or no clusters.
    pub fn fit(
        &self,
        points: &Points,
        clusters: usize,
        seed: u64,
        before: Option<&[i64]>,
        world: &World,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Clustering, PrototypeError> {
        let _guard = tch::no_grad_guard();
        let count = points.count();
        if clusters < 1 {
            return Err(PrototypeError::NoClusters);
        }
        if clusters > count {
            let (clusters, images) = (clusters as i64, count as i64);
            return Err(PrototypeError::TooManyClusters { clusters, images });
        }
        // Too few known rows cannot fill the clusters.
        let usable = |before: &&[i64]| {
            let known = before.iter().filter(|&&cluster| cluster >= 0).count();
            known >= clusters && before.iter().all(|&cluster| cluster < clusters as i64)
        };
        let before = before.filter(usable);
        let mut random = ChaCha8Rng::seed_from_u64(seed);
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
                Some(before) => self.means_of(points, clusters, before, &mut random, world),
                None => {
                    let first = starts::centroids(self.start, training, clusters, &mut random);
                    world_start(first, world)
                }
            };
            let finished = self.lloyd(training, centroids, &mut random, world, &mut told);
            if best.as_ref().is_none_or(|best| finished.objective() < best.objective()) {
                best = Some(finished);
            }
        }
        let Some(Finished { centroids, assignment, history }) = best else {
            return Err(PrototypeError::NoClusters);
        };
        let assignment = match drawn {
            Some(_) => points.assign_once(&centroids),
            None => assignment,
        };
        let objective = total(&assignment.squared, world);
        let nearest: Vec<i64> =
            assignment.nearest.iter().map(|&cluster| i64::from(cluster)).collect();
        // Not libtorch's root, which is off by a bit now and then.
        let distances: Vec<f32> = assignment.squared.iter().map(|value| value.sqrt()).collect();
        let device = points.device();
        Ok(Clustering {
            centroids: Tensor::from_slice(&centroids).view([clusters as i64, -1]).to_device(device),
            assignment: Tensor::from_slice(&nearest),
            distances: Tensor::from_slice(&distances),
            objective,
            history,
        })
    }

    /// The centroids of clusters that the rows were in before.
    fn means_of(
        &self,
        points: &Points,
        clusters: usize,
        before: &[i64],
        random: &mut ChaCha8Rng,
        world: &World,
    ) -> Vec<f32> {
        let known: Vec<usize> = (0..before.len()).filter(|&row| before[row] >= 0).collect();
        let nearest: Vec<u32> = known.iter().map(|&row| before[row] as u32).collect();
        let mut sums = Sums::new(clusters, points.dim());
        points.select(&known).sum(&nearest, &mut sums, world);
        let mut centroids = vec![0.0; clusters * points.dim()];
        self.means(&sums, &mut centroids, random);
        centroids
    }

    /// One start: rows to their nearest centroids, centroids to the means of their rows.
    fn lloyd(
        &self,
        points: &Points,
        mut centroids: Vec<f32>,
        random: &mut ChaCha8Rng,
        world: &World,
        progress: &mut dyn FnMut(usize),
    ) -> Finished {
        let clusters = centroids.len() / points.dim();
        let (mut search, mut sums) = (Search::default(), Sums::new(clusters, points.dim()));
        let mut assignment = Assignment::unknown(points.count());
        let mut history = Vec::new();
        let mut repaired = true;
        let mut watch = Instant::now();
        let mut before = Vec::new();
        for iteration in 0.. {
            before.clone_from(&assignment.nearest);
            let Effort { scored, measured } =
                points.assign(&mut search, &centroids, &mut assignment);
            let changes = before.iter().zip(&assignment.nearest).filter(|(a, b)| a != b).count();
            let changed = total(&[changes as f32], world) as u64;
            let objective = total(&assignment.squared, world);
            let seconds = watch.elapsed().as_secs_f64();
            watch = Instant::now();
            history.push(Iteration { objective, changed, scored, measured, seconds });
            if iteration == self.iterations || (iteration > 0 && changed == 0 && !repaired) {
                break;
            }
            points.sum(&assignment.nearest, &mut sums, world);
            repaired = self.means(&sums, &mut centroids, random);
            progress(iteration + 1);
        }
        Finished { centroids, assignment, history }
    }

    /// The mean of each cluster's rows, into `centroids`; a cluster that lost all of its rows takes
    /// half of a large one's, as in faiss: both start from that one's centroid, moved slightly apart.
    /// Tells whether there was one.
    fn means(&self, sums: &Sums, centroids: &mut [f32], random: &mut ChaCha8Rng) -> bool {
        const APART: f32 = 1.0 / 1024.0;
        let clusters = sums.counts.len();
        let dim = centroids.len() / clusters;
        for ((mean, sum), &count) in
            centroids.chunks_mut(dim).zip(sums.totals.chunks(dim)).zip(&sums.counts)
        {
            for (mean, sum) in mean.iter_mut().zip(sum) {
                *mean = (sum / count.max(1.0)) as f32;
            }
        }
        let mut counts = sums.counts.clone();
        let spare = (counts.iter().sum::<f64>() - clusters as f64).max(1.0);
        let empty: Vec<usize> = (0..clusters).filter(|&cluster| counts[cluster] == 0.0).collect();
        for &empty in &empty {
            // A donor is found with a probability that grows with its size.
            let mut donor = 0;
            while random.random::<f64>() >= (counts[donor] - 1.0) / spare {
                donor = (donor + 1) % clusters;
            }
            for place in 0..dim {
                let sign = if place.is_multiple_of(2) { APART } else { -APART };
                let shared = centroids[donor * dim + place];
                centroids[empty * dim + place] = shared * (1.0 + sign);
                centroids[donor * dim + place] = shared * (1.0 - sign);
            }
            counts[empty] = (counts[donor] / 2.0).floor();
            counts[donor] -= counts[empty];
        }
        if self.metric == Metric::Spherical {
            centroids.chunks_mut(dim).for_each(normalise);
        }
        !empty.is_empty()
    }
}

/// Process 0's first centroids, everywhere.
fn world_start(centroids: Vec<f32>, world: &World) -> Vec<f32> {
    let mut shared = vec![0f32; centroids.len()];
    world.broadcast(Tensor::from_slice(&centroids)).copy_data(&mut shared, centroids.len());
    shared
}

/// The sum of `values` over all processes, in float64.
fn total(values: &[f32], world: &World) -> f64 {
    let mut sum = [values.iter().map(|&value| f64::from(value)).sum::<f64>()];
    world.all_reduce_sum(&mut sum);
    let [sum] = sum;
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    fn fit(
        options: KMeans,
        rows: &Tensor,
        clusters: usize,
        seed: u64,
    ) -> Result<Clustering, PrototypeError> {
        let points = Points::from_tensor(rows, options.metric)?;
        options.fit(&points, clusters, seed, None, &World::alone(), &mut |_, _| ())
    }

    #[test]
    fn as_many_clusters_as_rows_puts_each_row_in_its_own() {
        let rows = Tensor::arange(12, (Kind::Float, Device::Cpu)).view([6, 2]);
        let clustering = fit(KMeans::default(), &rows, 6, 0).unwrap();
        assert_eq!(clustering.objective, 0.0);
        let mut assignment: Vec<i64> = clustering.assignment.try_into().unwrap();
        assignment.sort();
        assert_eq!(assignment, [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn identical_rows_and_more_clusters_than_values_come_to_an_end() {
        for start in [Start::Random, Start::PlusPlus, Start::Parallel] {
            let rows = Tensor::ones([50, 3], (Kind::Float, Device::Cpu));
            let clustering = fit(KMeans { start, ..KMeans::default() }, &rows, 10, 0).unwrap();
            assert!(clustering.objective < 1e-3);
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_bits() {
        tch::manual_seed(1);
        let rows = Tensor::randn([500, 8], (Kind::Float, Device::Cpu));
        let fit = |seed| fit(KMeans::default(), &rows, 20, seed).unwrap();
        assert_eq!(fit(3).centroids, fit(3).centroids);
        assert_ne!(fit(3).centroids, fit(4).centroids);
    }

    #[test]
    fn impossible_requests_are_refused() {
        let rows = Tensor::zeros([5, 2], (Kind::Float, Device::Cpu));
        let refused =
            |options, clusters| fit(options, &rows, clusters, 0).err().unwrap().to_string();
        assert!(refused(KMeans::default(), 6).contains("6 clusters from 5 images"));
        assert!(refused(KMeans::default(), 0).contains("0 clusters"));
        let spherical = KMeans { metric: Metric::Spherical, ..KMeans::default() };
        assert!(refused(spherical, 2).contains("image 0 is zero"));
        for value in [f32::NAN, f32::INFINITY] {
            rows.get(3).copy_(&Tensor::from_slice(&[value, 0.0]));
            assert!(refused(KMeans::default(), 2).contains("image 3 is not finite"));
        }
    }
}
