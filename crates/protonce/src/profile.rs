//! Where the time of a training step goes: its parts, and within them the kernels that do the work.
//!
//! Training announces what it does, by [`part`] and [`kernel`], to a clock that runs only inside
//! [`record`]. Where none runs, an announcement costs a look at a thread-local variable. A backward
//! pass on a CPU runs on the thread that asks for it, so its kernels are seen too; on a GPU the parts
//! are waited for and timed as wholes.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Instant;

use serde::Serialize;
use tch::{Cuda, Device};

/// A part of a training step (PCL, Algorithm 1, lines 7 to 14), in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The momentum encoder's parameters follow.
    MovingAverage,
    /// The momentum encoder's forward pass: keys.
    Keys,
    /// The encoder's forward pass: queries.
    Queries,
    /// InfoNCE and ProtoNCE, with the sampling of negatives.
    Losses,
    /// The gradient of the loss.
    Backward,
    /// The optimiser's step.
    Optimiser,
}

/// What most of the work within a part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kernel {
    /// Convolutions forward; in a backward pass, those of checkpointed blocks again.
    Convolution,
    /// Convolutions' gradients of their inputs.
    InputGradient,
    /// Convolutions' gradients of their weights.
    WeightGradient,
    /// Normalisation with residual sum and ReLU, forward.
    Normalisation,
    /// Its backward pass.
    NormalisationGradient,
}

/// What was measured of a kernel, all its calls together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct KernelTime {
    /// Wall time.
    pub seconds: f64,
    /// Additions and multiplications of the direct method; 0 where nobody counts them.
    pub operations: f64,
}

/// What was measured of a part, all its calls together.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct PartTime {
    /// Wall time, kernels included.
    pub seconds: f64,
    /// Of which in kernels.
    pub kernels: BTreeMap<Kernel, KernelTime>,
}

impl PartTime {
    /// Seconds that no kernel accounts for.
    pub fn rest(&self) -> f64 {
        let kernels: f64 = self.kernels.values().map(|kernel| kernel.seconds).sum();
        (self.seconds - kernels).max(0.0)
    }
}

struct Profile {
    device: Device,
    parts: BTreeMap<Part, PartTime>,
    current: Option<Part>,
}

thread_local! {
    static PROFILE: RefCell<Option<Profile>> = const { RefCell::new(None) };
}

/// Runs `body`, which works on `device`, under a clock: its result and what the clock saw.
pub fn record<T>(device: Device, body: impl FnOnce() -> T) -> (T, BTreeMap<Part, PartTime>) {
    PROFILE.set(Some(Profile { device, parts: BTreeMap::new(), current: None }));
    let result = body();
    let profile = PROFILE.take();
    (result, profile.map(|profile| profile.parts).unwrap_or_default())
}

/// Runs `body` as a part of a step; parts do not contain one another.
pub(crate) fn part<T>(part: Part, body: impl FnOnce() -> T) -> T {
    let Some(device) = with(|profile| {
        profile.current = Some(part);
        profile.device
    }) else {
        return body();
    };
    finish(device);
    let start = Instant::now();
    let result = body();
    finish(device);
    let seconds = start.elapsed().as_secs_f64();
    with(|profile| {
        profile.parts.entry(part).or_default().seconds += seconds;
        profile.current = None;
    });
    result
}

/// Runs `body` as a kernel of the current part; kernels do not contain one another. `operations` are
/// those of the direct method.
pub(crate) fn kernel<T>(kernel: Kernel, operations: f64, body: impl FnOnce() -> T) -> T {
    // What a GPU is told takes no time here.
    let part = with(|profile| profile.current.filter(|_| profile.device == Device::Cpu)).flatten();
    let Some(part) = part else { return body() };
    let start = Instant::now();
    let result = body();
    let seconds = start.elapsed().as_secs_f64();
    with(|profile| {
        let time = profile.parts.entry(part).or_default().kernels.entry(kernel).or_default();
        time.seconds += seconds;
        time.operations += operations;
    });
    result
}

/// What `body` makes of the clock, if one runs on this thread.
fn with<T>(body: impl FnOnce(&mut Profile) -> T) -> Option<T> {
    PROFILE.with_borrow_mut(|profile| profile.as_mut().map(body))
}

/// Waits until `device` has done what it was told.
fn finish(device: Device) {
    if let Device::Cuda(number) = device {
        Cuda::synchronize(number as i64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn parts_contain_their_kernels() {
        let sleep = || std::thread::sleep(Duration::from_millis(3));
        let work = || {
            part(Part::Queries, || {
                kernel(Kernel::Convolution, 5.0, sleep);
                kernel(Kernel::Convolution, 6.0, sleep);
                sleep();
            });
            // Of no part.
            kernel(Kernel::Convolution, 7.0, sleep);
            9
        };
        assert_eq!(work(), 9);
        let (result, parts) = record(Device::Cpu, work);
        assert_eq!((result, parts.len()), (9, 1));
        let queries = &parts[&Part::Queries];
        let convolution = queries.kernels[&Kernel::Convolution];
        assert_eq!(convolution.operations, 11.0);
        assert!(convolution.seconds >= 6e-3 && queries.rest() >= 3e-3);
        let (_, parts) = record(Device::Cpu, || ());
        assert!(parts.is_empty(), "a profile begins at zero");
    }
}
