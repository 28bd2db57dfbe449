//! Fetches what will be read from an object store before it is.
//!
//! Enters: images in the order in which they will be read, and how far reading is. Leaves: their blocks, in
//! the cache or under way, some ahead of the readers: so that threads that make views wait for the network
//! as little as if the images were here.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::Dataset;
use super::store::Flight;

/// Blocks that are fetched at once.
const IN_FLIGHT: usize = 16;

/// Blocks that are fetched before the first image that needs them is read.
const AHEAD: usize = 64;

/// A thread that fetches; it begins no more once this is dropped.
#[derive(Debug)]
pub(crate) struct ReadAhead(Arc<Progress>);

#[derive(Debug, Default)]
struct Progress {
    state: Mutex<State>,
    moved: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Images whose reading has begun.
    begun: usize,
    stop: bool,
}

impl ReadAhead {
    /// Begins to fetch images of `dataset` that will be read in this `order`; nothing where they are on a disk.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn begin(
        dataset: &Arc<Dataset>,
        order: impl Iterator<Item = usize> + Send + 'static,
    ) -> io::Result<Option<ReadAhead>> {
        if !dataset.is_remote() {
            return Ok(None);
        }
        let progress = Arc::new(Progress::default());
        let (dataset, shared) = (Arc::clone(dataset), Arc::clone(&progress));
        // Nobody waits for its end, which may have to wait for a store that does not answer.
        std::thread::Builder::new()
            .name("read-ahead".to_owned())
            .spawn(move || fetch(&dataset, order, &shared))?;
        Ok(Some(ReadAhead(progress)))
    }

    /// Notes that so many more images are being read.
    pub fn advance(&self, images: usize) {
        self.0.lock().begun += images;
        self.0.moved.notify_all();
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        self.0.lock().stop = true;
        self.0.moved.notify_all();
    }
}

impl Progress {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn fetch(dataset: &Dataset, order: impl Iterator<Item = usize>, progress: &Progress) {
    let mut in_flight: VecDeque<Arc<Flight>> = VecDeque::new();
    // The position of the image for which each block was fetched.
    let mut ahead: VecDeque<usize> = VecDeque::new();
    for (position, image) in order.enumerate() {
        for flight in dataset.fetch(image) {
            ahead.push_back(position);
            in_flight.push_back(flight);
        }
        while in_flight.len() > IN_FLIGHT {
            in_flight.pop_front().iter().for_each(|flight| flight.has_landed());
        }
        let mut state = progress.lock();
        loop {
            if state.stop {
                return;
            }
            while ahead.front().is_some_and(|&position| position < state.begun) {
                ahead.pop_front();
            }
            if ahead.len() <= AHEAD {
                break;
            }
            state = progress.moved.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
