//! Convolutions by libtorch, which asks oneDNN on most processors and cuDNN on a GPU.
//!
//! tch offers the two gradients of a convolution only together and to autograd; here each is computed
//! alone, so that the other may come from another algorithm.
//!
//! `geometry` is stride, padding and groups everywhere.

use std::ffi::c_int;

use crate::message::Message;
use tch::Tensor;
use torch_sys::C_tensor;

unsafe extern "C" {
    fn protonce_convolution_gradient(
        gradient: *const C_tensor,
        x: *const C_tensor,
        weight: *const C_tensor,
        stride: i64,
        padding: i64,
        groups: i64,
        of_weight: c_int,
        message: *mut Message,
    ) -> *mut C_tensor;
    fn protonce_deterministic_cudnn();
}

/// The result, differentiable by libtorch itself.
///
/// # Panics
/// When shapes do not fit.
pub(super) fn forward(x: &Tensor, weight: &Tensor, [stride, padding, groups]: [i64; 3]) -> Tensor {
    x.conv2d(weight, None::<&Tensor>, [stride, stride], [padding, padding], [1, 1], groups)
}

/// The gradient of the input `x` alone, for the `gradient` of the result.
///
/// # Panics
/// When libtorch fails, for example for lack of memory.
pub(super) fn input_gradient(
    gradient: &Tensor,
    x: &Tensor,
    weight: &Tensor,
    geometry: [i64; 3],
) -> Tensor {
    one_gradient(gradient, x, weight, geometry, false)
}

/// The gradient of the weight alone, for the `gradient` of the result.
///
/// # Panics
/// When libtorch fails, for example for lack of memory.
pub(super) fn weight_gradient(
    gradient: &Tensor,
    x: &Tensor,
    weight: &Tensor,
    geometry: [i64; 3],
) -> Tensor {
    one_gradient(gradient, x, weight, geometry, true)
}

fn one_gradient(
    gradient: &Tensor,
    x: &Tensor,
    weight: &Tensor,
    [stride, padding, groups]: [i64; 3],
    of_weight: bool,
) -> Tensor {
    let mut message = Message::EMPTY;
    // SAFETY: live tensors that the callee only reads.
    let found = unsafe {
        protonce_convolution_gradient(
            gradient.as_ptr(),
            x.as_ptr(),
            weight.as_ptr(),
            stride,
            padding,
            groups,
            c_int::from(of_weight),
            &mut message,
        )
    };
    message.panic_if_any();
    // SAFETY: without a message, a new tensor that is ours.
    unsafe { Tensor::from_ptr(found) }
}

/// From now on cuDNN uses only those of its convolutions that give the same bits every time.
pub(crate) fn deterministic_cudnn() {
    // SAFETY: sets a flag.
    unsafe { protonce_deterministic_cudnn() }
}
