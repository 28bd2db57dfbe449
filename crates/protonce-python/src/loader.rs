//! Batches of views for a training loop in Python.
//!
//! A [`Pipeline`] is what was asked for: images, settings, and which part of them this process has. It
//! holds no thread and can be inherited by a forked child. [`Batches`] are one epoch of it, with threads
//! that make views ahead.

use std::ops::Range;
use std::process;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use protonce_images::batch_count;
use protonce_images::data;
use protonce_images::views::{Batch, Crops, Loader, LoaderError, LoaderOptions, Recycler};
use protonce_run::{Config, order};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::array::Array;
use crate::dataset::Dataset;
use crate::failure::Failure;
use crate::patience::{PATIENCE, left_alone};
use crate::settings::{resolved, written};

/// What an image is made into.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The random views of pretraining.
    Random,
    /// The centre crop of evaluations.
    Centre,
}

/// Which images are in which batch of which process.
struct Share {
    kind: Kind,
    /// Images per batch and process.
    batch_size: usize,
    drop_last: bool,
    rank: usize,
    world_size: usize,
}

impl Share {
    /// Images of a batch of all processes together.
    fn together(&self) -> usize {
        self.batch_size * self.world_size
    }

    /// Batches that `images` make, the same number in every process.
    fn count(&self, images: usize) -> usize {
        let size = self.together();
        if self.drop_last {
            return images / size;
        }
        // The fewest images that are a batch; fewer join the batch before them.
        let (count, least) = match self.kind {
            Kind::Random => (batch_count(images, size), 2 * self.world_size),
            Kind::Centre => (images.div_ceil(size), self.world_size),
        };
        let last = images - count.saturating_sub(1) * size;
        count - usize::from(count > 1 && last < least)
    }

    /// The places in an order of `images` that are in batch `number` of this process.
    fn places(&self, images: usize, number: usize) -> Range<usize> {
        let (size, last) = (self.together(), number + 1 == self.count(images));
        let first = number * size;
        let length = if last && !self.drop_last { images - first } else { size };
        let part = |rank: usize| first + length * rank / self.world_size;
        part(self.rank)..part(self.rank + 1)
    }
}

/// Everything that decides what batches are made.
#[pyclass(frozen, module = "protonce._core")]
pub struct Pipeline {
    dataset: Arc<data::Dataset>,
    config: Config,
    share: Share,
    shuffle: bool,
    threads: usize,
    uint8: bool,
}

#[pymethods]
impl Pipeline {
    #[new]
    #[pyo3(signature = (
        data, preset, settings, *, batch_size, drop_last, shuffle, centre, rank, world_size,
        threads, uint8
    ))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        py: Python<'_>,
        data: String,
        preset: &str,
        settings: &str,
        batch_size: usize,
        drop_last: bool,
        shuffle: bool,
        centre: bool,
        rank: usize,
        world_size: usize,
        threads: usize,
        uint8: bool,
    ) -> Result<Pipeline, Failure> {
        let mut config = resolved(preset, settings)?;
        config.loader_threads = threads;
        if batch_size == 0 {
            return Err(Failure::Argument("batch_size is 0: expected 1 or more".to_owned()));
        }
        if rank >= world_size {
            let sentence =
                format!("rank {rank} of world_size {world_size}: expected a smaller rank");
            return Err(Failure::Argument(sentence));
        }
        let kind = if centre { Kind::Centre } else { Kind::Random };
        let (dataset, mut config) = left_alone(py, move || {
            let dataset = config.chosen(data::Dataset::open(&data)?);
            config.settle(&dataset).map_err(data::DataError::Store)?;
            Ok((Arc::new(dataset), config))
        })?;
        let share = Share { kind, batch_size, drop_last, rank, world_size };
        let images = dataset.len();
        let whole = share.together();
        if images < if drop_last { whole } else { world_size } {
            let sentence = format!(
                "{images} images make no batch of {batch_size} in each of {world_size} processes: \
                 expected a smaller batch_size, or drop_last=False"
            );
            return Err(Failure::Argument(sentence));
        }
        if uint8 {
            // What comes out is then each pixel as a share of 255, from which it is found again exactly.
            (config.views.mean, config.views.std) = ([0.0; 3], [1.0; 3]);
        }
        Ok(Pipeline { dataset, config, share, shuffle, threads, uint8 })
    }

    /// Batches of an epoch.
    fn __len__(&self) -> usize {
        self.share.count(self.dataset.len())
    }

    /// The images, in the order of their indices.
    #[getter]
    fn dataset(&self) -> Dataset {
        Dataset { images: Arc::clone(&self.dataset) }
    }

    /// The settings of views, resolved, as JSON.
    #[getter]
    fn views(&self) -> Result<String, Failure> {
        written(&self.config.views)
    }

    /// The batches of `epoch` from number `first` on.
    #[pyo3(signature = (epoch, first=0))]
    fn batches(&self, py: Python<'_>, epoch: u64, first: usize) -> Result<Batches, Failure> {
        let images = self.dataset.len();
        let order = match self.shuffle {
            true => order(&self.config, images, self.dataset.bytes(), epoch as usize),
            false => (0..images).collect(),
        };
        let batch = |number| order[self.share.places(images, number)].to_vec();
        let views = self.config.views.clone();
        let crops = match self.share.kind {
            Kind::Centre => Crops::Centre,
            Kind::Random => {
                Crops::Random { seed: self.config.seed, epoch, views: views.pretraining_views() }
            }
        };
        let batches = (first..self.share.count(images)).map(batch).collect();
        let options = LoaderOptions { views, batches, crops, threads: self.threads };
        let loader = py.detach(|| Loader::new(Arc::clone(&self.dataset), options))?;
        let (recycler, process) = (loader.recycler(), process::id());
        let loader = Mutex::new(Some(loader));
        Ok(Batches { loader, recycler, process, uint8: self.uint8 })
    }
}

/// The batches of one epoch: an iterator of (views, indices, unreadable images).
#[pyclass(frozen, module = "protonce._core")]
pub struct Batches {
    /// None once it has ended.
    loader: Mutex<Option<Loader>>,
    recycler: Recycler,
    /// The process that has the threads.
    process: u32,
    uint8: bool,
}

/// The views of an image, then the images, then those that are missing: number, name and reason.
type Item = (Vec<Array>, Array, Vec<(usize, String, String)>);

#[pymethods]
impl Batches {
    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__(&self, py: Python<'_>) -> Result<Option<Item>, Failure> {
        if process::id() != self.process {
            let sentence = "these batches belong to the process that this one was forked from: begin \
                            again with iter(loader) here";
            return Err(PyRuntimeError::new_err(sentence).into());
        }
        loop {
            match py.detach(|| self.poll()) {
                Poll::Pending => py.check_signals()?,
                Poll::Ready(None) => return Ok(None),
                Poll::Ready(Some(batch)) => return Ok(Some(self.item(py, batch?))),
            }
        }
    }

    /// Ends the threads. There are no more batches then.
    fn close(&self, py: Python<'_>) {
        if process::id() == self.process {
            py.detach(|| drop(self.loader.lock().unwrap_or_else(PoisonError::into_inner).take()));
        }
    }
}

impl Batches {
    fn poll(&self) -> Poll<Option<Result<Batch, LoaderError>>> {
        let mut loader = self.loader.lock().unwrap_or_else(PoisonError::into_inner);
        let polled = loader.as_mut().map_or(Poll::Ready(None), |loader| loader.poll(PATIENCE));
        if matches!(polled, Poll::Ready(None)) {
            *loader = None;
        }
        polled
    }

    fn item(&self, py: Python<'_>, mut batch: Batch) -> Item {
        let count = batch.indices.len();
        let indices: Vec<i64> = batch.indices.iter().map(|&index| index as i64).collect();
        let unreadable = std::mem::take(&mut batch.unreadable).into_iter();
        let unreadable = unreadable.map(|one| (one.index, one.name, one.reason)).collect();
        let shape = |side: usize| [count, side, side, 3];
        let (full, local) = (shape(batch.image_size), shape(batch.local_size));
        let views = if self.uint8 {
            let full = batch.views.iter().map(|view| (view, full));
            let all = full.chain(batch.local_views.iter().map(|view| (view, local)));
            let arrays = py.detach(|| {
                let arrays = all.map(|(view, shape)| Array::new(pixels(view), &shape));
                arrays.collect()
            });
            self.recycler.recycle(batch);
            arrays
        } else {
            let place = |(view, shape): (&mut Vec<f32>, [usize; 4])| {
                (view.as_mut_ptr() as usize, view.len(), shape)
            };
            let mut places: Vec<_> =
                batch.views.iter_mut().map(|view| place((view, full))).collect();
            places.extend(batch.local_views.iter_mut().map(|view| place((view, local))));
            // Moving the batch does not move the memory of its vectors.
            let memory = Arc::new(Memory {
                batch: Mutex::new(Some(batch)),
                recycler: self.recycler.clone(),
                process: self.process,
            });
            let array = |(address, length, shape): (usize, usize, [usize; 4])| {
                Array::within::<f32>(address, length, &shape, memory.clone())
            };
            places.into_iter().map(array).collect()
        };
        (views, Array::new(indices, &[count]), unreadable)
    }
}

impl Drop for Batches {
    fn drop(&mut self) {
        // In a forked child the threads do not exist, and a lock may be held forever.
        if process::id() != self.process
            && let Some(loader) =
                self.loader.get_mut().unwrap_or_else(PoisonError::into_inner).take()
        {
            std::mem::forget(loader);
        }
    }
}

/// The memory of a batch while arrays share it; then it goes back to the loader.
struct Memory {
    batch: Mutex<Option<Batch>>,
    recycler: Recycler,
    process: u32,
}

impl Drop for Memory {
    fn drop(&mut self) {
        let batch = self.batch.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        // In a forked child the loader's lock may be held forever.
        if process::id() == self.process
            && let Some(batch) = batch
        {
            self.recycler.recycle(batch);
        }
    }
}

/// The pixels of which `view` has the shares of 255.
pub fn pixels(view: &[f32]) -> Vec<u8> {
    view.iter().map(|&share| (share * 255.0).round() as u8).collect()
}
