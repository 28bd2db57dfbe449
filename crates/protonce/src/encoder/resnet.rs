//! Residual networks (He et al. 2016, <https://arxiv.org/abs/1512.03385>; wide: Zagoruyko &
//! Komodakis 2016; ResNeXt: Xie et al. 2017) with torchvision's parameter names and its stride in
//! a bottleneck's 3×3 convolution.

use std::sync::Arc;

use tch::{Kind, Tensor};

use super::autograd::{differentiable, gradients, gradients_wanted};
use super::convolution::ConvShape;
use super::layers::{Convolution, ForwardContext, Linear, Normalisation, max_pool, pool};
use super::normalise::{Activation, Again, Normalised};
use super::parameters::{ParameterId, Parameters};
use protonce_run::{Architecture, EncoderConfig, Head, Stem};

/// How the blocks of an architecture are built.
pub(crate) struct Plan {
    /// Blocks in each of the four stages.
    pub(crate) depth: [usize; 4],
    /// Whether a block is 1×1 → 3×3 → 1×1 rather than 3×3 → 3×3.
    pub(crate) bottleneck: bool,
    pub(crate) groups: i64,
    /// Inner channels a group in the first stage; torchvision's `width_per_group`.
    pub(crate) group_width: i64,
}

impl Plan {
    /// The plan of `arch`.
    pub(crate) fn of(arch: Architecture) -> Plan {
        let (depth, bottleneck, groups, group_width) = match arch {
            Architecture::ResNet18 => ([2, 2, 2, 2], false, 1, 64),
            Architecture::ResNet34 => ([3, 4, 6, 3], false, 1, 64),
            Architecture::ResNet50 => ([3, 4, 6, 3], true, 1, 64),
            Architecture::ResNet101 => ([3, 4, 23, 3], true, 1, 64),
            Architecture::ResNet152 => ([3, 8, 36, 3], true, 1, 64),
            Architecture::WideResNet50x2 => ([3, 4, 6, 3], true, 1, 128),
            Architecture::ResNeXt50x32x4d => ([3, 4, 6, 3], true, 32, 4),
        };
        Plan { depth, bottleneck, groups, group_width }
    }
}

/// A convolution and the normalisation that follows it.
struct Unit {
    convolution: Convolution,
    normalisation: Normalisation,
}

impl Unit {
    fn forward(
        &self,
        context: &ForwardContext,
        x: &Tensor,
        again: Option<Again>,
        residual: Option<&Tensor>,
        activation: Activation,
    ) -> Normalised {
        let x = self.convolution.forward(context, x, again);
        self.normalisation.forward(context, x, residual, activation)
    }
}

/// Two or three units around which the input is carried and added before the last ReLU.
struct Block {
    units: Vec<Unit>,
    /// Brings the carried input to the output's shape where the block changes it.
    downsample: Option<Unit>,
}

impl Block {
    fn declare(
        parameters: &mut Parameters,
        name: &str,
        plan: &Plan,
        [inputs, inner, outputs]: [i64; 3],
        stride: i64,
    ) -> Block {
        // channels, taps, stride and groups of each convolution
        let convolutions = if plan.bottleneck {
            vec![
                ([inputs, inner], 1, 1, 1),
                ([inner, inner], 3, stride, plan.groups),
                ([inner, outputs], 1, 1, 1),
            ]
        } else {
            vec![([inputs, outputs], 3, stride, 1), ([outputs, outputs], 3, 1, 1)]
        };
        let units = convolutions
            .into_iter()
            .zip(1..)
            .map(|((channels, size, stride, groups), number)| Unit {
                convolution: Convolution::declare(
                    parameters,
                    &format!("{name}.conv{number}"),
                    channels,
                    size,
                    stride,
                    groups,
                ),
                normalisation: Normalisation::declare(
                    parameters,
                    &format!("{name}.bn{number}"),
                    channels[1],
                ),
            })
            .collect();
        let downsample = (stride != 1 || inputs != outputs).then(|| Unit {
            convolution: Convolution::declare(
                parameters,
                &format!("{name}.downsample.0"),
                [inputs, outputs],
                1,
                stride,
                1,
            ),
            normalisation: Normalisation::declare(
                parameters,
                &format!("{name}.downsample.1"),
                outputs,
            ),
        });
        Block { units, downsample }
    }

    fn forward(&self, context: &ForwardContext, x: &Tensor) -> Tensor {
        let carried = match &self.downsample {
            Some(unit) => unit.forward(context, x, None, None, Activation::None).tensor,
            None => x.shallow_clone(),
        };
        let last = self.units.len() - 1;
        let first = Normalised { tensor: x.shallow_clone(), again: None };
        let output = self.units.iter().enumerate().fold(first, |x, (number, unit)| {
            let residual = (number == last).then_some(&carried);
            // Nobody but the next unit needs what lies between two units.
            unit.forward(context, &x.tensor, x.again, residual, Activation::Relu)
        });
        output.tensor
    }

    /// [`Block::forward`] that keeps nothing but its input for the way back, on which the block is
    /// computed again (Chen et al. 2016, <https://arxiv.org/abs/1604.06174>): the same bits for a
    /// second forward pass. Running statistics move once.
    fn forward_checkpointed(self: &Arc<Self>, context: &ForwardContext, x: &Tensor) -> Tensor {
        let ids = self.parameters();
        let mut inputs = vec![x];
        inputs.extend(ids.iter().map(|&id| context.parameters.get(id)));
        if !gradients_wanted(&inputs) {
            return self.forward(context, x);
        }
        let y = tch::no_grad(|| self.forward(context, x));
        let wanted: Vec<bool> = inputs.iter().map(|input| input.requires_grad()).collect();
        let (block, conv_plan, stats) = (self.clone(), context.conv_plan.clone(), context.stats);
        let (parameters, x_kept, ids) = (context.parameters.apart(), x.detach(), ids.clone());
        differentiable(y, &inputs, move |gradient| {
            let x = x_kept.detach().set_requires_grad(wanted[0]);
            let (parameters, conv_plan) = (&parameters, &conv_plan);
            let context = ForwardContext { parameters, conv_plan, stats, checkpoint_blocks: false };
            let y = tch::with_grad(|| block.forward(&context, &x));
            let mut leaves = vec![&x];
            leaves.extend(ids.iter().map(|&id| parameters.get(id)));
            leaves.retain(|leaf| leaf.requires_grad());
            let mut found = gradients(&y, gradient, &leaves).into_iter();
            wanted.iter().map(|&wanted| if wanted { found.next() } else { None }).collect()
        })
    }

    fn parameters(&self) -> Vec<ParameterId> {
        let units = self.units.iter().chain(&self.downsample);
        units
            .flat_map(|unit| {
                unit.convolution.parameters().into_iter().chain(unit.normalisation.parameters())
            })
            .collect()
    }
}

/// The layers of an encoder; their weights live in [`Parameters`].
pub(super) struct ResNet {
    stem: Unit,
    max_pool: bool,
    blocks: Vec<Arc<Block>>,
    head: Vec<Linear>,
}

impl ResNet {
    pub(super) fn declare(parameters: &mut Parameters, config: &EncoderConfig) -> ResNet {
        let plan = Plan::of(config.arch);
        let (stem_size, stem_stride, max_pool) = match config.stem {
            Stem::ImageNet => (7, 2, true),
            Stem::Small => (3, 1, false),
        };
        let stem = Unit {
            convolution: Convolution::declare(
                parameters,
                "conv1",
                [3, 64],
                stem_size,
                stem_stride,
                1,
            ),
            normalisation: Normalisation::declare(parameters, "bn1", 64),
        };
        let mut blocks = Vec::new();
        let mut channels = 64;
        for (stage, &depth) in plan.depth.iter().enumerate() {
            let base = 64 << stage;
            let inner = (plan.group_width * base / 64) * plan.groups;
            let outputs = if plan.bottleneck { 4 * base } else { base };
            for number in 0..depth {
                let stride = if stage > 0 && number == 0 { 2 } else { 1 };
                let name = format!("layer{}.{number}", stage + 1);
                let shape = [channels, inner, outputs];
                blocks.push(Arc::new(Block::declare(parameters, &name, &plan, shape, stride)));
                channels = outputs;
            }
        }
        let head = match config.head {
            Head::Linear => vec![Linear::declare(parameters, "fc", [channels, config.dim])],
            // Numbered as in the published checkpoints, where number 1 is the ReLU.
            Head::Mlp => vec![
                Linear::declare(parameters, "fc.0", [channels, channels]),
                Linear::declare(parameters, "fc.2", [channels, config.dim]),
            ],
            Head::None => Vec::new(),
        };
        ResNet { stem, max_pool, blocks, head }
    }

    /// The shapes of the convolutions on square images of `side` pixels, each once, in order.
    pub(super) fn convolutions(
        &self,
        parameters: &Parameters,
        kind: Kind,
        images: i64,
        side: i64,
    ) -> Vec<ConvShape> {
        let mut shapes: Vec<ConvShape> = Vec::new();
        let mut add = |unit: &Unit, pixels| {
            let shape = unit.convolution.shape(parameters, kind, images, pixels);
            if !shapes.contains(&shape) {
                shapes.push(shape);
            }
            shape.result()
        };
        let mut pixels = add(&self.stem, [side, side]);
        if self.max_pool {
            pixels = pixels.map(|side| (side + 1) / 2);
        }
        for block in &self.blocks {
            if let Some(unit) = &block.downsample {
                add(unit, pixels);
            }
            pixels = block.units.iter().fold(pixels, |pixels, unit| add(unit, pixels));
        }
        shapes
    }

    /// [batch, 3, height, width] → float32 [batch, channels of the last stage].
    pub(super) fn features(&self, context: &ForwardContext, images: &Tensor) -> Tensor {
        let mut x = self.stem.forward(context, images, None, None, Activation::Relu).tensor;
        if self.max_pool {
            x = max_pool(&x);
        }
        for block in &self.blocks {
            x = match context.checkpoint_blocks {
                true => block.forward_checkpointed(context, &x),
                false => block.forward(context, &x),
            };
        }
        pool(&x)
    }

    /// [batch, channels of the last stage] → [batch, dim], not normalised.
    pub(super) fn project(&self, parameters: &Parameters, features: &Tensor) -> Tensor {
        let (last, hidden) = match self.head.split_last() {
            Some(split) => split,
            None => return features.shallow_clone(),
        };
        let x = hidden
            .iter()
            .fold(features.shallow_clone(), |x, layer| layer.forward(parameters, &x).relu());
        last.forward(parameters, &x)
    }
}
