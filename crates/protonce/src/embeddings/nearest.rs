//! The rows nearest to one row.

use std::thread;

/// A row and how near it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Neighbour {
    /// Its number.
    pub row: usize,
    /// Cosine of the angle between it and the query.
    pub similarity: f32,
}

/// The `count` rows of `rows` ([n, dim], row-major) with the largest cosine similarity to `query`,
/// nearest first; of equals, the first. Rows without a direction (zeros, not finite) are none's
/// neighbours.
///
/// Every row is looked at once, at any size: an approximate index would have to read them all, and
/// compare them with one another, before it answers its first query.
pub fn nearest(rows: &[f32], query: &[f32], count: usize) -> Vec<Neighbour> {
    let dim = query.len();
    if dim == 0 || count == 0 {
        return Vec::new();
    }
    let total = rows.len() / dim;
    let threads = protonce_images::threads(0);
    let share = total.div_ceil(threads).max(1);
    let parts = rows[..total * dim].chunks(share * dim);
    let mut found: Vec<Neighbour> = thread::scope(|scope| {
        let workers: Vec<_> = (0..)
            .zip(parts)
            .map(|(part, rows)| scope.spawn(move || best_of(rows, part * share, query, count)))
            .collect();
        // A worker only multiplies numbers; if one could panic, the panic would be ours.
        workers
            .into_iter()
            .flat_map(|worker| match worker.join() {
                Ok(best) => best,
                Err(panic) => std::panic::resume_unwind(panic),
            })
            .collect()
    });
    keep_best(&mut found, count);
    found
}

fn keep_best(found: &mut Vec<Neighbour>, count: usize) {
    found.sort_by(|a, b| b.similarity.total_cmp(&a.similarity).then(a.row.cmp(&b.row)));
    found.truncate(count);
}

/// The best of a stretch of rows that begins with row number `first`.
fn best_of(rows: &[f32], first: usize, query: &[f32], count: usize) -> Vec<Neighbour> {
    let length = dot(query, query).sqrt();
    let mut best = Vec::new();
    let mut least = f32::NEG_INFINITY;
    for (row, numbers) in (first..).zip(rows.chunks_exact(query.len())) {
        let similarity = dot(numbers, query) / (dot(numbers, numbers).sqrt() * length);
        if similarity > least && similarity.is_finite() {
            best.push(Neighbour { row, similarity });
            if best.len() >= 2 * count.max(32) {
                keep_best(&mut best, count);
                least = best.last().map_or(least, |last| last.similarity);
            }
        }
    }
    keep_best(&mut best, count);
    best
}

/// Eight sums side by side, which the compiler keeps in one register.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a, a_rest) = a.as_chunks::<8>();
    let (b, b_rest) = b.as_chunks::<8>();
    let mut sums = [0.0_f32; 8];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_are_those_of_a_full_sort() {
        let dim = 19;
        let number = |i: u32| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / 8e6 - 1.0;
        let mut rows: Vec<f32> = (0..3000 * dim as u32).map(number).collect();
        // No direction, and a pair of equals.
        rows[dim..2 * dim].fill(0.0);
        rows[2 * dim] = f32::NAN;
        rows.copy_within(100 * dim..101 * dim, 2000 * dim);
        let query: Vec<f32> = rows[100 * dim..101 * dim].iter().map(|x| 3.0 * x).collect();

        let exact = |row: usize| {
            let pairs = rows[row * dim..][..dim].iter().zip(&query);
            let (mut ab, mut aa, mut bb) = (0.0_f64, 0.0, 0.0);
            for (&a, &b) in pairs {
                let (a, b) = (f64::from(a), f64::from(b));
                (ab, aa, bb) = (ab + a * b, aa + a * a, bb + b * b);
            }
            ab / (aa * bb).sqrt()
        };
        let mut expected: Vec<usize> = (0..3000).filter(|&row| exact(row).is_finite()).collect();
        expected.sort_by(|&a, &b| exact(b).total_cmp(&exact(a)).then(a.cmp(&b)));
        let found = nearest(&rows, &query, 40);
        assert_eq!(found.len(), 40);
        assert_eq!((found[0].row, found[1].row), (100, 2000));
        for (found, expected) in found.iter().zip(&expected) {
            assert!((f64::from(found.similarity) - exact(*expected)).abs() < 1e-5);
        }
        assert_eq!(nearest(&rows[..2 * dim], &query, 40).len(), 1);
        assert!(nearest(&[], &query, 3).is_empty());
    }
}
