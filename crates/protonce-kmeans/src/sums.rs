//! The sums of each cluster's points, from which its centroid is made.
//!
//! Each sum is taken in float64 in the order of all points, whichever threads and processes do it: a
//! process goes on from the sums of the processes before it. The same points then give the same sums to
//! the bit, however they are dealt.

use protonce_simd::multiversion;

use crate::KMeansError;
use crate::distance::prefetch;
use crate::matrix::Matrix;
use crate::parts::Parts;
use crate::points::Points;
use crate::threads::Threads;

/// Clusters whose rows a thread sums up at a time.
const PIECE: usize = 16;

/// Stretches of clusters, per process, that are handed on one after the other: while a process adds to
/// one, the next adds to the stretch before.
const STRETCHES: usize = 16;

/// Sums of the points of each cluster.
pub struct Sums {
    dim: usize,
    /// The cluster of each of all points that the sums belong to; empty before there is one.
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
            nearest: Vec::new(),
            totals: vec![0.0; clusters * dim],
            counts: vec![0.0; clusters],
        }
    }

    /// Makes the totals and counts those of all points, of which `nearest` is the cluster of each and
    /// `points` are this process's. Only clusters are looked at that won or lost a point since the last
    /// time.
    ///
    /// # Errors
    /// When a process is gone.
    pub fn update<P: Points>(
        &mut self,
        points: &P,
        parts: &Parts,
        nearest: &[u32],
        threads: &Threads,
    ) -> Result<(), KMeansError> {
        let clusters = self.counts.len();
        let mut stale = vec![self.nearest.is_empty(); clusters];
        for (&before, &now) in self.nearest.iter().zip(nearest) {
            stale[before as usize] |= before != now;
            stale[now as usize] |= before != now;
        }
        self.nearest.clear();
        self.nearest.extend_from_slice(nearest);
        self.counts.fill(0.0);
        for &cluster in nearest {
            self.counts[cluster as usize] += 1.0;
        }
        let stale: Vec<u32> = (0..clusters as u32).filter(|&c| stale[c as usize]).collect();
        let members = Members::new(&nearest[parts.own()], clusters);

        let (collective, dim) = (parts.collective(), self.dim);
        let (rank, size) = (collective.rank(), collective.size());
        let stretches = if size == 1 { 1 } else { size * STRETCHES };
        let stretch = stale.len().div_ceil(stretches).max(1);
        let mut sums = vec![0.0; stale.len() * dim];
        for (clusters, sums) in stale.chunks(stretch).zip(sums.chunks_mut(stretch * dim)) {
            if rank > 0 {
                collective.receive(rank - 1, sums)?;
            }
            points.sum(&members, clusters, sums, threads);
            if rank + 1 < size {
                collective.send(&[rank + 1], sums)?;
            }
        }
        // The last process has them all.
        match rank + 1 == size {
            true => collective.send(&(0..rank).collect::<Vec<_>>(), &sums)?,
            false => collective.receive(size - 1, &mut sums)?,
        }
        for (&cluster, sum) in stale.iter().zip(sums.chunks(dim)) {
            self.totals[cluster as usize * dim..][..dim].copy_from_slice(sum);
        }
        Ok(())
    }
}

/// The points of each cluster, of those that a process has.
pub struct Members {
    /// The points of the first cluster, ascending, then those of the next.
    points: Vec<u32>,
    /// Where those of each cluster end.
    ends: Vec<u32>,
}

impl Members {
    /// `nearest` is the cluster of each point.
    fn new(nearest: &[u32], clusters: usize) -> Members {
        let mut ends = vec![0u32; clusters];
        for &cluster in nearest {
            ends[cluster as usize] += 1;
        }
        let mut end = 0;
        for ends in &mut ends {
            (end, *ends) = (end + *ends, end);
        }
        let mut points = vec![0; nearest.len()];
        for (point, &cluster) in (0..).zip(nearest) {
            let end = &mut ends[cluster as usize];
            points[*end as usize] = point;
            *end += 1;
        }
        Members { points, ends }
    }

    /// The points of `cluster`, ascending.
    pub fn of(&self, cluster: u32) -> &[u32] {
        let cluster = cluster as usize;
        let start = if cluster == 0 { 0 } else { self.ends[cluster - 1] };
        &self.points[start as usize..self.ends[cluster] as usize]
    }
}

/// Adds to each of `sums` ([clusters, dim]) the rows of its cluster, in order.
pub fn add_rows(
    rows: Matrix,
    members: &Members,
    clusters: &[u32],
    sums: &mut [f64],
    threads: &Threads,
) {
    let pieces = clusters.chunks(PIECE).zip(sums.chunks_mut(PIECE * rows.dim));
    threads.share(pieces, |(clusters, sums)| {
        for (&cluster, sum) in clusters.iter().zip(sums.chunks_mut(rows.dim)) {
            sum_rows(rows, members.of(cluster), sum);
        }
    });
}

multiversion! {
    /// Adds the rows whose numbers are given.
    fn sum_rows(rows: Matrix, members: &[u32], sum: &mut [f64]) {
        // As many sums as fit in registers, over all rows.
        const BLOCK: usize = 32;
        const AHEAD: usize = 6;
        let mut first = 0;
        let mut blocks = sum.chunks_exact_mut(BLOCK);
        for block in &mut blocks {
            let mut sums = [0f64; BLOCK];
            sums.copy_from_slice(block);
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
            *sum = values.fold(*sum, |sum, value| sum + value);
            first += 1;
        }
    }
}
