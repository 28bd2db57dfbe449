//! Convolutions: three passes, each by the fastest of several algorithms.
//!
//! A pass (forward, and the gradients of input and weight) gives the same numbers within rounding by
//! every algorithm: libtorch's, Winograd's or a matrix product over unfolded pixels (im2col). Which is
//! fastest depends on the processor and on the convolution's shape. [`ConvAlgorithms::usual`] is the
//! rule that holds without measuring; [`ConvAlgorithms::measured`] measures.

mod algorithm;
mod convolve;
mod im2col;
mod libtorch;
mod measured;
mod passes;
mod plan;
mod shape;
mod winograd;

pub use algorithm::{ConvAlgorithm, ConvAlgorithms};
pub use convolve::convolve;
pub(super) use libtorch::deterministic_cudnn;
pub use plan::ConvPlan;
pub use shape::{ConvShape, Pass};

#[cfg(test)]
mod tests;
