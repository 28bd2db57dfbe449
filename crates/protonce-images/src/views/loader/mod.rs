//! Batches of views, made on several threads.
//!
//! Enters: a data set, and the images of each batch by their indices. Leaves: an iterator of batches
//! of normalised pixels in that order, the same to the bit for any number of threads. It exists so
//! that training does not wait for views: they are made while the batch before is trained on.

mod assembly;
mod batch;
mod error;
mod options;
mod queue;
mod recycler;
mod worker;

pub use batch::{Batch, Unreadable};
pub use error::LoaderError;
pub use options::{Crops, LoaderOptions};
pub use recycler::Recycler;

use std::sync::Arc;
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::data::{Dataset, ReadAhead};
use queue::Queue;

/// An iterator of [`Batch`]es in the order in which they were asked for.
///
/// The same batches come out bit for bit whatever the number of threads. An image that cannot be
/// read is left out of its batch and reported there. After an error the iterator ends. Dropping it
/// stops the threads as soon as each has finished the few images it is at.
#[derive(Debug)]
pub struct Loader {
    queue: Arc<Queue>,
    threads: Vec<JoinHandle<()>>,
    waited: Duration,
    failed: bool,
}

impl Loader {
    /// Begins to make the batches of views that `options` ask for.
    ///
    /// # Errors
    /// When a setting is out of range, an index is not in the data set or no thread can be started.
    pub fn new(dataset: Arc<Dataset>, options: LoaderOptions) -> Result<Loader, LoaderError> {
        options.views.validate()?;
        let length = dataset.len();
        if let Some(&index) = options.batches.iter().flatten().find(|&&index| index >= length) {
            return Err(LoaderError::IndexOutOfRange { index, length });
        }
        Loader::start(dataset, options)
    }

    /// Starts the threads for options that were checked.
    fn start(dataset: Arc<Dataset>, options: LoaderOptions) -> Result<Loader, LoaderError> {
        let threads = crate::threads(options.threads);
        let order = if dataset.is_remote() { options.batches.concat() } else { Vec::new() };
        let read_ahead = ReadAhead::begin(&dataset, order.into_iter());
        let read_ahead = read_ahead.map_err(LoaderError::Thread)?.map(Arc::new);
        let queue = Arc::new(Queue::new(options, threads));
        // Threads started before one fails are stopped by the drop of this loader.
        let mut loader =
            Loader { queue, threads: Vec::new(), waited: Duration::ZERO, failed: false };
        for number in 0..threads {
            let (dataset, queue) = (Arc::clone(&dataset), Arc::clone(&loader.queue));
            let read_ahead = read_ahead.clone();
            let thread = std::thread::Builder::new()
                .name(format!("views-{number}"))
                .spawn(move || worker::work(&dataset, &queue, read_ahead.as_deref()))
                .map_err(LoaderError::Thread)?;
            loader.threads.push(thread);
        }
        Ok(loader)
    }

    /// Time the consumer has spent waiting for a batch: what a faster input would have saved.
    pub fn waited(&self) -> Duration {
        self.waited
    }

    /// Threads that make views.
    pub fn threads(&self) -> usize {
        self.threads.len()
    }

    /// The next batch, if it is ready within `patience`: for a consumer that has something else to
    /// look after meanwhile. The item is what [`Iterator::next`] gives.
    pub fn poll(&mut self, patience: Duration) -> Poll<Option<Result<Batch, LoaderError>>> {
        self.next_before(Instant::now().checked_add(patience))
    }

    /// The next batch, if it is ready before the `deadline`.
    fn next_before(
        &mut self,
        deadline: Option<Instant>,
    ) -> Poll<Option<Result<Batch, LoaderError>>> {
        if self.failed {
            return Poll::Ready(None);
        }
        let begin = Instant::now();
        let batch = self.queue.wait(deadline);
        if !matches!(batch, Poll::Ready(None)) {
            self.waited += begin.elapsed();
        }
        self.failed = matches!(batch, Poll::Ready(Some(Err(_))));
        batch
    }

    /// Hands back the memory of a batch's views for use in a later batch.
    ///
    /// Worth it for large views: the system gives memory to a process in pages of a few kilobytes
    /// and clears every one.
    pub fn recycle(&self, batch: Batch) {
        self.queue.recycle(batch);
    }

    /// The same for a consumer that does not have the loader at hand when it is done with a batch.
    pub fn recycler(&self) -> Recycler {
        Recycler::new(&self.queue)
    }
}

impl Iterator for Loader {
    type Item = Result<Batch, LoaderError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.next_before(None) {
            Poll::Ready(batch) => batch,
            // Without a deadline there is always an answer.
            Poll::Pending => None,
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.queue.left()))
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.queue.stop();
        for thread in self.threads.drain(..) {
            // A thread catches its own panics; there is nothing left to learn from it.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::views::ViewConfig;

    #[test]
    fn a_panic_in_a_thread_ends_the_iterator_with_an_error() {
        let folder = tempfile::tempdir().unwrap();
        image::RgbImage::new(9, 9).save(folder.path().join("a.png")).unwrap();
        let dataset = Arc::new(Dataset::open(folder.path().to_str().unwrap()).unwrap());
        // Settings that `validate` refuses stand in for a bug: the renderer panics on them.
        let views = ViewConfig { eval_resize: 2, ..ViewConfig::v2(4) };
        let batches = vec![vec![0]; 3];
        let options = LoaderOptions { views, batches, crops: Crops::Centre, threads: 2 };
        let mut loader = Loader::start(dataset, options).unwrap();
        match loader.next() {
            Some(Err(LoaderError::Panicked { index: 0, name, .. })) => assert_eq!(name, "a.png"),
            other => panic!("expected the panic as an error, found {other:?}"),
        }
        assert!(loader.next().is_none());
    }
}
