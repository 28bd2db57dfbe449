//! Apache Parquet (feature `parquet`): columns `index`, `name`, `label` and a list of numbers.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use parquet::basic::{Compression, Type};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, FloatType, Int64Type};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::ColumnDescPtr;

use super::{contents, damaged};
use crate::embeddings::ReadError;
use crate::embeddings::stored::{Embeddings, Storage};
use crate::embeddings::table::{EmbeddingTable, RowReader};

/// The rows of the column `name`, or of the only ones that can be meant.
pub(super) fn read(path: &Path, name: Option<&str>) -> Result<Embeddings, ReadError> {
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
        .map(|column| read_column(path, &reader, column))
        .collect::<Result<_, _>>()?;
    if let [(values, dim)] = columns.as_slice() {
        return Ok(Embeddings { storage: Storage::Copied(values.clone()), dim: *dim });
    }
    let rows = columns[0].0.len();
    let values: Vec<f32> =
        (0..rows).flat_map(|row| columns.iter().map(move |(column, _)| column[row])).collect();
    Ok(Embeddings { storage: Storage::Copied(values), dim: columns.len() })
}

/// A column of numbers, or of lists of equal length: its values, and how many per row.
fn read_column(
    path: &Path,
    reader: &SerializedFileReader<File>,
    column: usize,
) -> Result<(Vec<f32>, usize), ReadError> {
    let (mut values, mut lengths) = (Vec::new(), Vec::new());
    for group in 0..reader.num_row_groups() {
        let group = reader.get_row_group(group).map_err(damaged(path))?;
        match group.get_column_reader(column).map_err(damaged(path))? {
            ColumnReader::FloatColumnReader(column) => {
                read_values(path, column, &mut lengths, &mut values, |value| value)?;
            }
            ColumnReader::DoubleColumnReader(column) => {
                read_values(path, column, &mut lengths, &mut values, |value| value as f32)?;
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

fn read_values<T: DataType>(
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

pub(super) fn write(
    table: &EmbeddingTable<'_>,
    mut rows: RowReader,
    out: &mut (impl Write + Send),
) -> io::Result<()> {
    const GROUP: usize = 8192;
    let output = &table.summary.provenance.output;
    let schema = parse_message_type(&format!(
        "message images {{ required int64 index; required binary name (UTF8); optional binary \
         label (UTF8); required group {output} (LIST) {{ repeated group list {{ required float \
         element; }} }} }}"
    ))?;
    let provenance = serde_json::to_string(&table.summary.provenance)?;
    let properties = WriterProperties::builder()
        .set_created_by(format!("protonce {}", env!("CARGO_PKG_VERSION")))
        .set_key_value_metadata(Some(vec![KeyValue::new("source".to_owned(), provenance)]))
        // Rows of an encoder neither repeat nor have meaningful bounds.
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_compression(Compression::UNCOMPRESSED)
        .build();
    let mut file = SerializedFileWriter::new(out, Arc::new(schema), Arc::new(properties))?;
    for images in table.indices.chunks(GROUP) {
        let mut group = file.next_row_group()?;
        let index: Vec<i64> = images.iter().map(|&image| image as i64).collect();
        let name = |&image: &usize| ByteArray::from(table.dataset.name(image));
        let names: Vec<ByteArray> = images.iter().map(name).collect();
        let labels: Vec<Option<&str>> = images.iter().map(|&image| table.label(image)).collect();
        let labelled: Vec<i16> = labels.iter().map(|label| i16::from(label.is_some())).collect();
        let labels: Vec<ByteArray> = labels.into_iter().flatten().map(ByteArray::from).collect();
        let mut numbers = Vec::with_capacity(images.len() * rows.width);
        for _ in images {
            numbers.extend(rows.next()?);
        }
        // All there; a row begins where nothing is repeated.
        let defined = vec![1; numbers.len()];
        let repeated: Vec<i16> =
            (0..numbers.len()).map(|number| i16::from(number % rows.width != 0)).collect();

        let missing = || io::Error::other("a column is missing");
        let mut column = group.next_column()?.ok_or_else(missing)?;
        column.typed::<Int64Type>().write_batch(&index, None, None)?;
        column.close()?;
        let mut column = group.next_column()?.ok_or_else(missing)?;
        column.typed::<ByteArrayType>().write_batch(&names, None, None)?;
        column.close()?;
        let mut column = group.next_column()?.ok_or_else(missing)?;
        column.typed::<ByteArrayType>().write_batch(&labels, Some(&labelled), None)?;
        column.close()?;
        let mut column = group.next_column()?.ok_or_else(missing)?;
        let typed = column.typed::<FloatType>();
        typed.write_batch(&numbers, Some(&defined), Some(&repeated))?;
        column.close()?;
        group.close()?;
    }
    file.close()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embeddings::read as read_file;
    use parquet::data_type::DoubleType;

    fn refusal(argument: &str) -> String {
        read_file(argument).err().unwrap().to_string()
    }

    #[test]
    fn parquet_gives_a_column_of_lists_or_columns_of_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, schema: &str, columns: &[(&[f64], &[i16], &[i16])]| {
            let path = folder.path().join(name);
            let schema = Arc::new(parse_message_type(schema).unwrap());
            let compressed =
                WriterProperties::builder().set_compression(Compression::SNAPPY).build();
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
        let found = read_file(&good).unwrap();
        assert_eq!((found.dim(), found.values()), (2, &[0.0, 1.0, 2.0, 3.0][..]));
        let x = read_file(&format!("{good}#x")).unwrap();
        assert_eq!((x.dim(), x.values()), (1, &[7.0, 8.0][..]));
        let ragged = with((&[3, 3, 3, 3], &[0, 1, 1, 0]), "ragged.parquet");
        assert!(refusal(&ragged).contains("1 numbers in row 1 and 3 in row 0"));
        let null = with((&[3, 3, 3, 2], &[0, 1, 0, 1]), "null.parquet");
        assert!(refusal(&null).contains("null"));
        let wide = "message m { required double x; required float y; }";
        let wide = write("wide.parquet", wide, &[(&[7.0, 8.0], &[], &[]), (y, &[], &[])]);
        let found = read_file(&wide).unwrap();
        assert_eq!((found.dim(), found.values()), (2, &[7.0, 9.0, 8.0, 10.0][..]));
    }
}
