//! Which algorithm is fastest, by measuring: a shape in, the algorithm of each pass out.

use std::time::Instant;

use tch::{Device, Kind, Tensor};

use super::algorithm::{ConvAlgorithm, ConvAlgorithms};
use super::passes::run_pass;
use super::shape::{ConvShape, Pass};

impl ConvAlgorithms {
    /// The fastest on this machine now: a short measurement on random numbers. The usual algorithm stays
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
            drop(run_pass(pass, algorithm, [&x, &weight, &gradient], shape));
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
