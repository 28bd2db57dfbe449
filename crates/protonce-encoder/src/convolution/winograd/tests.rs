use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::dispatch::processor_suits;
use super::filter_gradient::Sharing;
use super::panel::PANEL;
use super::transforms::POSITIONS;
use super::*;

const OPTIONS: (Kind, Device) = (Kind::Float, Device::Cpu);

/// Normal values from `seed`, in channels-last memory or not.
fn normal(shape: [i64; 4], seed: u64, channels_last: bool) -> Tensor {
    let random = ChaCha8Rng::seed_from_u64(seed);
    let count = shape.iter().product::<i64>() as usize;
    let values: Vec<f32> = random.sample_iter(rand_distr::StandardNormal).take(count).collect();
    let [a, b, c, d] = shape;
    let values = Tensor::from_slice(&values);
    match channels_last {
        true => values.view([a, c, d, b]).permute([0, 3, 1, 2]),
        false => values.view([a, b, c, d]),
    }
}

/// Output and both gradients of Σ output · `gradient`.
fn three_passes(x: &Tensor, weight: &Tensor, gradient: &Tensor) -> [Tensor; 3] {
    [forward(x, weight), input_gradient(gradient, weight), weight_gradient(gradient, x)]
}

/// The same by libtorch, in the precision of `x`.
fn by_libtorch(x: &Tensor, weight: &Tensor, gradient: &Tensor) -> [Tensor; 3] {
    let [x, weight] = [x, weight].map(|tensor| tensor.detach().set_requires_grad(true));
    let output = x.conv2d(&weight, None::<&Tensor>, [1, 1], [1, 1], [1, 1], 1);
    let loss = (&output * gradient).sum(x.kind());
    let gradients = Tensor::run_backward(&[&loss], &[&x, &weight], false, false);
    [output.detach(), gradients[0].shallow_clone(), gradients[1].shallow_clone()]
}

fn relative_error(found: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(found.size(), expected.size());
    let difference = found.to_kind(Kind::Double) - expected;
    difference.norm().double_value(&[]) / expected.norm().double_value(&[])
}

/// Compares all three passes with libtorch's in float64.
fn check([images, inputs, outputs, height, width]: [i64; 5], seed: u64, channels_last: bool) {
    let shape = [images, inputs, outputs, height, width];
    let x = normal([images, inputs, height, width], seed, channels_last);
    let weight = normal([outputs, inputs, 3, 3], seed + 1, channels_last);
    let gradient = normal([images, outputs, height, width], seed + 2, channels_last);
    let found = three_passes(&x, &weight, &gradient);
    let [x, weight, gradient] = [x, weight, gradient].map(|tensor| tensor.to_kind(Kind::Double));
    let expected = by_libtorch(&x, &weight, &gradient);
    for (pass, (found, expected)) in ["output", "gradient of input", "gradient of filters"]
        .iter()
        .zip(found.iter().zip(&expected))
    {
        let error = relative_error(found, expected);
        assert!(error <= 1e-5, "{pass} of {shape:?}: relative error {error:e}");
    }
}

#[test]
fn all_passes_agree_with_float64() {
    for (inputs, outputs) in [(3, 64), (32, 32), (64, 64), (100, 36), (512, 512)] {
        for (height, width) in [(1, 1), (4, 4), (5, 7), (8, 8), (16, 16), (32, 32)] {
            let images = if inputs == 512 { 1 } else { 3 };
            check([images, inputs, outputs, height, width], 5, true);
        }
    }
}

#[test]
fn any_shape_and_layout_agrees_with_float64() {
    let mut random = ChaCha8Rng::seed_from_u64(11);
    for seed in 0..60 {
        let shape = [
            random.random_range(1..=5),
            random.random_range(1..=70),
            random.random_range(1..=70),
            random.random_range(1..=19),
            random.random_range(1..=19),
        ];
        check(shape, seed, random.random());
    }
}

#[test]
fn repeated_passes_have_equal_bits() {
    let x = normal([9, 48, 13, 10], 1, true);
    let weight = normal([80, 48, 3, 3], 2, true);
    let gradient = normal([9, 80, 13, 10], 3, true);
    let first = three_passes(&x, &weight, &gradient);
    for _ in 0..3 {
        assert_eq!(three_passes(&x, &weight, &gradient), first);
    }
}

#[test]
fn any_number_of_threads_gives_the_same_output_and_close_filter_gradients() {
    let x = channels_last(&normal([9, 48, 13, 10], 1, true));
    let weight = channels_last(&normal([80, 48, 3, 3], 2, true));
    let gradient = channels_last(&normal([9, 80, 13, 10], 3, true));
    let output = convolve_tensors(&x, &weight, Direction::Forward, 1);
    let filters = filter_gradients(&x, &gradient, 1).to_kind(Kind::Double);
    for threads in [2, 3, 7, 64] {
        assert_eq!(convolve_tensors(&x, &weight, Direction::Forward, threads), output);
        let found = filter_gradients(&x, &gradient, threads);
        assert!(relative_error(&found, &filters) <= 1e-5);
    }
}

#[test]
fn sums_of_the_filter_gradient_are_shared_out_within_their_bound() {
    for threads in [1, 2, 3, 16, 100] {
        for (tiles, panels) in [(1, 1), (16384, 4), (4096, 8), (1024, 16), (256, 32)] {
            let sharing = Sharing::new(tiles, panels, panels, threads);
            assert!(sharing.groups * sharing.slices <= threads);
            let sums = sharing.groups * panels * panels * POSITIONS * PANEL;
            assert!(sharing.groups == 1 || sums <= Sharing::ROWS);
        }
    }
    let sharing = Sharing::new(256, 32, 32, 16);
    assert_eq!([sharing.groups, sharing.slices], [1, 16]);
}

#[test]
fn an_empty_batch_has_an_empty_output_and_no_gradient() {
    let x = Tensor::zeros([0, 32, 8, 8], OPTIONS);
    let weight = normal([32, 32, 3, 3], 1, true);
    let gradient = Tensor::zeros([0, 32, 8, 8], OPTIONS);
    let [output, _, filters] = three_passes(&x, &weight, &gradient);
    assert_eq!(output.size(), [0, 32, 8, 8]);
    assert_eq!(filters, Tensor::zeros([32, 32, 3, 3], OPTIONS));
}

#[test]
fn only_plain_float32_convolutions_of_many_channels_are_suited() {
    let shape = ConvShape {
        kind: Kind::Float,
        images: 16,
        inputs: 32,
        height: 8,
        width: 8,
        outputs: 32,
        size: 3,
        stride: 1,
        padding: 1,
        groups: 1,
    };
    assert_eq!(suits(&shape), processor_suits());
    for other in [
        ConvShape { images: 15, ..shape },
        ConvShape { stride: 2, ..shape },
        ConvShape { padding: 0, ..shape },
        ConvShape { groups: 2, ..shape },
        ConvShape { size: 1, padding: 0, ..shape },
        ConvShape { kind: Kind::BFloat16, ..shape },
        ConvShape { height: 1, width: 64, ..shape },
        ConvShape { inputs: 16, ..shape },
    ] {
        assert!(!suits(&other), "{other:?}");
    }
}
