//! The formats of embeddings, a file each: what is read and written under a name's ending.
//!
//! `FILE[#NAME]` goes in, written by this program or any other, and rows of float32 come out: an `.npy`
//! array, a tensor of a `.safetensors` file, or a `.parquet` column. Arrays that lie in the file as
//! float32 are mapped into memory, not read: they may be larger than it. The other way, rows and what is
//! known of their images go into one of the same formats, or into `.csv`.

pub(super) mod csv;
mod npy;
#[cfg(feature = "parquet")]
mod parquet;
mod safetensors;

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use super::stored::Embeddings;
use super::table::{EmbeddingTable, RowReader};
use super::{EmbeddingsError, ReadError};

/// What a file of embeddings can be written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// float32 [rows, width]; names and labels go to `OUT.images.csv`.
    Npy,
    /// The rows under the name of the output, `index`, `labels` (−1: none), and the names as bytes.
    Safetensors,
    /// Columns `index`, `name`, `label` and a list of numbers.
    #[cfg(feature = "parquet")]
    Parquet,
    /// Columns `index`, `name`, `label`, then one column per number.
    Csv,
}

impl Format {
    /// The format that a file's name ends in.
    ///
    /// # Errors
    /// When it ends in none.
    pub fn of(path: &Path) -> Result<Format, EmbeddingsError> {
        match ending(path).as_str() {
            "npy" => Ok(Format::Npy),
            "safetensors" => Ok(Format::Safetensors),
            #[cfg(feature = "parquet")]
            "parquet" => Ok(Format::Parquet),
            #[cfg(not(feature = "parquet"))]
            "parquet" => Err(EmbeddingsError::NoParquet(path.to_owned())),
            "csv" => Ok(Format::Csv),
            _ => Err(EmbeddingsError::Format(path.to_owned())),
        }
    }
    /// Writes all of `rows` and what `table` says of them.
    pub(super) fn write(
        self,
        table: &EmbeddingTable<'_>,
        rows: RowReader,
        out: &mut (impl Write + Send),
    ) -> io::Result<()> {
        match self {
            Format::Npy => npy::write(table, rows, out),
            Format::Safetensors => safetensors::write(table, rows, out),
            #[cfg(feature = "parquet")]
            Format::Parquet => parquet::write(table, rows, out),
            Format::Csv => csv::write(table, rows, out),
        }
    }
}

/// `FILE[#NAME]` in two.
fn split(argument: &str) -> (PathBuf, Option<&str>) {
    match argument.rsplit_once('#') {
        Some((file, name)) if !Path::new(argument).exists() => (file.into(), Some(name)),
        _ => (argument.into(), None),
    }
}

fn ending(path: &Path) -> String {
    path.extension().unwrap_or_default().to_string_lossy().to_lowercase()
}

fn damaged<E: std::fmt::Display>(path: &Path) -> impl Fn(E) -> ReadError + '_ {
    move |reason| ReadError::Damaged { path: path.to_owned(), reason: reason.to_string() }
}

fn contents(path: &Path, found: impl Into<String>, expected: impl Into<String>) -> ReadError {
    ReadError::Contents { path: path.to_owned(), found: found.into(), expected: expected.into() }
}

fn map(path: &Path) -> Result<Mmap, ReadError> {
    let failed = |source| ReadError::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    // SAFETY: the map is only read. That the file is not shortened meanwhile is asked of the user, as of
    // every program that maps files.
    unsafe { Mmap::map(&file) }.map_err(failed)
}

/// Opens the embeddings of `FILE[#NAME]`, where NAME is a tensor or a column.
///
/// From a parquet file come a column of lists of equal length, or else all columns of float numbers
/// side by side.
///
/// # Errors
/// When it cannot be read, or holds no matrix of numbers.
pub fn read(argument: &str) -> Result<Embeddings, ReadError> {
    let (path, name) = split(argument);
    let embeddings = match ending(&path).as_str() {
        "npy" => npy::read(&path)?,
        "safetensors" => safetensors::read(&path, name)?,
        #[cfg(feature = "parquet")]
        "parquet" => parquet::read(&path, name)?,
        #[cfg(not(feature = "parquet"))]
        "parquet" => return Err(ReadError::NoParquet(path)),
        _ => {
            return Err(ReadError::Format { path, expected: ".npy, .safetensors or .parquet" });
        }
    };
    if embeddings.dim == 0 || embeddings.values().is_empty() {
        return Err(contents(&path, "no values", "at least one embedding"));
    }
    Ok(embeddings)
}

/// The labels of `FILE[#NAME]`, as numbers: whole numbers of an `.npy` array, a `.safetensors` tensor,
/// or a text file with one label per line, of any text.
///
/// # Errors
/// When it cannot be read, or holds no list of labels.
pub fn read_labels(argument: &str) -> Result<Vec<i64>, ReadError> {
    let (path, name) = split(argument);
    match ending(&path).as_str() {
        "npy" => npy::read_labels(&path),
        "safetensors" => safetensors::read_labels(&path, name),
        "txt" | "csv" | "tsv" | "" => {
            let text = std::fs::read_to_string(&path)
                .map_err(|source| ReadError::Io { path: path.clone(), source })?;
            let mut known: Vec<&str> = text.lines().collect();
            known.sort_unstable();
            known.dedup();
            let number = |line| known.binary_search(&line).unwrap_or(0) as i64;
            Ok(text.lines().map(number).collect())
        }
        _ => Err(ReadError::Format { path, expected: ".npy, .safetensors or .txt" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embeddings::stored::Storage;
    use ::safetensors::tensor::{Dtype, TensorView};
    use half::f16;

    /// An `.npy` file as numpy writes it.
    fn npy(kind: &str, fortran: &str, shape: &str, values: &[u8]) -> Vec<u8> {
        let mut header =
            format!("{{'descr': '{kind}', 'fortran_order': {fortran}, 'shape': {shape}, }}");
        while !(10 + header.len() + 1).is_multiple_of(64) {
            header.push(' ');
        }
        header.push('\n');
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(values);
        bytes
    }

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Folder {
            Folder(tempfile::tempdir().unwrap())
        }

        fn file(&self, name: &str, bytes: &[u8]) -> String {
            let path = self.0.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path.to_str().unwrap().to_owned()
        }
    }

    fn refusal(argument: &str) -> String {
        read(argument).err().unwrap().to_string()
    }

    #[test]
    fn arrays_of_numpy_are_read_whatever_their_type_and_order() {
        let folder = Folder::new();
        let singles: Vec<u8> = (0..6).flat_map(|value| (value as f32).to_le_bytes()).collect();
        let doubles: Vec<u8> = (0..6).flat_map(|value| f64::from(value).to_be_bytes()).collect();
        let halves: Vec<u8> =
            (0..6).flat_map(|value| f16::from_f32(value as f32).to_le_bytes()).collect();
        let by_rows = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0];
        let by_columns = [0.0, 2.0, 4.0, 1.0, 3.0, 5.0];
        for (kind, order, bytes, expected) in [
            ("<f4", "False", &singles, by_rows),
            ("<f4", "True", &singles, by_columns),
            (">f8", "False", &doubles, by_rows),
            ("<f2", "False", &halves, by_rows),
        ] {
            let found = read(&folder.file("rows.npy", &npy(kind, order, "(2, 3)", bytes))).unwrap();
            assert_eq!(found.dim(), 3);
            assert_eq!(found.values(), expected, "{kind} {order}");
            let mapped = matches!(found.storage, Storage::Mapped { .. });
            assert_eq!(mapped, (kind, order) == ("<f4", "False"));
        }
        let short = folder.file("short.npy", &npy("<f4", "False", "(3, 3)", &singles));
        assert!(refusal(&short).contains("ends too early"));
        let flat = folder.file("flat.npy", &npy("<f4", "False", "(6,)", &singles));
        assert!(refusal(&flat).contains("[rows, dim]"));
        let none = folder.file("none.npy", &npy("<f4", "False", "(0, 3)", &[]));
        assert!(refusal(&none).contains("at least one embedding"));
        assert!(refusal(&folder.file("noise.npy", b"noise")).contains("not what its name says"));
        assert!(refusal(&folder.file("rows.xyz", b"")).contains(".parquet"));
        if cfg!(not(feature = "parquet")) {
            assert!(refusal(&folder.file("rows.parquet", b"")).contains("feature `parquet`"));
        }
        assert!(refusal("missing.npy").contains("missing.npy"));
    }

    #[test]
    fn a_tensor_is_found_by_its_name_or_because_it_is_the_only_matrix() {
        let folder = Folder::new();
        let values: Vec<u8> = (0..6).flat_map(|value| (value as f32).to_le_bytes()).collect();
        let view = |shape: &[usize]| TensorView::new(Dtype::F32, shape.to_vec(), &values).unwrap();
        let write = |name: &str, tensors: Vec<(&str, &[usize])>| {
            let tensors = tensors.into_iter().map(|(name, shape)| (name, view(shape)));
            folder.file(name, &::safetensors::serialize(tensors, None).unwrap())
        };
        let one = write("one.safetensors", vec![("a", &[2, 3]), ("b", &[6])]);
        assert_eq!(read(&one).unwrap().dim(), 3);
        let two = write("two.safetensors", vec![("a", &[2, 3]), ("b", &[3, 2])]);
        assert!(refusal(&two).contains("2 matrices"));
        let chosen = read(&format!("{two}#b")).unwrap();
        assert_eq!((chosen.dim(), chosen.values()), (2, &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0][..]));
        assert!(refusal(&format!("{two}#c")).contains("no matrix of numbers \"c\""));
    }

    #[test]
    fn labels_are_numbers_or_lines() {
        let folder = Folder::new();
        let numbers: Vec<u8> = [5i64, -1, 5].iter().flat_map(|value| value.to_le_bytes()).collect();
        let file = folder.file("labels.npy", &npy("<i8", "False", "(3,)", &numbers));
        assert_eq!(read_labels(&file).unwrap(), [5, -1, 5]);
        let lines = folder.file("labels.txt", b"frog\ncat\nfrog\n");
        assert_eq!(read_labels(&lines).unwrap(), [1, 0, 1]);
    }
}
