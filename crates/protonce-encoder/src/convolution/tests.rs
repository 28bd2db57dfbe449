use tch::{Device, Kind, Tensor};

use super::passes::run_pass;
use super::*;
use crate::{Encoder, Precision};
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
    (difference.double_value(&[]) / expected.square().mean(Kind::Double).double_value(&[])).sqrt()
}

/// Compares every algorithm of every pass with libtorch in float64.
fn check(shape: &ConvShape) {
    let ConvShape { kind, images, inputs, outputs, size, .. } = *shape;
    let [height, width] = shape.result();
    let x = random([images, inputs, shape.height, shape.width], kind);
    let weight =
        random([outputs, inputs / shape.groups, size, size], kind) / (size * size * inputs) as f64;
    let gradient = random([images, outputs, height, width], kind);
    let exact = [&x, &weight, &gradient].map(|tensor| tensor.to_kind(Kind::Double));
    for pass in Pass::ALL {
        let expected =
            run_pass(pass, ConvAlgorithm::Libtorch, [&exact[0], &exact[1], &exact[2]], shape);
        for algorithm in
            ConvAlgorithm::ALL.into_iter().filter(|algorithm| algorithm.computes(pass, shape))
        {
            let found = run_pass(pass, algorithm, [&x, &weight, &gradient], shape);
            assert_eq!(found.kind(), kind);
            let error = error(&found, &expected);
            // bf16 has 8 bits: libtorch itself is off by up to 4.3e-3 here.
            let bound = if kind == Kind::BFloat16 { 6e-3 } else { 1e-5 };
            assert!(error < bound, "{pass:?} by {algorithm:?} of {shape}: {error:e}");
        }
    }
}

#[test]
fn images_smaller_than_the_kernel_have_right_gradients_in_bf16() {
    tch::manual_seed(4);
    let (arch, stem) = (Architecture::ResNet18, Stem::ImageNet);
    let config = EncoderConfig { arch, stem, head: Head::Mlp, dim: 128, ..Default::default() };
    let encoder = Encoder::new(&config, Precision::BFloat16, Device::Cpu, 0);
    // The last stage sees images of one pixel.
    for shape in encoder.convolutions(8, 16).iter().filter(|shape| shape.height <= 2) {
        check(shape);
        let usual = ConvAlgorithms::usual(shape);
        assert!(Pass::ALL.into_iter().all(|pass| usual.of(pass).computes(pass, shape)), "{shape}");
    }
}

#[test]
fn all_algorithms_agree_on_the_convolutions_of_resnets() {
    tch::manual_seed(1);
    for (arch, stem, side) in
        [(Architecture::ResNet18, Stem::Small, 32), (Architecture::ResNet50, Stem::ImageNet, 224)]
    {
        let config = EncoderConfig { arch, stem, head: Head::Mlp, dim: 128, ..Default::default() };
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
fn all_algorithms_agree_on_odd_shapes() {
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
        let theirs = libtorch::forward(&x, &weight, geometry);
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
