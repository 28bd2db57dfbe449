//! From the loader's memory to the device that computes: numbers and pixels in, tensors out.

use crate::message::Message;
use tch::kind::Element;
use tch::{Device, Tensor};
use torch_sys::C_tensor;

unsafe extern "C" {
    fn protonce_pinned(tensor: *const C_tensor, message: *mut Message) -> *mut C_tensor;
}

/// `values` on `device`: \[values\]. A GPU is not waited for: the work queued there goes on during the
/// copy.
///
/// # Panics
/// When libtorch fails, for example for lack of memory.
pub fn upload<T: Element>(values: &[T], device: Device) -> Tensor {
    match device {
        Device::Cuda(_) => {
            let (data, length) = (values.as_ptr().cast(), values.len() as i64);
            // SAFETY: initialised numbers of that kind, borrowed until they are copied.
            let borrowed =
                unsafe { Tensor::from_blob(data, &[length], &[1], T::KIND, Device::Cpu) };
            pinned(&borrowed).to_device_(device, T::KIND, true, false)
        }
        _ => Tensor::from_slice(values).to_device(device),
    }
}

/// Pixels as a loader makes them, row-major [batch, size, size, 3], as an image tensor on `device`:
/// float32 [batch, 3, size, size] in channels-last memory.
///
/// # Panics
/// When the pixels are no whole number of images, or libtorch fails, for example for lack of memory.
pub fn image_tensor(pixels: &[f32], size: usize, device: Device) -> Tensor {
    let size = size as i64;
    // NHWC permuted to NCHW *is* channels-last, and stays so through the network.
    upload(pixels, device).view([-1, size, size, 3]).permute([0, 3, 1, 2])
}

/// A copy of `tensor`, which is on the CPU, in page-locked memory, which a GPU reads by itself while the
/// processor does something else.
fn pinned(tensor: &Tensor) -> Tensor {
    let mut message = Message::EMPTY;
    // SAFETY: a live tensor that the callee only reads.
    let copy = unsafe { protonce_pinned(tensor.as_ptr(), &mut message) };
    message.panic_if_any();
    // SAFETY: without a message, a new tensor that is ours.
    unsafe { Tensor::from_ptr(copy) }
}
