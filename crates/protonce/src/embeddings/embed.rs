//! Images in, a file of embeddings out; what a killed run has done is not done again.

use std::path::Path;
use std::sync::Arc;

use tch::{Kind, Tensor};

use super::{EmbeddingsError, Format, Partial, Provenance, Summary};
use crate::tensors::{TensorError, values};
use crate::weights::{Weights, checksum};
use crate::world::{World, WorldError};
use protonce_encoder::{Encoder, Output, extract_batches, image_tensor};
use protonce_images::data::Dataset;
use protonce_images::views::{
    Crops, DecodeError, Loader, LoaderOptions, Renderer, Unreadable, ViewConfig, decode,
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
/// its name ends in, and `OUT.json` with where the rows come from. `encoder` is that of `weights`. Of the
/// processes of `world`, each computes a part of the rows, and the first one writes them.
///
/// Where `out` was made by the same weights from the same images, nothing is computed. Where a
/// killed run has left a part of it, that part is kept: the file is the same, byte for byte, as that of
/// an undisturbed run. `progress` gets the number of images done.
///
/// # Errors
/// When the images cannot be loaded, or a file cannot be written, or a process is gone.
pub fn embed(
    weights: &Weights,
    encoder: &Encoder,
    dataset: &Dataset,
    options: &Embed,
    out: &Path,
    world: &World,
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
            Output::Features => weights.encoder.width() as usize,
            Output::Embeddings => weights.encoder.dim as usize,
        },
        precision: format!("{:?}", encoder.precision()).to_lowercase(),
        batch_size: options.batch_size.max(1),
    };
    world.agree(&[
        ("version of protonce", env!("CARGO_PKG_VERSION").to_owned()),
        ("set of weights", provenance.weights.clone()),
        ("set of images (names or labels)", provenance.data.clone()),
        ("output", format!("{} in {}", provenance.output, provenance.precision)),
        ("number of images per forward pass", provenance.batch_size.to_string()),
    ])?;
    let mut partial = None;
    // The whole of it, or the rows of the first images.
    let (summary, done) = world.first_says("what of the embeddings is there", || {
        if let Some(summary) = Summary::of(out, &provenance) {
            return Ok((Some(summary), dataset.len()));
        }
        let opened = partial.insert(Partial::open(out, &provenance)?);
        Ok::<_, EmbeddingsError>((None, opened.images()))
    })?;
    progress(done);
    if let Some(summary) = summary {
        return Ok(summary);
    }
    let rest: Vec<usize> = (done..dataset.len()).collect();
    let batches: Vec<Vec<usize>> =
        rest.chunks(provenance.batch_size).map(<[usize]>::to_vec).collect();
    let rounds = batches.len().div_ceil(world.size());
    let own = batches.into_iter().skip(world.rank()).step_by(world.size()).collect();
    let (views, threads) = (weights.views.clone(), options.loader_threads);
    let centre = LoaderOptions { views, batches: own, crops: Crops::Centre, threads };
    let mut loader = Loader::new(Arc::new(dataset.clone()), centre)?;
    // In each round every process computes a batch; in the last one some have none.
    let mut add = |part: Part| {
        let lengths = world.gather_words(&part.rows.len())?;
        let rows = world.gather_known(&part.rows, &lengths)?;
        let parts = world.gather_words(&(part.images, part.unreadable))?;
        let mut start = 0;
        for ((images, unreadable), length) in parts.into_iter().zip(lengths) {
            if let Some(partial) = &mut partial {
                partial.append(images, &rows[start..start + length], &unreadable)?;
                progress(partial.images());
            }
            start += length;
        }
        Ok::<(), EmbeddingsError>(())
    };
    let mut added = 0;
    extract_batches(encoder, &mut loader, options.output, |batch, rows| {
        // None where not one image of the batch is readable.
        let rows = rows.map_or(Ok(Vec::new()), |rows| numbers(&rows))?;
        let images = batch.indices.len() + batch.unreadable.len();
        added += 1;
        add(Part { images, rows, unreadable: batch.unreadable.clone() })
    })?;
    for _ in added..rounds {
        add(Part { images: 0, rows: Vec::new(), unreadable: Vec::new() })?;
    }
    world.first_says("the embeddings", || match partial {
        Some(partial) => partial.finish(dataset, format),
        // The first process has one.
        None => Err(EmbeddingsError::World(WorldError::Garbled(0))),
    })
}

/// What one process adds in one round.
struct Part {
    images: usize,
    rows: Vec<f32>,
    unreadable: Vec<Unreadable>,
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
