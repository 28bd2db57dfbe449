//! Every architecture against torchvision's, on weights and images that both sides compute.
//!
//! `fixtures/encoders.py` builds the same networks in torchvision, fills them with the same numbers
//! and writes a few of the features it gets to `fixtures/encoders.json`.

use protonce_encoder::{BatchStats, Encoder, Precision};
use protonce_run::{Architecture, EncoderConfig};
use serde_json::Value;
use tch::{Device, Kind, Tensor};

use super::fixtures::load;

/// `count` numbers in [−½, ½) that follow from `stream` alone, the same here and in Python.
fn numbers(stream: u32, count: i64) -> Vec<f32> {
    let scrambled = |i: u32| {
        let x = i.wrapping_mul(2_654_435_761).wrapping_add(stream.wrapping_mul(40_503));
        let x = (x ^ (x >> 15)).wrapping_mul(2_246_822_519);
        x ^ (x >> 13)
    };
    (0..count as u32).map(|i| (f64::from(scrambled(i)) / 4_294_967_296.0 - 0.5) as f32).collect()
}

/// Fills every tensor by the order of the names: weights keep the signal's variance, batch norm
/// gets uneven scales, shifts and statistics.
fn fill(encoder: &mut Encoder) {
    let mut tensors = encoder.parameters().named_tensors();
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    let filled: Vec<(String, Tensor)> = tensors
        .into_iter()
        .enumerate()
        .map(|(stream, (name, tensor))| {
            let shape = tensor.size();
            let count = shape.iter().product();
            let values = Tensor::from_slice(&numbers(stream as u32, count)).view(shape.as_slice());
            let values = match shape.len() {
                4 | 2 => values * (24.0 / (count / shape[0]) as f64).sqrt(),
                _ if name.ends_with("running_var") => values * 0.5 + 1.0,
                _ if name.ends_with("bias") || name.ends_with("mean") => values * 0.2,
                _ => values * 0.2 + 0.7,
            };
            (name, values)
        })
        .collect();
    encoder.parameters_mut().load(&filled).unwrap();
}

#[test]
fn features_and_embeddings_are_torchvisions() {
    let cases: Value = serde_json::from_slice(&load_own("encoders.json")).unwrap();
    for case in cases.as_array().unwrap() {
        let config = EncoderConfig {
            arch: case["arch"].as_str().unwrap().parse().unwrap(),
            stem: case["stem"].as_str().unwrap().parse().unwrap(),
            head: case["head"].as_str().unwrap().parse().unwrap(),
            dim: 16,
            ..Default::default()
        };
        let mut encoder = Encoder::new(&config, Precision::Float32, Device::Cpu, 0);
        fill(&mut encoder);
        let size = case["size"].as_i64().unwrap();
        let images = Tensor::from_slice(&numbers(9_999, 8 * 3 * size * size));
        let images = (images * 3.0).view([8, 3, size, size]);
        // As the loader lays images out.
        let images = images.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]);
        let _guard = tch::no_grad_guard();
        // Batch statistics of a few activations amplify rounding from layer to layer, so the deepest
        // networks' features in training say nothing; their running statistics below do.
        let deep = matches!(config.arch, Architecture::ResNet101 | Architecture::ResNet152);
        let train_tolerance = if deep { f64::INFINITY } else { 1e-3 };
        for (stats, name, tolerance) in
            [(BatchStats::Running, "evaluate", 2e-5), (BatchStats::Batch, "train", train_tolerance)]
        {
            let features = encoder.features(&images, stats);
            let embeddings = encoder.project(&features, stats);
            for (rows, kind) in [(features, "features"), (embeddings, "embeddings")] {
                let expected: Vec<f32> = serde_json::from_value(case[name][kind].clone()).unwrap();
                let expected = Tensor::from_slice(&expected).view([8, -1]);
                let found = rows.narrow(1, 0, expected.size()[1]);
                let scale = expected.abs().max().double_value(&[]);
                let difference = (found - expected).abs().max().double_value(&[]) / scale;
                println!("{config:?} {name} {kind}: {difference:.1e}");
                assert!(difference < tolerance, "{config:?} {name} {kind}: {difference}");
            }
        }
        // Training mode moved the running statistics as torchvision's moved.
        let moved = encoder.parameters().named_tensors();
        let (_, moved) = moved.iter().find(|(name, _)| name == "bn1.running_var").unwrap();
        let sum = moved.sum(Kind::Double).double_value(&[]);
        let expected = case["running_var_sum"].as_f64().unwrap();
        assert!((sum - expected).abs() < 1e-4 * expected, "{sum} against {expected}");
    }
}

/// These numbers are this project's own, so they lie with the tests whatever `PROTONCE_FIXTURES`.
fn load_own(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(path).unwrap_or_else(|_| load(name))
}
