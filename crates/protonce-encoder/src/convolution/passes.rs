//! The three passes of a convolution on a CPU, each by any algorithm that computes it.

use tch::Tensor;

use super::algorithm::ConvAlgorithm;
use super::shape::{ConvShape, Pass};
use super::{im2col, libtorch, winograd};

/// One pass, of `x`, `weight` and the `gradient` of the result those that it needs.
pub(super) fn run_pass(
    pass: Pass,
    algorithm: ConvAlgorithm,
    [x, weight, gradient]: [&Tensor; 3],
    shape: &ConvShape,
) -> Tensor {
    match pass {
        Pass::Forward => forward(x, weight, shape, algorithm),
        Pass::InputGradient => input_gradient(gradient, x, weight, shape, algorithm),
        Pass::WeightGradient => weight_gradient(gradient, x, weight, shape, algorithm),
    }
}

/// The result, [n, out, h', w'].
pub(super) fn forward(
    x: &Tensor,
    weight: &Tensor,
    shape: &ConvShape,
    algorithm: ConvAlgorithm,
) -> Tensor {
    match algorithm {
        ConvAlgorithm::Libtorch => libtorch::forward(x, weight, shape.geometry()),
        ConvAlgorithm::Winograd => winograd::forward(x, weight),
        ConvAlgorithm::Im2col => im2col::forward(x, weight, shape),
    }
}

/// From the `gradient` of the result to that of the images, [n, in, h, w].
pub(super) fn input_gradient(
    gradient: &Tensor,
    x: &Tensor,
    weight: &Tensor,
    shape: &ConvShape,
    algorithm: ConvAlgorithm,
) -> Tensor {
    match algorithm {
        ConvAlgorithm::Libtorch => libtorch::input_gradient(gradient, x, weight, shape.geometry()),
        ConvAlgorithm::Winograd => winograd::input_gradient(gradient, weight),
        ConvAlgorithm::Im2col => im2col::input_gradient(gradient, weight, shape),
    }
}

/// From images and the `gradient` of the result to that of the weight, [out, in / groups, size, size].
pub(super) fn weight_gradient(
    gradient: &Tensor,
    x: &Tensor,
    weight: &Tensor,
    shape: &ConvShape,
    algorithm: ConvAlgorithm,
) -> Tensor {
    match algorithm {
        ConvAlgorithm::Libtorch => libtorch::weight_gradient(gradient, x, weight, shape.geometry()),
        ConvAlgorithm::Winograd => winograd::weight_gradient(gradient, x),
        ConvAlgorithm::Im2col => im2col::weight_gradient(gradient, x, shape),
    }
}
