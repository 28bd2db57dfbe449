//! The batches in the making, which the threads fill in order and the consumer takes in order.
//!
//! Threads take a few images at a time, not one batch, so that the first batch is ready as soon as the
//! cores together can make it: one image where views are large, more where they are made so quickly
//! that threads would contend for the lock. How far threads run ahead is bounded; a consumer that
//! pauses makes them pause.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use super::assembly::{Assembly, Slot, Spare};
use super::{Batch, Crops, LoaderError, LoaderOptions, Unreadable};
use crate::views::ViewConfig;

/// What the consumer and the threads share.
#[derive(Debug)]
pub(super) struct Queue {
    /// What a view looks like.
    pub(super) config: ViewConfig,
    /// The images of each batch.
    pub(super) batches: Vec<Vec<usize>>,
    /// Which views of an image.
    pub(super) crops: Crops,
    /// Sides of the views of an image.
    sizes: Vec<usize>,
    /// Batches that may be open at once.
    ahead: usize,
    /// Images that a thread takes at a time.
    at_once: usize,
    state: Mutex<State>,
    /// Signalled when a batch was taken, or when threads should stop.
    room: Condvar,
    /// Signalled when a batch is complete, or when a thread failed.
    ready: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Batches the consumer has taken; the first in `open` is the next one.
    taken: usize,
    /// Batches begun and not yet taken.
    open: VecDeque<Assembly>,
    /// The next image to hand out: its batch, its position in that batch.
    next: (usize, usize),
    spare: Spare,
    error: Option<LoaderError>,
    stop: bool,
}

/// Neighbouring images of a batch to make views of.
pub(super) struct Task {
    /// Number of the batch.
    pub(super) batch: usize,
    /// Positions of the images in it.
    pub(super) positions: Range<usize>,
}

impl Queue {
    /// A queue for so many `threads`.
    pub(super) fn new(options: LoaderOptions, threads: usize) -> Queue {
        let LoaderOptions { views: config, batches, crops, .. } = options;
        let sizes = crops.sizes(&config);
        let state = State { spare: vec![Vec::new(); sizes.len()], ..State::default() };
        let largest = batches.iter().map(Vec::len).max().unwrap_or(0);
        Queue {
            ahead: batches_ahead(&sizes, largest, threads),
            at_once: images_at_once(&sizes, largest, threads),
            config,
            batches,
            crops,
            sizes,
            state: Mutex::new(state),
            room: Condvar::new(),
            ready: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under the lock, and if it did the state would still be whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // For the consumer.

    /// Batches that were not taken yet.
    pub(super) fn left(&self) -> usize {
        self.batches.len() - self.lock().taken
    }

    /// Waits for the next batch, until `deadline` if there is one; none after the last.
    pub(super) fn wait(
        &self,
        deadline: Option<Instant>,
    ) -> Poll<Option<Result<Batch, LoaderError>>> {
        let mut state = self.lock();
        let Some(asked) = self.batches.get(state.taken) else { return Poll::Ready(None) };
        let assembly = loop {
            if let Some(error) = state.error.take() {
                return Poll::Ready(Some(Err(error)));
            }
            if state.open.front().is_some_and(Assembly::is_complete)
                && let Some(assembly) = state.open.pop_front()
            {
                break assembly;
            }
            state =
                match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                    Some(Duration::ZERO) => return Poll::Pending,
                    Some(left) => {
                        let woken = self.ready.wait_timeout(state, left);
                        woken.unwrap_or_else(PoisonError::into_inner).0
                    }
                    None => self.ready.wait(state).unwrap_or_else(PoisonError::into_inner),
                };
        };
        state.taken += 1;
        drop(state);
        self.room.notify_all();
        Poll::Ready(Some(Ok(assembly.into_batch(asked, &self.crops, &self.config))))
    }

    /// Keeps the memory of a batch's views for a later batch.
    pub(super) fn recycle(&self, batch: Batch) {
        let mut state = self.lock();
        let (mut views, mut local_views) = (batch.views.into_iter(), batch.local_views.into_iter());
        for (number, spare) in state.spare.iter_mut().enumerate() {
            let buffers = if self.crops.is_local(number) { &mut local_views } else { &mut views };
            if let Some(buffer) = buffers.next()
                && spare.len() < 2
            {
                spare.push(buffer);
            }
        }
    }

    /// Lets every thread end as soon as it has finished the few images it is at.
    pub(super) fn stop(&self) {
        self.lock().stop = true;
        self.room.notify_all();
    }

    // For the threads.

    /// The next images, once there is room for their batch, and the memory of their views; none when
    /// all are handed out.
    pub(super) fn take(&self, slots: &mut Vec<Slot>) -> Option<Task> {
        let mut state = self.lock();
        loop {
            let (batch, position) = state.next;
            if state.stop || batch >= self.batches.len() {
                return None;
            }
            if batch >= state.taken + self.ahead {
                state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let images = self.batches[batch].len();
            if position == 0 {
                let assembly = Assembly::new(images, &self.sizes, &mut state.spare);
                state.open.push_back(assembly);
            }
            if position >= images {
                // A batch without images is complete as it is.
                state.next = (batch + 1, 0);
                self.ready.notify_all();
                continue;
            }
            let positions = position..(position + self.at_once).min(images);
            state.next =
                if positions.end < images { (batch, positions.end) } else { (batch + 1, 0) };
            let assembly = batch - state.taken;
            state.open[assembly].slots(&positions, &self.sizes, slots);
            return Some(Task { batch, positions });
        }
    }

    /// Counts a task's images as finished; `unreadable` has the positions of those left out.
    pub(super) fn finish(&self, task: &Task, unreadable: Vec<(usize, Unreadable)>) {
        let mut state = self.lock();
        // A batch with pending images is never taken, so it is still there.
        let assembly = task.batch - state.taken;
        let assembly = &mut state.open[assembly];
        assembly.finish(task.positions.len(), unreadable);
        if assembly.is_complete() {
            drop(state);
            self.ready.notify_all();
        }
    }

    /// Ends the loader with an error.
    pub(super) fn fail(&self, error: LoaderError) {
        let mut state = self.lock();
        state.error = Some(error);
        state.stop = true;
        drop(state);
        self.ready.notify_all();
        self.room.notify_all();
    }
}

/// Batches that may be in the making at once: two at least so that threads have work while a batch
/// is consumed, enough to occupy every thread, and no more than fit in a fixed amount of memory.
///
/// `sizes` are the sides of an image's views, `largest` is the number of images in the largest batch.
fn batches_ahead(sizes: &[usize], largest: usize, threads: usize) -> usize {
    const MEMORY: usize = 512 << 20;
    const USUAL: usize = 4;
    let largest = largest.max(1);
    let numbers = sizes.iter().map(|size| size * size * 3).sum::<usize>();
    let fitting = MEMORY / (numbers * size_of::<f32>() * largest).max(1);
    let occupying = 2 * threads / largest + 1;
    fitting.min(occupying.max(USUAL)).max(2)
}

/// Images that a thread takes at a time: as many as make a good number of pixels, but no more than
/// leave every thread some of each batch.
fn images_at_once(sizes: &[usize], largest: usize, threads: usize) -> usize {
    const PIXELS: usize = 16_384;
    let pixels = sizes.iter().map(|size| size * size).sum::<usize>();
    (PIXELS / pixels.max(1)).min(largest / (4 * threads.max(1))).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_run_ahead_no_further_than_memory_allows() {
        let ahead = |size, batch, threads| batches_ahead(&[size, size], batch, threads);
        assert_eq!(ahead(32, 256, 2), 4);
        assert_eq!(ahead(224, 256, 64), 2);
        // Batches of one image must still occupy every thread.
        assert_eq!(ahead(32, 1, 16), 33);
    }

    #[test]
    fn threads_take_several_small_images_and_leave_some_to_the_others() {
        let at_once = |size, batch, threads| images_at_once(&[size, size], batch, threads);
        assert_eq!(at_once(32, 256, 2), 8);
        assert_eq!(at_once(32, 64, 16), 1);
        assert_eq!(at_once(224, 256, 2), 1);
        assert_eq!(at_once(32, 0, 2), 1);
    }
}
