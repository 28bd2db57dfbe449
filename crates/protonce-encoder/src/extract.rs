//! Features or embeddings of a whole data set, batch by batch: an encoder and a loader in, a row per
//! image out.

use protonce_images::views::{Batch, Loader, LoaderError, Unreadable};
use tch::{Kind, Tensor};

use super::model::Encoder;
use super::normalise::BatchStats;
use super::upload::image_tensor;

/// What is computed of each image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Pooled backbone features.
    Features,
    /// L2-normalised embeddings.
    Embeddings,
}

/// The rows of all images that could be read.
pub struct Extracted {
    /// The image of each row.
    pub images: Vec<i64>,
    /// float32 [images, width], on the encoder's device.
    pub rows: Tensor,
    /// The images that have no row.
    pub unreadable: Vec<Unreadable>,
}

/// Runs `encoder` in evaluation mode over the views of `loader`, telling `progress` how many images
/// are done.
///
/// # Errors
/// When the loader fails. Unreadable images are no failure: they are named in the result.
pub fn extract(
    encoder: &Encoder,
    loader: &mut Loader,
    output: Output,
    progress: &mut dyn FnMut(usize),
) -> Result<Extracted, LoaderError> {
    try_extract(encoder, loader, output, &mut |done| {
        progress(done);
        Ok(())
    })
}

/// As [`extract`], where an error of `progress` ends it.
///
/// # Errors
/// When the loader or `progress` fails.
pub fn try_extract<E: From<LoaderError>>(
    encoder: &Encoder,
    loader: &mut Loader,
    output: Output,
    progress: &mut dyn FnMut(usize) -> Result<(), E>,
) -> Result<Extracted, E> {
    let device = encoder.device();
    let (mut images, mut rows, mut unreadable) = (Vec::new(), Vec::new(), Vec::new());
    extract_batches(encoder, loader, output, |batch, computed| {
        images.extend(batch.indices.iter().map(|&index| index as i64));
        unreadable.extend_from_slice(&batch.unreadable);
        rows.extend(computed);
        progress(images.len() + unreadable.len())
    })?;
    let rows = match rows.is_empty() {
        true => Tensor::zeros([0, 0], (Kind::Float, device)),
        false => Tensor::cat(&rows, 0),
    };
    Ok(Extracted { images, rows, unreadable })
}

/// As [`extract`], but hands every batch to `each` with its rows, or without where none of its images
/// can be read, and keeps nothing.
///
/// # Errors
/// When the loader or `each` fails.
pub fn extract_batches<E: From<LoaderError>>(
    encoder: &Encoder,
    loader: &mut Loader,
    output: Output,
    mut each: impl FnMut(&Batch, Option<Tensor>) -> Result<(), E>,
) -> Result<(), E> {
    let _guard = tch::no_grad_guard();
    let device = encoder.device();
    while let Some(batch) = loader.next() {
        let batch = batch?;
        let rows = (!batch.indices.is_empty()).then(|| {
            let views = image_tensor(&batch.views[0], batch.image_size, device);
            output.of(encoder, &views)
        });
        each(&batch, rows)?;
        loader.recycle(batch);
    }
    Ok(())
}

impl Output {
    /// Computes this of normalised images: [batch, 3, height, width] → float32 [batch, width or dim].
    pub fn of(self, encoder: &Encoder, images: &Tensor) -> Tensor {
        let features = encoder.features(images, BatchStats::Running);
        match self {
            Output::Features => features,
            Output::Embeddings => encoder.project(&features, BatchStats::Running),
        }
    }
}
