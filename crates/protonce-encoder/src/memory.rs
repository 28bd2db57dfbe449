//! The memory of tensors on the CPU, for loops of our own: a tensor in, a slice of numbers out.

use std::ops::Range;

use tch::{Device, Kind, Tensor};

/// A number as activations hold it; arithmetic is in float32.
pub(super) trait Element: Copy + Default + Send + Sync + 'static {
    /// libtorch's name for it.
    const KIND: Kind;
    /// Exactly this number.
    fn widen(self) -> f32;
    /// The nearest number, ties to even.
    fn narrow(value: f32) -> Self;
}

impl Element for f32 {
    const KIND: Kind = Kind::Float;
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
    #[inline(always)]
    fn narrow(value: f32) -> f32 {
        value
    }
}

/// The upper half of a float32.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(transparent)]
pub(super) struct BFloat16(pub(super) u16);

impl Element for BFloat16 {
    const KIND: Kind = Kind::BFloat16;
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }
    #[inline(always)]
    fn narrow(value: f32) -> BFloat16 {
        let bits = value.to_bits();
        // Just under half of the last place, and the whole half where that place is odd.
        let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1));
        // The carry could turn a NaN into an infinity or a zero.
        let bits = if value.is_nan() { 0x7fc0_0000 } else { rounded };
        BFloat16((bits >> 16) as u16)
    }
}

/// The elements of a dense tensor on the CPU, in the order of memory.
///
/// # Panics
/// When it is not dense, not on the CPU or not of `T`'s kind.
pub(super) fn elements<T: Element>(tensor: &Tensor) -> &[T] {
    assert_dense::<T>(tensor);
    if tensor.numel() == 0 {
        return &[];
    }
    // SAFETY: dense, on the CPU and of `T`'s kind, so `numel` initialised elements lie there
    // (or zeroed or stale ones, which are numbers too); libtorch aligns to 64 bytes and views to
    // whole elements. The tensor keeps the memory alive while it is borrowed, and anyone who
    // writes to it has it borrowed mutably.
    unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast::<T>(), tensor.numel()) }
}

/// The elements of a dense tensor on the CPU, to be written.
///
/// The caller sees to it that no other tensor that shares this memory is read or written meanwhile:
/// tensors it made itself, θ, whose views are only read between steps, running statistics, or
/// what it was handed for sole use.
///
/// # Panics
/// When it is not dense, not on the CPU or not of `T`'s kind.
pub(super) fn elements_mut<T: Element>(tensor: &mut Tensor) -> &mut [T] {
    assert_dense::<T>(tensor);
    if tensor.numel() == 0 {
        return &mut [];
    }
    // SAFETY: as in `elements`; the tensor is borrowed mutably, and of tensors that share its memory
    // see above.
    unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast::<T>(), tensor.numel()) }
}

fn assert_dense<T: Element>(tensor: &Tensor) {
    assert!(
        tensor.device() == Device::Cpu && tensor.kind() == T::KIND && tensor.is_contiguous(),
        "not dense {:?} on the CPU: {tensor:?}",
        T::KIND
    );
}

/// The memory of [n, c, h, w] as [n, h, w, c], copied only where it is not laid out so.
pub(super) fn channels_last(tensor: &Tensor) -> Tensor {
    tensor.permute([0, 2, 3, 1]).contiguous()
}

/// Memory that threads write disjoint parts of.
pub(super) struct Shared<T> {
    start: *mut T,
    length: usize,
}

// SAFETY: only `slice` reaches the memory, and its callers keep to disjoint parts.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    pub(super) fn new(memory: &mut [T]) -> Shared<T> {
        Shared { start: memory.as_mut_ptr(), length: memory.len() }
    }

    /// # Safety
    /// No other thread may touch the range while the slice lives, and the memory must outlive it.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    pub(super) unsafe fn slice(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.length);
        // SAFETY: within the memory, and the caller's alone.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}
