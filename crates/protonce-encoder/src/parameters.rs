//! θ: all parameters of an encoder in one flat vector, with a named view for each.
//!
//! Layers declare their parameters to a [`ParametersBuilder`], which draws the initial values; the
//! finished [`Parameters`] hand each layer its views.

use std::ops::{Bound, RangeBounds};

use protonce_images::random::{Purpose, generator};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal, Uniform};
use tch::{Device, Kind, Tensor};

use super::autograd::gradients;
use super::error::EncoderError;
use super::normalise::moved;
use super::updates::{Sgd, ema_update};
use crate::profile::{self, Part};

/// The number of a parameter within [`Parameters`].
#[derive(Debug, Clone, Copy)]
pub(super) struct ParameterId(usize);

/// The number of a buffer (a batch-norm statistic) within [`Parameters`].
#[derive(Debug, Clone, Copy)]
pub(super) struct BufferId(usize);

/// Parameters and buffers that layers declare, in the order in which they lie in θ.
pub(super) struct ParametersBuilder {
    names: Vec<String>,
    shapes: Vec<Vec<i64>>,
    initial: Vec<f32>,
    buffer_names: Vec<String>,
    buffers: Vec<Tensor>,
    random: Option<ChaCha8Rng>,
}

impl ParametersBuilder {
    /// No parameters yet; those declared later draw their values from `seed`, or are 0 without one.
    pub(super) fn new(seed: Option<u64>) -> ParametersBuilder {
        ParametersBuilder {
            names: Vec::new(),
            shapes: Vec::new(),
            initial: Vec::new(),
            buffer_names: Vec::new(),
            buffers: Vec::new(),
            random: seed.map(|seed| generator(seed, Purpose::Initial)),
        }
    }

    fn declare(
        &mut self,
        name: String,
        shape: &[i64],
        values: impl Distribution<f32>,
    ) -> ParameterId {
        let count = shape.iter().product::<i64>() as usize;
        match &mut self.random {
            Some(random) => self.initial.extend(random.sample_iter(values).take(count)),
            None => self.initial.resize(self.initial.len() + count, 0.0),
        }
        self.names.push(name);
        self.shapes.push(shape.to_vec());
        ParameterId(self.names.len() - 1)
    }

    /// A convolution weight [out, in / groups, size, size], drawn as torchvision draws a ResNet's:
    /// normal with deviation √(2 / fan-out) (He et al. 2015).
    pub(super) fn convolution(&mut self, name: String, shape: [i64; 4]) -> ParameterId {
        let fan_out = (shape[0] * shape[2] * shape[3]) as f32;
        self.declare(name, &shape, Normal::new(0.0, (2.0 / fan_out).sqrt()).unwrap_or_else(never))
    }

    /// A linear layer's weight [out, in] or bias [out], drawn as PyTorch draws it: uniform within
    /// ±1 / √in.
    pub(super) fn linear(&mut self, name: String, shape: &[i64], inputs: i64) -> ParameterId {
        let bound = 1.0 / (inputs as f32).sqrt();
        self.declare(name, shape, Uniform::new(-bound, bound).unwrap_or_else(never))
    }

    /// A batch-norm weight or bias [channels] that starts at `value`.
    pub(super) fn constant(&mut self, name: String, channels: i64, value: f32) -> ParameterId {
        self.declare(name, &[channels], Normal::new(value, 0.0).unwrap_or_else(never))
    }

    /// A float32 batch-norm statistic [channels] that starts at `value`.
    pub(super) fn buffer(&mut self, name: String, channels: i64, value: f64) -> BufferId {
        self.buffer_names.push(name);
        self.buffers.push(Tensor::full([channels], value, (Kind::Float, Device::Cpu)));
        BufferId(self.buffers.len() - 1)
    }

    /// θ on `device`, cut into its views.
    pub(super) fn build(self, device: Device) -> Parameters {
        let theta = Tensor::from_slice(&self.initial).to_device(device);
        let views = views(&theta, &self.shapes);
        Parameters {
            theta,
            names: self.names,
            views,
            buffer_names: self.buffer_names,
            buffers: self.buffers.iter().map(|buffer| buffer.to_device(device)).collect(),
        }
    }
}

/// A view of `theta` for each of `shapes`, one after the other.
fn views(theta: &Tensor, shapes: &[Vec<i64>]) -> Vec<Tensor> {
    let mut start = 0;
    let view_of = |shape: &Vec<i64>| {
        let count = shape.iter().product::<i64>();
        let stretch = theta.narrow(0, start, count);
        start += count;
        let view = match shape[..] {
            [outputs, inputs, height, width] => {
                stretch.view([outputs, height, width, inputs]).permute([0, 3, 1, 2])
            }
            _ => stretch.view(shape.as_slice()),
        };
        // Detached: a leaf of the autograd graph that still shares θ's memory.
        view.detach()
    };
    shapes.iter().map(view_of).collect()
}

/// The parameters θ and the buffers of one encoder, under torchvision's names.
///
/// θ is one float32 vector; each named parameter is a view of a stretch of it. Convolution weights
/// lie in it channels-last ([out, height, width, in]), the layout the convolutions want.
pub struct Parameters {
    theta: Tensor,
    names: Vec<String>,
    views: Vec<Tensor>,
    buffer_names: Vec<String>,
    buffers: Vec<Tensor>,
}

impl Parameters {
    /// Makes every parameter a leaf that gradients are computed for.
    pub fn track_gradients(&mut self) {
        for view in &mut self.views {
            let _ = view.requires_grad_(true);
        }
    }

    /// The same parameters as leaves of another graph, with copies of the statistics, so that theirs may
    /// move without moving these.
    pub(super) fn for_another_graph(&self) -> Parameters {
        let leaf = |view: &Tensor| view.detach().set_requires_grad(view.requires_grad());
        Parameters {
            theta: self.theta.shallow_clone(),
            names: self.names.clone(),
            views: self.views.iter().map(leaf).collect(),
            buffer_names: self.buffer_names.clone(),
            buffers: self.buffers.iter().map(Tensor::copy).collect(),
        }
    }

    /// The same leaves of the same graph, with room in place of the statistics that takes those of a batch
    /// as they are: float64.
    pub(super) fn recording(&self) -> Parameters {
        Parameters {
            theta: self.theta.shallow_clone(),
            names: self.names.clone(),
            views: self.views.iter().map(Tensor::shallow_clone).collect(),
            buffer_names: self.buffer_names.clone(),
            buffers: self.buffers.iter().map(|buffer| buffer.to_kind(Kind::Double)).collect(),
        }
    }

    /// All buffers, one after the other: float64 \[channels of all\].
    pub(super) fn statistics(&self) -> Vec<f64> {
        let mut all = Vec::new();
        for buffer in &self.buffers {
            let start = all.len();
            all.resize(start + buffer.numel(), 0.0);
            let buffer = buffer.to_kind(Kind::Double).to_device(Device::Cpu);
            buffer.copy_data(&mut all[start..], buffer.numel());
        }
        all
    }

    /// How many statistics a group of images has in all layers together.
    pub fn statistics_length(&self) -> usize {
        self.buffers.iter().map(Tensor::numel).sum()
    }

    /// Moves the running statistics towards those of some groups, one group after the other: `recorded` is
    /// [groups, channels of all], each group as [`Encoder::embed_recorded`](super::Encoder::embed_recorded)
    /// gives it.
    pub fn move_statistics(&mut self, recorded: &[f64]) {
        let _guard = tch::no_grad_guard();
        let all = self.statistics_length();
        let mut start = 0;
        for buffer in &mut self.buffers {
            let count = buffer.numel();
            let mut running = vec![0f32; count];
            buffer.to_device(Device::Cpu).copy_data(&mut running, count);
            for group in recorded.chunks_exact(all) {
                for (running, &value) in running.iter_mut().zip(&group[start..][..count]) {
                    *running = moved(*running, value);
                }
            }
            buffer.copy_(&Tensor::from_slice(&running));
            start += count;
        }
    }

    /// A parameter, in the shape that it was declared with.
    pub(super) fn get(&self, id: ParameterId) -> &Tensor {
        &self.views[id.0]
    }

    /// A buffer: float32 [channels].
    pub(super) fn get_buffer(&self, id: BufferId) -> &Tensor {
        &self.buffers[id.0]
    }

    /// θ: float32 \[parameters\].
    pub fn theta(&self) -> &Tensor {
        &self.theta
    }

    /// Takes over all values of the parameters of an encoder of the same shape.
    pub(super) fn copy_from(&mut self, other: &Parameters) {
        let _guard = tch::no_grad_guard();
        self.theta.copy_(&other.theta);
        for (own, other) in self.buffers.iter_mut().zip(&other.buffers) {
            own.copy_(other);
        }
    }

    /// Where in θ the parameters begin whose names start with `prefix`; its end if there are none.
    pub fn start_of(&self, prefix: &str) -> i64 {
        let before = self.names.iter().take_while(|name| !name.starts_with(prefix));
        before.zip(&self.views).map(|(_, view)| view.numel() as i64).sum()
    }

    /// One step of gradient descent on a stretch of θ (`..` is all of it); the named parameters change
    /// with it. `velocity` and `gradient` are laid out as θ.
    pub fn sgd_step(
        &mut self,
        stretch: impl RangeBounds<i64>,
        velocity: &Tensor,
        gradient: &Tensor,
        sgd: Sgd,
    ) {
        let _part = profile::part(Part::Optimiser);
        let start = match stretch.start_bound() {
            Bound::Included(&start) => start,
            Bound::Excluded(&before) => before + 1,
            Bound::Unbounded => 0,
        };
        let end = match stretch.end_bound() {
            Bound::Included(&last) => last + 1,
            Bound::Excluded(&end) => end,
            Bound::Unbounded => self.theta.numel() as i64,
        };
        let [mut theta, mut velocity, gradient] =
            [&self.theta, velocity, gradient].map(|all| all.narrow(0, start, end - start));
        sgd.step(&mut theta, &mut velocity, &gradient);
    }

    /// θ' ← mθ' + (1 − m)θ, where θ' is this and m is `momentum`.
    pub(super) fn ema_update(&mut self, theta: &Parameters, momentum: f64) {
        let _part = profile::part(Part::MovingAverage);
        ema_update(&mut self.theta, &theta.theta, momentum);
    }

    /// ∂loss/∂θ laid out as θ: float32 \[parameters\].
    pub fn gradient(&self, loss: &Tensor) -> Tensor {
        let _part = profile::part(Part::Backward);
        flat(&Tensor::run_backward(&[loss], &self.views, false, false))
    }

    /// The same of an `output` that has `gradient`.
    pub fn gradient_from(&self, output: &Tensor, gradient: &Tensor) -> Tensor {
        let _part = profile::part(Part::Backward);
        let views: Vec<&Tensor> = self.views.iter().collect();
        flat(&gradients(output, gradient, &views))
    }

    /// Every parameter and buffer by name, contiguous, in torchvision's shapes.
    pub fn named_tensors(&self) -> Vec<(String, Tensor)> {
        let parameters = self.names.iter().zip(&self.views);
        let buffers = self.buffer_names.iter().zip(&self.buffers);
        parameters
            .chain(buffers)
            .map(|(name, tensor)| (name.clone(), tensor.detach().contiguous()))
            .collect()
    }

    /// Takes over the values of `tensors`, found by name.
    ///
    /// # Errors
    /// When one is missing or has another shape; nothing has changed then.
    pub fn load(&mut self, tensors: &[(String, Tensor)]) -> Result<(), EncoderError> {
        let _guard = tch::no_grad_guard();
        let names = self.names.iter().chain(&self.buffer_names);
        let targets = self.views.iter().chain(&self.buffers);
        let mut pairs = Vec::new();
        for (name, target) in names.zip(targets) {
            let Some((_, source)) = tensors.iter().find(|(known, _)| known == name) else {
                return Err(EncoderError::MissingTensor {
                    name: name.clone(),
                    expected: target.size(),
                });
            };
            if source.size() != target.size() {
                return Err(EncoderError::WrongShape {
                    name: name.clone(),
                    expected: target.size(),
                    found: source.size(),
                });
            }
            pairs.push((target.shallow_clone(), source));
        }
        for (mut target, source) in pairs {
            target.copy_(source);
        }
        Ok(())
    }
}

/// Gradients of the parameters, laid out as θ: float32 \[parameters\].
fn flat(gradients: &[Tensor]) -> Tensor {
    let stretches: Vec<Tensor> = gradients
        .iter()
        .map(|gradient| match gradient.dim() {
            4 => gradient.permute([0, 2, 3, 1]).reshape([-1]),
            _ => gradient.reshape([-1]),
        })
        .collect();
    Tensor::cat(&stretches, 0)
}

/// A normal or uniform distribution refuses only bounds that are not finite or in order, which a
/// layer with at least one input and output does not have.
fn never<T>(error: impl std::fmt::Display) -> T {
    unreachable!("a layer without inputs or outputs: {error}")
}
