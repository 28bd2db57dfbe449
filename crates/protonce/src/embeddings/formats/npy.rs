//! NumPy's `.npy`: one array, without names or labels.

use std::io::{self, Cursor, Write};
use std::path::Path;

use half::f16;
use memmap2::Mmap;
use npyz::{NpyFile, NpyHeader, Order, WriterBuilder};

use super::{contents, damaged, map};
use crate::embeddings::ReadError;
use crate::embeddings::stored::{Embeddings, Storage, as_floats};
use crate::embeddings::table::{EmbeddingTable, RowReader};

/// The bytes of an `.npy` file's header, and what it says.
fn npy_header(path: &Path, map: &Mmap) -> Result<(usize, NpyHeader), ReadError> {
    let mut reader = Cursor::new(&map[..]);
    let header = NpyHeader::from_reader(&mut reader).map_err(damaged(path))?;
    Ok((reader.position() as usize, header))
}

/// All values of an `.npy` file as `T`.
fn npy_values<T: npyz::Deserialize>(path: &Path, map: &Mmap) -> Result<Vec<T>, ReadError> {
    NpyFile::new(&map[..]).and_then(NpyFile::into_vec).map_err(damaged(path))
}

/// The rows of a matrix of numbers.
pub(super) fn read(path: &Path) -> Result<Embeddings, ReadError> {
    let map = map(path)?;
    let (start, header) = npy_header(path, &map)?;
    let [rows, dim] = header.shape() else {
        let found = format!("an array of shape {:?}", header.shape());
        return Err(contents(path, found, "an array of shape [rows, dim]"));
    };
    let (rows, dim) = (*rows as usize, *dim as usize);
    let kind = header.dtype().descr();
    let by_rows = header.order() == Order::C;
    if by_rows && kind == "'<f4'" {
        let end = rows
            .checked_mul(dim)
            .and_then(|count| count.checked_mul(4))
            .and_then(|bytes| bytes.checked_add(start));
        let Some(end) = end.filter(|&end| end <= map.len()) else {
            return Err(damaged(path)("it ends too early"));
        };
        if as_floats(&map[start..end]).is_some() {
            return Ok(Embeddings { storage: Storage::Mapped { map, range: start..end }, dim });
        }
    }
    let values: Vec<f32> = match kind.trim_matches('\'').get(1..) {
        Some("f4") => npy_values(path, &map)?,
        Some("f8") => {
            npy_values::<f64>(path, &map)?.into_iter().map(|value| value as f32).collect()
        }
        Some("f2") => npy_values::<f16>(path, &map)?.into_iter().map(f32::from).collect(),
        _ => {
            return Err(contents(path, format!("values of type {kind}"), "float16, 32 or 64"));
        }
    };
    let values = if by_rows { values } else { transpose(&values, rows) };
    Ok(Embeddings { storage: Storage::Copied(values), dim })
}

/// Row by row what lies column by column, `rows` to a column.
fn transpose(values: &[f32], rows: usize) -> Vec<f32> {
    (0..rows).flat_map(|row| values.iter().skip(row).step_by(rows)).copied().collect()
}

/// The labels of an array of whole numbers.
pub(super) fn read_labels(path: &Path) -> Result<Vec<i64>, ReadError> {
    let map = map(path)?;
    let (_, header) = npy_header(path, &map)?;
    if header.shape().len() != 1 {
        let found = format!("an array of shape {:?}", header.shape());
        return Err(contents(path, found, "an array of shape [rows]"));
    }
    let kind = header.dtype().descr();
    match kind.trim_matches('\'').get(1..) {
        Some("i8") => npy_values(path, &map),
        Some("i4") => Ok(widened(npy_values::<i32>(path, &map)?)),
        Some("i2") => Ok(widened(npy_values::<i16>(path, &map)?)),
        Some("u1") => Ok(widened(npy_values::<u8>(path, &map)?)),
        _ => Err(contents(path, format!("values of type {kind}"), "whole numbers")),
    }
}

fn widened<T: Into<i64>>(numbers: Vec<T>) -> Vec<i64> {
    numbers.into_iter().map(Into::into).collect()
}

/// float32 [rows, width].
pub(super) fn write(
    table: &EmbeddingTable<'_>,
    mut rows: RowReader,
    out: &mut impl Write,
) -> io::Result<()> {
    let shape = [table.indices.len() as u64, rows.width as u64];
    let options = npyz::WriteOptions::<f32>::new().default_dtype().shape(&shape);
    let mut array = options.writer(out).begin_nd()?;
    for _ in &table.indices {
        array.extend(rows.next()?)?;
    }
    array.finish()
}
