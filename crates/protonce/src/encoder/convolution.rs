//! Convolutions: three passes, each by whichever of several ways is fastest.
//!
//! A pass (forward, and the gradients of input and weight) gives the same numbers within rounding
//! whoever computes it: libtorch, Winograd's method or a matrix product over patches. Which is fastest
//! depends on the processor and on the convolution's shape. [`ConvAlgorithms::usual`] is the rule that holds
//! without measuring; `tuning` measures.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::autograd::{Of, convolution_gradient, differentiable};
use super::normalise::Again;
use super::{im2col, winograd};
use crate::profile::{self, Kernel};

/// Everything that the speed of a convolution without bias and dilation depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvShape {
    /// Precision of images, weight and result.
    pub kind: Kind,
    /// Images.
    pub images: i64,
    /// Channels of an image.
    pub inputs: i64,
    /// Height of an image.
    pub height: i64,
    /// Width of an image.
    pub width: i64,
    /// Channels of the result.
    pub outputs: i64,
    /// Taps along a side.
    pub size: i64,
    /// Pixels from one tap position to the next.
    pub stride: i64,
    /// Zeros around an image.
    pub padding: i64,
    /// Groups of channels that are convolved separately.
    pub groups: i64,
}

impl ConvShape {
    /// The shape of the convolution of `x` [n, in, h, w] with `weight` [out, in / groups, size, size].
    pub fn of(x: &Tensor, weight: &Tensor, [stride, padding, groups]: [i64; 3]) -> ConvShape {
        let (x_size, weight_size) = (x.size(), weight.size());
        ConvShape {
            kind: x.kind(),
            images: x_size[0],
            inputs: x_size[1],
            height: x_size[2],
            width: x_size[3],
            outputs: weight_size[0],
            size: weight_size[2],
            stride,
            padding,
            groups,
        }
    }

    /// Height and width of the result.
    pub fn result(&self) -> [i64; 2] {
        [self.height, self.width]
            .map(|side| (side + 2 * self.padding - self.size) / self.stride + 1)
    }

    /// Additions and multiplications of a pass by the direct method.
    pub fn operations(&self) -> f64 {
        let [height, width] = self.result();
        let taps = self.size * self.size * self.inputs / self.groups;
        2.0 * (self.images * height * width) as f64 * (self.outputs * taps) as f64
    }

    /// Whether each pixel of the result depends on one pixel alone.
    pub(super) fn is_pointwise(&self) -> bool {
        [self.size, self.stride, self.padding] == [1, 1, 0]
    }
}

/// Without the number of images, which is the batch's rather than the layer's.
impl std::fmt::Display for ConvShape {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ConvShape { kind, inputs, height, width, outputs, size, stride, groups, .. } = self;
        let kind = if *kind == Kind::BFloat16 { "bf16" } else { "float32" };
        write!(
            formatter,
            "{inputs}@{height}x{width} to {outputs}, {size}x{size} / {stride}, groups {groups}, {kind}"
        )
    }
}

/// What is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// The result.
    Forward,
    /// From the result's gradient to that of the images.
    InputGradient,
    /// From images and the result's gradient to that of the weight.
    WeightGradient,
}

impl Pass {
    /// Every pass.
    pub const ALL: [Pass; 3] = [Pass::Forward, Pass::InputGradient, Pass::WeightGradient];
}

/// Who computes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConvAlgorithm {
    /// libtorch, which asks oneDNN on most processors.
    Libtorch,
    /// Winograd's minimal filtering, in float32.
    Winograd,
    /// A matrix product over patches that were unfolded (im2col).
    #[serde(alias = "patches")]
    Im2col,
}

impl ConvAlgorithm {
    /// Every way.
    pub const ALL: [ConvAlgorithm; 3] =
        [ConvAlgorithm::Libtorch, ConvAlgorithm::Winograd, ConvAlgorithm::Im2col];

    /// Whether this way computes that pass.
    pub fn computes(self, pass: Pass, shape: &ConvShape) -> bool {
        match self {
            ConvAlgorithm::Libtorch => true,
            ConvAlgorithm::Winograd => winograd::computes(shape),
            ConvAlgorithm::Im2col => im2col::computes(pass, shape),
        }
    }
}

/// The way of each pass.
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
    /// The same way for all passes.
    pub fn all(algorithm: ConvAlgorithm) -> ConvAlgorithms {
        ConvAlgorithms { forward: algorithm, input_gradient: algorithm, weight_gradient: algorithm }
    }

    /// What is taken where nothing was measured: Winograd's where it suits, libtorch's elsewhere.
    pub fn usual(shape: &ConvShape) -> ConvAlgorithms {
        ConvAlgorithms::all(if winograd::suits(shape) {
            ConvAlgorithm::Winograd
        } else {
            ConvAlgorithm::Libtorch
        })
    }

    /// The way of `pass`.
    pub fn of(&self, pass: Pass) -> ConvAlgorithm {
        match pass {
            Pass::Forward => self.forward,
            Pass::InputGradient => self.input_gradient,
            Pass::WeightGradient => self.weight_gradient,
        }
    }

    /// The way of `pass`, to be changed.
    pub fn of_mut(&mut self, pass: Pass) -> &mut ConvAlgorithm {
        match pass {
            Pass::Forward => &mut self.forward,
            Pass::InputGradient => &mut self.input_gradient,
            Pass::WeightGradient => &mut self.weight_gradient,
        }
    }
}

impl ConvAlgorithms {
    /// What is fastest on this machine now: a short measurement on random numbers. The usual way stays
    /// where another is less than 5 % faster.
    pub fn measured(shape: &ConvShape) -> ConvAlgorithms {
        let _guard = tch::no_grad_guard();
        let pixels = |[height, width]: [i64; 2], channels| {
            let options = (Kind::Float, Device::Cpu);
            let pixels = Tensor::randn([shape.images, height, width, channels], options);
            pixels.permute([0, 3, 1, 2]).to_kind(shape.kind)
        };
        let x = pixels([shape.height, shape.width], shape.inputs);
        let gradient = pixels(shape.result(), shape.outputs);
        let taps = [shape.outputs, shape.size, shape.size, shape.inputs / shape.groups];
        let weight = Tensor::randn(taps, (Kind::Float, Device::Cpu));
        let weight = weight.permute([0, 3, 1, 2]).to_kind(shape.kind);
        let seconds = |pass, algorithm| {
            let start = Instant::now();
            drop(run(pass, algorithm, [&x, &weight, &gradient], shape));
            start.elapsed().as_secs_f64()
        };
        let mut algorithms = ConvAlgorithms::usual(shape);
        for pass in Pass::ALL {
            let usual = algorithms.of(pass);
            let candidates =
                ConvAlgorithm::ALL.into_iter().filter(|algorithm| algorithm.computes(pass, shape));
            let mut times: Vec<(ConvAlgorithm, f64)> =
                candidates.map(|algorithm| (algorithm, seconds(pass, algorithm))).collect();
            let least = |times: &[(ConvAlgorithm, f64)]| {
                times.iter().copied().min_by(|one, other| one.1.total_cmp(&other.1))
            };
            // What is far behind at first stays behind; the others are measured twice more.
            for _ in 0..2 {
                let Some((_, best)) = least(&times) else { break };
                if times.len() < 2 {
                    break;
                }
                for (algorithm, time) in times.iter_mut().filter(|(_, time)| *time < 1.5 * best) {
                    *time = time.min(seconds(pass, *algorithm));
                }
            }
            let of_usual = times
                .iter()
                .find(|(algorithm, _)| *algorithm == usual)
                .map_or(f64::MAX, |&(_, t)| t);
            if let Some((algorithm, time)) = least(&times)
                && time < 0.95 * of_usual
            {
                *algorithms.of_mut(pass) = algorithm;
            }
        }
        algorithms
    }
}

/// The ways of an encoder's convolutions where they were chosen, by what a [`ConvShape`] is called: for
/// any number of images, since a batch may be smaller.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ConvPlan(pub BTreeMap<String, ConvAlgorithms>);

impl ConvPlan {
    /// The ways that were chosen for this shape, as far as they compute it; else the usual ones.
    pub fn algorithms(&self, shape: &ConvShape) -> ConvAlgorithms {
        let mut algorithms = ConvAlgorithms::usual(shape);
        if self.0.is_empty() {
            return algorithms;
        }
        if let Some(chosen) = self.0.get(&shape.to_string()) {
            for pass in Pass::ALL {
                if chosen.of(pass).computes(pass, shape) {
                    *algorithms.of_mut(pass) = chosen.of(pass);
                }
            }
        }
        algorithms
    }
}

/// Convolves `x` [n, in, h, w] with `weight` [out, in / groups, size, size], both of one precision:
/// [n, out, h', w'], on a CPU in channels-last memory. Differentiable in both; what is kept for the
/// way back is `weight` and `x`, the latter unless it can be made `again`. `geometry` is stride, padding
/// and groups. `algorithms` holds on a CPU, elsewhere libtorch computes.
///
/// # Panics
/// When shapes do not fit, or a way does not compute a pass of this shape; see [`ConvAlgorithm::computes`].
pub fn convolve(
    x: &Tensor,
    again: Option<Again>,
    weight: &Tensor,
    geometry: [i64; 3],
    algorithms: ConvAlgorithms,
) -> Tensor {
    let shape = ConvShape::of(x, weight, geometry);
    if x.device() != Device::Cpu {
        return by_libtorch(x, weight, geometry);
    }
    let operations = shape.operations();
    let y = tch::no_grad(|| {
        profile::kernel(Kernel::Convolution, operations, || {
            forward(x, weight, &shape, algorithms.forward)
        })
    });
    let wanted = [x.requires_grad(), weight.requires_grad()];
    let weight_kept = weight.detach();
    let x_kept: Box<dyn Fn() -> Tensor + Send> = match again {
        Some(again) => {
            Box::new(move || profile::kernel(Kernel::Normalisation, 0.0, || again.make()))
        }
        None => {
            let x = x.detach();
            Box::new(move || x.shallow_clone())
        }
    };
    differentiable(y, &[x, weight], move |gradient| {
        let (x, weight) = (&x_kept(), &weight_kept);
        let of_input = wanted[0].then(|| {
            profile::kernel(Kernel::InputGradient, operations, || {
                input_gradient(gradient, x, weight, &shape, algorithms.input_gradient)
            })
        });
        let of_weight = wanted[1].then(|| {
            profile::kernel(Kernel::WeightGradient, operations, || {
                weight_gradient(gradient, x, weight, &shape, algorithms.weight_gradient)
            })
        });
        vec![of_input, of_weight]
    })
}

/// One pass alone, for measuring: of `x`, `weight` and the `gradient` of the result those that it
/// needs.
pub(super) fn run(
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

fn by_libtorch(x: &Tensor, weight: &Tensor, [stride, padding, groups]: [i64; 3]) -> Tensor {
    x.conv2d(weight, None::<&Tensor>, [stride, stride], [padding, padding], [1, 1], groups)
}

fn forward(x: &Tensor, weight: &Tensor, shape: &ConvShape, algorithm: ConvAlgorithm) -> Tensor {
    match algorithm {
        ConvAlgorithm::Libtorch => by_libtorch(x, weight, geometry(shape)),
        ConvAlgorithm::Winograd => winograd::forward(x, weight),
        ConvAlgorithm::Im2col => im2col::forward(x, weight, shape),
    }
}

fn input_gradient(
    gradient: &Tensor,
    x: &Tensor,
    weight: &Tensor,
    shape: &ConvShape,
    algorithm: ConvAlgorithm,
) -> Tensor {
    match algorithm {
        ConvAlgorithm::Libtorch => {
            convolution_gradient(Of::Input, gradient, x, weight, geometry(shape))
        }
        ConvAlgorithm::Winograd => winograd::input_gradient(gradient, weight),
        ConvAlgorithm::Im2col => im2col::input_gradient(gradient, weight, shape),
    }
}

fn weight_gradient(
    gradient: &Tensor,
    x: &Tensor,
    weight: &Tensor,
    shape: &ConvShape,
    algorithm: ConvAlgorithm,
) -> Tensor {
    match algorithm {
        ConvAlgorithm::Libtorch => {
            convolution_gradient(Of::Weight, gradient, x, weight, geometry(shape))
        }
        ConvAlgorithm::Winograd => winograd::weight_gradient(gradient, x),
        ConvAlgorithm::Im2col => im2col::weight_gradient(gradient, x, shape),
    }
}

fn geometry(shape: &ConvShape) -> [i64; 3] {
    [shape.stride, shape.padding, shape.groups]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoder::{Encoder, Precision};
    use protonce_run::{Architecture, EncoderConfig, Head, Stem};

    fn random(shape: [i64; 4], kind: Kind) -> Tensor {
        let [a, b, c, d] = shape;
        let values = Tensor::randn([a, c, d, b], (Kind::Float, Device::Cpu));
        values.permute([0, 3, 1, 2]).to_kind(kind)
    }

    /// The largest error, relative to the root mean square of what is expected.
    fn error(found: &Tensor, expected: &Tensor) -> f64 {
        assert_eq!(found.size(), expected.size());
        let difference = (found.to_kind(Kind::Double) - expected).square().mean(Kind::Double);
        (difference.double_value(&[]) / expected.square().mean(Kind::Double).double_value(&[]))
            .sqrt()
    }

    /// Compares every way of every pass with libtorch in float64.
    fn check(shape: &ConvShape) {
        let ConvShape { kind, images, inputs, outputs, size, .. } = *shape;
        let [height, width] = shape.result();
        let x = random([images, inputs, shape.height, shape.width], kind);
        let weight = random([outputs, inputs / shape.groups, size, size], kind)
            / (size * size * inputs) as f64;
        let gradient = random([images, outputs, height, width], kind);
        let exact = [&x, &weight, &gradient].map(|tensor| tensor.to_kind(Kind::Double));
        for pass in Pass::ALL {
            let expected =
                run(pass, ConvAlgorithm::Libtorch, [&exact[0], &exact[1], &exact[2]], shape);
            for algorithm in
                ConvAlgorithm::ALL.into_iter().filter(|algorithm| algorithm.computes(pass, shape))
            {
                let found = run(pass, algorithm, [&x, &weight, &gradient], shape);
                assert_eq!(found.kind(), kind);
                let error = error(&found, &expected);
                // bf16 has 8 bits: libtorch itself is off by up to 4.3e-3 here.
                let bound = if kind == Kind::BFloat16 { 6e-3 } else { 1e-5 };
                assert!(error < bound, "{pass:?} by {algorithm:?} of {shape}: {error:e}");
            }
        }
    }

    #[test]
    fn all_ways_agree_on_the_convolutions_of_resnets() {
        tch::manual_seed(1);
        for (arch, stem, side) in [
            (Architecture::ResNet18, Stem::Small, 32),
            (Architecture::ResNet50, Stem::ImageNet, 224),
        ] {
            let config = EncoderConfig { arch, stem, head: Head::Mlp, dim: 128 };
            let encoder = Encoder::new(&config, Precision::Float32, Device::Cpu, 0);
            let shapes = encoder.convolutions(1, side);
            assert!(shapes.len() >= 11, "{shapes:?}");
            for shape in &shapes {
                check(shape);
                // Emulated on many processors: enough of each kind.
                if shape.height <= 14 {
                    check(&ConvShape { kind: Kind::BFloat16, ..*shape });
                }
            }
        }
    }

    #[test]
    fn all_ways_agree_on_odd_shapes() {
        tch::manual_seed(2);
        let kinds = [Kind::Float, Kind::BFloat16];
        for (number, [images, inputs, outputs, height, width, size, stride, padding, groups]) in [
            [2, 5, 7, 9, 6, 3, 2, 1, 1],
            [3, 33, 40, 1, 13, 3, 1, 1, 1],
            [1, 4, 6, 11, 8, 7, 2, 3, 1],
            [2, 6, 4, 5, 5, 1, 2, 0, 1],
            [2, 6, 4, 5, 7, 1, 1, 0, 1],
            [2, 8, 12, 6, 6, 3, 1, 1, 4],
            [1, 3, 2, 5, 5, 5, 3, 0, 1],
        ]
        .into_iter()
        .enumerate()
        {
            let kind = kinds[number % 2];
            let shape = ConvShape {
                kind,
                images,
                inputs,
                outputs,
                height,
                width,
                size,
                stride,
                padding,
                groups,
            };
            check(&shape);
            check(&ConvShape { kind: kinds[(number + 1) % 2], ..shape });
        }
    }

    #[test]
    fn gradients_are_those_of_libtorch_to_the_bit() {
        tch::manual_seed(3);
        for [inputs, outputs, size, stride, groups] in
            [[16, 8, 3, 2, 1], [16, 8, 1, 1, 1], [8, 8, 3, 1, 4], [3, 8, 7, 2, 1]]
        {
            let geometry = [stride, size / 2, groups];
            let leaf = |tensor: Tensor| tensor.set_requires_grad(true);
            let x = leaf(random([2, inputs, 12, 10], Kind::Float));
            let weight = leaf(random([outputs, inputs / groups, size, size], Kind::Float));
            let ours =
                convolve(&x, None, &weight, geometry, ConvAlgorithms::all(ConvAlgorithm::Libtorch));
            let theirs = by_libtorch(&x, &weight, geometry);
            assert_eq!(ours, theirs);
            let gradient = theirs.randn_like();
            let [ours, theirs] = [ours, theirs].map(|y| {
                let loss = (y * &gradient).sum(Kind::Float);
                Tensor::run_backward(&[&loss], &[&x, &weight], false, false)
            });
            assert_eq!(ours, theirs);
        }
    }

    #[test]
    fn what_does_not_need_a_gradient_gets_none() {
        let x = random([1, 3, 5, 5], Kind::Float);
        let weight = random([2, 3, 3, 3], Kind::Float).set_requires_grad(true);
        let y = convolve(&x, None, &weight, [1, 1, 1], ConvAlgorithms::all(ConvAlgorithm::Im2col));
        let loss = y.sum(Kind::Float);
        let gradient = Tensor::run_backward(&[&loss], &[&weight], false, false).remove(0);
        assert_eq!(gradient.size(), [2, 3, 3, 3]);
    }
}
