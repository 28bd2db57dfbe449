//! What a search remembers of each row: how near the centroids of a block could be to it.

use crate::distance::{distance_error, squared_distance};
use crate::matrix::Matrix;

/// Covers what gets lost below the least normal numbers.
pub const TINY: f64 = 1e-30;

/// How near centroids can have come to rows they are not assigned to.
pub struct Bounds<'a> {
    /// For each row and block, a distance that all centroids of the block but the row's own keep,
    /// plus how far they could move before: [rows, blocks].
    pub distances: &'a mut [f32],
    /// How far the centroids of each block could move so far: [blocks].
    pub moved: &'a [f64],
}

impl Bounds<'_> {
    /// A bit for each block that may have a centroid within √`squared` of `row`.
    #[inline(always)]
    pub fn needed(&self, row: usize, squared: f32, dim: usize) -> u64 {
        let within =
            (f64::from(squared) * (1.0 + 3.0 * distance_error(dim)) + TINY).sqrt() * (1.0 + 1e-6);
        let distances = &self.distances[row * self.moved.len()..][..self.moved.len()];
        let mut needed = 0;
        for (block, (&distance, &moved)) in distances.iter().zip(self.moved).enumerate() {
            needed |= u64::from(f64::from(distance) <= within + moved) << block;
        }
        needed
    }

    /// What is stored of a squared distance that the centroids of `block` keep.
    #[inline(always)]
    pub fn keeps(&self, block: usize, squared: f32) -> f32 {
        // Covers the error of the distance (or of its bound) and of the sum.
        let distance = f64::from(squared.max(0.0)).sqrt() * (1.0 - 1e-4);
        ((distance + self.moved[block]) * (1.0 - 1e-6)) as f32
    }
}

/// How far any of `members` moved since `before`, or a little more.
pub fn farthest_moved(centroids: Matrix, before: &[f32], members: &[u32]) -> f64 {
    let before = Matrix { values: before, dim: centroids.dim };
    let moved = members
        .iter()
        .map(|&c| squared_distance(centroids.row(c as usize), before.row(c as usize)));
    let farthest = f64::from(moved.fold(0.0, f32::max));
    (farthest * (1.0 + 3.0 * distance_error(centroids.dim)) + TINY).sqrt()
}
