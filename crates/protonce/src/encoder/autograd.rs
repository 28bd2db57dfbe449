//! Operations whose backward pass is ours.
//!
//! libtorch differentiates what is built from its own operations. Where a loop of our own is faster,
//! [`differentiable`] puts its result into the autograd graph with a closure for the way back, and
//! [`parallel_for`] runs the loop on the threads that libtorch computes with, so that the two never
//! fight for cores. The C++ half is `autograd.cpp`, since tch offers neither.

use std::ffi::{c_int, c_void};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tch::Tensor;
use torch_sys::C_tensor;

unsafe extern "C" {
    fn protonce_attach(
        output: *mut C_tensor,
        inputs: *const *mut C_tensor,
        count: usize,
        closure: *mut c_void,
        backward: unsafe extern "C" fn(*mut c_void, *mut C_tensor, *mut *mut C_tensor) -> c_int,
        drop: unsafe extern "C" fn(*mut c_void),
    );
    fn protonce_parallel_for(
        count: i64,
        grain: i64,
        body: unsafe extern "C" fn(*mut c_void, i64, i64),
        context: *mut c_void,
    );
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

/// Whether an operation on `inputs` has to remember anything for a way back.
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
/// room for as many pointers as there were inputs.
unsafe extern "C" fn run_backward(
    closure: *mut c_void,
    gradient: *mut C_tensor,
    gradients: *mut *mut C_tensor,
) -> c_int {
    let result = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: see above; the engine runs a node on one thread at a time.
        let (count, backward) = unsafe { &mut *closure.cast::<(usize, Backward)>() };
        // SAFETY: a shallow clone has a reference of its own.
        let gradient = unsafe { Tensor::clone_from_ptr(gradient) };
        let found = backward(&gradient);
        assert_eq!(found.len(), *count, "one gradient, or none, for each input");
        for (place, tensor) in found.into_iter().enumerate() {
            if let Some(mut tensor) = tensor {
                // SAFETY: within the room; the caller takes over the clone that is left behind.
                unsafe {
                    *gradients.add(place) = torch_sys::at_shallow_clone(tensor.as_mut_ptr());
                }
            }
        }
    }));
    c_int::from(result.is_err())
}

/// # Safety
/// `closure` is one that [`differentiable`] handed out and was not dropped before.
unsafe extern "C" fn drop_closure(closure: *mut c_void) {
    // SAFETY: made by `Box::into_raw` of this type.
    drop(unsafe { Box::from_raw(closure.cast::<(usize, Backward)>()) });
}

/// Calls `body` with ranges that together cover 0..`count`, each of at least `grain` where possible,
/// at the same time on libtorch's threads. Which range falls to which thread depends on nothing but
/// `count`, `grain` and the number of threads.
pub(crate) fn parallel_for(count: usize, grain: usize, body: impl Fn(Range<usize>) + Sync) {
    unsafe extern "C" fn call<F: Fn(Range<usize>) + Sync>(
        context: *mut c_void,
        begin: i64,
        end: i64,
    ) {
        // SAFETY: `context` is the `body` below, which outlives the loop and may be shared.
        let body = unsafe { &*context.cast::<F>() };
        // A panic must not unwind through C++.
        if catch_unwind(AssertUnwindSafe(|| body(begin as usize..end as usize))).is_err() {
            std::process::abort();
        }
    }
    fn trampoline<F: Fn(Range<usize>) + Sync>(
        _: &F,
    ) -> unsafe extern "C" fn(*mut c_void, i64, i64) {
        call::<F>
    }
    let context: *const _ = &body;
    // SAFETY: the loop ends before this returns, so `body` lives long enough.
    unsafe {
        protonce_parallel_for(
            count as i64,
            grain.max(1) as i64,
            trampoline(&body),
            context.cast_mut().cast(),
        );
    }
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
        let output = differentiable(&x * 2.0, &[&x], |_| unreachable!("no way back"));
        assert!(!output.requires_grad());
    }

    #[test]
    fn a_parallel_loop_covers_every_index_once() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        let visits: Vec<AtomicUsize> = (0..1000).map(|_| AtomicUsize::new(0)).collect();
        parallel_for(visits.len(), 7, |range| {
            for index in range {
                visits[index].fetch_add(1, Ordering::Relaxed);
            }
        });
        assert!(visits.iter().all(|count| count.load(Ordering::Relaxed) == 1));
    }
}
