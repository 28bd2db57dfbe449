//! Finds out which kind of file holds the weights, and reads it.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use tch::{Device, Kind, Tensor};

use super::recognise::{Recognised, recognise};
use super::{Card, Weights, WeightsError, pth, run, safetensors};
use crate::tensors::NamedTensors;
use protonce_encoder::Precision;
use protonce_images::views::{Augmentations, ViewConfig};
use protonce_run::{EncoderConfig, Head, Stem};

/// What a file of weights does not say, said by the one who imports it.
#[derive(Debug, Clone, Default)]
pub struct Hints {
    /// What the names of the wanted encoder begin with, where a file holds several encoders.
    pub prefix: Option<String>,
    /// Side in pixels of the images that the encoder was trained on.
    pub image_size: Option<usize>,
}

impl Weights {
    /// The weights in `path`: a run folder, of which the last checkpoint counts, a checkpoint folder,
    /// a safetensors file, or a checkpoint of PyTorch in any of its layouts.
    ///
    /// # Errors
    /// When it is none of these, cannot be read, or holds no ResNet with finite numbers.
    pub fn read(path: &Path) -> Result<Weights, WeightsError> {
        Weights::read_with(path, &Hints::default())
    }

    /// As [`Weights::read`], with what the file does not say. A file that protonce wrote says
    /// everything itself.
    ///
    /// # Errors
    /// As [`Weights::read`].
    pub fn read_with(path: &Path, hints: &Hints) -> Result<Weights, WeightsError> {
        let unreadable = |reason| WeightsError::Read { path: path.to_owned(), reason };
        let is_folder = fs::metadata(path).map_err(unreadable)?.is_dir();
        let weights = if is_folder || path.ends_with("checkpoints/last") {
            run::read(path)
        } else if looks_like_safetensors(path).map_err(unreadable)? {
            safetensors::read(path, hints)
        } else {
            pth::read(path, hints)
        }?;
        let finite = |tensor: &Tensor| tensor.isfinite().all().int64_value(&[]) != 0;
        match weights.tensors.iter().find(|(_, tensor)| !finite(tensor)) {
            None => Ok(weights),
            Some((name, _)) => {
                Err(WeightsError::NotFinite { path: path.to_owned(), name: name.clone() })
            }
        }
    }
}

/// The encoder among named tensors, each read by `read`; `notes` says what else there is to know of the
/// file.
pub(super) fn recognised(
    path: &Path,
    hints: &Hints,
    shapes: &[(String, Vec<i64>)],
    card: Card,
    notes: Vec<String>,
    mut read: impl FnMut(&str) -> Result<Tensor, WeightsError>,
) -> Result<Weights, WeightsError> {
    let Recognised { encoder, names, left_out, notes: chosen } =
        recognise(shapes, hints.prefix.as_deref()).map_err(|reason| {
            let reason = [&[reason], &notes[..]].concat().join("; ");
            WeightsError::NotAnEncoder { path: path.to_owned(), reason }
        })?;
    let mut tensors = NamedTensors::new();
    for (stored, name) in names {
        let tensor = read(&stored)?;
        // Statistics count batches in whole numbers; everything else is computed in float32.
        let tensor = match name.ends_with("num_batches_tracked") {
            true => tensor.to_kind(Kind::Int64),
            false => tensor.to_kind(Kind::Float),
        };
        tensors.push((name, tensor));
    }
    let views = usual_views(&encoder, hints.image_size);
    let notes = [chosen, notes].concat();
    let weights = Weights { encoder, views, tensors, card, left_out, notes };
    // Every shape is compared with the architecture's before the weights are used for anything.
    let fits = weights.load(Precision::Float32, Device::Cpu);
    fits.map_err(|reason| WeightsError::Shapes { path: path.to_owned(), reason })?;
    Ok(weights)
}

/// The views that an encoder of unknown origin is used with: ImageNet's size and normalisation, as all
/// published ResNets want them.
fn usual_views(encoder: &EncoderConfig, image_size: Option<usize>) -> ViewConfig {
    let usual = match encoder.stem {
        Stem::ImageNet => 224,
        Stem::Small => 32,
    };
    let views = ViewConfig::v2(image_size.unwrap_or(usual));
    match encoder.head {
        Head::Linear => {
            ViewConfig { augmentations: Augmentations::V1, ..ViewConfig::v1(views.image_size) }
        }
        _ => views,
    }
}

/// Whether a file begins as safetensors do: eight bytes of length, then a JSON object.
pub(super) fn looks_like_safetensors(path: &Path) -> io::Result<bool> {
    let mut head = [0; 9];
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    if length < 9 {
        return Ok(false);
    }
    file.read_exact(&mut head)?;
    let (size, first) = head.split_at(8);
    let size = size.try_into().map(u64::from_le_bytes).unwrap_or(u64::MAX);
    Ok(first == b"{" && size <= length)
}
