//! The encoder in the formats of other tools.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use protonce_pth::{Dtype, Item, write_numpy, write_zip};
use safetensors::tensor::TensorView;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::recognise::detectron2_name;
use super::{Card, Weights, WeightsError, checksum, onnx};
use crate::pretrain::run_folder::{self, NamedTensors};
use protonce_images::views::ViewConfig;
use protonce_run::{EncoderConfig, Head, Stem};

/// A tool that reads what is exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// A state dict for `torchvision.models`.
    Torchvision,
    /// A state dict for `timm.create_model`.
    Timm,
    /// A pickle of numpy arrays under detectron2's names, for `MODEL.WEIGHTS`.
    Detectron2,
    /// The layout of the published PCL and MoCo scripts.
    Pcl,
    /// safetensors under torchvision's names; `Weights::read` gets everything back from it.
    Safetensors,
    /// ONNX, opset 17: images in, features and embedding out.
    Onnx,
}

impl Target {
    /// Every target and its name.
    pub const NAMES: [(&'static str, Target); 6] = [
        ("torchvision", Target::Torchvision),
        ("timm", Target::Timm),
        ("detectron2", Target::Detectron2),
        ("pcl", Target::Pcl),
        ("safetensors", Target::Safetensors),
        ("onnx", Target::Onnx),
    ];
}

impl std::str::FromStr for Target {
    type Err = WeightsError;

    fn from_str(name: &str) -> Result<Target, WeightsError> {
        let found = Target::NAMES.iter().find(|(known, _)| *known == name);
        found.map(|&(_, target)| target).ok_or_else(|| WeightsError::UnknownTarget(name.to_owned()))
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = Target::NAMES.iter().find(|(_, target)| target == self);
        f.write_str(name.map_or("", |(name, _)| name))
    }
}

/// How to export.
#[derive(Debug, Clone)]
pub struct Export {
    /// For whom.
    pub target: Target,
    /// Whether the projection head goes along. detectron2 never gets it.
    pub head: bool,
    /// Whether batch norm is folded into the convolutions (ONNX only).
    pub fold: bool,
    /// The licence of the weights, for the card; none keeps what the card says.
    pub licence: Option<String>,
}

/// What was exported.
#[derive(Debug, Clone, Serialize)]
pub struct Exported {
    /// The weights and their card.
    pub files: Vec<PathBuf>,
    /// See [`checksum`].
    pub checksum: String,
    /// What whoever loads the file needs to know, a sentence each.
    pub notes: Vec<String>,
}

/// What a safetensors file says under this name is a [`Metadata`] as JSON.
pub(super) const METADATA: &str = "protonce";

/// Everything about weights but the tensors.
#[derive(Serialize, Deserialize)]
pub(super) struct Metadata {
    pub(super) encoder: EncoderConfig,
    pub(super) views: ViewConfig,
    pub(super) card: Card,
}

/// A tensor as it is written.
struct Raw {
    name: String,
    dtype: Dtype,
    shape: Vec<u64>,
    bytes: Vec<u8>,
}

/// Writes `weights` to `out` for `options.target`, with a card beside it (`OUT.card.json` and
/// `OUT.card.md`). `training` is what [`super::training_state`] gives: with it, the published layout
/// also holds the momentum encoder and the queue; other targets make no use of it.
///
/// Every file is written beside its place and renamed, so a crash leaves the old one or the new.
///
/// # Errors
/// When the target cannot represent the encoder, or a file cannot be written.
pub fn export(
    weights: &Weights,
    training: &NamedTensors,
    options: &Export,
    out: &Path,
) -> Result<Exported, WeightsError> {
    let encoder = match options.head && options.target != Target::Detectron2 {
        true => weights.encoder.clone(),
        false => {
            let dim = weights.encoder.arch.width();
            EncoderConfig { head: Head::None, dim, ..weights.encoder.clone() }
        }
    };
    let refuse =
        |what, advice| Err(WeightsError::Unrepresentable { target: options.target, what, advice });
    if options.target == Target::Detectron2 && encoder.stem == Stem::Small {
        return refuse(
            "the small stem",
            "its ResNets begin with a 7×7 convolution; train with --stem imagenet, or export to \
             torchvision and build the backbone from that",
        );
    }
    if options.fold && options.target != Target::Onnx {
        return refuse("folded batch norm", "leave --fold out, or export --to onnx");
    }
    let tensors: NamedTensors = weights
        .tensors
        .iter()
        .filter(|(name, _)| encoder.head != Head::None || !name.starts_with("fc."))
        .map(|(name, tensor)| (name.clone(), tensor.shallow_clone()))
        .collect();
    let mut card = weights.card.clone();
    card.licence = options.licence.clone().or(card.licence);
    let metadata = Metadata { encoder, views: weights.views.clone(), card };

    run_folder::replace(out, |scratch| {
        let mut file = BufWriter::new(File::create(scratch)?);
        match options.target {
            Target::Torchvision | Target::Timm => {
                write_zip(&mut file, "archive", &dict(&with_counts(&tensors)))?;
            }
            Target::Pcl => write_published(&mut file, &metadata, &tensors, training)?,
            Target::Detectron2 => {
                let renamed: Vec<Raw> = tensors
                    .iter()
                    .filter(|(name, _)| !name.ends_with("num_batches_tracked"))
                    .filter_map(|(name, tensor)| Some(raw(&detectron2_name(name)?, tensor)))
                    .collect();
                let root = Item::Dict(vec![
                    ("model", dict(&renamed)),
                    ("__author__", Item::Text("protonce")),
                    // Names are matched by their ends, as for every backbone of its zoo.
                    ("matching_heuristics", Item::Bool(true)),
                ]);
                write_numpy(&mut file, &root)?;
            }
            Target::Safetensors => write_safetensors(&mut file, &metadata, &tensors)?,
            Target::Onnx => onnx::write(&mut file, &metadata, &tensors, options.fold)?,
        }
        file.flush()
    })?;

    let notes = notes(options, &metadata, !training.is_empty());
    let checksum = checksum(&tensors);
    let files = write_card(out, options, &metadata, &tensors, &checksum, &notes)?;
    Ok(Exported { files, checksum, notes })
}

/// What the other side needs to know.
fn notes(options: &Export, metadata: &Metadata, training: bool) -> Vec<String> {
    let Metadata { encoder, views, .. } = metadata;
    let EncoderConfig { arch, stem, head, dim } = encoder;
    let mut notes = Vec::new();
    let mut note = |text: String| notes.push(text);
    let create = match options.target {
        Target::Torchvision => Some(format!("torchvision.models.{arch}")),
        Target::Timm => Some(format!("timm.create_model(\"{arch}\", …)")),
        _ => None,
    };
    if let Some(create) = create {
        match head {
            Head::Linear => note(format!("Load into {create} with num_classes={dim}.")),
            Head::None if options.target == Target::Timm => {
                note(format!("Load into {create} with num_classes=0."));
            }
            Head::None => note(format!("Load into {create} after model.fc = torch.nn.Identity().")),
            Head::Mlp => note(format!(
                "Load into {create} after model.fc = torch.nn.Sequential(Linear(w, w), ReLU(), \
                 Linear(w, {dim})), where w = {}.",
                arch.width()
            )),
        }
        if *stem == Stem::Small {
            note(
                "The small stem: before loading, model.conv1 = torch.nn.Conv2d(3, 64, 3, 1, 1, \
                 bias=False) and model.maxpool = torch.nn.Identity()."
                    .to_owned(),
            );
        }
    }
    match options.target {
        Target::Pcl if !training => note(
            "Holds the query encoder alone: the published evaluation scripts read it, resuming \
             published training needs the momentum encoder and queue of a run."
                .to_owned(),
        ),
        Target::Pcl => note(
            "Holds the query encoder and what there is of momentum encoder and queue, but no optimiser \
             state.".to_owned(),
        ),
        Target::Detectron2 => {
            let scaled = |values: [f64; 3]| values.map(|value| (value * 255e3).round() / 1e3);
            note(format!(
                "In the config: MODEL.WEIGHTS this file, INPUT.FORMAT \"RGB\", MODEL.PIXEL_MEAN {:?}, \
                 MODEL.PIXEL_STD {:?}, MODEL.RESNETS.STRIDE_IN_1X1 False; the head is left out.",
                scaled(views.mean),
                scaled(views.std)
            ));
        }
        Target::Onnx => note(
            "Input images [batch, 3, height, width] in float32, normalised as above; outputs features \
             and embedding (of length 1)."
                .to_owned(),
        ),
        _ => {}
    }
    notes
}

/// Numbers of a tensor, little-endian in row order.
pub(super) fn bytes(tensor: &Tensor, kind: Kind) -> Vec<u8> {
    let tensor = tensor.to_device(Device::Cpu).to_kind(kind).contiguous();
    let mut bytes = vec![0; tensor.numel() * kind.elt_size_in_bytes()];
    tensor.copy_data_u8(&mut bytes, tensor.numel());
    bytes
}

fn raw(name: &str, tensor: &Tensor) -> Raw {
    let (dtype, kind) = match tensor.kind() {
        Kind::Int64 => (Dtype::I64, Kind::Int64),
        _ => (Dtype::F32, Kind::Float),
    };
    let shape = tensor.size().iter().map(|&side| side as u64).collect();
    Raw { name: name.to_owned(), dtype, shape, bytes: bytes(tensor, kind) }
}

/// The tensors and, for every batch norm that has none, the count of batches that a PyTorch state dict
/// holds, in the order of torchvision's.
fn with_counts(tensors: &NamedTensors) -> Vec<Raw> {
    let mut all: Vec<Raw> = tensors.iter().map(|(name, tensor)| raw(name, tensor)).collect();
    for (name, _) in tensors {
        if let Some(norm) = name.strip_suffix("running_var") {
            let count = format!("{norm}num_batches_tracked");
            if !tensors.iter().any(|(known, _)| *known == count) {
                all.push(Raw {
                    name: count,
                    dtype: Dtype::I64,
                    shape: Vec::new(),
                    bytes: 0_i64.to_le_bytes().to_vec(),
                });
            }
        }
    }
    all
}

fn dict(tensors: &[Raw]) -> Item<'_> {
    let entries = tensors
        .iter()
        .map(|raw| (raw.name.as_str(), Item::Tensor(raw.dtype, &raw.shape, &raw.bytes)));
    Item::Dict(entries.collect())
}

/// `{epoch, arch, state_dict}` with names as `DistributedDataParallel` saves them.
fn write_published(
    file: &mut impl Write,
    metadata: &Metadata,
    tensors: &NamedTensors,
    training: &NamedTensors,
) -> io::Result<()> {
    let prefixed = |prefix: &str, mut tensors: Vec<Raw>| {
        for raw in &mut tensors {
            raw.name = format!("module.{prefix}.{}", raw.name);
        }
        tensors
    };
    let mut all = prefixed("encoder_q", with_counts(tensors));
    let momentum: NamedTensors = training
        .iter()
        .filter_map(|(name, tensor)| {
            let name = name.strip_prefix("momentum_encoder.")?;
            Some((name.to_owned(), tensor.shallow_clone()))
        })
        .collect();
    all.extend(prefixed("encoder_k", with_counts(&momentum)));
    for (name, tensor) in training {
        match name.as_str() {
            // Published: a key a column; the next key goes where `queue_ptr` points.
            "queue" => all.push(raw("module.queue", &tensor.transpose(0, 1))),
            "queue_position" => all.push(raw("module.queue_ptr", tensor)),
            _ => {}
        }
    }
    let arch = metadata.encoder.arch.to_string();
    let root = Item::Dict(vec![
        ("epoch", Item::Int(metadata.card.epochs.unwrap_or(0) as i64)),
        ("arch", Item::Text(&arch)),
        ("state_dict", dict(&all)),
    ]);
    write_zip(file, "archive", &root)
}

fn write_safetensors(
    file: &mut impl Write,
    metadata: &Metadata,
    tensors: &NamedTensors,
) -> io::Result<()> {
    let raws: Vec<Raw> = tensors.iter().map(|(name, tensor)| raw(name, tensor)).collect();
    let views = raws
        .iter()
        .map(|raw| {
            let dtype = match raw.dtype {
                Dtype::I64 => safetensors::Dtype::I64,
                _ => safetensors::Dtype::F32,
            };
            let shape = raw.shape.iter().map(|&side| side as usize).collect();
            Ok((raw.name.as_str(), TensorView::new(dtype, shape, &raw.bytes)?))
        })
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()
        .map_err(io::Error::other)?;
    let text = serde_json::to_string(metadata)?;
    let metadata = HashMap::from([(METADATA.to_owned(), text)]);
    let bytes = safetensors::serialize(views, Some(metadata)).map_err(io::Error::other)?;
    file.write_all(&bytes)
}

/// Writes the card beside the weights; gives all files.
fn write_card(
    out: &Path,
    options: &Export,
    metadata: &Metadata,
    tensors: &NamedTensors,
    checksum: &str,
    notes: &[String],
) -> Result<Vec<PathBuf>, WeightsError> {
    let Metadata { encoder, views, card } = metadata;
    let parameters = tensors
        .iter()
        .filter(|(name, _)| name.ends_with(".weight") || name.ends_with(".bias"))
        .map(|(_, tensor)| tensor.numel() as i64)
        .sum();
    let json = serde_json::json!({
        "protonce": env!("CARGO_PKG_VERSION"),
        "target": options.target.to_string(),
        "encoder": encoder,
        "views": views,
        "parameters": parameters,
        "checksum": checksum,
        "notes": notes,
        "card": card,
    });
    let beside = |ending: &str| {
        let mut name = out.file_name().unwrap_or_default().to_owned();
        name.push(ending);
        out.with_file_name(name)
    };
    let (json_path, markdown_path) = (beside(".card.json"), beside(".card.md"));
    run_folder::replace(&json_path, |scratch| {
        let text = serde_json::to_string_pretty(&json)?;
        std::fs::write(scratch, text + "\n")
    })?;
    let markdown = card.markdown(encoder, views, parameters, checksum, notes);
    run_folder::replace(&markdown_path, |scratch| std::fs::write(scratch, &markdown))?;
    Ok(vec![out.to_owned(), json_path, markdown_path])
}
