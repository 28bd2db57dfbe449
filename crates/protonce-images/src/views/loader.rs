//! Batches of views, made on several threads, in the order of a plan.
//!
//! Threads take a few images at a time, not one batch, so that the first batch is ready as soon as the
//! cores together can make it: one where views are large, more where they are so quickly made that
//! threads would meet at the lock. A batch's memory is laid out before its first image is begun, and
//! every image is written straight to its place. How far threads run ahead is bounded; a consumer
//! that pauses makes them pause.

use std::any::Any;
use std::collections::VecDeque;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{CropBox, Decoder, Image, Renderer, View, ViewConfig, ViewParameters, ViewRandom};
use crate::data::Dataset;
use crate::settings::OutOfRange;

/// Views of the images of one step.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// The images that could be read, in the plan's order.
    pub indices: Vec<usize>,
    /// Query views and key views for training, centre crops alone for evaluation. Each is row-major
    /// [`indices.len()`, `image_size`, `image_size`, 3], normalised: permuted to channels first it
    /// is a channels-last tensor without a copy.
    pub views: Vec<Vec<f32>>,
    /// Side of a view in pixels.
    pub image_size: usize,
    /// The small views of multi-crop training, as many as are configured, laid out like `views` at
    /// `local_size` pixels a side.
    pub local_views: Vec<Vec<f32>>,
    /// Side of a small view in pixels.
    pub local_size: usize,
    /// The images of the plan that could not be read, in its order.
    pub unreadable: Vec<Unreadable>,
}

/// An image that was left out, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unreadable {
    /// Its index in the data set.
    pub index: usize,
    /// Its name in the data set.
    pub name: String,
    /// What went wrong, as a sentence.
    pub reason: String,
}

/// A loader that cannot start, or cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoaderError {
    /// A view setting is out of range.
    #[error(transparent)]
    Config(#[from] OutOfRange),
    /// The plan names an image that the data set does not have.
    #[error("the plan asks for image {index}: expected less than {length}, the number of images")]
    IndexOutOfRange {
        /// The image asked for.
        index: usize,
        /// Images in the data set.
        length: usize,
    },
    /// The operating system gives no more threads.
    #[error("cannot start a loader thread ({0}): expected one per core; use fewer threads")]
    Thread(std::io::Error),
    /// A thread met a bug in this program.
    #[error("making views of image {index} ({name}) panicked: {message}; please report this")]
    Panicked {
        /// The image in work.
        index: usize,
        /// Its name.
        name: String,
        /// The panic's message.
        message: String,
    },
}

/// An iterator of [`Batch`]es in the order of a plan.
///
/// The same batches come out bit for bit whatever the number of threads. An image that cannot be
/// read is left out of its batch and reported there. After an error the iterator ends. Dropping it
/// stops the threads as soon as each has finished the few images it is at.
#[derive(Debug)]
pub struct Loader {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    waited: Duration,
    failed: bool,
}

/// Which views are made.
#[derive(Clone, Copy, Debug)]
enum Mode {
    /// So many random views an image.
    Training { seed: u64, epoch: u64, views: usize },
    /// The centre crop.
    Evaluation,
}

impl Mode {
    /// Sides in pixels of the views of an image, full ones first.
    fn sizes(self, config: &ViewConfig) -> Vec<usize> {
        match self {
            Mode::Training { views, .. } => {
                let full = std::iter::repeat_n(config.image_size, views);
                full.chain(std::iter::repeat_n(config.local_size, config.local_views)).collect()
            }
            Mode::Evaluation => vec![config.image_size],
        }
    }
}

impl Loader {
    /// Query and key views of the batches of image indices in `plan`, which the caller has
    /// shuffled. `threads` 0 means one per core.
    ///
    /// # Errors
    /// When a setting is out of range, an index is not in the data set or no thread can be started.
    pub fn training(
        dataset: Arc<Dataset>,
        config: ViewConfig,
        plan: Vec<Vec<usize>>,
        seed: u64,
        epoch: u64,
        threads: usize,
    ) -> Result<Loader, LoaderError> {
        Loader::start(dataset, config, plan, Mode::Training { seed, epoch, views: 2 }, threads)
    }

    /// One random view an image and no small ones, otherwise as [`Loader::training`].
    ///
    /// # Errors
    /// When a setting is out of range, an index is not in the data set or no thread can be started.
    pub fn single(
        dataset: Arc<Dataset>,
        config: ViewConfig,
        plan: Vec<Vec<usize>>,
        seed: u64,
        epoch: u64,
        threads: usize,
    ) -> Result<Loader, LoaderError> {
        let config = ViewConfig { local_views: 0, ..config };
        Loader::start(dataset, config, plan, Mode::Training { seed, epoch, views: 1 }, threads)
    }

    /// Centre crops of the batches of image indices in `plan`. `threads` 0 means one per core.
    ///
    /// # Errors
    /// When a setting is out of range, an index is not in the data set or no thread can be started.
    pub fn evaluation(
        dataset: Arc<Dataset>,
        config: ViewConfig,
        plan: Vec<Vec<usize>>,
        threads: usize,
    ) -> Result<Loader, LoaderError> {
        Loader::start(dataset, config, plan, Mode::Evaluation, threads)
    }

    fn start(
        dataset: Arc<Dataset>,
        config: ViewConfig,
        plan: Vec<Vec<usize>>,
        mode: Mode,
        threads: usize,
    ) -> Result<Loader, LoaderError> {
        config.validate()?;
        let length = dataset.len();
        if let Some(&index) = plan.iter().flatten().find(|&&index| index >= length) {
            return Err(LoaderError::IndexOutOfRange { index, length });
        }
        let threads = crate::threads(threads);
        let ahead = batches_ahead(&config, &plan, mode, threads);
        let at_once = images_at_once(&config, &plan, mode, threads);
        Loader::spawn(Arc::new(Shared::new(dataset, config, plan, mode, ahead, at_once)), threads)
    }

    fn spawn(shared: Arc<Shared>, threads: usize) -> Result<Loader, LoaderError> {
        // Threads started before one fails are stopped by the drop of this loader.
        let mut loader =
            Loader { shared, threads: Vec::new(), waited: Duration::ZERO, failed: false };
        for number in 0..threads {
            let shared = Arc::clone(&loader.shared);
            let thread = std::thread::Builder::new()
                .name(format!("views-{number}"))
                .spawn(move || shared.work())
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

    /// Hands back the memory of a batch's views for use in a later batch.
    ///
    /// Worth it for large views: the system gives memory to a process in pages of a few kilobytes
    /// and clears every one.
    pub fn recycle(&self, batch: Batch) {
        let mut state = self.shared.lock();
        for (spare, buffer) in
            state.spare.iter_mut().zip(batch.views.into_iter().chain(batch.local_views))
        {
            if spare.len() < 2 {
                spare.push(buffer);
            }
        }
    }
}

impl Iterator for Loader {
    type Item = Result<Batch, LoaderError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let shared = &self.shared;
        let mut state = shared.lock();
        let batch = state.taken;
        let indices = shared.plan.get(batch)?;
        let begin = Instant::now();
        let assembly = loop {
            if let Some(error) = state.error.take() {
                self.failed = true;
                return Some(Err(error));
            }
            if state.open.front().is_some_and(|assembly| assembly.pending == 0)
                && let Some(assembly) = state.open.pop_front()
            {
                break assembly;
            }
            state = shared.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
        };
        state.taken += 1;
        drop(state);
        shared.room.notify_all();
        self.waited += begin.elapsed();
        Some(Ok(assembly.into_batch(indices, &shared.config)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.shared.plan.len() - self.shared.lock().taken;
        (0, Some(left))
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.room.notify_all();
        for thread in self.threads.drain(..) {
            // A thread catches its own panics; there is nothing left to learn from it.
            let _ = thread.join();
        }
    }
}

/// Batches that may be in the making at once: two at least so that threads have work while a batch
/// is consumed, enough to occupy every thread, and no more than fit in a fixed amount of memory.
fn batches_ahead(config: &ViewConfig, plan: &[Vec<usize>], mode: Mode, threads: usize) -> usize {
    const MEMORY: usize = 512 << 20;
    const USUAL: usize = 4;
    let largest = plan.iter().map(Vec::len).max().unwrap_or(0).max(1);
    let numbers = mode.sizes(config).iter().map(|size| size * size * 3).sum::<usize>();
    let fitting = MEMORY / (numbers * size_of::<f32>() * largest).max(1);
    let occupying = 2 * threads / largest + 1;
    fitting.min(occupying.max(USUAL)).max(2)
}

/// Images that a thread takes at a time: as many as make a good number of pixels, but no more than
/// leave every thread some of each batch.
fn images_at_once(config: &ViewConfig, plan: &[Vec<usize>], mode: Mode, threads: usize) -> usize {
    const PIXELS: usize = 16_384;
    let largest = plan.iter().map(Vec::len).max().unwrap_or(0);
    let pixels = mode.sizes(config).iter().map(|size| size * size).sum::<usize>();
    (PIXELS / pixels.max(1)).min(largest / (4 * threads.max(1))).max(1)
}

/// What the consumer and the threads share.
#[derive(Debug)]
struct Shared {
    dataset: Arc<Dataset>,
    config: ViewConfig,
    plan: Vec<Vec<usize>>,
    mode: Mode,
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
    /// Buffers to use again, for each view of an image.
    spare: Vec<Vec<Vec<f32>>>,
    error: Option<LoaderError>,
    stop: bool,
}

/// A batch in the making.
#[derive(Debug)]
struct Assembly {
    /// One buffer a view, with a slot for every image of the plan.
    views: Vec<Vec<f32>>,
    /// Images not yet finished. While it is not zero, threads write into `views`.
    pending: usize,
    /// Position in the batch of each image that could not be read.
    unreadable: Vec<(usize, Unreadable)>,
}

/// Neighbouring images of a batch to make views of.
struct Task {
    batch: usize,
    positions: Range<usize>,
}

/// The place of one view of a task's images in their batch.
struct Slot {
    start: *mut f32,
    images: usize,
    /// Numbers an image.
    length: usize,
}

impl Shared {
    fn new(
        dataset: Arc<Dataset>,
        config: ViewConfig,
        plan: Vec<Vec<usize>>,
        mode: Mode,
        ahead: usize,
        at_once: usize,
    ) -> Shared {
        let sizes = mode.sizes(&config);
        let state = State { spare: vec![Vec::new(); sizes.len()], ..State::default() };
        Shared {
            dataset,
            config,
            plan,
            mode,
            sizes,
            ahead,
            at_once,
            state: Mutex::new(state),
            room: Condvar::new(),
            ready: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under the lock, and if it did the state would still be whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A thread's life: take a few images, make their views, report.
    fn work(&self) {
        let mut maker = Maker::new(&self.config);
        let mut slots = Vec::with_capacity(self.sizes.len());
        while let Some(task) = self.take(&mut slots) {
            let mut unreadable = Vec::new();
            for (place, position) in task.positions.clone().enumerate() {
                let index = self.plan[task.batch][position];
                let making = || maker.make(self, index, place, &mut slots);
                match catch_unwind(AssertUnwindSafe(making)) {
                    Ok(Ok(())) => {}
                    Ok(Err(reason)) => {
                        let name = self.dataset.name(index).to_owned();
                        unreadable.push((position, Unreadable { index, name, reason }));
                    }
                    Err(panic) => return self.fail(index, &*panic),
                }
            }
            self.finish(&task, unreadable);
        }
    }

    /// Ends the loader because a thread panicked at the image `index`.
    fn fail(&self, index: usize, panic: &(dyn Any + Send)) {
        let message = panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "without a message".to_owned());
        let name = self.dataset.name(index).to_owned();
        let mut state = self.lock();
        state.error = Some(LoaderError::Panicked { index, name, message });
        state.stop = true;
        drop(state);
        self.ready.notify_all();
        self.room.notify_all();
    }

    /// The next images, once there is room for their batch, and the places of their views; none when
    /// all are handed out.
    fn take(&self, slots: &mut Vec<Slot>) -> Option<Task> {
        let mut state = self.lock();
        loop {
            let (batch, position) = state.next;
            if state.stop || batch >= self.plan.len() {
                return None;
            }
            if batch >= state.taken + self.ahead {
                state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let indices = &self.plan[batch];
            if position == 0 {
                let assembly = self.begin(indices.len(), &mut state.spare);
                state.open.push_back(assembly);
            }
            if position >= indices.len() {
                // A batch without images is complete as it is.
                state.next = (batch + 1, 0);
                self.ready.notify_all();
                continue;
            }
            let positions = position..(position + self.at_once).min(indices.len());
            state.next =
                if positions.end < indices.len() { (batch, positions.end) } else { (batch + 1, 0) };
            let assembly = batch - state.taken;
            state.open[assembly].slots(&positions, &self.sizes, slots);
            return Some(Task { batch, positions });
        }
    }

    fn begin(&self, images: usize, spare: &mut [Vec<Vec<f32>>]) -> Assembly {
        let buffer = |(spare, size): (&mut Vec<Vec<f32>>, &usize)| {
            let length = images * view_length(*size);
            match spare.pop() {
                Some(mut buffer) => {
                    buffer.resize(length, 0.0);
                    buffer
                }
                // Zeroed by the system, page by page, on the thread that first writes there.
                None => vec![0.0; length],
            }
        };
        let views = spare.iter_mut().zip(&self.sizes).map(buffer).collect();
        Assembly { views, pending: images, unreadable: Vec::new() }
    }

    fn finish(&self, task: &Task, unreadable: Vec<(usize, Unreadable)>) {
        let mut state = self.lock();
        // A batch with pending images is never taken, so it is still there.
        let assembly = task.batch - state.taken;
        let assembly = &mut state.open[assembly];
        assembly.unreadable.extend(unreadable);
        assembly.pending -= task.positions.len();
        if assembly.pending == 0 {
            drop(state);
            self.ready.notify_all();
        }
    }
}

/// Numbers in a view of `size` pixels a side.
fn view_length(size: usize) -> usize {
    size * size * 3
}

impl Assembly {
    /// The places of neighbouring images' views.
    fn slots(&mut self, positions: &Range<usize>, sizes: &[usize], slots: &mut Vec<Slot>) {
        slots.clear();
        slots.extend(self.views.iter_mut().zip(sizes).map(|(view, &size)| {
            let length = view_length(size);
            debug_assert!(positions.end * length <= view.len());
            let start = view.as_mut_ptr().wrapping_add(positions.start * length);
            Slot { start, images: positions.len(), length }
        }));
    }

    /// Closes the gaps that unreadable images left.
    fn into_batch(mut self, plan: &[usize], config: &ViewConfig) -> Batch {
        self.unreadable.sort_by_key(|&(position, _)| position);
        let mut indices = plan.to_vec();
        if !self.unreadable.is_empty() {
            let missing = |position| {
                self.unreadable.binary_search_by_key(&position, |&(missing, _)| missing).is_ok()
            };
            let readable: Vec<usize> = (0..plan.len()).filter(|&p| !missing(p)).collect();
            for view in &mut self.views {
                let length = view.len() / plan.len();
                for (to, &from) in readable.iter().enumerate() {
                    view.copy_within(from * length..(from + 1) * length, to * length);
                }
                view.truncate(readable.len() * length);
            }
            indices = readable.iter().map(|&position| plan[position]).collect();
        }
        let unreadable = self.unreadable.into_iter().map(|(_, unreadable)| unreadable).collect();
        let local_views = self.views.split_off(self.views.len().min(2));
        let ViewConfig { image_size, local_size, .. } = *config;
        Batch { indices, views: self.views, image_size, local_views, local_size, unreadable }
    }
}

impl Slot {
    /// The numbers of the view of the image at `place` among those of the task.
    ///
    /// # Panics
    /// When the task has no more images than `place`.
    fn pixels(&mut self, place: usize) -> &mut [f32] {
        assert!(place < self.images);
        // SAFETY: `start`, `images` and `length` come from `Assembly::slots`, which stays inside one vector of
        // initialised numbers. `Shared::take` hands out each (batch, position) once, so no other
        // slot overlaps, and `&mut self` admits one slice a slot. Until `Shared::finish` has counted
        // these images the assembly's `pending` is above zero: `Loader::next` does not take it, and
        // nothing else reads, grows or drops its vectors. (Moving an `Assembly` within the queue
        // does not move its vectors' memory.) A task is not used after `finish`. If the loader is
        // dropped first, the `Arc<Shared>` this thread runs on keeps the assembly alive.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(place * self.length), self.length) }
    }
}

/// The working memory of one thread.
struct Maker {
    bytes: Vec<u8>,
    decoder: Decoder,
    image: Image,
    renderer: Renderer,
    local_config: ViewConfig,
    local_renderer: Renderer,
    parameters: Vec<ViewParameters>,
}

impl Maker {
    fn new(config: &ViewConfig) -> Maker {
        let local_config = config.local();
        Maker {
            bytes: Vec::new(),
            decoder: Decoder::default(),
            image: Image::default(),
            renderer: Renderer::new(config),
            local_renderer: Renderer::new(&local_config),
            local_config,
            parameters: Vec::new(),
        }
    }

    /// Reads and decodes once, as much as the views need, then makes every view, at `place` in the
    /// slots; an error is the reason to leave the image out.
    fn make(
        &mut self,
        shared: &Shared,
        index: usize,
        place: usize,
        slots: &mut [Slot],
    ) -> Result<(), String> {
        let read = shared.dataset.read(index, &mut self.bytes);
        read.map_err(|error| error.to_string())?;
        let (parameters, local_config) = (&mut self.parameters, &self.local_config);
        let decoded = self.decoder.decode_part(&self.bytes, &mut self.image, |width, height| {
            parameters.clear();
            let Mode::Training { seed, epoch, .. } = shared.mode else {
                return CropBox { left: 0, top: 0, width, height };
            };
            parameters.extend((0..slots.len()).map(|view| {
                let (config, view) = match view {
                    0 => (&shared.config, View::Query),
                    1 => (&shared.config, View::Key),
                    view => (local_config, View::Local(view as u32 - 2)),
                };
                let mut random = ViewRandom::new(seed, epoch, index as u64, view);
                ViewParameters::draw(config, width, height, &mut random)
            }));
            let crops = parameters.iter().map(|parameters| parameters.crop);
            crops.reduce(CropBox::around).unwrap_or(CropBox { left: 0, top: 0, width, height })
        });
        decoded.map_err(|error| error.to_string())?;
        for (view, slot) in slots.iter_mut().enumerate() {
            let renderer = if view < 2 { &mut self.renderer } else { &mut self.local_renderer };
            match self.parameters.get(view) {
                Some(parameters) => renderer.training(&self.image, parameters),
                None => renderer.evaluation(&self.image),
            };
            renderer.normalise_into(slot.pixels(place));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_in_a_thread_ends_the_iterator_with_an_error() {
        let folder = tempfile::tempdir().unwrap();
        image::RgbImage::new(9, 9).save(folder.path().join("a.png")).unwrap();
        let dataset = Arc::new(Dataset::open(folder.path().to_str().unwrap()).unwrap());
        // Settings that `validate` refuses stand in for a bug: the renderer panics on them.
        let config = ViewConfig { eval_resize: 2, ..ViewConfig::v2(4) };
        let plan = vec![vec![0]; 3];
        let shared = Arc::new(Shared::new(dataset, config, plan, Mode::Evaluation, 2, 1));
        let mut loader = Loader::spawn(shared, 2).unwrap();
        match loader.next() {
            Some(Err(LoaderError::Panicked { index: 0, name, .. })) => assert_eq!(name, "a.png"),
            other => panic!("expected the panic as an error, found {other:?}"),
        }
        assert!(loader.next().is_none());
    }

    #[test]
    fn threads_run_ahead_no_further_than_memory_allows() {
        let plan = |batch: usize| vec![vec![0; batch]; 10];
        let ahead = |size, batch, threads| {
            let mode = Mode::Training { seed: 0, epoch: 0, views: 2 };
            batches_ahead(&ViewConfig::v2(size), &plan(batch), mode, threads)
        };
        assert_eq!(ahead(32, 256, 2), 4);
        assert_eq!(ahead(224, 256, 64), 2);
        // Batches of one image must still occupy every thread.
        assert_eq!(ahead(32, 1, 16), 33);
    }

    #[test]
    fn threads_take_several_small_images_and_leave_some_to_the_others() {
        let at_once = |size, batch, threads| {
            let mode = Mode::Training { seed: 0, epoch: 0, views: 2 };
            images_at_once(&ViewConfig::v2(size), &[vec![0; batch]], mode, threads)
        };
        assert_eq!(at_once(32, 256, 2), 8);
        assert_eq!(at_once(32, 64, 16), 1);
        assert_eq!(at_once(224, 256, 2), 1);
        assert_eq!(at_once(32, 0, 2), 1);
    }
}
