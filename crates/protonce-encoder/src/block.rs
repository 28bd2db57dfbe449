//! A residual block (He et al. 2016): y = ReLU(F(x) + shortcut(x)), where F is two or three
//! convolutions, each followed by a normalisation, and the shortcut is x itself or, where the block
//! changes the shape, a 1×1 convolution of it.

use std::sync::Arc;

use tch::Tensor;

use super::architecture::{BlockKind, ResNetSpec};
use super::autograd::{differentiable, gradients, gradients_wanted};
use super::context::ForwardContext;
use super::layers::{Convolution, Normalisation};
use super::normalise::{Activation, Normalised};
use super::parameters::{ParameterId, ParametersBuilder};
use super::recompute::Recompute;

/// A convolution and the normalisation that follows it.
pub(super) struct ConvNorm {
    pub(super) convolution: Convolution,
    normalisation: Normalisation,
}

impl ConvNorm {
    /// Declares both by their names: `inputs` → `outputs` channels, `size` × `size` taps.
    pub(super) fn declare(
        builder: &mut ParametersBuilder,
        [convolution, normalisation]: [&str; 2],
        [inputs, outputs]: [i64; 2],
        [size, stride, groups]: [i64; 3],
    ) -> ConvNorm {
        let channels = [inputs, outputs];
        ConvNorm {
            convolution: Convolution::declare(builder, convolution, channels, size, stride, groups),
            normalisation: Normalisation::declare(builder, normalisation, outputs),
        }
    }

    /// activation(normalise(convolve(x)) + residual). `recompute` makes `x` in the backward pass, where
    /// `x` need not be kept.
    pub(super) fn forward(
        &self,
        context: &ForwardContext,
        x: &Tensor,
        recompute: Option<Recompute>,
        residual: Option<&Tensor>,
        activation: Activation,
    ) -> Normalised {
        let x = self.convolution.forward(context, x, recompute);
        self.normalisation.forward(context, x, residual, activation)
    }

    fn parameters(&self) -> impl Iterator<Item = ParameterId> {
        self.convolution.parameters().into_iter().chain(self.normalisation.parameters())
    }
}

/// A residual block.
pub(super) struct Block {
    /// F, with a ReLU after each.
    pub(super) units: Vec<ConvNorm>,
    /// Brings x to the shape of F(x) where the block changes it.
    pub(super) downsample: Option<ConvNorm>,
}

impl Block {
    /// Declares the block called `name` of `inputs` → `outputs` channels, with `inner` ones between.
    pub(super) fn declare(
        builder: &mut ParametersBuilder,
        name: &str,
        spec: &ResNetSpec,
        [inputs, inner, outputs]: [i64; 3],
        stride: i64,
    ) -> Block {
        // Channels, then size, stride and groups of each convolution. torchvision puts the stride of a
        // bottleneck into its 3×3 convolution, the paper into the first 1×1.
        let convolutions = match spec.block {
            BlockKind::Basic => {
                vec![([inputs, inner], [3, stride, 1]), ([inner, outputs], [3, 1, 1])]
            }
            BlockKind::Bottleneck => vec![
                ([inputs, inner], [1, 1, 1]),
                ([inner, inner], [3, stride, spec.groups]),
                ([inner, outputs], [1, 1, 1]),
            ],
        };
        let units = convolutions
            .into_iter()
            .zip(1..)
            .map(|((channels, geometry), number)| {
                let names = ["conv", "bn"].map(|part| format!("{name}.{part}{number}"));
                ConvNorm::declare(builder, [&names[0], &names[1]], channels, geometry)
            })
            .collect();
        let downsample = (stride != 1 || inputs != outputs).then(|| {
            let names = [0, 1].map(|number| format!("{name}.downsample.{number}"));
            let channels = [inputs, outputs];
            ConvNorm::declare(builder, [&names[0], &names[1]], channels, [1, stride, 1])
        });
        Block { units, downsample }
    }

    /// [batch, inputs, height, width] → [batch, outputs, height / stride, width / stride].
    pub(super) fn forward(self: &Arc<Self>, context: &ForwardContext, x: &Tensor) -> Tensor {
        match context.checkpoint_blocks {
            true => self.forward_checkpointed(context, x),
            false => self.compute(context, x),
        }
    }

    fn compute(&self, context: &ForwardContext, x: &Tensor) -> Tensor {
        let shortcut = match &self.downsample {
            Some(downsample) => downsample.forward(context, x, None, None, Activation::None).tensor,
            None => x.shallow_clone(),
        };
        let last = self.units.len() - 1;
        let mut y = Normalised { tensor: x.shallow_clone(), recompute: None };
        for (number, unit) in self.units.iter().enumerate() {
            let residual = (number == last).then_some(&shortcut);
            // Only the next unit reads what lies between two units, so it need not be kept.
            y = unit.forward(context, &y.tensor, y.recompute, residual, Activation::Relu);
        }
        y.tensor
    }

    /// [`Block::compute`] that keeps nothing but its input for the backward pass, which recomputes the
    /// block (gradient checkpointing, Chen et al. 2016, <https://arxiv.org/abs/1604.06174>): the same
    /// bits for a second forward pass. Running statistics move once.
    fn forward_checkpointed(self: &Arc<Self>, context: &ForwardContext, x: &Tensor) -> Tensor {
        let ids: Vec<ParameterId> = self.parameters().collect();
        let mut inputs = vec![x];
        inputs.extend(ids.iter().map(|&id| context.parameters.get(id)));
        if !gradients_wanted(&inputs) {
            return self.compute(context, x);
        }
        let y = tch::no_grad(|| self.compute(context, x));
        let wanted: Vec<bool> = inputs.iter().map(|input| input.requires_grad()).collect();
        let (block, conv_plan, stats) = (self.clone(), context.conv_plan.clone(), context.stats);
        let (parameters, x_kept) = (context.parameters.for_another_graph(), x.detach());
        differentiable(y, &inputs, move |gradient| {
            let x = x_kept.detach().set_requires_grad(wanted[0]);
            let (parameters, conv_plan) = (&parameters, &conv_plan);
            let context = ForwardContext { parameters, conv_plan, stats, checkpoint_blocks: false };
            let y = tch::with_grad(|| block.compute(&context, &x));
            let mut leaves = vec![&x];
            leaves.extend(ids.iter().map(|&id| parameters.get(id)));
            leaves.retain(|leaf| leaf.requires_grad());
            let mut found = gradients(&y, gradient, &leaves).into_iter();
            wanted.iter().map(|&wanted| if wanted { found.next() } else { None }).collect()
        })
    }

    fn parameters(&self) -> impl Iterator<Item = ParameterId> {
        self.units.iter().chain(&self.downsample).flat_map(ConvNorm::parameters)
    }
}
