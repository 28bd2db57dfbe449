//! Parquet files with a column of encoded images, as Hugging Face's `datasets` writes them (a struct of
//! `bytes` and `path`) or as plain binary, and with a column of labels if there is one.
//!
//! Labels are read when a file is opened, images one by one: where each page of the column begins is
//! noted once, so that an image costs reading its page and no more.

use std::io::BufReader;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use parquet::basic::{ConvertedType, Type};
use parquet::column::page::PageReader;
use parquet::column::reader::{ColumnReader, get_column_reader};
use parquet::data_type::ByteArray;
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData};
use parquet::file::page_index::offset_index::PageLocation;
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::serialized_reader::SerializedPageReader;
use parquet::schema::types::ColumnDescriptor;

use super::DataError;
use super::error::some_of;
use super::listing::Listing;
use super::name::{LABEL_COLUMNS, file_name};
use super::shards::Shard;
use super::source::{Blob, Reader};
use super::storage::{Extent, Storage};
use super::store::Object;

/// Lists the images of the files, one a row.
pub(super) fn list(
    shards: &[Shard],
    subfolder: Option<&str>,
) -> Result<(Storage, Listing), DataError> {
    let mut listing = Listing::default();
    let mut tables = Vec::with_capacity(shards.len());
    for (number, shard) in shards.iter().enumerate() {
        let wrong = |problem| DataError::Table { path: shard.path().to_owned(), problem };
        if let Some(subfolder) = subfolder {
            return Err(DataError::UnknownSubfolder {
                path: shard.path().to_owned(),
                subfolder: subfolder.to_owned(),
                found: some_of(&[], "folders"),
            });
        }
        let table = Table::open(shard)?;
        let unreadable = |error: ParquetError| {
            DataError::of_store(error, |error| wrong(format!("cannot be read ({error})")))
        };
        let columns = Columns::find(&table.metadata).map_err(wrong)?;
        let labels = table.labels(&columns).map_err(unreadable)?;
        let paths = table.paths(&columns).map_err(unreadable)?;
        let pages = table.pages(columns.image).map_err(unreadable)?;
        let rows = labels.len();
        let digits = rows.saturating_sub(1).to_string().len();
        for (row, label) in labels.iter().enumerate() {
            // The number in front keeps the order of the rows and makes names unique.
            let name = match paths.get(row).and_then(Option::as_ref) {
                Some(path) => format!("{}{row:0digits$}-{}", shard.prefix, file_name(path)),
                None => format!("{}{row:0digits$}", shard.prefix),
            };
            let extent = Extent { file: number as u32, ..Extent::plain(row as u64, 0) };
            listing.push(&name, label.as_deref(), Some(extent));
        }
        tables.push(Column { column: columns.image, groups: pages, table });
    }
    if listing.is_empty() {
        let place = shards.first().map(|shard| shard.path().display().to_string());
        let (place, found) = (place.unwrap_or_default(), "no rows".to_owned());
        return Err(DataError::NoImages { place, found });
    }
    Ok((Storage::Tables(Tables(tables)), listing))
}

/// The image columns of several files.
#[derive(Debug)]
pub(super) struct Tables(Vec<Column>);

impl Tables {
    /// The files.
    pub fn blobs(&self) -> impl Iterator<Item = &Blob> {
        self.0.iter().map(|column| &*column.table.reader.blob)
    }

    /// The object with the row that `extent` names, and where in it the row's page lies.
    pub fn place(&self, extent: Extent) -> Option<(&Arc<Object>, Range<u64>)> {
        let column = self.0.get(extent.file as usize)?;
        let (_, group) = column.group(extent.offset as usize)?;
        let row = extent.offset as usize - group.first_row;
        let page = &group.pages[group.page(row)?];
        let begin = u64::try_from(page.offset).ok()?;
        let length = u64::try_from(page.compressed_page_size).ok()?;
        Some((column.table.reader.blob.object()?, begin..begin + length))
    }

    /// Replaces `bytes` by the image in the row and file that `extent` names.
    pub fn read(&self, name: &str, extent: Extent, bytes: &mut Vec<u8>) -> Result<(), DataError> {
        let missing = || DataError::Missing { path: name.into() };
        let column = self.0.get(extent.file as usize).ok_or_else(missing)?;
        let blob = &column.table.reader.blob;
        let wrong = |problem| DataError::Table { path: blob.path().to_owned(), problem };
        let row = extent.offset as usize;
        match column.image(row) {
            Ok(Some(image)) => bytes.extend_from_slice(image.data()),
            Ok(None) => return Err(wrong(format!("has no image in row {row}"))),
            Err(error) => {
                let unreadable = |error| wrong(format!("cannot be read in row {row} ({error})"));
                return Err(DataError::of_store(error, unreadable));
            }
        }
        Ok(())
    }
}

/// The column of images of one file.
#[derive(Debug)]
struct Column {
    table: Table,
    column: usize,
    groups: Vec<Group>,
}

/// A stretch of rows whose columns are stored together.
#[derive(Debug)]
struct Group {
    first_row: usize,
    rows: usize,
    pages: Vec<PageLocation>,
}

impl Group {
    /// The page with a row, counted within the group.
    fn page(&self, row: usize) -> Option<usize> {
        self.pages.partition_point(|page| page.first_row_index as usize <= row).checked_sub(1)
    }
}

impl Column {
    /// The group with a row, and its number.
    fn group(&self, row: usize) -> Option<(usize, &Group)> {
        let after = self.groups.partition_point(|group| group.first_row <= row);
        let number = after.checked_sub(1)?;
        Some((number, &self.groups[number]))
    }

    /// The image in a row; none where the column is null there.
    fn image(&self, row: usize) -> ParquetResult<Option<ByteArray>> {
        let Some((number, group)) = self.group(row) else { return Ok(None) };
        let row = row - group.first_row;
        let Some(page) = group.page(row) else { return Ok(None) };
        // The first page says where a dictionary ends. To the reader, it has all rows up to the page.
        let mut pages = vec![group.pages[0].clone()];
        let mut rows = group.rows;
        if page > 0 {
            pages.push(group.pages[page].clone());
        }
        if let Some(next) = group.pages.get(page + 1) {
            rows = next.first_row_index as usize;
        }
        let metadata = self.table.metadata.row_group(number);
        let reader = self.table.page_reader(metadata, self.column, rows, Some(pages))?;
        let mut values = Vec::new();
        read_strings(metadata.column(self.column).column_descr_ptr(), reader, row, 1, &mut values)?;
        Ok(values.pop().flatten())
    }
}

/// An open file.
#[derive(Debug)]
struct Table {
    reader: Arc<Positioned>,
    metadata: ParquetMetaData,
}

impl Table {
    fn open(shard: &Shard) -> Result<Table, DataError> {
        let path = shard.path();
        let blob = shard.source.open()?;
        let length = blob.length().map_err(|source| DataError::unreadable(path, source))?;
        let reader = Arc::new(Positioned { blob: Arc::new(blob), length, starts: None });
        let metadata = ParquetMetaDataReader::new().parse_and_finish(&*reader);
        let damaged = |error| DataError::Table {
            path: path.to_owned(),
            problem: format!("is damaged or cut short ({error}); copy or download it again"),
        };
        let metadata = metadata.map_err(|error| DataError::of_store(error, damaged))?;
        Ok(Table { reader, metadata })
    }

    fn page_reader(
        &self,
        group: &RowGroupMetaData,
        column: usize,
        rows: usize,
        pages: Option<Vec<PageLocation>>,
    ) -> ParquetResult<Box<dyn PageReader>> {
        let reader = Arc::clone(&self.reader);
        Ok(Box::new(SerializedPageReader::new(reader, group.column(column), rows, pages)?))
    }

    /// Where the pages of a column begin, by walking their headers.
    fn pages(&self, column: usize) -> ParquetResult<Vec<Group>> {
        let mut first_row = 0;
        let mut groups = Vec::new();
        for group in self.metadata.row_groups() {
            let rows = group.num_rows() as usize;
            let reader = Arc::new(Positioned {
                blob: Arc::clone(&self.reader.blob),
                length: self.reader.length,
                starts: Some(Mutex::default()),
            });
            let chunk = group.column(column);
            let mut walk = SerializedPageReader::new(Arc::clone(&reader), chunk, rows, None)?;
            let (begin, length) = chunk.byte_range();
            let mut pages: Vec<PageLocation> = Vec::new();
            let mut row = 0;
            while let Some(page) = walk.peek_next_page()? {
                // The last read was that of the page's header.
                let start = reader.last_start().unwrap_or(begin) as i64;
                if let Some(before) = pages.last_mut() {
                    before.compressed_page_size = (start - before.offset) as i32;
                }
                if !page.is_dict {
                    let offset = start;
                    pages.push(PageLocation {
                        offset,
                        compressed_page_size: 0,
                        first_row_index: row,
                    });
                    row += page.num_rows.or(page.num_levels).unwrap_or_default() as i64;
                }
                walk.skip_next_page()?;
            }
            if let Some(last) = pages.last_mut() {
                last.compressed_page_size = ((begin + length) as i64 - last.offset) as i32;
            }
            groups.push(Group { first_row, rows, pages });
            first_row += rows;
        }
        Ok(groups)
    }

    /// The text of each row's label; as many as there are rows.
    fn labels(&self, columns: &Columns) -> ParquetResult<Vec<Option<String>>> {
        let mut labels = Vec::new();
        for group in self.metadata.row_groups() {
            let rows = group.num_rows() as usize;
            let begin = labels.len();
            if let Some(column) = columns.label {
                let reader = self.page_reader(group, column, rows, None)?;
                let descriptor = group.column(column).column_descr_ptr();
                match descriptor.physical_type() {
                    Type::BYTE_ARRAY => {
                        let mut texts = Vec::new();
                        read_strings(descriptor, reader, 0, rows, &mut texts)?;
                        labels.extend(texts.into_iter().map(|text| text.as_ref().and_then(utf8)));
                    }
                    _ => {
                        let mut numbers = Vec::new();
                        read_numbers(descriptor, reader, rows, &mut numbers)?;
                        labels.extend(numbers.into_iter().map(|number| columns.class(number?)));
                    }
                }
            }
            labels.resize(begin + rows, None);
        }
        Ok(labels)
    }

    /// The path that stands beside each image; empty without such a column.
    fn paths(&self, columns: &Columns) -> ParquetResult<Vec<Option<String>>> {
        let Some(column) = columns.path else { return Ok(Vec::new()) };
        let mut paths = Vec::new();
        for group in self.metadata.row_groups() {
            let rows = group.num_rows() as usize;
            let reader = self.page_reader(group, column, rows, None)?;
            let mut texts = Vec::new();
            read_strings(group.column(column).column_descr_ptr(), reader, 0, rows, &mut texts)?;
            let path = |text: Option<ByteArray>| {
                text.as_ref().and_then(utf8).filter(|path| !file_name(path).is_empty())
            };
            paths.extend(texts.into_iter().map(path));
        }
        Ok(paths)
    }
}

fn utf8(text: &ByteArray) -> Option<String> {
    std::str::from_utf8(text.data()).ok().map(str::to_owned).filter(|text| !text.is_empty())
}

/// Reads `count` values of a column of bytes from row `begin` of a row group on; none for null.
fn read_strings(
    descriptor: Arc<ColumnDescriptor>,
    pages: Box<dyn PageReader>,
    begin: usize,
    count: usize,
    to: &mut Vec<Option<ByteArray>>,
) -> ParquetResult<()> {
    let most = descriptor.max_def_level();
    let ColumnReader::ByteArrayColumnReader(mut reader) = get_column_reader(descriptor, pages)
    else {
        return Err(ParquetError::General("not a column of bytes".to_owned()));
    };
    reader.skip_records(begin)?;
    let (mut values, mut levels) = (Vec::new(), Vec::new());
    let (mut rows, mut more) = (0, count);
    while more > 0 {
        let levels = (most > 0).then_some(&mut levels);
        let (records, ..) = reader.read_records(more, levels, None, &mut values)?;
        if records == 0 {
            break;
        }
        rows += records;
        more -= records;
    }
    spread(values, &levels, rows, most, to);
    Ok(())
}

/// Reads all whole numbers of a column; none for null.
fn read_numbers(
    descriptor: Arc<ColumnDescriptor>,
    pages: Box<dyn PageReader>,
    count: usize,
    to: &mut Vec<Option<i64>>,
) -> ParquetResult<()> {
    let most = descriptor.max_def_level();
    let mut levels = Vec::new();
    let (mut numbers, mut rows) = (Vec::new(), 0);
    macro_rules! read {
        ($reader:ident, $number:expr) => {{
            let mut values = Vec::new();
            while rows < count {
                let levels = (most > 0).then_some(&mut levels);
                let (records, ..) =
                    $reader.read_records(count - rows, levels, None, &mut values)?;
                if records == 0 {
                    break;
                }
                rows += records;
            }
            numbers.extend(values.into_iter().map($number));
        }};
    }
    match get_column_reader(descriptor, pages) {
        ColumnReader::Int32ColumnReader(mut reader) => read!(reader, i64::from),
        ColumnReader::Int64ColumnReader(mut reader) => read!(reader, |number: i64| number),
        ColumnReader::BoolColumnReader(mut reader) => read!(reader, i64::from),
        _ => return Err(ParquetError::General("not a column of whole numbers".to_owned())),
    }
    spread(numbers, &levels, rows, most, to);
    Ok(())
}

/// Puts nulls back between values: where a row's definition level is not the highest.
fn spread<T>(values: Vec<T>, levels: &[i16], rows: usize, most: i16, to: &mut Vec<Option<T>>) {
    let mut values = values.into_iter();
    for row in 0..rows {
        let is_there = levels.get(row).is_none_or(|&level| level == most);
        to.push(if is_there { values.next() } else { None });
    }
}

/// Which columns of a file matter, by their position among the leaves of its schema.
struct Columns {
    image: usize,
    path: Option<usize>,
    label: Option<usize>,
    /// Names of the labels' numbers, where the file says them.
    classes: Vec<String>,
}

impl Columns {
    fn find(metadata: &ParquetMetaData) -> Result<Columns, String> {
        let schema = metadata.file_metadata().schema_descr();
        let features = features(metadata);
        let kind = |name: &str| features[name]["_type"].as_str().unwrap_or_default().to_owned();
        // Columns inside of lists have several values a row.
        let leaves: Vec<(usize, Vec<String>, &ColumnDescriptor)> = schema
            .columns()
            .iter()
            .enumerate()
            .filter(|(_, column)| column.max_rep_level() == 0)
            .map(|(leaf, column)| (leaf, column.path().parts().to_vec(), &**column))
            .collect();
        let is_binary = |column: &ColumnDescriptor| {
            column.physical_type() == Type::BYTE_ARRAY
                && column.converted_type() == ConvertedType::NONE
        };
        const IMAGES: [&str; 7] = ["image", "img", "images", "jpg", "png", "picture", "bytes"];
        let rank = |parts: &[String]| {
            let named = IMAGES.iter().position(|name| parts[0].eq_ignore_ascii_case(name));
            (kind(&parts[0]) != "Image", parts.len() != 2, named.unwrap_or(IMAGES.len()))
        };
        let image = leaves
            .iter()
            .filter(|(_, parts, column)| {
                is_binary(column) && (parts.len() == 1 || parts.len() == 2 && parts[1] == "bytes")
            })
            .min_by_key(|(_, parts, _)| rank(parts));
        let Some((image, parts, _)) = image else {
            let names: Vec<String> = leaves.iter().map(|(_, parts, _)| parts.join(".")).collect();
            return Err(format!("has no images but {}", some_of(&names, "columns")));
        };
        let path = leaves.iter().find(|(_, other, column)| {
            parts.len() == 2
                && other[..] == [parts[0].clone(), "path".to_owned()]
                && column.physical_type() == Type::BYTE_ARRAY
        });
        let can_be_label = |column: &ColumnDescriptor| {
            matches!(column.physical_type(), Type::INT32 | Type::INT64 | Type::BOOLEAN)
                || column.physical_type() == Type::BYTE_ARRAY && !is_binary(column)
        };
        let label_rank = |name: &str| {
            let named = LABEL_COLUMNS.iter().position(|known| known.eq_ignore_ascii_case(name));
            match (named, kind(name) == "ClassLabel") {
                (Some(rank), _) => Some(rank),
                (None, true) => Some(LABEL_COLUMNS.len()),
                (None, false) => None,
            }
        };
        let label = leaves
            .iter()
            .filter(|(_, parts, column)| parts.len() == 1 && can_be_label(column))
            .filter_map(|(leaf, parts, _)| Some((label_rank(&parts[0])?, *leaf, &parts[0])))
            .min();
        let names = label.map(|(_, _, name)| &features[name.as_str()]["names"]);
        let names = names.and_then(serde_json::Value::as_array);
        Ok(Columns {
            image: *image,
            path: path.map(|(leaf, ..)| *leaf),
            label: label.map(|(_, leaf, _)| leaf),
            classes: names.map_or(Vec::new(), |names| {
                names.iter().map(|name| name.as_str().unwrap_or_default().to_owned()).collect()
            }),
        })
    }

    /// The name of a label's number. With names, −1 stands for no label.
    fn class(&self, number: i64) -> Option<String> {
        match usize::try_from(number).ok().and_then(|number| self.classes.get(number)) {
            Some(name) => Some(name.clone()),
            None if self.classes.is_empty() => Some(number.to_string()),
            None => None,
        }
    }
}

/// What `datasets` writes about columns into a file: types and names of classes.
fn features(metadata: &ParquetMetaData) -> serde_json::Value {
    let pairs = metadata.file_metadata().key_value_metadata();
    let written = pairs.into_iter().flatten().find(|pair| pair.key == "huggingface");
    let text = written.and_then(|pair| pair.value.as_deref()).unwrap_or("null");
    let mut value: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
    value["info"]["features"].take()
}

/// A file that is read at positions, by many threads at once.
#[derive(Debug)]
struct Positioned {
    blob: Arc<Blob>,
    length: u64,
    /// Where reads began, if that is to be known.
    starts: Option<Mutex<Option<u64>>>,
}

impl Positioned {
    /// Where the last read began.
    fn last_start(&self) -> Option<u64> {
        let starts = self.starts.as_ref()?;
        *starts.lock().unwrap_or_else(|error| error.into_inner())
    }
}

impl Length for Positioned {
    fn len(&self) -> u64 {
        self.length
    }
}

impl ChunkReader for Positioned {
    type T = BufReader<Reader<Arc<Blob>>>;

    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        if let Some(starts) = &self.starts {
            *starts.lock().unwrap_or_else(|error| error.into_inner()) = Some(start);
        }
        // Most reads are of a page's header, some dozens of bytes.
        Ok(BufReader::with_capacity(512, Reader::new(Arc::clone(&self.blob), start)?))
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        if start.checked_add(length as u64).is_none_or(|end| end > self.length) {
            return Err(ParquetError::EOF("a page lies behind the end of the file".to_owned()));
        }
        let mut bytes = vec![0; length];
        self.blob.read_exact_at(&mut bytes, start)?;
        Ok(bytes.into())
    }
}
