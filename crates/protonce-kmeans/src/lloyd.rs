//! Lloyd's iterations, from given centroids to an end: points to their nearest centroids, centroids to
//! the means of their points.

use std::time::Instant;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use crate::KMeansError;
use crate::assignment::{Assignment, Effort};
use crate::distance::normalise;
use crate::parts::Parts;
use crate::points::{Metric, Points};
use crate::sums::Sums;
use crate::threads::Threads;

/// One assignment of points to centroids.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Iteration {
    /// Sum of squared distances, over the points of all processes.
    pub objective: f64,
    /// Points that changed their cluster, in all processes.
    pub changed: u64,
    /// Scores from quantized vectors that this process computed.
    pub scored: u64,
    /// Distances in float32 that this process computed, besides one per point.
    pub measured: u64,
    /// Seconds, with the update of the centroids before it.
    pub seconds: f64,
}

/// One start, finished.
pub struct Finished {
    /// The last centroids: [clusters, dim].
    pub centroids: Vec<f32>,
    /// The nearest of them to every point of this process.
    pub assignment: Assignment,
    /// Every assignment on the way, in order.
    pub history: Vec<Iteration>,
}

impl Finished {
    /// The sum of squared distances at the end.
    pub fn objective(&self) -> f64 {
        self.history.last().map_or(f64::INFINITY, |iteration| iteration.objective)
    }
}

/// Lloyd's iterations, and what they run on.
pub struct Lloyd<'a> {
    /// Rounds of assignment and update, at most.
    pub iterations: usize,
    /// The threads of this process.
    pub threads: &'a Threads,
}

impl Lloyd<'_> {
    /// One start, from `centroids`. `points` are this process's of `parts`; `progress` is told how many
    /// iterations are done.
    ///
    /// # Errors
    /// When a process is gone.
    pub fn run<P: Points>(
        &self,
        points: &P,
        parts: &Parts,
        mut centroids: Vec<f32>,
        random: &mut ChaCha8Rng,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Finished, KMeansError> {
        let clusters = centroids.len() / points.dim();
        let (mut search, mut sums) = (P::Search::default(), Sums::new(clusters, points.dim()));
        let mut assignment = Assignment::unknown(points.count());
        let mut history = Vec::new();
        let mut repaired = true;
        let mut watch = Instant::now();
        // The cluster of each point of all processes.
        let mut nearest = vec![0; parts.total()];
        for iteration in 0.. {
            let Effort { scored, measured } =
                points.assign(&mut search, &centroids, &mut assignment, self.threads);
            let before = std::mem::replace(&mut nearest, parts.gather(&assignment.nearest)?);
            let changed = before.iter().zip(&nearest).filter(|(a, b)| a != b).count() as u64;
            let objective = objective(&parts.gather_f32(&assignment.squared)?);
            let seconds = watch.elapsed().as_secs_f64();
            watch = Instant::now();
            history.push(Iteration { objective, changed, scored, measured, seconds });
            let settled = iteration > 0 && changed == 0 && !repaired;
            if iteration == self.iterations || settled || self.threads.stopped() {
                break;
            }
            sums.update(points, parts, &nearest, self.threads)?;
            repaired = means(&sums, points.metric(), &mut centroids, random);
            progress(iteration + 1);
        }
        Ok(Finished { centroids, assignment, history })
    }

    /// The centroids of clusters that the points were in before: [clusters, dim]. `before` is that of each
    /// point of all processes, −1 where unknown; `points` are this process's of `parts`.
    ///
    /// # Errors
    /// When a process is gone.
    pub fn means_of<P: Points>(
        &self,
        points: &P,
        parts: &Parts,
        clusters: usize,
        before: &[i64],
        random: &mut ChaCha8Rng,
    ) -> Result<Vec<f32>, KMeansError> {
        let known: Vec<usize> = (0..before.len()).filter(|&point| before[point] >= 0).collect();
        let nearest: Vec<u32> = known.iter().map(|&point| before[point] as u32).collect();
        let mut sums = Sums::new(clusters, points.dim());
        if known.len() == before.len() {
            sums.update(points, parts, &nearest, self.threads)?;
        } else {
            let (own, parts) = (parts.own(), parts.among(&known));
            let here: Vec<usize> =
                known[parts.own()].iter().map(|point| point - own.start).collect();
            sums.update(&points.select(&here), &parts, &nearest, self.threads)?;
        }
        let mut centroids = vec![0.0; clusters * points.dim()];
        means(&sums, points.metric(), &mut centroids, random);
        Ok(centroids)
    }
}

/// The sum of squared distances of all points, in their order.
pub fn objective(squared: &[f32]) -> f64 {
    squared.iter().map(|&squared| f64::from(squared)).sum()
}

/// The mean of each cluster's points, into `centroids`; a cluster that lost all of its points takes
/// half of a large one's, as in faiss: both start from that one's centroid, moved slightly apart.
/// Tells whether there was one.
fn means(sums: &Sums, metric: Metric, centroids: &mut [f32], random: &mut ChaCha8Rng) -> bool {
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
    if metric == Metric::Spherical {
        centroids.chunks_mut(dim).for_each(normalise);
    }
    !empty.is_empty()
}
