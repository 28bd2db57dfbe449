//! The projection head: features in, embeddings out, which the loss compares (PCL §3.1, MoCo v2).

use protonce_run::{EncoderConfig, Head};
use tch::Tensor;

use super::layers::Linear;
use super::parameters::{Parameters, ParametersBuilder};

/// Linear layers with a ReLU between two; none at all leaves features as they are.
pub(super) struct ProjectionHead(Vec<Linear>);

impl ProjectionHead {
    /// Declares the head of features of length `width`.
    pub(super) fn declare(
        builder: &mut ParametersBuilder,
        config: &EncoderConfig,
        width: i64,
    ) -> ProjectionHead {
        ProjectionHead(match config.head {
            Head::Linear => vec![Linear::declare(builder, "fc", [width, config.dim])],
            // Numbered as in the published checkpoints, where number 1 is the ReLU.
            Head::Mlp => vec![
                Linear::declare(builder, "fc.0", [width, width]),
                Linear::declare(builder, "fc.2", [width, config.dim]),
            ],
            Head::None => Vec::new(),
        })
    }

    /// [batch, width] → [batch, dim], not normalised.
    pub(super) fn forward(&self, parameters: &Parameters, features: &Tensor) -> Tensor {
        let Some((last, hidden)) = self.0.split_last() else { return features.shallow_clone() };
        let x = hidden
            .iter()
            .fold(features.shallow_clone(), |x, layer| layer.forward(parameters, &x).relu());
        last.forward(parameters, &x)
    }
}
