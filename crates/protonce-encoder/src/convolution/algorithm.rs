//! The algorithms that compute a convolution, and which one each pass uses by default.

use serde::{Deserialize, Serialize};
use tch::Kind;

use super::shape::{ConvShape, Pass};
use super::{im2col, winograd};

/// How a pass is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConvAlgorithm {
    /// libtorch, which asks oneDNN on most processors.
    Libtorch,
    /// Winograd's minimal filtering, in float32.
    Winograd,
    /// A matrix product over unfolded pixels.
    #[serde(alias = "patches")]
    Im2col,
}

impl ConvAlgorithm {
    /// Every algorithm.
    pub const ALL: [ConvAlgorithm; 3] =
        [ConvAlgorithm::Libtorch, ConvAlgorithm::Winograd, ConvAlgorithm::Im2col];

    /// Whether this algorithm computes that pass.
    pub fn computes(self, pass: Pass, shape: &ConvShape) -> bool {
        match self {
            ConvAlgorithm::Libtorch => !onednn_is_wrong(pass, shape),
            ConvAlgorithm::Winograd => winograd::computes(shape),
            ConvAlgorithm::Im2col => im2col::computes(pass, shape),
        }
    }
}

/// The algorithm of each pass of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConvAlgorithms {
    /// Of the forward pass.
    pub forward: ConvAlgorithm,
    /// Of the gradient of the images.
    pub input_gradient: ConvAlgorithm,
    /// Of the gradient of the weight.
    pub weight_gradient: ConvAlgorithm,
}

impl ConvAlgorithms {
    /// The same algorithm for all passes.
    pub fn all(algorithm: ConvAlgorithm) -> ConvAlgorithms {
        ConvAlgorithms { forward: algorithm, input_gradient: algorithm, weight_gradient: algorithm }
    }

    /// The rule where nothing was measured: Winograd's where it suits, libtorch's elsewhere.
    pub fn usual(shape: &ConvShape) -> ConvAlgorithms {
        if winograd::suits(shape) {
            return ConvAlgorithms::all(ConvAlgorithm::Winograd);
        }
        let mut algorithms = ConvAlgorithms::all(ConvAlgorithm::Libtorch);
        if onednn_is_wrong(Pass::WeightGradient, shape) {
            algorithms.weight_gradient = ConvAlgorithm::Im2col;
        }
        algorithms
    }

    /// The algorithm of `pass`.
    pub fn of(&self, pass: Pass) -> ConvAlgorithm {
        match pass {
            Pass::Forward => self.forward,
            Pass::InputGradient => self.input_gradient,
            Pass::WeightGradient => self.weight_gradient,
        }
    }

    /// The algorithm of `pass`, to be changed.
    pub fn of_mut(&mut self, pass: Pass) -> &mut ConvAlgorithm {
        match pass {
            Pass::Forward => &mut self.forward,
            Pass::InputGradient => &mut self.input_gradient,
            Pass::WeightGradient => &mut self.weight_gradient,
        }
    }
}

/// Whether oneDNN, in libtorch 2.11, computes numbers that have nothing to do with the result: on
/// processors with AMX, gradients in bf16 of weights that are larger than the image, with a stride.
fn onednn_is_wrong(pass: Pass, shape: &ConvShape) -> bool {
    pass == Pass::WeightGradient
        && shape.kind == Kind::BFloat16
        && shape.stride > 1
        && shape.height.min(shape.width) < shape.size - shape.padding
        && ConvAlgorithm::Im2col.computes(pass, shape)
}
