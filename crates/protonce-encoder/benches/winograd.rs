//! 3×3 convolutions by Winograd against libtorch's: `cargo bench -p protonce-encoder --bench winograd
//! [-- WORD]`, where WORD picks the layers whose name contains it.
//!
//! The layers are ResNet-18's for 32 px at batch 256, ResNet-50's for 224 px at batch 32 and a few of
//! small batches. Each
//! number is the best of three passes: milliseconds of processor time (all threads together) and of
//! wall time, for the forward pass and for each gradient alone.

use std::time::Instant;

use protonce_encoder::convolution::{ConvAlgorithm, ConvAlgorithms, convolve};
use tch::{Device, Kind, Tensor};

fn main() {
    let wanted = std::env::args().skip(1).find(|word| !word.starts_with('-')).unwrap_or_default();
    tch::manual_seed(1);
    println!("{} threads; CPU ms / wall ms", tch::get_num_threads());
    println!("| layer | pass | libtorch | Winograd | ratio of CPU time |");
    println!("| --- | --- | --- | --- | --- |");
    for (name, batch, channels, side) in [
        ("64@32", 256, 64, 32),
        ("128@16", 256, 128, 16),
        ("256@8", 256, 256, 8),
        ("512@4", 256, 512, 4),
        ("64@56", 32, 64, 56),
        ("128@28", 32, 128, 28),
        ("256@14", 32, 256, 14),
        ("512@7", 32, 512, 7),
        // Few tiles: where transforming the filters takes most of the time.
        ("few 512@4", 32, 512, 4),
        ("few 512@4", 64, 512, 4),
        ("few 512@4", 128, 512, 4),
    ] {
        if name.contains(&wanted) {
            layer(&format!("{name} ×{batch}"), batch, channels, side);
        }
    }
}

/// One layer's three passes, by both.
fn layer(name: &str, batch: i64, channels: i64, side: i64) {
    let random = |shape: [i64; 4]| {
        let tensor = Tensor::randn(shape, (Kind::Float, Device::Cpu));
        tensor.permute([0, 3, 1, 2])
    };
    let x = random([batch, side, side, channels]).relu();
    let weight = random([channels, 3, 3, channels]) * (2.0 / (9 * channels) as f64).sqrt();
    let gradient = random([batch, side, side, channels]);
    let libtorch =
        |x: &Tensor, weight: &Tensor| x.conv2d(weight, None::<&Tensor>, [1, 1], [1, 1], [1, 1], 1);
    let winograd = |x: &Tensor, weight: &Tensor| {
        convolve(x, None, weight, [1, 1, 1], ConvAlgorithms::all(ConvAlgorithm::Winograd))
    };
    let forward = [best(|| drop(libtorch(&x, &weight))), best(|| drop(winograd(&x, &weight)))];
    print(name, "forward", forward);
    for (pass, of) in [("gradient of input", &x), ("gradient of filters", &weight)] {
        let leaf = of.detach().set_requires_grad(true);
        let [x, weight] = if pass.ends_with("input") { [&leaf, &weight] } else { [&x, &leaf] };
        let times = [libtorch(x, weight), winograd(x, weight)].map(|output| {
            let loss = (output * &gradient).sum(Kind::Float);
            best(|| drop(Tensor::run_backward(&[&loss], &[&leaf], true, false)))
        });
        // The product with the gradient has a backward pass too.
        let scaled = gradient.detach().set_requires_grad(true);
        let loss = (&scaled * &gradient).sum(Kind::Float);
        let own = best(|| drop(Tensor::run_backward(&[&loss], &[&scaled], true, false)));
        print(name, pass, times.map(|[cpu, wall]| [cpu - own[0], wall - own[1]]));
    }
}

fn print(name: &str, pass: &str, [libtorch, ours]: [[f64; 2]; 2]) {
    println!(
        "| {name} | {pass} | {:.0} / {:.0} | {:.0} / {:.0} | {:.2} |",
        libtorch[0],
        libtorch[1],
        ours[0],
        ours[1],
        libtorch[0] / ours[0]
    );
}

/// Least processor time and wall time of three runs after one that is not counted, in ms.
fn best(mut run: impl FnMut()) -> [f64; 2] {
    run();
    let mut best = [f64::INFINITY; 2];
    for _ in 0..3 {
        let (cpu, wall) = (cpu_seconds(), Instant::now());
        run();
        best[0] = best[0].min(1e3 * (cpu_seconds() - cpu));
        best[1] = best[1].min(1e3 * wall.elapsed().as_secs_f64());
    }
    best
}

/// Processor time of all threads of this process so far; 0 where there is no such clock.
fn cpu_seconds() -> f64 {
    let nanoseconds = |path: std::path::PathBuf| -> Option<f64> {
        std::fs::read_to_string(path).ok()?.split_whitespace().next()?.parse().ok()
    };
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    threads.filter_map(|thread| nanoseconds(thread.path().join("schedstat"))).sum::<f64>() / 1e9
}
