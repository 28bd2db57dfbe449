//! A convolution as an operation of the network: images and weight in, the result out, with a backward
//! pass whose gradients are each computed by an algorithm of its own.

use tch::{Device, Tensor};

use super::algorithm::ConvAlgorithms;
use super::libtorch;
use super::passes::{forward, input_gradient, weight_gradient};
use super::shape::ConvShape;
use crate::autograd::differentiable;
use crate::profile::{self, Kernel};
use crate::recompute::Recompute;

/// Convolves `x` [n, in, h, w] with `weight` [out, in / groups, size, size], both of one precision:
/// [n, out, h', w'], on a CPU in channels-last memory. Differentiable in both; what is kept for the
/// backward pass is `weight` and `x`, the latter only where there is no `recompute` for it. `geometry`
/// is stride, padding and groups. `algorithms` holds on a CPU, elsewhere libtorch computes.
///
/// # Panics
/// When shapes do not fit, or an algorithm does not compute a pass of this shape; see
/// [`ConvAlgorithm::computes`](super::ConvAlgorithm::computes).
pub fn convolve(
    x: &Tensor,
    recompute: Option<Recompute>,
    weight: &Tensor,
    geometry: [i64; 3],
    algorithms: ConvAlgorithms,
) -> Tensor {
    let shape = ConvShape::of(x, weight, geometry);
    if x.device() != Device::Cpu {
        return libtorch::forward(x, weight, geometry);
    }
    let operations = shape.operations();
    let y = tch::no_grad(|| {
        let _kernel = profile::kernel(Kernel::Convolution, operations);
        forward(x, weight, &shape, algorithms.forward)
    });
    let wanted = [x.requires_grad(), weight.requires_grad()];
    let weight_kept = weight.detach();
    let x_kept: Box<dyn Fn() -> Tensor + Send> = match recompute {
        Some(recompute) => Box::new(move || {
            let _kernel = profile::kernel(Kernel::Normalisation, 0.0);
            recompute.run()
        }),
        None => {
            let x = x.detach();
            Box::new(move || x.shallow_clone())
        }
    };
    differentiable(y, &[x, weight], move |gradient| {
        let (x, weight) = (&x_kept(), &weight_kept);
        let of_input = wanted[0].then(|| {
            let _kernel = profile::kernel(Kernel::InputGradient, operations);
            input_gradient(gradient, x, weight, &shape, algorithms.input_gradient)
        });
        let of_weight = wanted[1].then(|| {
            let _kernel = profile::kernel(Kernel::WeightGradient, operations);
            weight_gradient(gradient, x, weight, &shape, algorithms.weight_gradient)
        });
        vec![of_input, of_weight]
    })
}
