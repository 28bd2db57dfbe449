//! The processes that train together.
//!
//! Everything that crosses from one process to another goes through a [`World`]. It is passed in
//! from the start so that no module comes to assume that it is alone; on one process every
//! operation hands back what it was given.

use protonce_kmeans::Collective;
use tch::Tensor;

/// A group of processes, of which this one is number `rank` of `size`.
#[derive(Debug, Clone)]
pub struct World {
    rank: usize,
    size: usize,
}

impl World {
    /// The world of a single process.
    pub fn alone() -> World {
        World { rank: 0, size: 1 }
    }

    /// This process's number, from 0 to `size() - 1`.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// How many processes train together.
    pub fn size(&self) -> usize {
        self.size
    }

    /// The mean of `tensor` over all processes.
    pub fn all_reduce_mean(&self, tensor: Tensor) -> Tensor {
        tensor
    }

    /// The rows of every process, rank by rank: [rows, …] → [size × rows, …].
    pub fn all_gather(&self, tensor: Tensor) -> Tensor {
        tensor
    }
}

/// What k-means sends from one process to another: nothing, from one process.
impl Collective for World {
    fn all_reduce_sum(&self, _values: &mut [f64]) {}

    fn broadcast(&self, _values: &mut [f32]) {}
}
