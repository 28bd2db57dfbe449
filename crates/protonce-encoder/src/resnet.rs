//! Residual networks (He et al. 2016, <https://arxiv.org/abs/1512.03385>; wide: Zagoruyko &
//! Komodakis 2016; ResNeXt: Xie et al. 2017) with torchvision's parameter names: images in, pooled
//! features out.

use std::iter::zip;
use std::sync::Arc;

use protonce_run::{EncoderConfig, Stem};
use tch::{Kind, Tensor};

use super::architecture::ResNetSpec;
use super::block::{Block, ConvNorm};
use super::context::ForwardContext;
use super::convolution::ConvShape;
use super::layers::{max_pool, mean_pool};
use super::normalise::Activation;
use super::parameters::{Parameters, ParametersBuilder};

/// The layers of a residual network; their weights live in [`Parameters`].
pub(super) struct ResNet {
    /// conv1.
    stem: ConvNorm,
    max_pool: bool,
    /// Those of all four stages, conv2_x to conv5_x.
    blocks: Vec<Arc<Block>>,
    /// Channels of the last stage.
    width: i64,
}

impl ResNet {
    pub(super) fn declare(builder: &mut ParametersBuilder, config: &EncoderConfig) -> ResNet {
        let spec = ResNetSpec::of(config);
        let mut channels = spec.base_channels;
        let ([size, stride], max_pool) = match config.stem {
            Stem::ImageNet => ([7, 2], true),
            Stem::Small => ([3, 1], false),
        };
        let stem = ConvNorm::declare(builder, ["conv1", "bn1"], [3, channels], [size, stride, 1]);
        let mut blocks = Vec::new();
        for (stage, depth) in zip(0.., spec.depths) {
            let [inner, outputs] = spec.channels(stage);
            for number in 0..depth {
                // The first block of a stage halves the image, except in the first stage.
                let stride = if stage > 0 && number == 0 { 2 } else { 1 };
                let name = format!("layer{}.{number}", stage + 1);
                let block =
                    Block::declare(builder, &name, &spec, [channels, inner, outputs], stride);
                blocks.push(Arc::new(block));
                channels = outputs;
            }
        }
        ResNet { stem, max_pool, blocks, width: channels }
    }

    /// Length of a feature.
    pub(super) fn width(&self) -> i64 {
        self.width
    }

    /// [batch, 3, height, width] → float32 [batch, width of the network].
    pub(super) fn forward(&self, context: &ForwardContext, images: &Tensor) -> Tensor {
        let mut x = self.stem.forward(context, images, None, None, Activation::Relu).tensor;
        if self.max_pool {
            x = max_pool(&x);
        }
        for block in &self.blocks {
            x = block.forward(context, &x);
        }
        mean_pool(&x)
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
        let mut add = |unit: &ConvNorm, pixels| {
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
            if let Some(downsample) = &block.downsample {
                add(downsample, pixels);
            }
            pixels = block.units.iter().fold(pixels, |pixels, unit| add(unit, pixels));
        }
        shapes
    }
}
