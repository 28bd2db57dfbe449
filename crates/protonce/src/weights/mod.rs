//! Encoders in everybody's files: the published checkpoints come in, ours go out.
//!
//! Enters: a run folder, a safetensors file, or a `.pth` of PyTorch, torchvision, timm, detectron2, PCL
//! or MoCo. [`Weights::read`] finds out which and leaves [`Weights`]: shapes, the views the encoder
//! wants, tensors under torchvision's names, and a [`Card`] that says where they come from.
//! Leaves: the same encoder in the format of a [`Target`], by [`export`].
//!
//! No pickle is ever executed: `protonce_pth` parses them.

mod card;
mod compare;
mod export;
mod onnx;
mod recognise;

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use protonce_pth::{Checkpoint, Dtype, PthError};
use safetensors::SafeTensors;
use tch::{Device, Kind, Tensor};

pub use card::{Card, DataSummary};
pub use compare::{Change, Difference, checksum, diff};
pub use export::{Export, Exported, Target, export};
pub use recognise::{Recognised, recognise};

use crate::encoder::{Encoder, EncoderError, Precision};
use crate::pretrain::RunError;
use crate::pretrain::run_folder::{self, NamedTensors};
use protonce_images::views::{Recipe, ViewConfig};
use protonce_run::{EncoderConfig, Head, Stem};

/// Why weights cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsError {
    /// A run folder.
    #[error(transparent)]
    Run(#[from] RunError),
    /// Neither a run nor a file of weights.
    #[error(
        "{0} holds no weights: expected a run folder with checkpoints/last, a checkpoint folder, a \
         safetensors file or a .pth of PyTorch"
    )]
    NoWeights(PathBuf),
    /// A file that the system cannot read.
    #[error("cannot read {path}: {reason}; pass a run folder or a file of weights")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: io::Error,
    },
    /// A checkpoint of PyTorch that cannot be read.
    #[error("cannot read {path}: {reason}")]
    Pth {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: PthError,
    },
    /// A damaged safetensors file.
    #[error("cannot read {path}: it is no whole safetensors file ({reason}); fetch it again")]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// Tensors that are no ResNet.
    #[error("{path} holds no ResNet that is known here: {reason}")]
    NotAnEncoder {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// Tensors that do not fit the architecture.
    #[error("{path}: {reason}")]
    Shapes {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        reason: EncoderError,
    },
    /// A target that cannot hold this encoder.
    #[error("{target} cannot hold {what}: {advice}")]
    Unrepresentable {
        /// The target.
        target: Target,
        /// What it cannot hold.
        what: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// A target name that is none.
    #[error(
        "unknown target \"{0}\": expected torchvision, timm, detectron2, pcl, safetensors or onnx"
    )]
    UnknownTarget(String),
}

/// An encoder as it lies in a file.
#[derive(Debug)]
pub struct Weights {
    /// Its shapes.
    pub encoder: EncoderConfig,
    /// Size and normalisation of the images it wants.
    pub views: ViewConfig,
    /// Parameters and buffers under torchvision's names, on the CPU.
    pub tensors: NamedTensors,
    /// Where they come from.
    pub card: Card,
    /// Tensors of the file that are no part of the encoder, such as a queue or a momentum encoder.
    pub left_out: Vec<String>,
}

/// What a file of weights does not say, said by whoever imports it.
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
    /// When it is none of these, cannot be read, or holds no ResNet.
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
        if fs::metadata(path).map_err(unreadable)?.is_dir() {
            return Weights::of_run(path);
        }
        match is_safetensors(path).map_err(unreadable)? {
            true => Weights::of_safetensors(path, hints),
            false => Weights::of_pth(path, hints),
        }
    }

    /// The encoder, on `device`.
    ///
    /// # Errors
    /// When the tensors do not fit the shapes that the weights claim.
    pub fn load(&self, precision: Precision, device: Device) -> Result<Encoder, EncoderError> {
        let mut encoder = Encoder::new(&self.encoder, precision, device, 0);
        encoder.parameters_mut().load(&self.tensors)?;
        Ok(encoder)
    }

    /// The folder of the checkpoint that `path`, a run or a checkpoint, stands for.
    fn checkpoint(path: &Path) -> Option<PathBuf> {
        let folders = [path.join("checkpoints/last"), path.to_owned()];
        folders.into_iter().find(|folder| folder.join("state.json").exists())
    }

    fn of_run(path: &Path) -> Result<Weights, WeightsError> {
        let folder = Weights::checkpoint(path);
        let folder = folder.ok_or_else(|| WeightsError::NoWeights(path.to_owned()))?;
        let position = run_folder::read_position(&folder)?;
        let tensors = run_folder::read_tensors(&folder.join("encoder.safetensors"))?;
        let card = Card::of_run(&folder, &position);
        let (encoder, views) = (position.encoder, position.views);
        Ok(Weights { encoder, views, tensors, card, left_out: Vec::new() })
    }

    fn of_safetensors(path: &Path, hints: &Hints) -> Result<Weights, WeightsError> {
        let bytes = fs::read(path)
            .map_err(|reason| WeightsError::Read { path: path.to_owned(), reason })?;
        let damaged = |reason: String| WeightsError::Safetensors { path: path.to_owned(), reason };
        let (_, metadata) =
            SafeTensors::read_metadata(&bytes).map_err(|error| damaged(error.to_string()))?;
        let file = SafeTensors::deserialize(&bytes).map_err(|error| damaged(error.to_string()))?;
        let read = |name: &str| -> Result<Tensor, WeightsError> {
            let view = file.tensor(name).map_err(|error| damaged(error.to_string()))?;
            let shape: Vec<i64> = view.shape().iter().map(|&side| side as i64).collect();
            let unknown = || damaged(format!("\"{name}\" has the type {:?}", view.dtype()));
            let kind = safetensors_kind(view.dtype()).ok_or_else(unknown)?;
            Ok(Tensor::from_data_size(view.data(), &shape, kind))
        };
        let own = metadata.metadata().as_ref().and_then(|metadata| metadata.get(export::METADATA));
        if let Some(own) = own {
            let own: export::Metadata =
                serde_json::from_str(own).map_err(|error| damaged(error.to_string()))?;
            let mut names = file.names();
            names.sort_unstable();
            let tensors = names.into_iter().map(|name| Ok((name.to_owned(), read(name)?)));
            let tensors = tensors.collect::<Result<NamedTensors, WeightsError>>()?;
            let export::Metadata { encoder, views, card } = own;
            return Ok(Weights { encoder, views, tensors, card, left_out: Vec::new() });
        }
        let mut shapes: Vec<(String, Vec<i64>)> = file
            .tensors()
            .into_iter()
            .map(|(name, view)| (name, view.shape().iter().map(|&side| side as i64).collect()))
            .collect();
        shapes.sort();
        let card = Card::of_file("a safetensors file");
        Weights::recognised(path, hints, &shapes, card, read)
    }

    fn of_pth(path: &Path, hints: &Hints) -> Result<Weights, WeightsError> {
        let (mut file, found) = state_dict(path)?;
        let card = Card::of_pth(file.root());
        let shapes: Vec<(String, Vec<i64>)> = found
            .iter()
            .map(|(name, tensor)| {
                (name.clone(), tensor.shape.iter().map(|&side| side as i64).collect())
            })
            .collect();
        Weights::recognised(path, hints, &shapes, card, |name| {
            // Of several entries with one name the last counts, as in Python.
            let tensor = found.iter().rev().find(|(known, _)| known == name);
            let (_, tensor) = tensor.ok_or_else(|| WeightsError::NotAnEncoder {
                path: path.to_owned(),
                reason: format!("{name:?} is gone"),
            })?;
            read_tensor(path, &mut file, tensor)
        })
    }

    /// The encoder among named tensors, each read by `read`.
    fn recognised(
        path: &Path,
        hints: &Hints,
        shapes: &[(String, Vec<i64>)],
        card: Card,
        mut read: impl FnMut(&str) -> Result<Tensor, WeightsError>,
    ) -> Result<Weights, WeightsError> {
        let Recognised { encoder, names, left_out } = recognise(shapes, hints.prefix.as_deref())
            .map_err(|reason| WeightsError::NotAnEncoder { path: path.to_owned(), reason })?;
        let mut tensors = NamedTensors::new();
        for (source, name) in names {
            let tensor = read(&source)?;
            // Statistics count batches in whole numbers; everything else is computed in float32.
            let tensor = match name.ends_with("num_batches_tracked") {
                true => tensor.to_kind(Kind::Int64),
                false => tensor.to_kind(Kind::Float),
            };
            tensors.push((name, tensor));
        }
        let views = usual_views(&encoder, hints.image_size);
        let weights = Weights { encoder, views, tensors, card, left_out };
        // Every shape is compared with the architecture's before the weights are used for anything.
        let fits = weights.load(Precision::Float32, Device::Cpu);
        fits.map_err(|reason| WeightsError::Shapes { path: path.to_owned(), reason })?;
        Ok(weights)
    }
}

/// What only further training needs of the weights in `path`, for the published layout: the momentum
/// encoder (`momentum_encoder.NAME`), the `queue` [r, dim] and the `queue_position` [1]; empty where there
/// is nothing.
///
/// # Errors
/// When the file cannot be read.
pub fn training_state(path: &Path) -> Result<NamedTensors, WeightsError> {
    if let Some(folder) = Weights::checkpoint(path) {
        let mut training = run_folder::read_tensors(&folder.join("training.safetensors"))?;
        training.retain(|(name, _)| name != "velocity");
        let position = run_folder::read_position(&folder)?.queue_position;
        training.push(("queue_position".to_owned(), Tensor::from_slice(&[position])));
        return Ok(training);
    }
    let unreadable = |reason| WeightsError::Read { path: path.to_owned(), reason };
    if is_safetensors(path).map_err(unreadable)? {
        return Ok(NamedTensors::new());
    }
    let mut training = NamedTensors::new();
    let (mut file, found) = state_dict(path)?;
    for (name, tensor) in found {
        let own = match name.split_once("encoder_k.") {
            Some((_, name)) => format!("momentum_encoder.{name}"),
            None => match name.rsplit('.').next() {
                Some("queue") => "queue".to_owned(),
                Some("queue_ptr") => "queue_position".to_owned(),
                _ => continue,
            },
        };
        let tensor = read_tensor(path, &mut file, &tensor)?;
        // Published: a key a column.
        let tensor = if own == "queue" { tensor.transpose(0, 1) } else { tensor };
        training.push((own, tensor));
    }
    Ok(training)
}

/// An open checkpoint of PyTorch and the named tensors of its state dict, which may be the whole file
/// or lie in it under one of the usual names.
fn state_dict(path: &Path) -> Result<(PthFile, Vec<(String, protonce_pth::Tensor)>), WeightsError> {
    let damaged = |reason| WeightsError::Pth { path: path.to_owned(), reason };
    let file = Checkpoint::open(path).map_err(damaged)?;
    let root = file.root();
    let state = ["state_dict", "model", "model_state_dict"]
        .iter()
        .find_map(|key| root.get(key).filter(|state| state.entries().is_some()));
    let mut found = Vec::new();
    for (name, value) in state.unwrap_or(root).entries().into_iter().flatten() {
        if let (Some(name), Some(tensor)) = (name.as_str(), file.tensor(value).map_err(damaged)?) {
            found.push((recognise::torchvision_name(name), tensor));
        }
    }
    Ok((file, found))
}

type PthFile = Checkpoint<io::BufReader<File>>;

fn read_tensor(
    path: &Path,
    file: &mut PthFile,
    tensor: &protonce_pth::Tensor,
) -> Result<Tensor, WeightsError> {
    let bytes = file.read(tensor);
    let bytes = bytes.map_err(|reason| WeightsError::Pth { path: path.to_owned(), reason })?;
    let shape: Vec<i64> = tensor.shape.iter().map(|&side| side as i64).collect();
    Ok(Tensor::from_data_size(&bytes, &shape, kind(tensor.dtype)))
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
        Head::Linear => ViewConfig { recipe: Recipe::V1, ..ViewConfig::v1(views.image_size) },
        _ => views,
    }
}

/// Eight bytes of length, then a JSON object.
fn is_safetensors(path: &Path) -> io::Result<bool> {
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

fn safetensors_kind(dtype: safetensors::Dtype) -> Option<Kind> {
    match dtype {
        safetensors::Dtype::F64 => Some(Kind::Double),
        safetensors::Dtype::F32 => Some(Kind::Float),
        safetensors::Dtype::F16 => Some(Kind::Half),
        safetensors::Dtype::BF16 => Some(Kind::BFloat16),
        safetensors::Dtype::I64 => Some(Kind::Int64),
        safetensors::Dtype::I32 => Some(Kind::Int),
        _ => None,
    }
}

fn kind(dtype: Dtype) -> Kind {
    match dtype {
        Dtype::F64 => Kind::Double,
        Dtype::F32 => Kind::Float,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::I64 => Kind::Int64,
        Dtype::I32 => Kind::Int,
        Dtype::I16 => Kind::Int16,
        Dtype::I8 => Kind::Int8,
        Dtype::U8 => Kind::Uint8,
        Dtype::Bool => Kind::Bool,
    }
}
