//! PyTorch's files: checkpoints of any origin come in, state dicts for other tools go out.

use std::fs::File;
use std::io::{self, BufReader, Write};
use std::path::Path;

use protonce_pth::{Checkpoint, Dtype, Item, StateDict, write_numpy, write_zip};
use tch::{Kind, Tensor};

use super::choice::encoders;
use super::detectron2::{detectron2_name, torchvision_name};
use super::metadata::Metadata;
use super::read::{Hints, recognised};
use super::{Card, Weights, WeightsError};
use crate::tensors::{NamedTensors, bytes};

/// A checkpoint of PyTorch.
pub(super) type PthFile = Checkpoint<BufReader<File>>;

/// The encoder in `path`.
pub(super) fn read(path: &Path, hints: &Hints) -> Result<Weights, WeightsError> {
    let (mut file, found) = state_dict(path)?;
    let card = Card::of_pth(file.root());
    let shapes = shapes(&found);
    let notes = match file.passed_over() {
        [] => Vec::new(),
        names => {
            let (shown, more) = names.split_at(names.len().min(8));
            let more =
                if more.is_empty() { "".into() } else { format!(" and {} more", more.len()) };
            vec![format!(
                "passed over, with nothing of it executed: objects of {}{more}",
                shown.join(", ")
            )]
        }
    };
    recognised(path, hints, &shapes, card, notes, |name| {
        // Of several entries with one name the last counts, as in Python.
        let tensor = found.iter().rev().find(|(known, _)| known == name);
        let (_, tensor) = tensor.ok_or_else(|| WeightsError::NotAnEncoder {
            path: path.to_owned(),
            reason: format!("{name:?} is gone"),
        })?;
        read_tensor(path, &mut file, tensor)
    })
}

/// An open checkpoint of PyTorch and the named tensors of its state dict, wherever in it that lies. Where
/// several hold encoders, names begin with the keys that lead to each: `teacher.backbone.conv1.weight`.
pub(super) fn state_dict(
    path: &Path,
) -> Result<(PthFile, Vec<(String, protonce_pth::Tensor)>), WeightsError> {
    let damaged = |reason| WeightsError::Pth { path: path.to_owned(), reason };
    let file = Checkpoint::open(path).map_err(damaged)?;
    let mut found = Vec::new();
    for StateDict { path: keys, tensors } in file.state_dicts() {
        let mut named = Vec::new();
        for (name, value) in tensors {
            if let Some(tensor) = file.tensor(value).map_err(damaged)? {
                named.push((torchvision_name(&name), tensor));
            }
        }
        found.push((keys.join("."), named));
    }
    let holds_encoder = |(_, named): &(String, Vec<(String, protonce_pth::Tensor)>)| {
        !encoders(&shapes(named)).is_empty()
    };
    if !found.iter().any(holds_encoder) {
        // For the message that says what is there instead.
        found.sort_by_key(|(_, named)| named.len());
        let largest = found.pop().map(|(_, named)| named);
        return Ok((file, largest.unwrap_or_default()));
    }
    found.retain(holds_encoder);
    let several = found.len() > 1;
    let named = found.into_iter().flat_map(|(keys, named)| {
        let begin = if several && !keys.is_empty() { format!("{keys}.") } else { String::new() };
        named.into_iter().map(move |(name, tensor)| (format!("{begin}{name}"), tensor))
    });
    let named = named.collect();
    Ok((file, named))
}

fn shapes(named: &[(String, protonce_pth::Tensor)]) -> Vec<(String, Vec<i64>)> {
    let shape = |tensor: &protonce_pth::Tensor| {
        tensor.shape.iter().map(|&side| side as i64).collect::<Vec<i64>>()
    };
    named.iter().map(|(name, tensor)| (name.clone(), shape(tensor))).collect()
}

/// The numbers of a tensor of `file`.
pub(super) fn read_tensor(
    path: &Path,
    file: &mut PthFile,
    tensor: &protonce_pth::Tensor,
) -> Result<Tensor, WeightsError> {
    let bytes = file.read(tensor);
    let bytes = bytes.map_err(|reason| WeightsError::Pth { path: path.to_owned(), reason })?;
    let shape: Vec<i64> = tensor.shape.iter().map(|&side| side as i64).collect();
    Ok(Tensor::from_data_size(&bytes, &shape, kind(tensor.dtype)))
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

/// Writes `tensors` as a state dict.
pub(super) fn write_state_dict(out: &mut impl Write, tensors: &NamedTensors) -> io::Result<()> {
    write_zip(out, "archive", &dict(&with_counts(tensors)?))
}

/// Writes `tensors` as detectron2 reads its model zoo.
pub(super) fn write_detectron2(out: &mut impl Write, tensors: &NamedTensors) -> io::Result<()> {
    let mut renamed = Vec::new();
    for (name, tensor) in tensors.iter().filter(|(name, _)| !name.ends_with("num_batches_tracked"))
    {
        if let Some(name) = detectron2_name(name) {
            renamed.push(RawTensor::new(&name, tensor)?);
        }
    }
    let root = Item::Dict(vec![
        ("model", dict(&renamed)),
        ("__author__", Item::Text("protonce")),
        // Names are matched by their ends, as for every backbone of its zoo.
        ("matching_heuristics", Item::Bool(true)),
    ]);
    write_numpy(out, &root)
}

/// `{epoch, arch, state_dict}` with names as `DistributedDataParallel` saves them.
pub(super) fn write_published(
    file: &mut impl Write,
    metadata: &Metadata,
    tensors: &NamedTensors,
    training: &NamedTensors,
) -> io::Result<()> {
    let prefixed = |prefix: &str, mut tensors: Vec<RawTensor>| {
        for raw in &mut tensors {
            raw.name = format!("module.{prefix}.{}", raw.name);
        }
        tensors
    };
    let mut all = prefixed("encoder_q", with_counts(tensors)?);
    let momentum: NamedTensors = training
        .iter()
        .filter_map(|(name, tensor)| {
            let name = name.strip_prefix("momentum_encoder.")?;
            Some((name.to_owned(), tensor.shallow_clone()))
        })
        .collect();
    all.extend(prefixed("encoder_k", with_counts(&momentum)?));
    for (name, tensor) in training {
        match name.as_str() {
            // Published: one key per column; the next key goes where `queue_ptr` points.
            "queue" => all.push(RawTensor::new("module.queue", &tensor.transpose(0, 1))?),
            "queue_position" => all.push(RawTensor::new("module.queue_ptr", tensor)?),
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

/// A tensor as it is written.
struct RawTensor {
    name: String,
    dtype: Dtype,
    shape: Vec<u64>,
    bytes: Vec<u8>,
}

impl RawTensor {
    fn new(name: &str, tensor: &Tensor) -> io::Result<RawTensor> {
        let (dtype, kind) = match tensor.kind() {
            Kind::Int64 => (Dtype::I64, Kind::Int64),
            _ => (Dtype::F32, Kind::Float),
        };
        let shape = tensor.size().iter().map(|&side| side as u64).collect();
        let bytes = bytes(&tensor.to_kind(kind)).map_err(io::Error::other)?;
        Ok(RawTensor { name: name.to_owned(), dtype, shape, bytes })
    }
}

/// The tensors and, for every batch norm that has none, the count of batches that a PyTorch state dict
/// holds, in the order of torchvision's.
fn with_counts(tensors: &NamedTensors) -> io::Result<Vec<RawTensor>> {
    let raw = |(name, tensor): &(String, Tensor)| RawTensor::new(name, tensor);
    let mut all: Vec<RawTensor> = tensors.iter().map(raw).collect::<Result<_, _>>()?;
    for (name, _) in tensors {
        if let Some(norm) = name.strip_suffix("running_var") {
            let count = format!("{norm}num_batches_tracked");
            if !tensors.iter().any(|(known, _)| *known == count) {
                all.push(RawTensor {
                    name: count,
                    dtype: Dtype::I64,
                    shape: Vec::new(),
                    bytes: 0_i64.to_le_bytes().to_vec(),
                });
            }
        }
    }
    Ok(all)
}

fn dict(tensors: &[RawTensor]) -> Item<'_> {
    let entries = tensors
        .iter()
        .map(|raw| (raw.name.as_str(), Item::Tensor(raw.dtype, &raw.shape, &raw.bytes)));
    Item::Dict(entries.collect())
}
