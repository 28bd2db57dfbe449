//! What k-means asks of the points it clusters, wherever they lie.
//!
//! Lloyd's iterations take two steps: [`assign`](Points::assign) every point to its nearest centroid
//! and [`sum`](Points::sum) the points of each cluster. [`HostPoints`](crate::HostPoints) takes them
//! on points in memory; a program with points on another device implements [`Points`] for those.
//! Centroids and assignments are in memory in either case: they are small.

use std::borrow::Cow;

use crate::assignment::{Assignment, Effort};
use crate::sums::Members;
use crate::threads::Threads;

/// What "near" means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// L2 distance; centroids are means. What faiss does by default.
    Euclidean,
    /// Angles: points and centroids are L2-normalised.
    Spherical,
}

/// Points to be clustered: float32 [count, dim], finite, and of length 1 if the metric is spherical.
pub trait Points: Sized {
    /// What one start remembers from assignment to assignment.
    type Search: Default;

    /// How many points there are.
    fn count(&self) -> usize;

    /// The values of each.
    fn dim(&self) -> usize;

    /// What "near" means.
    fn metric(&self) -> Metric;

    /// All values, in memory: [count, dim].
    fn values(&self) -> Cow<'_, [f32]>;

    /// Some of the points, in the given order.
    fn select(&self, chosen: &[usize]) -> Self;

    /// Other points of the same kind, that [`values`](Points::values) gave: [count, dim].
    fn like(&self, values: Vec<f32>) -> Self;

    /// Finds the nearest of `centroids` ([clusters, dim]) to every point; of equally near ones the
    /// first. `assignment` is the one before. `search` has seen as many centroids each time.
    fn assign(
        &self,
        search: &mut Self::Search,
        centroids: &[f32],
        assignment: &mut Assignment,
        threads: &Threads,
    ) -> Effort;

    /// The same for points that are looked at once: nothing is kept for further assignments.
    fn assign_once(&self, centroids: &[f32], threads: &Threads) -> Assignment;

    /// Adds to each of `sums` ([clusters, dim]) the points of its cluster, in their order. `clusters` are
    /// the numbers of some, `members` the points of all.
    fn sum(&self, members: &Members, clusters: &[u32], sums: &mut [f64], threads: &Threads);
}
