use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

use std::iter::zip;

use tch::{Device, Kind, Tensor};

use super::batch_norm::EPSILON;
use super::operation::by_libtorch;
use super::*;
use crate::memory::{BFloat16, Element, elements};

type Random = ChaCha8Rng;

/// Normal numbers as a channels-last activation [batch, channels, height, width].
fn normal(random: &mut Random, [batch, channels, height, width]: [i64; 4]) -> Tensor {
    let count = (batch * channels * height * width) as usize;
    let values: Vec<f32> = random.sample_iter(StandardNormal).take(count).collect();
    Tensor::from_slice(&values).view([batch, height, width, channels]).permute([0, 3, 1, 2])
}

fn normal_vector(random: &mut Random, length: i64, mean: f64, deviation: f64) -> Tensor {
    normal(random, [length, 1, 1, 1]).view([length]) * deviation + mean
}

/// What goes into a normalisation and the gradient that comes back.
struct Case {
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    residual: Option<Tensor>,
    activation: Activation,
    gradient: Tensor,
}

/// What comes out: the activation, the statistics it left and the gradients of x, γ, β, residual.
struct Outcome {
    y: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    gradients: Vec<Tensor>,
}

impl Case {
    /// `kind` is that of activations.
    fn new(
        random: &mut Random,
        shape: [i64; 4],
        kind: Kind,
        has_residual: bool,
        activation: Activation,
    ) -> Case {
        // Every channel has a mean and a deviation of its own.
        let channels = [1, shape[1], 1, 1];
        let mean = normal_vector(random, shape[1], 0.0, 2.0).view(channels);
        let deviation = normal_vector(random, shape[1], 1.0, 0.2).abs().view(channels);
        let x = (normal(random, shape) * deviation + mean).to_kind(kind);
        Case {
            x,
            weight: normal_vector(random, shape[1], 1.0, 0.3),
            bias: normal_vector(random, shape[1], 0.1, 0.3),
            residual: has_residual.then(|| normal(random, shape).to_kind(kind)),
            activation,
            gradient: (normal(random, shape) + 0.1).to_kind(kind),
        }
    }

    fn run(
        &self,
        implementation: impl Fn(Tensor, &BatchNorm<'_>, Option<&Tensor>) -> Tensor,
    ) -> Outcome {
        let leaf = |tensor: &Tensor| tensor.detach().copy().set_requires_grad(true);
        let (x, weight, bias) = (leaf(&self.x), leaf(&self.weight), leaf(&self.bias));
        let residual = self.residual.as_ref().map(leaf);
        let norm = BatchNorm {
            weight: &weight,
            bias: &bias,
            running_mean: &Tensor::full_like(&self.weight, 0.5),
            running_var: &Tensor::full_like(&self.weight, 2.0),
        };
        let y = implementation(x.shallow_clone(), &norm, residual.as_ref());
        let loss = (&y * &self.gradient).sum(Kind::Double);
        let mut leaves = vec![&x, &weight, &bias];
        leaves.extend(&residual);
        Outcome {
            gradients: Tensor::run_backward(&[&loss], &leaves, false, false),
            y: y.detach(),
            running_mean: norm.running_mean.shallow_clone(),
            running_var: norm.running_var.shallow_clone(),
        }
    }

    fn ours(&self) -> Outcome {
        self.run(|x, norm, residual| {
            normalise(x, norm, residual, self.activation, BatchStats::Batch).tensor
        })
    }

    fn libtorchs(&self) -> Outcome {
        self.run(|x, norm, residual| {
            by_libtorch(&x, norm, residual, self.activation, BatchStats::Batch)
        })
    }

    /// The formulas in float64. Which elements a ReLU lets through is taken from `y`: where the
    /// exact value is 0 but for rounding, either slope is right.
    fn exact(&self, y: &Tensor) -> Outcome {
        let double = |tensor: &Tensor| tensor.to_kind(Kind::Double);
        let channels = |tensor: &Tensor| double(tensor).view([1, -1, 1, 1]);
        let sum =
            |tensor: &Tensor| tensor.sum_dim_intlist([0, 2, 3].as_slice(), true, Kind::Double);
        let x = double(&self.x);
        let n = (x.numel() / self.weight.numel()) as f64;
        let mean = sum(&x) / n;
        let variance = sum(&(&x - &mean).square()) / n;
        let inverse_deviation = (&variance + EPSILON).rsqrt();
        let normalised = (&x - mean.shallow_clone()) * &inverse_deviation;
        let weight = channels(&self.weight);
        let mut exact = &normalised * &weight + channels(&self.bias);
        if let Some(residual) = &self.residual {
            exact += double(residual);
        }
        let mut gradient = double(&self.gradient);
        if self.activation == Activation::Relu {
            exact = exact.relu();
            gradient *= y.gt(0.0).to_kind(Kind::Double);
        }
        let bias_gradient = sum(&gradient);
        let weight_gradient = sum(&(&gradient * &normalised));
        let dx = (&gradient - &bias_gradient / n - normalised * (&weight_gradient / n))
            * (weight * inverse_deviation);
        let mut gradients = vec![dx, weight_gradient.view([-1]), bias_gradient.view([-1])];
        if self.residual.is_some() {
            gradients.push(gradient);
        }
        let unbiased = variance * (n / (n - 1.0).max(1.0));
        Outcome {
            y: exact,
            running_mean: (mean * 0.1 + 0.45).view([-1]),
            running_var: (unbiased * 0.1 + 1.8).view([-1]),
            gradients,
        }
    }
}

/// The largest difference over the largest expected value, or over `scale` if that is larger.
fn error(found: &Tensor, expected: &Tensor, scale: f64) -> f64 {
    let largest = |tensor: &Tensor| tensor.abs().max().double_value(&[]);
    let difference = found.to_kind(Kind::Double) - expected;
    assert_eq!(found.size(), expected.size());
    largest(&difference) / largest(expected).max(scale)
}

/// The root mean square of the differences.
fn spread(found: &Tensor, expected: &Tensor) -> f64 {
    let difference = found.to_kind(Kind::Double) - expected;
    difference.square().mean(Kind::Double).sqrt().double_value(&[])
}

fn assert_float32_is_exact(case: &Case, what: &str) {
    let found = case.ours();
    let exact = case.exact(&found.y);
    for (name, found, expected) in [
        ("y", &found.y, &exact.y),
        ("running mean", &found.running_mean, &exact.running_mean),
        ("running variance", &found.running_var, &exact.running_var),
    ] {
        let error = error(found, expected, 1e-3);
        assert!(error <= 1e-5, "{what}: {name} is off by {error:e}");
    }
    assert_eq!(found.gradients.len(), exact.gradients.len());
    // One or two rows leave of dx's terms, which are about γ/σ·g, nothing but rounding.
    let rows = case.x.numel() / case.weight.numel();
    let scales = [if rows < 3 { 300.0 } else { 0.0 }, 0.1, 0.1, 1e-3];
    for (number, (found, expected)) in zip(&found.gradients, &exact.gradients).enumerate() {
        let error = error(found, expected, scales[number]);
        assert!(error <= 1e-5, "{what}: gradient {number} is off by {error:e}");
    }
}

fn assert_bfloat16_is_no_worse_than_libtorchs(case: &Case, what: &str) {
    let (found, theirs) = (case.ours(), case.libtorchs());
    let (exact, their_exact) = (case.exact(&found.y), case.exact(&theirs.y));
    let compare =
        |name: &str, found: &Tensor, exact: &Tensor, theirs: &Tensor, their_exact: &Tensor| {
            let (found, theirs) = (spread(found, exact), spread(theirs, their_exact));
            assert!(
                found <= 1.5 * theirs + 1e-5,
                "{what}: {name} off by {found:e}, libtorch {theirs:e}"
            );
        };
    compare("y", &found.y, &exact.y, &theirs.y, &their_exact.y);
    for number in 0..found.gradients.len() {
        compare(
            &format!("gradient {number}"),
            &found.gradients[number],
            &exact.gradients[number],
            &theirs.gradients[number],
            &their_exact.gradients[number],
        );
    }
}

/// Every combination of residual and activation.
fn variants() -> impl Iterator<Item = (bool, Activation)> {
    [false, true].into_iter().flat_map(|residual| {
        [Activation::Relu, Activation::None].map(|activation| (residual, activation))
    })
}

#[test]
fn gradients_are_those_of_the_float64_formulas() {
    let mut random = Random::seed_from_u64(0);
    for channels in [1, 3, 64, 100, 2048] {
        for pixels in [[1, 1, 1], [2, 1, 1], [5, 1, 3], [8, 7, 9], [10, 100, 100]] {
            let [batch, height, width] = pixels;
            if channels * batch * height * width > 7_000_000 {
                continue;
            }
            let shape = [batch, channels, height, width];
            for (residual, activation) in variants() {
                let case = Case::new(&mut random, shape, Kind::Float, residual, activation);
                let what = format!("{shape:?}, residual {residual}, {activation:?}");
                assert_float32_is_exact(&case, &what);
            }
        }
    }
}

#[test]
fn bfloat16_is_as_exact_as_libtorchs() {
    let mut random = Random::seed_from_u64(1);
    for shape in [
        [1, 3, 1, 1],
        [40, 1, 50, 50],
        [7, 3, 33, 10],
        [16, 64, 16, 16],
        [3, 100, 9, 5],
        [32, 2048, 2, 2],
    ] {
        for (residual, activation) in variants() {
            let case = Case::new(&mut random, shape, Kind::BFloat16, residual, activation);
            let what = format!("{shape:?}, residual {residual}, {activation:?}");
            assert_bfloat16_is_no_worse_than_libtorchs(&case, &what);
        }
    }
}

#[test]
fn random_shapes_are_exact() {
    let mut random = Random::seed_from_u64(2);
    for _ in 0..150 {
        let shape = [
            random.random_range(1..20),
            random.random_range(1..400),
            random.random_range(1..12),
            random.random_range(1..12),
        ];
        let residual = random.random();
        let activation = if random.random() { Activation::Relu } else { Activation::None };
        let what = format!("{shape:?}, residual {residual}, {activation:?}");
        let case = Case::new(&mut random, shape, Kind::Float, residual, activation);
        assert_float32_is_exact(&case, &what);
    }
}

#[test]
fn running_statistics_are_libtorchs() {
    let mut random = Random::seed_from_u64(3);
    for shape in [[2, 3, 1, 1], [6, 64, 8, 8], [4, 130, 5, 3]] {
        let case = Case::new(&mut random, shape, Kind::Float, false, Activation::Relu);
        let (ours, theirs) = (case.ours(), case.libtorchs());
        for (ours, theirs) in
            [(ours.running_mean, theirs.running_mean), (ours.running_var, theirs.running_var)]
        {
            assert!(error(&ours, &theirs.to_kind(Kind::Double), 0.0) < 1e-6);
        }
    }
}

#[test]
fn bits_depend_neither_on_the_run_nor_on_the_threads() {
    let threads = tch::get_num_threads();
    let mut random = Random::seed_from_u64(4);
    for kind in [Kind::Float, Kind::BFloat16] {
        let case = Case::new(&mut random, [64, 100, 14, 15], kind, true, Activation::Relu);
        let outcomes = [1, 2, 2, 3].map(|threads| {
            tch::set_num_threads(threads);
            case.ours()
        });
        for other in &outcomes[1..] {
            assert_eq!(other.y, outcomes[0].y);
            assert_eq!(other.running_mean, outcomes[0].running_mean);
            assert_eq!(other.running_var, outcomes[0].running_var);
            assert_eq!(other.gradients, outcomes[0].gradients);
        }
    }
    tch::set_num_threads(threads);
}

#[test]
fn a_mean_far_from_zero_costs_no_digits() {
    let mut random = Random::seed_from_u64(5);
    for (residual, activation) in variants() {
        let mut case = Case::new(&mut random, [20, 64, 9, 9], Kind::Float, residual, activation);
        case.x = normal(&mut random, [20, 64, 9, 9]) + 1e3;
        assert_float32_is_exact(&case, "mean 1000, deviation 1");
    }
}

#[test]
fn one_outlier_costs_no_digits() {
    let mut random = Random::seed_from_u64(6);
    let case = Case::new(&mut random, [20, 64, 9, 9], Kind::Float, false, Activation::Relu);
    // The first row, from which differences are taken.
    let _ = case.x.narrow(0, 0, 1).narrow(2, 0, 1).narrow(3, 0, 1).fill_(1e4);
    assert_float32_is_exact(&case, "a first row of 10000");
}

#[test]
fn a_constant_channel_becomes_its_bias() {
    let mut random = Random::seed_from_u64(7);
    let case = Case::new(&mut random, [9, 8, 5, 5], Kind::Float, false, Activation::None);
    let _ = case.x.narrow(1, 3, 1).fill_(12.34);
    let y = case.ours().y.narrow(1, 3, 1);
    assert_eq!(y, case.bias.narrow(0, 3, 1).view([1, 1, 1, 1]).expand([9, 1, 5, 5], false));
    assert_float32_is_exact(&case, "a constant channel");
}

#[test]
fn activations_that_are_not_channels_last_come_out_right() {
    let mut random = Random::seed_from_u64(8);
    let mut case = Case::new(&mut random, [4, 6, 5, 7], Kind::Float, true, Activation::Relu);
    case.x = case.x.contiguous();
    case.gradient = normal(&mut random, [1, 6, 1, 1]).expand([4, 6, 5, 7], false);
    assert_float32_is_exact(&case, "channels first");
}

#[test]
fn without_gradients_the_result_takes_the_memory_of_the_input() {
    let mut random = Random::seed_from_u64(9);
    for kind in [Kind::Float, Kind::BFloat16] {
        for (residual, activation) in variants() {
            let case = Case::new(&mut random, [5, 70, 6, 6], kind, residual, activation);
            let expected = case.ours().y;
            let norm = BatchNorm {
                weight: &case.weight,
                bias: &case.bias,
                running_mean: &case.weight.zeros_like(),
                running_var: &case.weight.ones_like(),
            };
            let x = case.x.copy();
            let memory = x.data_ptr();
            let y =
                normalise(x, &norm, case.residual.as_ref(), activation, BatchStats::Batch).tensor;
            assert_eq!(y.data_ptr(), memory);
            assert!(!y.requires_grad());
            assert_eq!(y, expected);
        }
    }
}

#[test]
fn a_result_without_residual_is_recomputed_to_the_bit() {
    let mut random = Random::seed_from_u64(10);
    for kind in [Kind::Float, Kind::BFloat16] {
        for (residual, activation) in variants() {
            let case = Case::new(&mut random, [5, 70, 6, 6], kind, residual, activation);
            let norm = BatchNorm {
                weight: &case.weight,
                bias: &case.bias,
                running_mean: &case.weight.zeros_like(),
                running_var: &case.weight.ones_like(),
            };
            let x = case.x.copy().set_requires_grad(true);
            let Normalised { tensor, recompute } =
                normalise(x, &norm, case.residual.as_ref(), activation, BatchStats::Batch);
            assert_eq!(recompute.is_some(), !residual);
            if let Some(recompute) = recompute {
                assert_eq!(recompute.run(), tensor.detach());
            }
        }
    }
}

#[test]
fn in_evaluation_the_running_statistics_normalise_and_stay() {
    let mut random = Random::seed_from_u64(13);
    for kind in [Kind::Float, Kind::BFloat16] {
        for (residual, activation) in variants() {
            let case = Case::new(&mut random, [3, 70, 5, 6], kind, residual, activation);
            let statistics = [&case.bias * 3.0, case.weight.square() + 0.1];
            let (mean, variance) = (statistics[0].copy(), statistics[1].copy());
            let norm = BatchNorm {
                weight: &case.weight,
                bias: &case.bias,
                running_mean: &mean,
                running_var: &variance,
            };
            let residual = case.residual.as_ref();
            let theirs = by_libtorch(&case.x, &norm, residual, activation, BatchStats::Running);
            let ours =
                normalise(case.x.copy(), &norm, residual, activation, BatchStats::Running).tensor;
            assert_eq!([&mean, &variance], statistics.each_ref());

            let [weight, bias, mean, variance] =
                [&case.weight, &case.bias, &mean, &variance].map(|x| x.to_kind(Kind::Double));
            let norm = BatchNorm {
                weight: &weight,
                bias: &bias,
                running_mean: &mean,
                running_var: &variance,
            };
            let x = case.x.to_kind(Kind::Double);
            let residual = residual.map(|residual| residual.to_kind(Kind::Double));
            let exact = by_libtorch(&x, &norm, residual.as_ref(), activation, BatchStats::Running);
            assert!(spread(&ours, &exact) <= 1.5 * spread(&theirs, &exact) + 1e-6);
        }
    }
}

#[test]
fn not_a_number_stays_one() {
    let mut random = Random::seed_from_u64(10);
    for kind in [Kind::Float, Kind::BFloat16] {
        let case = Case::new(&mut random, [2, 3, 4, 4], kind, true, Activation::Relu);
        if let Some(residual) = &case.residual {
            let _ = residual.narrow(0, 1, 1).fill_(f64::NAN);
        }
        let y = case.ours().y;
        assert_eq!(y.isnan().sum(Kind::Int64), Tensor::from(48_i64));
    }
}

#[test]
fn rounding_to_bfloat16_is_libtorchs() {
    let mut random = Random::seed_from_u64(11);
    let mut values: Vec<f32> = (0..10_000).map(|_| f32::from_bits(random.random())).collect();
    values.extend([
        0.0,
        -0.0,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::MAX,
        1.003_906_2,
        1.011_718_8,
    ]);
    values.retain(|value| !value.is_nan());
    let expected = Tensor::from_slice(&values).to_kind(Kind::BFloat16);
    let rounded: Vec<BFloat16> = values.iter().map(|&value| BFloat16::narrow(value)).collect();
    assert_eq!(elements::<BFloat16>(&expected), rounded);
    let not_a_number = f32::from_bits(0x7fff_ffff);
    assert!(BFloat16::narrow(not_a_number).widen().is_nan());
}

/// Losses of a small residual network that learns random labels, with one of two normalisations.
fn losses(
    steps: usize,
    implementation: fn(Tensor, &BatchNorm<'_>, Option<&Tensor>, Activation) -> Tensor,
) -> Vec<f64> {
    let mut random = Random::seed_from_u64(12);
    let mut weights: Vec<Tensor> = [[16, 3, 3, 3], [16, 16, 3, 3], [16, 16, 3, 3], [32, 16, 3, 3]]
        .map(|shape| normal(&mut random, shape) * (2.0 / (shape[1] * 9) as f64).sqrt())
        .into();
    weights.push(normal_vector(&mut random, 32 * 10, 0.0, 0.1).view([10, 32]));
    for channels in [16, 16, 16, 32] {
        weights.push(Tensor::ones([channels], (Kind::Float, Device::Cpu)));
        weights.push(Tensor::zeros([channels], (Kind::Float, Device::Cpu)));
    }
    let mut weights: Vec<Tensor> =
        weights.into_iter().map(|weight| weight.set_requires_grad(true)).collect();
    let images = normal(&mut random, [32, 3, 16, 16]);
    let labels: Vec<i64> = (0..32).map(|_| random.random_range(0..10)).collect();
    let labels = Tensor::from_slice(&labels);
    (0..steps)
        .map(|_| {
            let unit = |x: &Tensor, number: usize, stride: i64, residual: Option<&Tensor>| {
                let none = None::<&Tensor>;
                let x = x.conv2d(&weights[number], none, stride, 1, 1, 1);
                let norm = BatchNorm {
                    weight: &weights[5 + 2 * number],
                    bias: &weights[6 + 2 * number],
                    running_mean: &weights[6 + 2 * number].zeros_like(),
                    running_var: &weights[5 + 2 * number].ones_like(),
                };
                implementation(x, &norm, residual, Activation::Relu)
            };
            let carried = unit(&images, 0, 1, None);
            let inner = unit(&carried, 1, 1, None);
            let x = unit(&inner, 2, 1, Some(&carried));
            let x = unit(&x, 3, 2, None);
            let features = x.mean_dim([2, 3].as_slice(), false, Kind::Float);
            let loss =
                features.linear(&weights[4], None::<&Tensor>).cross_entropy_for_logits(&labels);
            let gradients = Tensor::run_backward(&[&loss], &weights, false, false);
            let _guard = tch::no_grad_guard();
            for (weight, gradient) in zip(weights.iter_mut(), gradients) {
                *weight -= gradient * 0.2;
            }
            loss.double_value(&[])
        })
        .collect()
}

#[test]
fn a_network_learns_as_with_libtorchs() {
    let ours = losses(50, |x, norm, residual, activation| {
        normalise(x, norm, residual, activation, BatchStats::Batch).tensor
    });
    let theirs = losses(50, |x, norm, residual, activation| {
        by_libtorch(&x, norm, residual, activation, BatchStats::Batch)
    });
    assert!(ours[49] < 0.9 * ours[0], "it does not learn: {ours:?}");
    for (step, (ours, theirs)) in zip(&ours, &theirs).enumerate() {
        assert!((ours - theirs).abs() <= 1e-4 * theirs, "step {step}: {ours} against {theirs}");
    }
}
