//! Operations whose backward pass is written in Rust.
//!
//! libtorch differentiates what is built from its own operations. Where a loop of our own is faster,
//! [`differentiable`] puts its result into the autograd graph with a closure for the backward pass. The
//! C++ half is `autograd.cpp`, since tch offers no such thing.

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::message::Message;
use tch::Tensor;
use torch_sys::C_tensor;

unsafe extern "C" {
    fn protonce_attach(
        output: *mut C_tensor,
        inputs: *const *mut C_tensor,
        count: usize,
        closure: *mut c_void,
        backward: unsafe extern "C" fn(
            *mut c_void,
            *mut C_tensor,
            *mut *mut C_tensor,
            *mut Message,
        ),
        drop: unsafe extern "C" fn(*mut c_void),
    );
    fn protonce_gradients(
        output: *const C_tensor,
        gradient: *const C_tensor,
        inputs: *const *mut C_tensor,
        count: usize,
        gradients: *mut *mut C_tensor,
        message: *mut Message,
    );
}

/// The gradients of `inputs` for the `gradient` of `output`, whose graph is freed.
///
/// # Panics
/// When libtorch fails, for example for lack of memory.
pub(super) fn gradients(output: &Tensor, gradient: &Tensor, inputs: &[&Tensor]) -> Vec<Tensor> {
    let pointers: Vec<*mut C_tensor> =
        inputs.iter().map(|input| input.as_ptr().cast_mut()).collect();
    let mut found = vec![std::ptr::null_mut(); inputs.len()];
    let mut message = Message::EMPTY;
    // SAFETY: live tensors that the callee only reads, and room for as many results as inputs.
    unsafe {
        protonce_gradients(
            output.as_ptr(),
            gradient.as_ptr(),
            pointers.as_ptr(),
            inputs.len(),
            found.as_mut_ptr(),
            &mut message,
        );
    }
    message.panic_if_any();
    // SAFETY: without a message, each is a new tensor that is ours.
    found.into_iter().map(|tensor| unsafe { Tensor::from_ptr(tensor) }).collect()
}

/// From the gradient of an output to those of its inputs, in their order; `None` for an input that
/// needs none.
type Backward = Box<dyn FnMut(&Tensor) -> Vec<Option<Tensor>> + Send>;

/// Makes `output`, which was computed from `inputs` without a gradient, differentiable by
/// `backward`. Where no input needs a gradient, `output` stays as it is.
pub(super) fn differentiable(
    mut output: Tensor,
    inputs: &[&Tensor],
    backward: impl FnMut(&Tensor) -> Vec<Option<Tensor>> + Send + 'static,
) -> Tensor {
    if !gradients_wanted(inputs) {
        return output;
    }
    let pointers: Vec<*mut C_tensor> =
        inputs.iter().map(|input| input.as_ptr().cast_mut()).collect();
    let count = inputs.len();
    let closure: Box<(usize, Backward)> = Box::new((count, Box::new(backward)));
    // SAFETY: `output` and `inputs` are live tensors that the callee only reads, apart from setting
    // the output's history. It takes over `closure` and gives it to `drop_closure` exactly once.
    unsafe {
        protonce_attach(
            output.as_mut_ptr(),
            pointers.as_ptr(),
            count,
            Box::into_raw(closure).cast(),
            run_backward,
            drop_closure,
        );
    }
    output
}

/// Whether an operation on `inputs` has to keep anything for a backward pass.
pub(super) fn gradients_wanted(inputs: &[&Tensor]) -> bool {
    tch_grad_enabled() && inputs.iter().any(|input| input.requires_grad())
}

/// Whether gradients are recorded now.
fn tch_grad_enabled() -> bool {
    // SAFETY: sets a thread-local flag of libtorch and returns the one before, which is put back.
    unsafe {
        let before = torch_sys::at_grad_set_enabled(0);
        torch_sys::at_grad_set_enabled(before);
        before != 0
    }
}

/// # Safety
/// `closure` is one that [`differentiable`] handed out, `gradient` a live tensor and `gradients` has
/// room for as many pointers as there were inputs; `message` is an empty one.
unsafe extern "C" fn run_backward(
    closure: *mut c_void,
    gradient: *mut C_tensor,
    gradients: *mut *mut C_tensor,
    message: *mut Message,
) {
    let result = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: see above; the engine runs a node on one thread at a time.
        let (count, backward) = unsafe { &mut *closure.cast::<(usize, Backward)>() };
        // SAFETY: a shallow clone has a reference of its own.
        let gradient = unsafe { Tensor::clone_from_ptr(gradient) };
        let found = backward(&gradient);
        assert_eq!(found.len(), *count, "one gradient, or none, for each input");
        for (number, tensor) in found.into_iter().enumerate() {
            if let Some(mut tensor) = tensor {
                // SAFETY: within the room; the caller takes over the clone that is left behind.
                unsafe {
                    *gradients.add(number) = torch_sys::at_shallow_clone(tensor.as_mut_ptr());
                }
            }
        }
    }));
    if let Err(panic) = result {
        // SAFETY: the caller's, and its alone.
        unsafe { *message = Message::of(&*panic) };
    }
}

/// # Safety
/// `closure` is one that [`differentiable`] handed out and was not dropped before.
unsafe extern "C" fn drop_closure(closure: *mut c_void) {
    // SAFETY: made by `Box::into_raw` of this type.
    drop(unsafe { Box::from_raw(closure.cast::<(usize, Backward)>()) });
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    #[test]
    fn a_backward_pass_in_rust_takes_part_in_the_graph() {
        let options = (Kind::Float, Device::Cpu);
        let x = Tensor::arange(4, options).set_requires_grad(true);
        let scale = Tensor::full([4], 3.0, options);
        let doubled = &x * 2.0;
        let output = tch::no_grad(|| &doubled * &scale);
        let (saved, scale_saved) = (doubled.detach(), scale.shallow_clone());
        let output = differentiable(output, &[&doubled, &scale], move |gradient| {
            vec![Some(gradient * &scale_saved), Some(gradient * &saved)]
        });
        let loss = output.square().sum(Kind::Float);
        // loss = Σ (6x)², so its gradient is 72x.
        let gradient = Tensor::run_backward(&[&loss], &[&x], false, false).remove(0);
        assert_eq!(gradient, &x.detach() * 72.0);
    }

    #[test]
    fn without_gradients_nothing_is_recorded() {
        let x = Tensor::ones([2], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let _guard = tch::no_grad_guard();
        let output = differentiable(&x * 2.0, &[&x], |_| unreachable!("no backward pass"));
        assert!(!output.requires_grad());
    }
}
