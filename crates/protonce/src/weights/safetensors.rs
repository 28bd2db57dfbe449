//! Safetensors files: ours, which say everything themselves, and other people's.

use std::collections::HashMap;
use std::path::Path;

use protonce_run::{TensorFile, TensorFileError, write_tensors};
use tch::Kind;

use super::metadata::Metadata;
use super::read::{Hints, recognised};
use super::{Card, Weights, WeightsError};
use crate::tensors::{self, NamedTensors, TensorError, Writable};

/// What our files say under this name is a [`Metadata`] as JSON.
const METADATA: &str = "protonce";

/// The encoder in `path`.
pub(super) fn read(path: &Path, hints: &Hints) -> Result<Weights, WeightsError> {
    let mut file = TensorFile::open(path).map_err(|error| unreadable(path, error))?;
    let mut names = file.names();
    names.sort_unstable();
    let Some(own) = file.metadata().and_then(|metadata| metadata.get(METADATA)) else {
        let shape = |name: &String| {
            let (_, shape) = file.describe(name)?;
            Some((name.clone(), shape.iter().map(|&side| side as i64).collect()))
        };
        let shapes: Vec<(String, Vec<i64>)> = names.iter().filter_map(shape).collect();
        let card = Card::of_file("a safetensors file");
        return recognised(path, hints, &shapes, card, Vec::new(), |name| {
            tensors::read(&mut file, name).map_err(|error| damaged(path, error))
        });
    };
    let own: Metadata = serde_json::from_str(own).map_err(|error| damaged(path, error))?;
    let read = |name: String| {
        let tensor = tensors::read(&mut file, &name).map_err(|error| damaged(path, error))?;
        Ok((name, tensor))
    };
    let tensors = names.into_iter().map(read).collect::<Result<NamedTensors, WeightsError>>()?;
    let Metadata { encoder, views, card } = own;
    Ok(Weights { encoder, views, tensors, card, left_out: Vec::new(), notes: Vec::new() })
}

fn unreadable(path: &Path, error: TensorFileError) -> WeightsError {
    match error {
        TensorFileError::Read { path, source } => WeightsError::Read { path, reason: source },
        TensorFileError::Damaged { source, .. } => damaged(path, source),
        other => damaged(path, other),
    }
}

fn damaged(path: &Path, reason: impl std::fmt::Display) -> WeightsError {
    WeightsError::Safetensors { path: path.to_owned(), reason: reason.to_string() }
}

/// Writes a file from which [`read`] gets everything back: float32, and counts in int64.
pub(super) fn write(
    out: &Path,
    metadata: &Metadata,
    tensors: &NamedTensors,
) -> Result<(), WeightsError> {
    let mut writable = Vec::new();
    for (name, tensor) in tensors {
        let tensor = match tensor.kind() {
            Kind::Int64 => Writable::new(tensor)?,
            _ => Writable::new(&tensor.to_kind(Kind::Float))?,
        };
        writable.push((name, tensor));
    }
    let text = serde_json::to_string(metadata).map_err(|error| damaged(out, error))?;
    let metadata = HashMap::from([(METADATA.to_owned(), text)]);
    write_tensors(out, &writable, Some(metadata)).map_err(|error| match error {
        TensorFileError::Write { path, source } => WeightsError::Write { path, reason: source },
        other => TensorError::from(other).into(),
    })
}
