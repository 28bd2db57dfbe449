//! The principal directions of vectors, nearly: an orthonormal basis whose first directions hold about
//! as much of the vectors' variance as that many directions can.
//!
//! Screening wants short prefixes that say much, and orthonormality; exact eigenvectors would make no
//! difference to it that can be measured. So this is orthogonal iteration (Golub & Van Loan, "Matrix
//! Computations", §8.2.4): products of matrices and little else, which suits thousands of dimensions too.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::product::{View, multiply_shared};
use crate::threads::Threads;

/// Directions that are made orthogonal to all those before at a time.
const BLOCK: usize = 32;
/// Partial sums of an inner product.
const LANES: usize = 8;
/// What is left of a vector, relative to its length, when it depends on those before.
const DEPENDENT: f64 = 1e-12;

/// Directions of descending variance, one per row: [dim, dim]. `gram` is the vectors' XᵀX, [dim, dim].
pub fn principal_directions(gram: &[f64], dim: usize, threads: &Threads) -> Vec<f64> {
    let mut random = ChaCha8Rng::seed_from_u64(0);
    let mut directions: Vec<f64> = (0..dim * dim).map(|_| random.random_range(-1.0..1.0)).collect();
    // Two steps of the iteration in one product.
    let mut square = vec![0.0; dim * dim];
    multiply_shared(1.0, View::new(gram, dim), View::new(gram, dim), 0.0, &mut square, threads);
    // The trailing half holds little, however it is ordered: one round will do.
    let half = dim.div_ceil(2);
    for count in [half, half, dim] {
        let mut moved = vec![0.0; count * dim];
        let before = View::new(&directions[..count * dim], dim);
        multiply_shared(1.0, before, View::new(&square, dim), 0.0, &mut moved, threads);
        orthonormalise(&mut moved, dim, &mut random, threads);
        directions[..count * dim].copy_from_slice(&moved);
    }
    directions
}

/// Makes each row orthogonal to those before and gives it the length 1; a row that depends on those
/// before is drawn afresh.
fn orthonormalise(rows: &mut [f64], dim: usize, random: &mut ChaCha8Rng, threads: &Threads) {
    for first in (0..rows.len()).step_by(BLOCK * dim) {
        let (done, rest) = rows.split_at_mut(first);
        let end = rest.len().min(BLOCK * dim);
        let block = &mut rest[..end];
        // Twice is enough (Giraud et al. 2005); the second time covers rows drawn afresh, too.
        for _ in 0..2 {
            let lengths: Vec<f64> = block.chunks(dim).map(|row| dot(row, row).sqrt()).collect();
            if !done.is_empty() {
                let done = View::new(&*done, dim);
                let mut along = vec![0.0; block.len() / dim * (first / dim)];
                let within = View::new(&*block, dim);
                multiply_shared(1.0, within, done.transposed(), 0.0, &mut along, threads);
                multiply_shared(-1.0, View::new(&along, first / dim), done, 1.0, block, threads);
            }
            for (number, length) in lengths.into_iter().enumerate() {
                let (before, row) = block.split_at_mut(number * dim);
                let row = &mut row[..dim];
                for other in before.chunks(dim) {
                    let along = dot(other, row);
                    row.iter_mut().zip(other).for_each(|(value, other)| *value -= along * other);
                }
                if !(dot(row, row).sqrt() > DEPENDENT * length) {
                    row.fill_with(|| random.random_range(-1.0..1.0));
                }
                let left = dot(row, row).sqrt();
                row.iter_mut().for_each(|value| *value /= left);
            }
        }
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut sums = [0f64; LANES];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// XᵀX of vectors with the given variances along the rows of a basis.
    fn gram(variances: &[f64], basis: &[f64], threads: &Threads) -> Vec<f64> {
        let dim = variances.len();
        let scaled: Vec<f64> = basis
            .chunks(dim)
            .zip(variances)
            .flat_map(|(row, variance)| row.iter().map(move |value| value * variance))
            .collect();
        let mut gram = vec![0.0; dim * dim];
        let basis = View::new(basis, dim).transposed();
        multiply_shared(1.0, basis, View::new(&scaled, dim), 0.0, &mut gram, threads);
        gram
    }

    fn basis(dim: usize, threads: &Threads) -> Vec<f64> {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let mut basis: Vec<f64> = (0..dim * dim).map(|_| random.random_range(-1.0..1.0)).collect();
        orthonormalise(&mut basis, dim, &mut random, threads);
        basis
    }

    /// How far the rows are from orthonormal, at most.
    fn defect(rows: &[f64], dim: usize) -> f64 {
        let mut most = 0f64;
        for (i, a) in rows.chunks(dim).enumerate() {
            for (j, b) in rows.chunks(dim).enumerate() {
                most = most.max((dot(a, b) - f64::from(u8::from(i == j))).abs());
            }
        }
        most
    }

    #[test]
    fn first_directions_hold_nearly_as_much_variance_as_eigenvectors_would() {
        let threads = Threads::new(2).unwrap();
        let dim = 96;
        for (name, variance) in [
            ("1/j", (|j| 1.0 / j) as fn(f64) -> f64),
            ("1/j²", |j| 1.0 / (j * j)),
            ("exponential", |j| (-j / 12.0).exp()),
            ("clusters", |j| if j <= 20.0 { 1.0 } else { 0.01 }),
        ] {
            let variances: Vec<f64> = (1..=dim).map(|j| variance(j as f64)).collect();
            let gram = gram(&variances, &basis(dim, &threads), &threads);
            let found = principal_directions(&gram, dim, &threads);
            assert!(defect(&found, dim) < 1e-12, "{name}");
            for eighths in [1, 2, 3, 4] {
                let prefix = dim * eighths / 8;
                let mut projected = vec![0.0; prefix * dim];
                let leading = View::new(&found[..prefix * dim], dim);
                multiply_shared(1.0, leading, View::new(&gram, dim), 0.0, &mut projected, &threads);
                let held: f64 = projected
                    .chunks(dim)
                    .zip(found.chunks(dim))
                    .map(|(moved, direction)| dot(moved, direction))
                    .sum();
                let total: f64 = variances.iter().sum();
                let best: f64 = variances[..prefix].iter().sum();
                let (tail, least) = ((total - held).max(0.0).sqrt(), (total - best).sqrt());
                assert!(tail <= 1.03 * least, "{name}, {eighths}/8: {tail}, could be {least}");
            }
        }
    }

    #[test]
    fn a_basis_comes_of_vectors_without_variance_and_of_those_in_a_plane() {
        let threads = Threads::new(1).unwrap();
        for dim in [1, 2, 7, 70] {
            let zeros = principal_directions(&vec![0.0; dim * dim], dim, &threads);
            assert!(defect(&zeros, dim) < 1e-12, "{dim}");
            let variances: Vec<f64> = (0..dim).map(|j| if j < 2 { 1e-20 } else { 0.0 }).collect();
            let gram = gram(&variances, &basis(dim, &threads), &threads);
            let flat = principal_directions(&gram, dim, &threads);
            assert!(defect(&flat, dim) < 1e-12, "{dim}");
        }
    }
}
