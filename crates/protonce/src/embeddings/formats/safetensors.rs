//! Safetensors: the rows under the name of the output, beside `index`, `labels` (−1: none) and the names
//! as bytes.

use std::io::{self, Write};
use std::path::Path;

use half::{bf16, f16};
use safetensors::tensor::{Dtype, SafeTensors};

use super::{contents, damaged, map};
use crate::embeddings::ReadError;
use crate::embeddings::stored::{Embeddings, Storage, as_floats};
use crate::embeddings::table::{EmbeddingTable, RowReader};

/// The rows of the matrix `name`, or of the only one.
pub(super) fn read(path: &Path, name: Option<&str>) -> Result<Embeddings, ReadError> {
    let map = map(path)?;
    let file = SafeTensors::deserialize(&map).map_err(damaged(path))?;
    let floats = [Dtype::F16, Dtype::BF16, Dtype::F32, Dtype::F64];
    let matrices: Vec<_> = file
        .tensors()
        .into_iter()
        .filter(|(_, view)| view.shape().len() == 2 && floats.contains(&view.dtype()))
        .filter(|(found, _)| name.is_none_or(|name| name == found))
        .collect();
    let [(_, view)] = matrices.as_slice() else {
        let found = match (matrices.len(), name) {
            (0, Some(name)) => format!("no matrix of numbers \"{name}\" among {:?}", file.names()),
            (0, None) => "no matrix of numbers".to_owned(),
            (count, _) => format!("{count} matrices"),
        };
        return Err(contents(path, found, "one tensor [rows, dim], or FILE#NAME to choose one"));
    };
    let (bytes, dim) = (view.data(), view.shape()[1]);
    if view.dtype() == Dtype::F32 && as_floats(bytes).is_some() {
        let start = bytes.as_ptr() as usize - map.as_ptr() as usize;
        let range = start..start + bytes.len();
        return Ok(Embeddings { storage: Storage::Mapped { map, range }, dim });
    }
    let values = match view.dtype() {
        Dtype::F16 => convert(bytes, |bytes| f16::from_le_bytes(bytes).into()),
        Dtype::BF16 => convert(bytes, |bytes| bf16::from_le_bytes(bytes).into()),
        Dtype::F64 => convert(bytes, |bytes| f64::from_le_bytes(bytes) as f32),
        _ => convert(bytes, f32::from_le_bytes),
    };
    Ok(Embeddings { storage: Storage::Copied(values), dim })
}

fn convert<const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    bytes.as_chunks::<N>().0.iter().map(|&bytes| number(bytes)).collect()
}

/// The labels of the tensor `name`, or of `labels`.
pub(super) fn read_labels(path: &Path, name: Option<&str>) -> Result<Vec<i64>, ReadError> {
    let map = map(path)?;
    let file = SafeTensors::deserialize(&map).map_err(damaged(path))?;
    let named = name.unwrap_or("labels");
    let view = file.tensor(named).map_err(|_| {
        contents(path, format!("no tensor \"{named}\""), format!("one of {:?}", file.names()))
    })?;
    let bytes = view.data();
    match (view.dtype(), view.shape().len()) {
        (Dtype::I64, 1) => Ok(bytes.as_chunks().0.iter().map(|&b| i64::from_le_bytes(b)).collect()),
        (Dtype::I32, 1) => {
            Ok(bytes.as_chunks().0.iter().map(|&b| i32::from_le_bytes(b).into()).collect())
        }
        (kind, _) => {
            let found = format!("{kind:?} of shape {:?}", view.shape());
            Err(contents(path, found, "whole numbers of shape [rows]"))
        }
    }
}

/// By hand, because the crate wants every tensor whole in memory. The format is a length, a JSON
/// header and the tensors one after the other.
pub(super) fn write(
    table: &EmbeddingTable<'_>,
    mut rows: RowReader,
    out: &mut impl Write,
) -> io::Result<()> {
    let count = table.indices.len();
    let lengths = table.indices.iter().map(|&image| table.dataset.name(image).len());
    let name_ends: Vec<i64> = lengths
        .scan(0, |end, length| {
            *end += length as i64;
            Some(*end)
        })
        .collect();
    let names = name_ends.last().copied().unwrap_or(0) as usize;
    let mut header = serde_json::Map::new();
    let mut offset = 0;
    for (name, dtype, shape, bytes) in [
        ("index", "I64", vec![count], count * 8),
        ("labels", "I64", vec![count], count * 8),
        ("name_ends", "I64", vec![count], count * 8),
        (&table.summary.provenance.output, "F32", vec![count, rows.width], count * rows.width * 4),
        ("names", "U8", vec![names], names),
    ] {
        let offsets = [offset, offset + bytes];
        offset += bytes;
        let entry = serde_json::json!({"dtype": dtype, "shape": shape, "data_offsets": offsets});
        header.insert(name.to_owned(), entry);
    }
    let metadata = serde_json::json!({
        "classes": serde_json::to_string(table.dataset.classes())?,
        "source": serde_json::to_string(&table.summary.provenance)?,
    });
    header.insert("__metadata__".to_owned(), metadata);
    let mut header = serde_json::to_vec(&header)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    for &image in &table.indices {
        out.write_all(&(image as i64).to_le_bytes())?;
    }
    for &image in &table.indices {
        let label = table.dataset.label(image).map_or(-1, |label| label as i64);
        out.write_all(&label.to_le_bytes())?;
    }
    for end in name_ends {
        out.write_all(&end.to_le_bytes())?;
    }
    io::copy(&mut rows.file, out)?;
    for &image in &table.indices {
        out.write_all(table.dataset.name(image).as_bytes())?;
    }
    Ok(())
}
