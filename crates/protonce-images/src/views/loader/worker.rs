//! What each thread of a loader does: it takes images from the queue and makes their views.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::assembly::Slot;
use super::queue::Queue;
use super::{Crops, LoaderError, Unreadable};
use crate::data::{DataError, Dataset, ReadAhead, StoreError};
use crate::random::View;
use crate::views::{CropBox, Decoder, Image, Renderer, ViewConfig, ViewParameters, ViewRandom};

/// Takes images and makes their views until there are no more, or until one of them panics or an object
/// store fails, which ends the loader with an error. `read_ahead` hears of the images that are begun.
pub(super) fn work(dataset: &Dataset, queue: &Queue, read_ahead: Option<&ReadAhead>) {
    let mut maker = ViewMaker::new(&queue.config);
    let mut slots = Vec::new();
    while let Some(task) = queue.take(&mut slots) {
        if let Some(read_ahead) = read_ahead {
            read_ahead.advance(task.positions.len());
        }
        let mut unreadable = Vec::new();
        for (number, position) in task.positions.clone().enumerate() {
            let index = queue.batches[task.batch][position];
            let making = || maker.make(dataset, queue, index, number, &mut slots);
            match catch_unwind(AssertUnwindSafe(making)) {
                Ok(Ok(())) => {}
                // Nothing is wrong with an image that cannot be fetched: a run that left it out would be
                // another run.
                Ok(Err(Failure::Store(error))) => return queue.fail(LoaderError::Store(error)),
                Ok(Err(Failure::Image(reason))) => {
                    let name = dataset.name(index).to_owned();
                    unreadable.push((position, Unreadable { index, name, reason }));
                }
                Err(panic) => {
                    let (name, message) = (dataset.name(index).to_owned(), message(&*panic));
                    return queue.fail(LoaderError::Panicked { index, name, message });
                }
            }
        }
        queue.finish(&task, unreadable);
    }
}

/// Why views of an image cannot be made.
enum Failure {
    /// The image cannot be read.
    Image(String),
    /// The store that it lies in cannot be read.
    Store(StoreError),
}

/// The message of a panic.
fn message(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a message".to_owned())
}

/// The working memory of one thread.
struct ViewMaker {
    bytes: Vec<u8>,
    decoder: Decoder,
    image: Image,
    renderer: Renderer,
    key_config: ViewConfig,
    local_config: ViewConfig,
    local_renderer: Renderer,
    /// Of the views of an image; empty for a centre crop.
    parameters: Vec<ViewParameters>,
}

impl ViewMaker {
    fn new(config: &ViewConfig) -> ViewMaker {
        let local_config = config.local();
        ViewMaker {
            bytes: Vec::new(),
            decoder: Decoder::default(),
            image: Image::default(),
            renderer: Renderer::new(config),
            local_renderer: Renderer::new(&local_config),
            key_config: config.key(),
            local_config,
            parameters: Vec::new(),
        }
    }

    /// Reads and decodes the image `index` once, as much of it as the views need, then makes every
    /// view as image `number` of its slot.
    fn make(
        &mut self,
        dataset: &Dataset,
        queue: &Queue,
        index: usize,
        number: usize,
        slots: &mut [Slot],
    ) -> Result<(), Failure> {
        dataset.read(index, &mut self.bytes).map_err(|error| match error {
            DataError::Store(error) => Failure::Store(error),
            error => Failure::Image(error.to_string()),
        })?;
        let (key_config, local_config) = (&self.key_config, &self.local_config);
        let parameters = &mut self.parameters;
        let decoded = self.decoder.decode_part(&self.bytes, &mut self.image, |width, height| {
            parameters.clear();
            let whole = CropBox { left: 0, top: 0, width, height };
            let Crops::Random { seed, epoch, views } = &queue.crops else { return whole };
            parameters.extend(views.iter().map(|&view| {
                let config = match view {
                    View::Query => &queue.config,
                    View::Key => key_config,
                    View::Local(_) => local_config,
                };
                let mut random = ViewRandom::new(*seed, *epoch, index as u64, view);
                ViewParameters::draw(config, width, height, &mut random)
            }));
            let crops = parameters.iter().map(|parameters| parameters.crop);
            crops.reduce(CropBox::around).unwrap_or(whole)
        });
        decoded.map_err(|error| Failure::Image(error.to_string()))?;
        for (view, slot) in slots.iter_mut().enumerate() {
            let local = queue.crops.is_local(view);
            let renderer = if local { &mut self.local_renderer } else { &mut self.renderer };
            match self.parameters.get(view) {
                Some(parameters) => renderer.training(&self.image, parameters),
                None => renderer.evaluation(&self.image),
            };
            renderer.normalise_into(slot.pixels(number));
        }
        Ok(())
    }
}
