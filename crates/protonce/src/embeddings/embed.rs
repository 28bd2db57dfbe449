//! Images in, a file of embeddings out; what a killed run has done is not done again.

use std::path::Path;
use std::sync::Arc;

use tch::{Kind, Tensor};

use super::{EmbeddingsError, Format, Partial, Provenance, Summary};
use crate::tensors::{TensorError, values};
use crate::weights::{Weights, checksum};
use protonce_encoder::{Encoder, Output, extract_batches, image_tensor};
use protonce_images::data::Dataset;
use protonce_images::views::{
    Crops, DecodeError, Loader, LoaderOptions, Renderer, ViewConfig, decode,
};

/// How to embed.
#[derive(Debug, Clone)]
pub struct Embed {
    /// What is computed from each image.
    pub output: Output,
    /// Images per forward pass.
    pub batch_size: usize,
    /// Threads that decode; 0 for one per core.
    pub loader_threads: usize,
}

/// Computes a row for every image of `dataset` that can be read and writes `out`, in the format that
/// its name ends in, and `OUT.json` with where the rows come from. `encoder` is that of `weights`.
///
/// Where `out` was made by the same weights from the same images, nothing is computed. Where a
/// killed run has left a part of it, that part is kept: the file is the same, byte for byte, as that of
/// an undisturbed run. `progress` gets the number of images done.
///
/// # Errors
/// When the images cannot be loaded, or a file cannot be written.
pub fn embed(
    weights: &Weights,
    encoder: &Encoder,
    dataset: &Dataset,
    options: &Embed,
    out: &Path,
    progress: &mut dyn FnMut(usize),
) -> Result<Summary, EmbeddingsError> {
    let format = Format::of(out)?;
    let provenance = Provenance {
        weights: checksum(&weights.tensors)?,
        views: weights.views.clone(),
        data: dataset.fingerprint(),
        images: dataset.len(),
        output: match options.output {
            Output::Features => "features".to_owned(),
            Output::Embeddings => "embeddings".to_owned(),
        },
        width: match options.output {
            Output::Features => weights.encoder.arch.width() as usize,
            Output::Embeddings => weights.encoder.dim as usize,
        },
        precision: format!("{:?}", encoder.precision()).to_lowercase(),
        batch_size: options.batch_size.max(1),
    };
    if let Some(summary) = Summary::of(out, &provenance) {
        progress(dataset.len());
        return Ok(summary);
    }
    let mut partial = Partial::open(out, &provenance)?;
    let rest: Vec<usize> = (partial.images()..dataset.len()).collect();
    let batches = rest.chunks(provenance.batch_size).map(<[usize]>::to_vec).collect();
    let (views, threads) = (weights.views.clone(), options.loader_threads);
    let centre = LoaderOptions { views, batches, crops: Crops::Centre, threads };
    let loader = Loader::new(Arc::new(dataset.clone()), centre);
    progress(partial.images());
    extract_batches(encoder, &mut loader?, options.output, |batch, rows| {
        // None where not one image of the batch is readable.
        let rows = rows.map_or(Ok(Vec::new()), |rows| numbers(&rows))?;
        let images = batch.indices.len() + batch.unreadable.len();
        partial.append(images, &rows, &batch.unreadable)?;
        progress(partial.images());
        Ok::<(), EmbeddingsError>(())
    })?;
    partial.finish(dataset, format)
}

/// Why one image cannot be embedded.
#[derive(Debug, thiserror::Error)]
pub enum EmbedImageError {
    /// It cannot be decoded.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// Its row cannot be brought into memory.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

/// The row of one image, from its encoded bytes.
///
/// # Errors
/// [`EmbedImageError::Decode`], [`EmbedImageError::Tensor`].
pub fn embed_image(
    views: &ViewConfig,
    encoder: &Encoder,
    output: Output,
    bytes: &[u8],
) -> Result<Vec<f32>, EmbedImageError> {
    let image = decode(bytes)?;
    let mut renderer = Renderer::new(views);
    renderer.evaluation(&image);
    let mut pixels = vec![0.0; views.image_size * views.image_size * 3];
    renderer.normalise_into(&mut pixels);
    let _guard = tch::no_grad_guard();
    let device = encoder.parameters().theta().device();
    let view = image_tensor(&pixels, views.image_size, device);
    Ok(numbers(&output.of(encoder, &view))?)
}

/// Rows as float32 numbers.
fn numbers(rows: &Tensor) -> Result<Vec<f32>, TensorError> {
    values(&rows.to_kind(Kind::Float))
}
