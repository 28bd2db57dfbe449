//! Normalisation as an operation of the network, differentiable: by the loops of this folder on a CPU,
//! by libtorch elsewhere.

use tch::{Device, Kind, Tensor};

use super::batch_norm::{Activation, BatchNorm, BatchStats, EPSILON, MOMENTUM};
use super::forward::{Keep, forward, write};
use crate::autograd::{differentiable, gradients_wanted};
use crate::memory::{BFloat16, Element, channels_last, elements, elements_mut};
use crate::profile::{self, Kernel};
use crate::recompute::Recompute;

/// The result of [`normalise`].
pub struct Normalised {
    /// activation(normalise(x) + residual).
    pub tensor: Tensor,
    /// How to compute it a second time in the backward pass, where it need not be kept until then.
    pub recompute: Option<Recompute>,
}

/// activation(normalise(x) + residual): [batch, channels, height, width], the shape and precision of
/// `x`, which `residual` has too. Statistics and arithmetic are in float32 at least.
///
/// On a CPU, where no gradient is wanted, the result takes over the memory of `x`, which therefore
/// must be in no other use.
///
/// # Panics
/// Like the operations of `tch`, when shapes do not fit.
pub fn normalise(
    x: Tensor,
    norm: &BatchNorm<'_>,
    residual: Option<&Tensor>,
    activation: Activation,
    stats: BatchStats,
) -> Normalised {
    let mut inputs = vec![&x, norm.weight, norm.bias];
    inputs.extend(residual);
    let keep = if gradients_wanted(&inputs) { Keep::Both } else { Keep::Output };
    // A gradient through fixed statistics, which only unusual training wants, is libtorch's.
    let ours = x.device() == Device::Cpu
        && x.dim() == 4
        && x.numel() > 0
        && (stats != BatchStats::Running || keep == Keep::Output);
    let _kernel = profile::kernel(Kernel::Normalisation, 0.0);
    match x.kind() {
        Kind::Float if ours => fused::<f32>(x, norm, residual, activation, stats, keep),
        Kind::BFloat16 if ours => fused::<BFloat16>(x, norm, residual, activation, stats, keep),
        _ => {
            let tensor = by_libtorch(&x, norm, residual, activation, stats);
            Normalised { tensor, recompute: None }
        }
    }
}

/// The same by libtorch's operations, which autograd differentiates, on any device.
pub(super) fn by_libtorch(
    x: &Tensor,
    norm: &BatchNorm<'_>,
    residual: Option<&Tensor>,
    activation: Activation,
    stats: BatchStats,
) -> Tensor {
    // The moving averages of all momentum are the batch's statistics themselves.
    let recorded = (stats == BatchStats::Recorded)
        .then(|| [norm.running_mean, norm.running_var].map(|running| running.to_kind(Kind::Float)));
    let (running_mean, running_var, momentum) = match &recorded {
        Some([mean, var]) => (mean, var, 1.0),
        None => (norm.running_mean, norm.running_var, MOMENTUM),
    };
    let mut y = x.batch_norm(
        Some(norm.weight),
        Some(norm.bias),
        Some(running_mean),
        Some(running_var),
        stats != BatchStats::Running,
        momentum,
        EPSILON,
        true,
    );
    if let Some([mean, var]) = &recorded {
        norm.running_mean.shallow_clone().copy_(mean);
        norm.running_var.shallow_clone().copy_(var);
    }
    // In place: autograd needs batch norm's input and ReLU's output, never what lies between.
    if let Some(residual) = residual {
        y += residual;
    }
    match activation {
        Activation::Relu => y.relu_(),
        Activation::None => y,
    }
}

/// [`normalise`] for elements of type `T`; differentiable in training mode.
fn fused<T: Element>(
    x: Tensor,
    norm: &BatchNorm<'_>,
    residual: Option<&Tensor>,
    activation: Activation,
    stats: BatchStats,
    keep: Keep,
) -> Normalised {
    let (y, backward) = tch::no_grad(|| {
        let rows = channels_last(&x.detach().to_kind(T::KIND));
        forward::<T>(rows, norm, residual, activation, stats, keep)
    });
    if keep == Keep::Output {
        return Normalised { tensor: y, recompute: None };
    }
    // Without a residual, one more pass over the input, which is kept anyway, makes the output.
    let recompute = (!backward.has_residual).then(|| {
        let (x_rows, partition) = (backward.x_rows.shallow_clone(), backward.partition);
        let (affine, floor) = (backward.affine.clone(), activation.floor());
        Recompute::new(move || {
            let mut y_rows = Tensor::empty(x_rows.size(), (T::KIND, Device::Cpu));
            let (x, y) = (Some(elements::<T>(&x_rows)), elements_mut::<T>(&mut y_rows));
            write(x, None, &affine, floor, y, &partition);
            y_rows.permute([0, 3, 1, 2])
        })
    });
    let mut inputs = vec![&x, norm.weight, norm.bias];
    inputs.extend(residual);
    let tensor = differentiable(y, &inputs, move |gradient| {
        let _kernel = profile::kernel(Kernel::NormalisationGradient, 0.0);
        backward.run::<T>(gradient)
    });
    Normalised { tensor, recompute }
}
