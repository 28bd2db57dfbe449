//! The two collective operations that k-means needs when several processes cluster their points
//! together. It brings no transport of its own: a program that has processes implements [`Collective`].

/// A group of processes, each of which clusters points of its own around the same centroids.
///
/// Every process calls the same operations in the same order. What they do by default is right for a
/// process that is alone.
pub trait Collective {
    /// Puts the sums of `values` over all processes in their place.
    fn all_reduce_sum(&self, values: &mut [f64]) {
        let _ = values;
    }

    /// Puts process 0's `values` in their place.
    fn broadcast(&self, values: &mut [f32]) {
        let _ = values;
    }
}

/// One process, alone.
#[derive(Debug, Clone, Copy, Default)]
pub struct SingleProcess;

impl Collective for SingleProcess {}
