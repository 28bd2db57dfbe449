//! The rotation that makes short prefixes of vectors say most of what whole vectors would.

use super::directions::principal_directions;
use super::kernel::QUAD;
use super::product::{View, multiply, multiply_shared};
use crate::matrix::Matrix;
use crate::threads::Threads;

/// Lengths of prefixes that may be looked at: eighths of the dimensions.
const EIGHTHS: [usize; 6] = [1, 2, 3, 4, 6, 8];
/// Prefixes to choose from.
pub const LEVELS: usize = EIGHTHS.len();

/// Most dimensions in which a rotation is looked for: that takes time with their third power, and more
/// than looking at every centroid where there are few points.
const MOST_DIMENSIONS: usize = 4096;

/// Subtracts a mean and rotates towards principal directions, the largest first.
pub struct PcaRotation {
    mean: Vec<f32>,
    /// [dim, dim], a direction in each column. None: vectors stay as they are.
    rotation: Option<Vec<f32>>,
    /// Bound on the relative error of a product of rotated vectors, and of a squared length: rounding,
    /// and how far the rotation is from an exact one.
    pub error: f64,
    /// Values of a rotated vector: the dimension, rounded up to whole quads with zeros.
    pub length: usize,
    /// The prefixes that may be looked at.
    pub prefixes: [usize; LEVELS],
}

impl PcaRotation {
    /// The rotation that suits `rows`; none where there are fewer of them than dimensions, or very
    /// many dimensions.
    pub fn new(rows: Matrix, threads: &Threads) -> PcaRotation {
        let dim = rows.dim;
        let length = dim.next_multiple_of(QUAD);
        let mean = mean(rows);
        let worthwhile = dim <= rows.count().min(MOST_DIMENSIONS);
        let rotation = worthwhile.then(|| principal_rotation(rows, &mean, threads));
        // A sum of d products in any order: relative to the lengths at most (d + 2) u each, times
        // the Frobenius norm √d of the rotation; for both vectors, and twice that for good measure.
        let rounding =
            4.0 * (dim as f64 + 4.0) * (dim as f64).sqrt() * f64::from(f32::EPSILON) / 2.0;
        let defect = rotation.as_ref().map_or(0.0, |rotation| defect(rotation, dim, threads));
        let error = rounding + defect;
        let prefixes = EIGHTHS.map(|eighths| (length * eighths).div_ceil(8 * QUAD).max(1) * QUAD);
        PcaRotation { mean, rotation, error, length, prefixes }
    }

    /// Puts `rows`, rotated, into `rotated`: [count, length]. `offsets` is scratch memory.
    pub fn rotate(&self, rows: Matrix, offsets: &mut Vec<f32>, rotated: &mut [f32]) {
        offsets.clear();
        for row in rows.values.chunks(rows.dim) {
            offsets.extend(row.iter().zip(&self.mean).map(|(value, mean)| value - mean));
        }
        if let Some(rotation) = &self.rotation {
            let (offsets, rotation) = (View::new(offsets, rows.dim), View::new(rotation, rows.dim));
            multiply(1.0, offsets, rotation, 0.0, (&mut *rotated, self.length));
        }
        for (row, offsets) in rotated.chunks_mut(self.length).zip(offsets.chunks(rows.dim)) {
            if self.rotation.is_none() {
                row[..rows.dim].copy_from_slice(offsets);
            }
            row[rows.dim..].fill(0.0);
        }
    }
}

/// A direction in each column, the one of most variance of `rows` around their `mean` first:
/// [dim, dim].
fn principal_rotation(rows: Matrix, mean: &[f32], threads: &Threads) -> Vec<f32> {
    let dim = rows.dim;
    let offsets: Vec<f64> = rows
        .values
        .chunks(dim)
        .flat_map(|row| row.iter().zip(mean))
        .map(|(&value, &mean)| f64::from(value) - f64::from(mean))
        .collect();
    let directions = principal_directions(&gram(&offsets, dim, threads), dim, threads);
    let mut rotation = vec![0f32; dim * dim];
    for (column, direction) in directions.chunks(dim).enumerate() {
        for (row, &value) in direction.iter().enumerate() {
            rotation[row * dim + column] = value as f32;
        }
    }
    rotation
}

/// The mean of `rows`.
fn mean(rows: Matrix) -> Vec<f32> {
    let mut sums = vec![0f64; rows.dim];
    for row in rows.values.chunks(rows.dim) {
        sums.iter_mut().zip(row).for_each(|(sum, &value)| *sum += f64::from(value));
    }
    sums.into_iter().map(|sum| (sum / rows.count() as f64) as f32).collect()
}

/// XᵀX of vectors X, [count, dim].
fn gram(vectors: &[f64], dim: usize, threads: &Threads) -> Vec<f64> {
    let vectors = View::new(vectors, dim);
    let mut gram = vec![0.0; dim * dim];
    multiply_shared(1.0, vectors.transposed(), vectors, 0.0, &mut gram, threads);
    gram
}

/// How far `rotation` is from an orthogonal matrix: the Frobenius norm of RᵀR − I, which bounds what
/// it does to products of vectors, relative to their lengths.
fn defect(rotation: &[f32], dim: usize, threads: &Threads) -> f64 {
    let exact: Vec<f64> = rotation.iter().map(|&value| f64::from(value)).collect();
    let mut products = gram(&exact, dim, threads);
    products.iter_mut().step_by(dim + 1).for_each(|diagonal| *diagonal -= 1.0);
    products.iter().map(|value| value * value).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};

    #[test]
    fn rotated_vectors_keep_their_products_within_the_promised_error() {
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(3);
        let threads = Threads::new(1).unwrap();
        for dim in [1, 5, 33, 128, 260] {
            let values: Vec<f32> = (0..200 * dim)
                .map(|i| random.random_range(-1.0f32..3.0) / (1 + i % dim) as f32)
                .collect();
            let rows = Matrix { values: &values, dim };
            let rotation = PcaRotation::new(rows, &threads);
            assert!(rotation.error < 0.01, "{dim}: {}", rotation.error);
            let mut rotated = vec![f32::NAN; rows.count() * rotation.length];
            rotation.rotate(rows, &mut Vec::new(), &mut rotated);
            let rotated = Matrix { values: &rotated, dim: rotation.length };
            let product =
                |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
            let exact = |row: usize| -> Vec<f64> {
                let values = rows.row(row).iter().zip(&rotation.mean);
                values.map(|(&value, &mean)| f64::from(value) - f64::from(mean)).collect()
            };
            let found = |row: usize| -> Vec<f64> {
                rotated.row(row).iter().map(|&v| f64::from(v)).collect()
            };
            for (one, other) in (0..200).zip((0..200).rev()) {
                let lengths = [one, other].map(|row| product(&exact(row), &exact(row)).sqrt());
                let difference =
                    product(&exact(one), &exact(other)) - product(&found(one), &found(other));
                let bound = rotation.error * lengths[0] * lengths[1];
                assert!(difference.abs() <= bound, "{dim}: {difference:e}, promised {bound:e}");
            }
        }
    }
}
