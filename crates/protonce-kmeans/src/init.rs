//! Where k-means begins: the first centroids.

use rand::RngExt;
use rand::seq::index;
use rand_chacha::ChaCha8Rng;

use crate::KMeansError;
use crate::distance::squared_distance;
use crate::matrix::Matrix;
use crate::parts::Parts;
use crate::points::Points;
use crate::threads::Threads;

/// Where the first centroids come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Init {
    /// Points drawn at random, as in faiss.
    Random,
    /// Points far from those drawn before (Arthur & Vassilvitskii 2007, "k-means++"). Takes one pass
    /// over the points per cluster: for hundreds of clusters, not for thousands.
    PlusPlus,
    /// The same in five passes over the points (Bahmani et al. 2012, "Scalable K-Means++").
    Parallel,
}

/// Passes of k-means||; more than five gain nothing (Bahmani et al. 2012, §5).
const ROUNDS: usize = 5;

/// The first centroids: [clusters, dim]. `points` are this process's of `parts`.
///
/// # Errors
/// When a process is gone, or there are several and `init` is not [`Init::Random`].
pub fn centroids<P: Points>(
    init: Init,
    points: &P,
    parts: &Parts,
    clusters: usize,
    random: &mut ChaCha8Rng,
    threads: &Threads,
) -> Result<Vec<f32>, KMeansError> {
    if init != Init::Random && parts.collective().size() > 1 {
        return Err(KMeansError::AcrossProcesses);
    }
    let values = |chosen: &[usize]| points.select(chosen).values().into_owned();
    let count = parts.total();
    Ok(match init {
        Init::Random => parts.values(points, &index::sample(random, count, clusters).into_vec())?,
        Init::PlusPlus => {
            let all = points.values();
            let rows = Matrix { values: &all, dim: points.dim() };
            values(&plus_plus(rows, &vec![1.0; count], clusters, random, threads))
        }
        Init::Parallel => {
            let (candidates, weights) = candidates(points, clusters, random, threads);
            let values = values(&candidates);
            let rows = Matrix { values: &values, dim: points.dim() };
            let chosen = plus_plus(rows, &weights, clusters, random, threads);
            chosen.into_iter().flat_map(|row| rows.row(row)).copied().collect()
        }
    })
}

/// k-means++ on weighted rows: each next one is drawn with a probability in proportion to weight times
/// squared distance to the nearest drawn before.
fn plus_plus(
    rows: Matrix,
    weights: &[f64],
    clusters: usize,
    random: &mut ChaCha8Rng,
    threads: &Threads,
) -> Vec<usize> {
    const PART: usize = 4096;
    let mut squared = vec![f32::INFINITY; rows.count()];
    let mut chosen = vec![draw(weights.iter().copied(), random).unwrap_or(0)];
    while chosen.len() < clusters && !threads.stopped() {
        let last = rows.row(chosen[chosen.len() - 1]);
        let pieces = squared.chunks_mut(PART).enumerate();
        threads.share(pieces, |(part, squared)| {
            for (row, squared) in squared.iter_mut().enumerate() {
                *squared = squared.min(squared_distance(rows.row(part * PART + row), last));
            }
        });
        let chances =
            squared.iter().zip(weights).map(|(&squared, weight)| f64::from(squared) * weight);
        // Where all distances are zero there are fewer values than clusters: any row will do.
        let next = draw(chances, random).unwrap_or(chosen.len() % rows.count());
        chosen.push(next);
    }
    chosen
}

/// Rows drawn in a few rounds, each with a probability in proportion to its squared distance to those
/// drawn before, two per cluster in all; and how many rows are nearest to each.
fn candidates<P: Points>(
    points: &P,
    clusters: usize,
    random: &mut ChaCha8Rng,
    threads: &Threads,
) -> (Vec<usize>, Vec<f64>) {
    let nearest_of =
        |chosen: &[usize]| points.assign_once(&points.select(chosen).values(), threads);
    let count = points.count();
    let mut drawn = vec![random.random_range(0..count)];
    let mut assignment = nearest_of(&drawn);
    for _ in 0..ROUNDS {
        let wanted = 2.0 * clusters as f64 / ROUNDS as f64;
        let sum: f64 = assignment.squared.iter().map(|&squared| f64::from(squared)).sum();
        let first = drawn.len();
        for (row, &squared) in assignment.squared.iter().enumerate() {
            if random.random::<f64>() * sum < wanted * f64::from(squared) {
                drawn.push(row);
            }
        }
        if drawn.len() == first {
            continue;
        }
        let nearer = nearest_of(&drawn[first..]);
        for row in 0..count {
            if nearer.squared[row] < assignment.squared[row] {
                assignment.squared[row] = nearer.squared[row];
                assignment.nearest[row] = nearer.nearest[row] + first as u32;
            }
        }
    }
    // Few values, or luck: any rows make up the number.
    for row in index::sample(random, count, clusters.min(count)) {
        if drawn.len() >= clusters {
            break;
        }
        drawn.push(row);
    }
    let mut weights = vec![0.0; drawn.len()];
    for &nearest in &assignment.nearest {
        weights[nearest as usize] += 1.0;
    }
    (drawn, weights)
}

/// A number drawn in proportion to the given chances; none where all are zero.
fn draw(chances: impl Iterator<Item = f64> + Clone, random: &mut ChaCha8Rng) -> Option<usize> {
    let mut left = random.random::<f64>() * chances.clone().sum::<f64>();
    let mut last = None;
    for (place, chance) in chances.enumerate() {
        if chance > 0.0 {
            last = Some(place);
            left -= chance;
            if left < 0.0 {
                break;
            }
        }
    }
    last
}
