//! The sums of each cluster's points, from which its centroid is made.

use protonce_simd::multiversion;

use crate::distance::prefetch;
use crate::matrix::Matrix;
use crate::threads::Threads;

/// Clusters whose rows a thread sums up at a time.
const PIECE: usize = 16;

/// Sums of the points of each cluster.
pub struct Sums {
    dim: usize,
    /// The sums as `update` left them, before any other process's were added: [clusters, dim].
    local: Vec<f64>,
    /// The assignment that they belong to; empty before there is one.
    nearest: Vec<u32>,
    /// The sums: [clusters, dim].
    pub totals: Vec<f64>,
    /// Points of each cluster; whole numbers.
    pub counts: Vec<f64>,
}

impl Sums {
    /// No sums yet, of `clusters` clusters.
    pub fn new(clusters: usize, dim: usize) -> Sums {
        Sums {
            dim,
            local: vec![0.0; clusters * dim],
            nearest: Vec::new(),
            totals: vec![0.0; clusters * dim],
            counts: vec![0.0; clusters],
        }
    }

    /// Makes the totals and counts those of `rows`, of which `nearest` is the cluster of each.
    ///
    /// Each sum is taken in float64 in the order of the rows, whichever thread does it, and only
    /// those of clusters that won or lost a row since the last time.
    pub fn update(&mut self, rows: Matrix, nearest: &[u32], threads: &Threads) {
        let clusters = self.counts.len();
        let mut stale = vec![self.nearest.is_empty(); clusters];
        for (&before, &now) in self.nearest.iter().zip(nearest) {
            stale[before as usize] |= before != now;
            stale[now as usize] |= before != now;
        }
        self.nearest.clear();
        self.nearest.extend_from_slice(nearest);
        // The rows of each cluster, cluster after cluster.
        let mut ends = vec![0u32; clusters];
        for &cluster in nearest {
            ends[cluster as usize] += 1;
        }
        let mut end = 0;
        for (count, ends) in self.counts.iter_mut().zip(&mut ends) {
            *count = f64::from(*ends);
            (end, *ends) = (end + *ends, end);
        }
        let mut members = vec![0; nearest.len()];
        for (row, &cluster) in (0..).zip(nearest) {
            let end = &mut ends[cluster as usize];
            members[*end as usize] = row;
            *end += 1;
        }
        let dim = self.dim;
        let pieces =
            self.local.chunks_mut(PIECE * dim).zip(ends.chunks(PIECE)).zip(stale.chunks(PIECE));
        let firsts = std::iter::once(0).chain(ends.iter().copied().skip(PIECE - 1).step_by(PIECE));
        threads.share(pieces.zip(firsts), |(((sums, ends), stale), mut first)| {
            for ((sum, &end), &stale) in sums.chunks_mut(dim).zip(ends).zip(stale) {
                if stale {
                    sum_rows(rows, &members[first as usize..end as usize], sum);
                }
                first = end;
            }
        });
        self.totals.copy_from_slice(&self.local);
    }
}

multiversion! {
    /// The sum of the rows whose numbers are given.
    fn sum_rows(rows: Matrix, members: &[u32], sum: &mut [f64]) {
        // As many sums as fit in registers, over all rows.
        const BLOCK: usize = 32;
        const AHEAD: usize = 6;
        let mut first = 0;
        let mut blocks = sum.chunks_exact_mut(BLOCK);
        for block in &mut blocks {
            let mut sums = [0f64; BLOCK];
            for (place, &row) in members.iter().enumerate() {
                // Rows of a cluster lie anywhere: the first time, memory has to be asked early.
                if first == 0 && let Some(&soon) = members.get(place + AHEAD) {
                    prefetch(rows.row(soon as usize));
                }
                let values = &rows.row(row as usize)[first..][..BLOCK];
                for place in 0..BLOCK {
                    sums[place] += f64::from(values[place]);
                }
            }
            block.copy_from_slice(&sums);
            first += BLOCK;
        }
        for sum in blocks.into_remainder() {
            let values = members.iter().map(|&row| f64::from(rows.row(row as usize)[first]));
            *sum = values.fold(0.0, |sum, value| sum + value);
            first += 1;
        }
    }
}
