//! Reading what any program may have written: a file of embeddings in, rows of float32 out.
//!
//! `FILE[#NAME]`: an `.npy` array, a tensor of a `.safetensors` file, or a `.parquet` column. Arrays that
//! lie in the file as float32 are mapped into memory, not read: they may be larger than it.

use std::fs::File;
use std::io::{self, Cursor};
use std::ops::Range;
use std::path::{Path, PathBuf};

use half::f16;
use memmap2::Mmap;
use npyz::{NpyFile, NpyHeader, Order};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::DataType;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::ColumnDescPtr;
use safetensors::tensor::{Dtype, SafeTensors};

/// Why a file of embeddings or labels cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The system cannot.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A name that ends in none of the known ways.
    #[error("{path} is of no known format: expected a name that ends in {expected}")]
    Format {
        /// The file.
        path: PathBuf,
        /// The endings.
        expected: &'static str,
    },
    /// A file that is not what its name says.
    #[error("{path} is damaged or not what its name says: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Something else than asked for in the file.
    #[error("{path} has {found}: expected {expected}")]
    Contents {
        /// The file.
        path: PathBuf,
        /// What is there.
        found: String,
        /// What should be.
        expected: String,
    },
}

/// Rows of embeddings from a file.
pub struct Embeddings {
    storage: Storage,
    dim: usize,
}

enum Storage {
    Mapped { map: Mmap, range: Range<usize> },
    Copied(Vec<f32>),
}

impl Embeddings {
    /// The values, row by row.
    pub fn values(&self) -> &[f32] {
        match &self.storage {
            Storage::Mapped { map, range } => as_floats(&map[range.clone()]).unwrap_or(&[]),
            Storage::Copied(values) => values,
        }
    }

    /// The length of a row.
    pub fn dim(&self) -> usize {
        self.dim
    }
}

/// Bytes as the float32 values they are, where they lie as the processor wants them.
fn as_floats(bytes: &[u8]) -> Option<&[f32]> {
    if cfg!(target_endian = "big") {
        return None;
    }
    // SAFETY: every pattern of bits is a float32.
    let (before, values, after) = unsafe { bytes.align_to::<f32>() };
    (before.is_empty() && after.is_empty()).then_some(values)
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
    // SAFETY: the map is only read. That nobody shortens the file meanwhile is asked of the user, as of
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
        "npy" => read_npy(&path)?,
        "safetensors" => read_safetensors(&path, name)?,
        "parquet" => read_parquet(&path, name)?,
        _ => {
            return Err(ReadError::Format { path, expected: ".npy, .safetensors or .parquet" });
        }
    };
    if embeddings.dim == 0 || embeddings.values().is_empty() {
        return Err(contents(&path, "no values", "at least one embedding"));
    }
    Ok(embeddings)
}

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

fn read_npy(path: &Path) -> Result<Embeddings, ReadError> {
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

fn read_safetensors(path: &Path, name: Option<&str>) -> Result<Embeddings, ReadError> {
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
        Dtype::BF16 => convert(bytes, |bytes| half::bf16::from_le_bytes(bytes).into()),
        Dtype::F64 => convert(bytes, |bytes| f64::from_le_bytes(bytes) as f32),
        _ => convert(bytes, f32::from_le_bytes),
    };
    Ok(Embeddings { storage: Storage::Copied(values), dim })
}

fn convert<const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    bytes.as_chunks::<N>().0.iter().map(|&bytes| number(bytes)).collect()
}

fn read_parquet(path: &Path, name: Option<&str>) -> Result<Embeddings, ReadError> {
    use parquet::basic::Type;
    let file =
        File::open(path).map_err(|source| ReadError::Io { path: path.to_owned(), source })?;
    let reader = SerializedFileReader::new(file).map_err(damaged(path))?;
    let schema = reader.metadata().file_metadata().schema_descr();
    let floats: Vec<(usize, &ColumnDescPtr)> = schema
        .columns()
        .iter()
        .enumerate()
        .filter(|(_, column)| matches!(column.physical_type(), Type::FLOAT | Type::DOUBLE))
        .filter(|(_, column)| name.is_none_or(|name| column.path().parts()[0] == name))
        .collect();
    let lists: Vec<usize> = floats
        .iter()
        .filter(|(_, column)| column.max_rep_level() == 1)
        .map(|(number, _)| *number)
        .collect();
    let single: Vec<usize> = floats
        .iter()
        .filter(|(_, column)| column.max_rep_level() == 0)
        .map(|(number, _)| *number)
        .collect();
    let columns = match (lists.len(), single.len()) {
        (1, _) => lists,
        (0, 1..) => single,
        (count, _) => {
            let found = format!("{count} columns of lists of float numbers");
            let expected = "one, or columns of float numbers; FILE#NAME chooses a column";
            return Err(contents(path, found, expected));
        }
    };
    let columns: Vec<(Vec<f32>, usize)> = columns
        .into_iter()
        .map(|column| parquet_column(path, &reader, column))
        .collect::<Result<_, _>>()?;
    if let [(values, dim)] = columns.as_slice() {
        return Ok(Embeddings { storage: Storage::Copied(values.clone()), dim: *dim });
    }
    let rows = columns[0].0.len();
    let values: Vec<f32> =
        (0..rows).flat_map(|row| columns.iter().map(move |(column, _)| column[row])).collect();
    Ok(Embeddings { storage: Storage::Copied(values), dim: columns.len() })
}

/// A column of numbers, or of lists of equally many: its values, and how many a row.
fn parquet_column(
    path: &Path,
    reader: &SerializedFileReader<File>,
    column: usize,
) -> Result<(Vec<f32>, usize), ReadError> {
    let (mut values, mut lengths) = (Vec::new(), Vec::new());
    for group in 0..reader.num_row_groups() {
        let group = reader.get_row_group(group).map_err(damaged(path))?;
        match group.get_column_reader(column).map_err(damaged(path))? {
            ColumnReader::FloatColumnReader(column) => {
                parquet_values(path, column, &mut lengths, &mut values, |value| value)?;
            }
            ColumnReader::DoubleColumnReader(column) => {
                parquet_values(path, column, &mut lengths, &mut values, |value| value as f32)?;
            }
            _ => return Err(damaged(path)("a column changes its type")),
        }
    }
    let dim = lengths.first().copied().unwrap_or(0);
    if let Some(row) = lengths.iter().position(|&length| length != dim) {
        let found = format!("{} numbers in row {row} and {dim} in row 0", lengths[row]);
        return Err(contents(path, found, "equally many in each row, and none missing"));
    }
    Ok((values, dim))
}

fn parquet_values<T: DataType>(
    path: &Path,
    mut column: ColumnReaderImpl<T>,
    lengths: &mut Vec<usize>,
    values: &mut Vec<f32>,
    number: impl Fn(T::T) -> f32,
) -> Result<(), ReadError> {
    const ROWS: usize = 1 << 16;
    loop {
        let (mut defined, mut repeated, mut found) = (Vec::new(), Vec::new(), Vec::new());
        let (rows, present, levels) = column
            .read_records(ROWS, Some(&mut defined), Some(&mut repeated), &mut found)
            .map_err(damaged(path))?;
        if rows == 0 {
            return Ok(());
        }
        let full = defined.iter().copied().max().unwrap_or(0);
        if present < levels || defined.iter().any(|&level| level < full) {
            let found = "a row without numbers, or with a null among them";
            return Err(contents(path, found, "a number everywhere"));
        }
        if repeated.is_empty() {
            lengths.extend(std::iter::repeat_n(1, rows));
        }
        for &level in &repeated {
            if level == 0 {
                lengths.push(0);
            }
            if let Some(length) = lengths.last_mut() {
                *length += 1;
            }
        }
        values.extend(found.into_iter().map(&number));
    }
}

/// The labels of `FILE[#NAME]`, as numbers: whole numbers of an `.npy` array, a `.safetensors` tensor,
/// or a text file with one label a line, whatever it is made of.
///
/// # Errors
/// When it cannot be read, or holds no list of labels.
pub fn read_labels(argument: &str) -> Result<Vec<i64>, ReadError> {
    let (path, name) = split(argument);
    match ending(&path).as_str() {
        "npy" => {
            let map = map(&path)?;
            let (_, header) = npy_header(&path, &map)?;
            if header.shape().len() != 1 {
                let found = format!("an array of shape {:?}", header.shape());
                return Err(contents(&path, found, "an array of shape [rows]"));
            }
            let kind = header.dtype().descr();
            match kind.trim_matches('\'').get(1..) {
                Some("i8") => npy_values(&path, &map),
                Some("i4") => Ok(widened(npy_values::<i32>(&path, &map)?)),
                Some("i2") => Ok(widened(npy_values::<i16>(&path, &map)?)),
                Some("u1") => Ok(widened(npy_values::<u8>(&path, &map)?)),
                _ => Err(contents(&path, format!("values of type {kind}"), "whole numbers")),
            }
        }
        "safetensors" => {
            let map = map(&path)?;
            let file = SafeTensors::deserialize(&map).map_err(damaged(&path))?;
            let named = name.unwrap_or("labels");
            let view = file.tensor(named).map_err(|_| {
                contents(
                    &path,
                    format!("no tensor \"{named}\""),
                    format!("one of {:?}", file.names()),
                )
            })?;
            let bytes = view.data();
            match (view.dtype(), view.shape().len()) {
                (Dtype::I64, 1) => {
                    Ok(bytes.as_chunks().0.iter().map(|&b| i64::from_le_bytes(b)).collect())
                }
                (Dtype::I32, 1) => {
                    Ok(bytes.as_chunks().0.iter().map(|&b| i32::from_le_bytes(b).into()).collect())
                }
                (kind, _) => {
                    let found = format!("{kind:?} of shape {:?}", view.shape());
                    Err(contents(&path, found, "whole numbers of shape [rows]"))
                }
            }
        }
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

fn widened<T: Into<i64>>(numbers: Vec<T>) -> Vec<i64> {
    numbers.into_iter().map(Into::into).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use parquet::data_type::{DoubleType, FloatType};
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;

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
        assert!(refusal("missing.npy").contains("missing.npy"));
    }

    #[test]
    fn a_tensor_is_found_by_its_name_or_because_it_is_the_only_matrix() {
        let folder = Folder::new();
        let values: Vec<u8> = (0..6).flat_map(|value| (value as f32).to_le_bytes()).collect();
        let view = |shape: &[usize]| {
            safetensors::tensor::TensorView::new(Dtype::F32, shape.to_vec(), &values).unwrap()
        };
        let write = |name: &str, tensors: Vec<(&str, &[usize])>| {
            let tensors = tensors.into_iter().map(|(name, shape)| (name, view(shape)));
            folder.file(name, &safetensors::serialize(tensors, None).unwrap())
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
    fn parquet_gives_a_column_of_lists_or_columns_of_numbers() {
        let folder = Folder::new();
        let write = |name: &str, schema: &str, columns: &[(&[f64], &[i16], &[i16])]| {
            let path = folder.0.path().join(name);
            let schema = Arc::new(parse_message_type(schema).unwrap());
            let compressed = WriterProperties::builder()
                .set_compression(parquet::basic::Compression::SNAPPY)
                .build();
            let file = File::create(&path).unwrap();
            let mut writer = SerializedFileWriter::new(file, schema, Arc::new(compressed)).unwrap();
            let mut group = writer.next_row_group().unwrap();
            let mut columns = columns.iter();
            while let Some(mut column) = group.next_column().unwrap() {
                let (values, defined, repeated) = columns.next().unwrap();
                // Columns that cannot be null have no levels.
                let [defined, repeated] =
                    [defined, repeated].map(|levels| (!levels.is_empty()).then_some(*levels));
                match column.untyped() {
                    parquet::column::writer::ColumnWriter::FloatColumnWriter(_) => {
                        let values: Vec<f32> = values.iter().map(|&value| value as f32).collect();
                        column.typed::<FloatType>().write_batch(&values, defined, repeated)
                    }
                    _ => column.typed::<DoubleType>().write_batch(values, defined, repeated),
                }
                .unwrap();
                column.close().unwrap();
            }
            group.close().unwrap();
            writer.close().unwrap();
            path.to_str().unwrap().to_owned()
        };
        let list = "message m { optional group e (LIST) { repeated group list { optional float element; } } required double x; required float y; }";
        let numbers = [0.0, 1.0, 2.0, 3.0];
        let (x, y) = (&[7.0, 8.0][..], &[9.0, 10.0][..]);
        let with = |lists: (&'static [i16], &'static [i16]), name: &str| {
            let count = lists.0.iter().filter(|&&level| level == 3).count();
            write(
                name,
                list,
                &[(&numbers[..count], lists.0, lists.1), (x, &[], &[]), (y, &[], &[])],
            )
        };
        let good = with((&[3, 3, 3, 3], &[0, 1, 0, 1]), "good.parquet");
        let found = read(&good).unwrap();
        assert_eq!((found.dim(), found.values()), (2, &[0.0, 1.0, 2.0, 3.0][..]));
        let x = read(&format!("{good}#x")).unwrap();
        assert_eq!((x.dim(), x.values()), (1, &[7.0, 8.0][..]));
        let ragged = with((&[3, 3, 3, 3], &[0, 1, 1, 0]), "ragged.parquet");
        assert!(refusal(&ragged).contains("1 numbers in row 1 and 3 in row 0"));
        let null = with((&[3, 3, 3, 2], &[0, 1, 0, 1]), "null.parquet");
        assert!(refusal(&null).contains("null"));
        let wide = "message m { required double x; required float y; }";
        let wide = write("wide.parquet", wide, &[(&[7.0, 8.0], &[], &[]), (y, &[], &[])]);
        let found = read(&wide).unwrap();
        assert_eq!((found.dim(), found.values()), (2, &[7.0, 9.0, 8.0, 10.0][..]));
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
