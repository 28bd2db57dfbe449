//! The projection head: features in, embeddings out, which the loss compares (PCL §3.1, MoCo v2).

use protonce_run::{EncoderConfig, Head};
use tch::Tensor;

use super::context::ForwardContext;
use super::layers::{Linear, Normalisation};
use super::normalise::Activation;
use super::parameters::ParametersBuilder;

/// Length of what [`Head::MlpBn`] normalises, whatever the network (MoCo v3 has 4096, most others this).
pub const NORMALISED_WIDTH: i64 = 2048;

/// Linear layers with a ReLU between two, and where there is one, a normalisation before the ReLU; no
/// layers at all leave features as they are.
pub(super) struct ProjectionHead {
    /// All layers but the last.
    hidden: Option<(Linear, Option<Normalisation>)>,
    last: Option<Linear>,
}

impl ProjectionHead {
    /// Declares the head of features of length `width`.
    pub(super) fn declare(
        builder: &mut ParametersBuilder,
        config: &EncoderConfig,
        width: i64,
    ) -> ProjectionHead {
        let (hidden, last) = match config.head {
            Head::Linear => (None, Some(("fc", width))),
            // Numbered as in the published checkpoints, where number 1 is the ReLU.
            Head::Mlp => {
                let first = Linear::declare(builder, "fc.0", [width, width]);
                (Some((first, None)), Some(("fc.2", width)))
            }
            Head::MlpBn => {
                let first = Linear::declare(builder, "fc.0", [width, NORMALISED_WIDTH]);
                let norm = Normalisation::declare(builder, "fc.1", NORMALISED_WIDTH);
                (Some((first, Some(norm))), Some(("fc.3", NORMALISED_WIDTH)))
            }
            Head::None => (None, None),
        };
        let last = last.map(|(name, inputs)| Linear::declare(builder, name, [inputs, config.dim]));
        ProjectionHead { hidden, last }
    }

    /// [batch, width] → [batch, dim], not normalised.
    pub(super) fn forward(&self, context: &ForwardContext, features: &Tensor) -> Tensor {
        let Some(last) = &self.last else { return features.shallow_clone() };
        let parameters = context.parameters;
        let x = match &self.hidden {
            None => features.shallow_clone(),
            Some((layer, None)) => layer.forward(parameters, features).relu(),
            Some((layer, Some(norm))) => {
                let x = layer.forward(parameters, features);
                // An image of one pixel, with as many channels as a feature is long.
                let x = x.unsqueeze(-1).unsqueeze(-1);
                let y = norm.forward(context, x, None, Activation::Relu);
                y.tensor.squeeze_dim(-1).squeeze_dim(-1)
            }
        };
        last.forward(parameters, &x)
    }
}
