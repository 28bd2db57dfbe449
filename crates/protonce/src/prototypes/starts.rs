//! Where k-means begins.

use rand::RngExt;
use rand::seq::index;
use rand_chacha::ChaCha8Rng;

use super::kmeans::Start;
use super::nearest::{Rows, share, squared_distance};
use super::points::Points;

/// Passes of k-means||; more than five gain nothing (Bahmani et al. 2012, §5).
const ROUNDS: usize = 5;

/// The first centroids: [clusters, dim].
pub fn centroids(
    start: Start,
    points: &Points,
    clusters: usize,
    random: &mut ChaCha8Rng,
) -> Vec<f32> {
    let count = points.count();
    match start {
        Start::Random => points.values(&index::sample(random, count, clusters).into_vec()),
        Start::PlusPlus => {
            let values = points.host_values();
            let rows = Rows { values: &values, dim: points.dim() };
            let chosen = plus_plus(rows, &vec![1.0; count], clusters, random);
            points.values(&chosen)
        }
        Start::Parallel => {
            let (candidates, weights) = candidates(points, clusters, random);
            let values = points.values(&candidates);
            let rows = Rows { values: &values, dim: points.dim() };
            let chosen = plus_plus(rows, &weights, clusters, random);
            chosen.into_iter().flat_map(|row| rows.row(row)).copied().collect()
        }
    }
}

/// k-means++ on weighted rows: each next one is drawn with a probability in proportion to weight times
/// squared distance to the nearest drawn before.
fn plus_plus(rows: Rows, weights: &[f64], clusters: usize, random: &mut ChaCha8Rng) -> Vec<usize> {
    const PART: usize = 4096;
    let mut squared = vec![f32::INFINITY; rows.count()];
    let mut chosen = vec![draw(weights.iter().copied(), random).unwrap_or(0)];
    while chosen.len() < clusters {
        let last = rows.row(chosen[chosen.len() - 1]);
        let jobs = squared.chunks_mut(PART).enumerate();
        share(jobs, |(part, squared)| {
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
/// drawn before, two a cluster in all; and how many rows are nearest to each.
fn candidates(points: &Points, clusters: usize, random: &mut ChaCha8Rng) -> (Vec<usize>, Vec<f64>) {
    let count = points.count();
    let mut drawn = vec![random.random_range(0..count)];
    let mut assignment = points.assign_once(&points.values(&drawn));
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
        let nearer = points.assign_once(&points.values(&drawn[first..]));
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
