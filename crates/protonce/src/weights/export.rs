//! The encoder in the formats of other tools, with a card beside it.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::metadata::Metadata;
use super::notes::notes;
use super::{Target, Weights, WeightsError, checksum, onnx, parameter_count, pth, safetensors};
use crate::tensors::NamedTensors;
use protonce_run::{EncoderConfig, Head, Stem};

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
    /// What the user of the file needs to know, one sentence each.
    pub notes: Vec<String>,
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
            let dim = weights.encoder.width();
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
    if matches!(options.target, Target::Detectron2 | Target::Timm) && encoder.base_channels != 64 {
        return refuse(
            "other than 64 base channels",
            "its networks have 64; export to torchvision, from which protonce.load makes the network in \
             Python, or to onnx",
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

    match options.target {
        Target::Torchvision | Target::Timm => {
            replace(out, |file| pth::write_state_dict(file, &tensors))?;
        }
        Target::Pcl => {
            replace(out, |file| pth::write_published(file, &metadata, &tensors, training))?
        }
        Target::Detectron2 => replace(out, |file| pth::write_detectron2(file, &tensors))?,
        Target::Safetensors => safetensors::write(out, &metadata, &tensors)?,
        Target::Onnx => replace(out, |file| onnx::write(file, &metadata, &tensors, options.fold))?,
    }

    let notes = notes(options, &metadata, !training.is_empty());
    let checksum = checksum(&tensors)?;
    let files = write_card(out, options, &metadata, &tensors, &checksum, &notes)?;
    Ok(Exported { files, checksum, notes })
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
    let parameters = parameter_count(tensors);
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
    replace(&json_path, |file| writeln!(file, "{json:#}"))?;
    let markdown = card.markdown(encoder, views, parameters, checksum, notes);
    replace(&markdown_path, |file| file.write_all(markdown.as_bytes()))?;
    Ok(vec![out.to_owned(), json_path, markdown_path])
}

/// Writes `path` beside its place and renames it.
fn replace(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<(), WeightsError> {
    protonce_disk::replace(path, |scratch| {
        let mut file = BufWriter::new(File::create(scratch)?);
        write(&mut file)?;
        file.flush()
    })
    .map_err(|reason| WeightsError::Write { path: path.to_owned(), reason })
}
