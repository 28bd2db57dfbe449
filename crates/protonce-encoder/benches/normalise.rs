//! What batch normalisation with its ReLU costs: `cargo bench -p protonce-encoder --bench normalise`.
//!
//! Milliseconds of processor time (all threads together) per pass, ours against libtorch's operations
//! on the same tensors, by the kernel's clock (Linux only). Run it with
//! `MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=-1 MALLOC_TOP_PAD_=268435456
//! GOMP_SPINCOUNT=1000`: memory kept as the program keeps it, or page faults are most of what
//! is measured, and waiting threads asleep, or their waiting counts as work.

use protonce_encoder::{Activation, BatchNorm, BatchStats, normalise};
use tch::{Device, Kind, Tensor};

/// Processor time of this process so far, in seconds: fields 14 and 15 of `/proc/self/stat`, which
/// count hundredths.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name before the last parenthesis may hold spaces.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn main() {
    for threads in [1, 2] {
        tch::set_num_threads(threads);
        for shape in [[256, 64, 32, 32], [256, 512, 4, 4]] {
            for kind in [Kind::Float, Kind::BFloat16] {
                for with_residual in [false, true] {
                    let case = Case::new(shape, kind, with_residual);
                    let ours = case.measure(|x, norm, residual| {
                        normalise(x, norm, residual, Activation::Relu, BatchStats::Batch).tensor
                    });
                    let theirs = case.measure(by_libtorch);
                    // What the loss that starts the backward pass costs.
                    let loss = case.measure(|x, _, _| x)[1];
                    println!(
                        "{threads} threads, {shape:?} {kind:?}{}: forward {:.2} ms (libtorch \
                         {:.2}), backward {:.2} ms (libtorch {:.2})",
                        if with_residual { " + residual" } else { "" },
                        ours[0],
                        theirs[0],
                        ours[1] - loss,
                        theirs[1] - loss,
                    );
                }
            }
        }
    }
}

fn by_libtorch(x: Tensor, norm: &BatchNorm<'_>, residual: Option<&Tensor>) -> Tensor {
    let mut y = x.batch_norm(
        Some(norm.weight),
        Some(norm.bias),
        Some(norm.running_mean),
        Some(norm.running_var),
        true,
        0.1,
        1e-5,
        true,
    );
    if let Some(residual) = residual {
        y += residual;
    }
    y.relu_()
}

struct Case {
    x: Tensor,
    residual: Option<Tensor>,
    gradient: Tensor,
    parameters: [Tensor; 4],
}

impl Case {
    fn new([batch, channels, height, width]: [i64; 4], kind: Kind, with_residual: bool) -> Case {
        let normal = || {
            Tensor::randn([batch, height, width, channels], (Kind::Float, Device::Cpu))
                .permute([0, 3, 1, 2])
                .to_kind(kind)
        };
        let constant = |value: f64| Tensor::full([channels], value, (Kind::Float, Device::Cpu));
        Case {
            x: normal(),
            residual: with_residual.then(normal),
            gradient: normal(),
            parameters: [
                constant(1.0).set_requires_grad(true),
                constant(0.1).set_requires_grad(true),
                constant(0.0),
                constant(1.0),
            ],
        }
    }

    /// Milliseconds forward and backward.
    fn measure(
        &self,
        implementation: impl Fn(Tensor, &BatchNorm<'_>, Option<&Tensor>) -> Tensor,
    ) -> [f64; 2] {
        const SECONDS: f64 = 0.8;
        let [weight, bias, running_mean, running_var] = &self.parameters;
        let norm = BatchNorm { weight, bias, running_mean, running_var };
        // New leaves every time: their gradients are handed over, not added up.
        let leaf = |tensor: &Tensor| tensor.detach().set_requires_grad(true);
        let forward = || {
            let residual = self.residual.as_ref().map(leaf);
            implementation(leaf(&self.x), &norm, residual.as_ref())
        };
        let loss = |y: &Tensor| (y * &self.gradient).sum(Kind::Float);
        loss(&forward()).backward();
        let (mut passes, mut seconds) = (0.0, [0.0; 2]);
        while seconds[0] + seconds[1] < SECONDS {
            // Several passes between two looks at a clock of hundredths.
            let start = processor_seconds();
            let outputs: Vec<Tensor> = (0..4).map(|_| forward()).collect();
            seconds[0] += processor_seconds() - start;
            let losses: Vec<Tensor> = outputs.iter().map(loss).collect();
            drop(outputs);
            let start = processor_seconds();
            losses.into_iter().for_each(|loss| loss.backward());
            seconds[1] += processor_seconds() - start;
            passes += 4.0;
        }
        seconds.map(|seconds| 1e3 * seconds / passes)
    }
}
