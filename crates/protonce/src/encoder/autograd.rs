//! Operations whose backward pass is ours.
//!
//! libtorch differentiates what is built from its own operations. Where a loop of our own is faster,
//! [`differentiable`] puts its result into the autograd graph with a closure for the way back, and
//! [`parallel_for`] runs the loop on the threads that libtorch computes with, so that the two never
//! fight for cores. The C++ half is `autograd.cpp`, since tch offers neither.

use std::any::Any;
use std::ffi::{c_char, c_int, c_void};
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
    fn protonce_parallel_for(
        count: i64,
        grain: i64,
        body: unsafe extern "C" fn(*mut c_void, i64, i64),
        context: *mut c_void,
    );
    fn protonce_pinned(tensor: *const C_tensor, message: *mut Message) -> *mut C_tensor;
    fn protonce_repeatable_convolutions();
}

/// A sentence that crosses from one language to the other, ended by a zero; empty when nothing went
/// wrong.
#[repr(C)]
struct Message([c_char; 1024]);

impl Message {
    const EMPTY: Message = Message([0; 1024]);

    /// The sentence of a panic.
    fn of(panic: &(dyn Any + Send)) -> Message {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .filter(|text| !text.is_empty())
            .unwrap_or("a backward pass written in Rust panicked");
        let mut message = Message::EMPTY;
        // The last place stays zero.
        for (place, byte) in message.0[..1023].iter_mut().zip(text.bytes()) {
            *place = byte as c_char;
        }
        message
    }

    /// Goes on as tch does when libtorch complains: panics with its words.
    fn panic_if_any(&self) {
        let bytes: Vec<u8> =
            self.0.iter().map(|&byte| byte as u8).take_while(|&byte| byte != 0).collect();
        if !bytes.is_empty() {
            std::panic::panic_any(String::from_utf8_lossy(&bytes).into_owned());
        }
    }
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

/// What a gradient of a convolution is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    Input,
    Weight,
}

/// libtorch's gradient of a convolution's input `x` or of its weight, alone.
///
/// # Panics
/// When libtorch fails, for example for lack of memory.
pub(super) fn convolution_gradient(
    of: Of,
    gradient: &Tensor,
    x: &Tensor,
    weight: &Tensor,
    [stride, padding, groups]: [i64; 3],
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
            c_int::from(of == Of::Weight),
            &mut message,
        )
    };
    message.panic_if_any();
    // SAFETY: without a message, a new tensor that is ours.
    unsafe { Tensor::from_ptr(found) }
}

/// A copy of `tensor`, which is on the CPU, in memory that stays in its place, so that a GPU can fetch it
/// while the processor does something else.
///
/// # Panics
/// When libtorch fails, for example for want of a GPU.
pub(crate) fn pinned(tensor: &Tensor) -> Tensor {
    let mut message = Message::EMPTY;
    // SAFETY: a live tensor that the callee only reads.
    let copy = unsafe { protonce_pinned(tensor.as_ptr(), &mut message) };
    message.panic_if_any();
    // SAFETY: without a message, a new tensor that is ours.
    unsafe { Tensor::from_ptr(copy) }
}

/// From now on cuDNN takes only those of its convolutions that give the same bits every time.
pub(super) fn repeatable_convolutions() {
    // SAFETY: sets a flag.
    unsafe { protonce_repeatable_convolutions() }
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
        for (place, tensor) in found.into_iter().enumerate() {
            if let Some(mut tensor) = tensor {
                // SAFETY: within the room; the caller takes over the clone that is left behind.
                unsafe {
                    *gradients.add(place) = torch_sys::at_shallow_clone(tensor.as_mut_ptr());
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

/// Calls `body` with ranges that together cover 0..`count`, each of at least `grain` where possible,
/// at the same time on libtorch's threads. Which range falls to which thread depends on nothing but
/// `count`, `grain` and the number of threads.
pub(crate) fn parallel_for(count: usize, grain: usize, body: impl Fn(Range<usize>) + Sync) {
    unsafe extern "C" fn context<F: Fn(Range<usize>) + Sync>(
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
        context::<F>
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
        let output = differentiable(&x * 2.0, &[&x], |_| unreachable!("no algorithm back"));
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
