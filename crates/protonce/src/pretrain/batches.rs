//! The batches of one epoch's M-step, how long they took, and the batches of one look at every image.
//!
//! Enters: batches of image indices; for an epoch that goes on, from the step at which it does, with what
//! went by before. Leaves: their views, in order, with the images and seconds that the run's log reports.

use std::sync::Arc;
use std::time::Instant;

use protonce_images::data::Dataset;
use protonce_images::views::{Batch, Crops, Loader, LoaderError, LoaderOptions, ViewConfig};
use protonce_run::{Config, Interval};
use tch::Device;

use crate::world::World;

/// The batches of an epoch.
pub(super) struct Batches {
    loader: Loader,
    /// Steps of the whole epoch, those before a resumption included.
    steps: usize,
    start: Instant,
    /// Images trained on since the start.
    images: usize,
    /// What went by of the epoch before the start.
    before: Interval,
    /// The part of the epoch that [`Batches::since_log`] has told.
    logged: Interval,
}

impl Batches {
    /// The batches that `loader` makes, of an epoch of `steps` steps in all, of which `before` went by and
    /// `logged` is told.
    pub(super) fn new(loader: Loader, steps: usize, before: Interval, logged: Interval) -> Batches {
        Batches { loader, steps, start: Instant::now(), images: 0, before, logged }
    }

    /// Steps of the whole epoch.
    pub(super) fn steps(&self) -> usize {
        self.steps
    }

    /// Threads that make views.
    pub(super) fn threads(&self) -> usize {
        self.loader.threads()
    }

    /// The next batch; none after the last.
    pub(super) fn next(&mut self) -> Result<Option<Batch>, LoaderError> {
        self.loader.next().transpose()
    }

    /// Takes a batch back after its step, which was one of `images` in all processes: counts these and
    /// reuses its memory.
    pub(super) fn recycle(&mut self, batch: Batch, images: usize) {
        // A single image was not trained on.
        if images > 1 {
            self.images += images;
        }
        self.loader.recycle(batch);
    }

    /// Since the epoch began.
    pub(super) fn so_far(&self) -> Interval {
        Interval {
            images: self.before.images + self.images,
            seconds: self.before.seconds + self.start.elapsed().as_secs_f64(),
            waited: self.before.waited + self.loader.waited().as_secs_f64(),
        }
    }

    /// The part of it that was told.
    pub(super) fn logged(&self) -> Interval {
        self.logged
    }

    /// Since this was asked last.
    pub(super) fn since_log(&mut self) -> Interval {
        let now = self.so_far();
        let interval = Interval {
            images: now.images - self.logged.images,
            seconds: now.seconds - self.logged.seconds,
            waited: now.waited - self.logged.waited,
        };
        self.logged = now;
        interval
    }
}

/// The stretch of `images` that this process of `world` looks at when all share them: whole batches, so that
/// every image is in the same batch in whichever process it is.
pub(super) fn part<'a>(images: &'a [usize], config: &Config, world: &World) -> &'a [usize] {
    let batches = images.len().div_ceil(config.batch_size);
    let bound =
        |process: usize| (batches * process / world.size() * config.batch_size).min(images.len());
    &images[bound(world.rank())..bound(world.rank() + 1)]
}

/// Centre crops of `images` as `views` has them, in order, in batches as large as training's.
///
/// # Errors
/// When a view setting is out of range or no thread can be started.
pub(super) fn evaluation_loader(
    dataset: &Arc<Dataset>,
    images: &[usize],
    views: ViewConfig,
    config: &Config,
    device: Device,
) -> Result<Loader, LoaderError> {
    let batches = images.chunks(config.batch_size).map(<[usize]>::to_vec).collect();
    let threads = config.view_threads(device.is_cuda());
    let options = LoaderOptions { views, batches, crops: Crops::Centre, threads };
    Loader::new(dataset.clone(), options)
}
