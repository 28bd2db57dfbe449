//! A profiler for training steps: a step in, the time of its parts and of the kernels within them out.
//!
//! The code that does the work opens the scopes, `part` and within it `kernel`; they are timed only
//! inside [`record`], and elsewhere cost a look at a thread-local variable. A backward pass on a CPU runs
//! on the thread that asks for it, so its kernels are seen too. On a GPU, which is told its work ahead of
//! time, a part is waited for and timed as a whole, and kernels are not.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Instant;

use serde::Serialize;
use tch::{Cuda, Device};

/// A part of a training step (PCL, Algorithm 1, lines 7 to 14), in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The moving average: the momentum encoder's parameters.
    MovingAverage,
    /// The momentum encoder's forward pass: keys.
    Keys,
    /// The encoder's forward pass: queries.
    Queries,
    /// InfoNCE and ProtoNCE, with the sampling of negatives.
    Losses,
    /// The backward pass: the gradient of the loss.
    Backward,
    /// The optimiser's step.
    Optimiser,
}

/// The operations that most of the work within a part consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kernel {
    /// Convolutions forward; in a backward pass, those that checkpointed blocks recompute.
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

/// The time of a kernel, all its calls together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct KernelTime {
    /// Wall time.
    pub seconds: f64,
    /// Additions and multiplications of the direct method; 0 where they are not counted.
    pub operations: f64,
}

/// The time of a part, all its calls together.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct PartTime {
    /// Wall time, kernels included.
    pub seconds: f64,
    /// The share of each kernel in it.
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

/// Runs and profiles `body`, which works on `device`: its result and the time of its parts.
pub fn record<T>(device: Device, body: impl FnOnce() -> T) -> (T, BTreeMap<Part, PartTime>) {
    PROFILE.set(Some(Profile { device, parts: BTreeMap::new(), current: None }));
    let result = body();
    let profile = PROFILE.take();
    (result, profile.map(|profile| profile.parts).unwrap_or_default())
}

/// Opens the scope of a part of a step; parts do not contain one another.
pub fn part(part: Part) -> PartScope {
    let device = with(|profile| {
        profile.current = Some(part);
        profile.device
    });
    PartScope(device.map(|device| {
        finish(device);
        (part, device, Instant::now())
    }))
}

/// A part that is being timed, where anything is.
#[must_use = "the part ends when this is dropped"]
pub struct PartScope(Option<(Part, Device, Instant)>);

impl Drop for PartScope {
    fn drop(&mut self) {
        let Some((part, device, start)) = self.0 else { return };
        finish(device);
        let seconds = start.elapsed().as_secs_f64();
        with(|profile| {
            profile.parts.entry(part).or_default().seconds += seconds;
            profile.current = None;
        });
    }
}

/// Opens the scope of a kernel of the current part; kernels do not contain one another. `operations`
/// are those of the direct method.
pub fn kernel(kernel: Kernel, operations: f64) -> KernelScope {
    // On a GPU, only handing over the work would be timed.
    let part = with(|profile| profile.current.filter(|_| profile.device == Device::Cpu)).flatten();
    KernelScope(part.map(|part| (part, kernel, operations, Instant::now())))
}

/// A kernel that is being timed, where anything is.
#[must_use = "the kernel ends when this is dropped"]
pub struct KernelScope(Option<(Part, Kernel, f64, Instant)>);

impl Drop for KernelScope {
    fn drop(&mut self) {
        let Some((part, kernel, operations, start)) = self.0 else { return };
        let seconds = start.elapsed().as_secs_f64();
        with(|profile| {
            let time = profile.parts.entry(part).or_default().kernels.entry(kernel).or_default();
            time.seconds += seconds;
            time.operations += operations;
        });
    }
}

/// Runs `body` on this thread's profile, if one is being recorded.
fn with<T>(body: impl FnOnce(&mut Profile) -> T) -> Option<T> {
    PROFILE.with_borrow_mut(|profile| profile.as_mut().map(body))
}

/// Waits until `device` has done all the work that it was given.
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
        let convolve = |operations| {
            let _kernel = kernel(Kernel::Convolution, operations);
            sleep();
        };
        let work = || {
            {
                let _part = part(Part::Queries);
                convolve(5.0);
                convolve(6.0);
                sleep();
            }
            // Outside of any part.
            convolve(7.0);
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
