//! The layers that networks are made of. A layer knows its parameters by their numbers in [`Parameters`],
//! so that one network computes with the weights of any encoder.

use tch::{Kind, Tensor};

use super::autograd::differentiable;
use super::context::ForwardContext;
use super::convolution::{ConvShape, convolve};
use super::normalise::{Activation, BatchNorm, Normalised, normalise};
use super::parameters::{BufferId, ParameterId, Parameters, ParametersBuilder};
use super::recompute::Recompute;

/// A convolution without bias.
pub(super) struct Convolution {
    weight: ParameterId,
    stride: i64,
    padding: i64,
    groups: i64,
}

impl Convolution {
    /// Declares `name`.weight for `inputs` → `outputs` channels, `size` × `size` taps, padded so
    /// that stride 1 keeps the image's size.
    pub(super) fn declare(
        builder: &mut ParametersBuilder,
        name: &str,
        [inputs, outputs]: [i64; 2],
        size: i64,
        stride: i64,
        groups: i64,
    ) -> Convolution {
        let weight =
            builder.convolution(format!("{name}.weight"), [outputs, inputs / groups, size, size]);
        Convolution { weight, stride, padding: size / 2, groups }
    }

    /// The shape it has on `images` images of some size.
    pub(super) fn shape(
        &self,
        parameters: &Parameters,
        kind: Kind,
        images: i64,
        [height, width]: [i64; 2],
    ) -> ConvShape {
        let weight = parameters.get(self.weight).size();
        ConvShape {
            kind,
            images,
            inputs: weight[1] * self.groups,
            height,
            width,
            outputs: weight[0],
            size: weight[2],
            stride: self.stride,
            padding: self.padding,
            groups: self.groups,
        }
    }

    /// [batch, in, height, width] → [batch, out, height / stride, width / stride], in the
    /// precision of `x`, which is kept for the backward pass only where there is no `recompute` for it.
    pub(super) fn forward(
        &self,
        context: &ForwardContext,
        x: &Tensor,
        recompute: Option<Recompute>,
    ) -> Tensor {
        let weight = context.parameters.get(self.weight).to_kind(x.kind());
        let geometry = [self.stride, self.padding, self.groups];
        let algorithms = context.conv_plan.algorithms(&ConvShape::of(x, &weight, geometry));
        convolve(x, recompute, &weight, geometry, algorithms)
    }

    /// All that it declared.
    pub(super) fn parameters(&self) -> [ParameterId; 1] {
        [self.weight]
    }
}

/// Batch normalisation (Ioffe & Szegedy 2015) with the residual sum and the activation that follow it.
pub(super) struct Normalisation {
    weight: ParameterId,
    bias: ParameterId,
    running_mean: BufferId,
    running_var: BufferId,
}

impl Normalisation {
    /// Declares `name`.weight, `name`.bias and the running statistics of `channels` channels.
    pub(super) fn declare(
        builder: &mut ParametersBuilder,
        name: &str,
        channels: i64,
    ) -> Normalisation {
        Normalisation {
            weight: builder.constant(format!("{name}.weight"), channels, 1.0),
            bias: builder.constant(format!("{name}.bias"), channels, 0.0),
            running_mean: builder.buffer(format!("{name}.running_mean"), channels, 0.0),
            running_var: builder.buffer(format!("{name}.running_var"), channels, 1.0),
        }
    }

    /// activation(normalise(x) + residual), the shape and precision of `x`, whose memory must be in
    /// no other use; see [`normalise`].
    pub(super) fn forward(
        &self,
        context: &ForwardContext,
        x: Tensor,
        residual: Option<&Tensor>,
        activation: Activation,
    ) -> Normalised {
        let norm = BatchNorm {
            weight: context.parameters.get(self.weight),
            bias: context.parameters.get(self.bias),
            running_mean: context.parameters.get_buffer(self.running_mean),
            running_var: context.parameters.get_buffer(self.running_var),
        };
        normalise(x, &norm, residual, activation, context.stats)
    }

    /// All that it declared.
    pub(super) fn parameters(&self) -> [ParameterId; 2] {
        [self.weight, self.bias]
    }
}

/// A linear layer with bias, in float32.
pub(super) struct Linear {
    weight: ParameterId,
    bias: ParameterId,
}

impl Linear {
    /// Declares `name`.weight and `name`.bias.
    pub(super) fn declare(
        builder: &mut ParametersBuilder,
        name: &str,
        [inputs, outputs]: [i64; 2],
    ) -> Linear {
        Linear {
            weight: builder.linear(format!("{name}.weight"), &[outputs, inputs], inputs),
            bias: builder.linear(format!("{name}.bias"), &[outputs], inputs),
        }
    }

    /// [batch, in] → [batch, out].
    pub(super) fn forward(&self, parameters: &Parameters, x: &Tensor) -> Tensor {
        x.linear(parameters.get(self.weight), Some(parameters.get(self.bias)))
    }
}

/// 3×3 max pooling of stride 2, padded: [batch, channels, height, width] →
/// [batch, channels, ⌈height / 2⌉, ⌈width / 2⌉]. Kept for the backward pass are the indices of the
/// maxima alone.
pub(super) fn max_pool(x: &Tensor) -> Tensor {
    let (size, stride, padding, dilation) = ([3, 3], [2, 2], [1, 1], [1, 1]);
    let (y, indices) =
        tch::no_grad(|| x.max_pool2d_with_indices(size, stride, padding, dilation, false));
    let (shape, options) = (x.size(), (x.kind(), x.device()));
    differentiable(y, &[x], move |gradient| {
        // libtorch asks for the input, of which it reads no more than the shape.
        let input = Tensor::empty([shape[0], shape[2], shape[3], shape[1]], options);
        vec![Some(input.permute([0, 3, 1, 2]).max_pool2d_with_indices_backward(
            gradient, size, stride, padding, dilation, false, &indices,
        ))]
    })
}

/// Global average pooling: [batch, channels, height, width] → float32 [batch, channels].
pub(super) fn mean_pool(x: &Tensor) -> Tensor {
    x.mean_dim([2, 3].as_slice(), false, Kind::Float)
}

/// Rows divided by their L2 length: [rows, dim] → [rows, dim]. Rows of zeros stay zeros.
pub fn normalise_rows(rows: &Tensor) -> Tensor {
    // The floor is torch.nn.functional.normalize's.
    let length = rows.norm_scalaropt_dim(2, [-1].as_slice(), true).clamp_min(1e-12);
    rows / length
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn maxima_and_their_gradients_are_libtorchs() {
        tch::manual_seed(1);
        for (height, width) in [(1, 1), (7, 10), (12, 12)] {
            let x = Tensor::randn([3, height, width, 5], (Kind::Float, Device::Cpu));
            let x = x.permute([0, 3, 1, 2]).set_requires_grad(true);
            let theirs = x.max_pool2d([3, 3], [2, 2], [1, 1], [1, 1], false);
            let ours = max_pool(&x);
            assert_eq!(ours, theirs);
            let gradient = theirs.randn_like();
            let [ours, theirs] = [ours, theirs].map(|y| {
                let loss = (y * &gradient).sum(Kind::Float);
                Tensor::run_backward(&[&loss], &[&x], false, false).remove(0)
            });
            assert_eq!(ours, theirs);
        }
    }
}
