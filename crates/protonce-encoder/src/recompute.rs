//! Activations that are computed a second time instead of being kept.
//!
//! A backward pass needs what its forward pass read. Where one cheap pass over memory that is kept
//! anyway gives the same bits again, keeping the result would only cost memory (Chen et al. 2016,
//! <https://arxiv.org/abs/1604.06174>). The operation that made the activation offers how; the
//! operation that reads it decides to use that.

use tch::Tensor;

/// How to compute an activation a second time: the same bits, without a graph.
pub struct Recompute(Box<dyn Fn() -> Tensor + Send>);

impl Recompute {
    /// By `run`, which must give the activation's own bits whenever it is called.
    pub(super) fn new(run: impl Fn() -> Tensor + Send + 'static) -> Recompute {
        Recompute(Box::new(run))
    }

    /// The activation.
    pub(super) fn run(&self) -> Tensor {
        (self.0)()
    }
}
