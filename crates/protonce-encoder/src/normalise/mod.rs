//! Batch normalisation (Ioffe & Szegedy 2015, <https://arxiv.org/abs/1502.03167>) together with what
//! follows it in a residual network: the residual sum and the ReLU.
//!
//! A processor that multiplies fast is held up by memory, so activations pass through it as rarely as
//! possible. A forward pass reads the input twice (statistics, result); a backward pass reads input and
//! gradient twice (two sums, result) and, where a residual was added, the output once. Kept for the
//! backward pass: the input, a few numbers per channel and, with residual and ReLU, the output. Without a
//! residual, the output can be recomputed from the input in one more pass, so that the convolution which
//! follows need not keep it either.
//!
//! Sums run in float32 over blocks of a few dozen rows and in float64 beyond. How the work is shared out
//! depends on the shape alone, and partial sums are added in their order, so the result has the same
//! bits for any number of threads.

mod affine;
mod backward;
mod batch_norm;
mod forward;
mod kernels;
mod operation;
mod partition;
mod statistics;

pub(super) use batch_norm::moved;
pub use batch_norm::{Activation, BatchNorm, BatchStats};
pub use operation::{Normalised, normalise};

#[cfg(test)]
mod tests;
