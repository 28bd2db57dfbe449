//! Parallel loops on the threads that libtorch computes with, so that loops of our own and libtorch's
//! never compete for cores.

use std::ffi::c_void;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};

unsafe extern "C" {
    fn protonce_parallel_for(
        count: i64,
        grain: i64,
        body: unsafe extern "C" fn(*mut c_void, i64, i64),
        context: *mut c_void,
    );
}

/// Calls `body` with ranges that together cover 0..`count`, each of at least `grain` where possible,
/// at the same time on libtorch's threads. How the ranges are shared out depends on nothing but
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

/// The chunks of a slice, each written by the one thread of a parallel loop that locks it.
pub(super) struct ChunksMut<'a, T>(Vec<Mutex<&'a mut [T]>>);

impl<'a, T> ChunksMut<'a, T> {
    /// Chunks of `length` elements, the last of what is left.
    pub(super) fn new(elements: &'a mut [T], length: usize) -> ChunksMut<'a, T> {
        ChunksMut(elements.chunks_mut(length).map(Mutex::new).collect())
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Chunk `number`, for the caller alone until it drops the guard.
    pub(super) fn lock(&self, number: usize) -> MutexGuard<'_, &'a mut [T]> {
        self.0[number].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
