//! Rows on their way to disk, and the files they end in.
//!
//! Rows are first appended, as they come, to a raw file in a hidden folder beside the result, together
//! with a note of how far they are safe; a killed run goes on from there. When all are there, the
//! result is written from them in one pass and renamed into place. So every format is resumed alike,
//! and no more than a few rows are ever in memory.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use npyz::WriterBuilder;
use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, FloatType, Int64Type};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde::{Deserialize, Serialize};

use crate::pretrain::run_folder;
use protonce_images::data::Dataset;
use protonce_images::views::{LoaderError, Unreadable, ViewConfig};

/// Why embeddings cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmbeddingsError {
    /// The images.
    #[error(transparent)]
    Loader(#[from] LoaderError),
    /// A name that ends in none of the known ways.
    #[error(
        "{0} is of no known format: expected a name that ends in .npy, .safetensors, .parquet or .csv"
    )]
    Format(PathBuf),
    /// No image at all could be read.
    #[error("none of the {images} images can be read, the first says: {reason}")]
    NothingReadable {
        /// Images there are.
        images: usize,
        /// Why the first cannot.
        reason: String,
    },
    /// A file cannot be written.
    #[error("cannot write {path}: {reason}; choose a writable --out with free space")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: io::Error,
    },
    /// The result.
    #[error(transparent)]
    Result(#[from] run_folder::RunError),
}

/// The formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// float32 [rows, width]; names and labels go to `OUT.images.csv`.
    Npy,
    /// The rows under the name of the output, `index`, `labels` (−1: none), and the names as bytes.
    Safetensors,
    /// Columns `index`, `name`, `label` and a list of numbers.
    Parquet,
    /// Columns `index`, `name`, `label`, then a column a number.
    Csv,
}

impl Format {
    /// The format that a file's name ends in.
    ///
    /// # Errors
    /// When it ends in none.
    pub fn of(path: &Path) -> Result<Format, EmbeddingsError> {
        let ending = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        match ending.as_str() {
            "npy" => Ok(Format::Npy),
            "safetensors" => Ok(Format::Safetensors),
            "parquet" => Ok(Format::Parquet),
            "csv" => Ok(Format::Csv),
            _ => Err(EmbeddingsError::Format(path.to_owned())),
        }
    }
}

/// Everything that decides the rows, and nothing else.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// Checksum of the weights.
    pub weights: String,
    /// What the images were made into.
    pub views: ViewConfig,
    /// Fingerprint of the images.
    pub data: String,
    /// How many images there are.
    pub images: usize,
    /// `features` or `embeddings`.
    pub output: String,
    /// Numbers a row.
    pub width: usize,
    /// The arithmetic.
    pub precision: String,
    /// Images a forward pass: another number may round differently.
    pub batch_size: usize,
}

/// What `OUT.json` says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Where the rows come from.
    pub source: Source,
    /// Rows of the file: images that could be read, in their order.
    pub rows: usize,
    /// The other images.
    pub unreadable: Vec<Unreadable>,
}

impl Summary {
    /// That of the file `out`, if it is there and from the same source.
    pub(super) fn of(out: &Path, source: &Source) -> Option<Summary> {
        if !out.is_file() {
            return None;
        }
        let text = fs::read(beside(out, ".json")).ok()?;
        let summary: Summary = serde_json::from_slice(&text).ok()?;
        (summary.source == *source).then_some(summary)
    }

    /// The image of each row.
    pub fn indices(&self) -> Vec<usize> {
        let missing = |index: &usize| {
            self.unreadable.binary_search_by_key(index, |unreadable| unreadable.index).is_ok()
        };
        (0..self.source.images).filter(|index| !missing(index)).collect()
    }
}

/// How far a file of embeddings is.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    source: Source,
    /// Images done, the first ones of the data set.
    images: usize,
    /// Rows of these that are on disk.
    rows: usize,
    unreadable: Vec<Unreadable>,
}

/// A file of embeddings in the making.
pub struct Partial {
    out: PathBuf,
    folder: PathBuf,
    rows: BufWriter<File>,
    state: State,
    /// Images done when the state was last written.
    noted: usize,
}

/// Images after which the state is written: some seconds' work, of which a kill costs the last part.
const NOTE_EVERY: usize = 4096;

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(ending);
    path.with_file_name(name)
}

impl Partial {
    /// Opens what an earlier run from the same source has left of `out`, or begins anew.
    ///
    /// # Errors
    /// When the folder beside `out` cannot be written.
    pub fn open(out: &Path, source: &Source) -> Result<Partial, EmbeddingsError> {
        let name = out.file_name().unwrap_or_default().to_string_lossy();
        let folder = out.with_file_name(format!(".{name}.partial"));
        let failed = |reason| EmbeddingsError::Write { path: folder.clone(), reason };
        let left = fs::read(folder.join("state.json")).ok();
        let left = left.and_then(|text| serde_json::from_slice::<State>(&text).ok());
        let left = left.filter(|state| state.source == *source);
        if left.is_none() && folder.exists() {
            fs::remove_dir_all(&folder).map_err(failed)?;
        }
        fs::create_dir_all(&folder).map_err(failed)?;
        let state = left.unwrap_or_else(|| State {
            source: source.clone(),
            images: 0,
            rows: 0,
            unreadable: Vec::new(),
        });
        let mut options = OpenOptions::new();
        let rows = options.create(true).truncate(false).write(true).open(folder.join("rows.f32"));
        let mut rows = rows.map_err(failed)?;
        // What came after the last note may be torn.
        let safe = (state.rows * source.width * size_of::<f32>()) as u64;
        rows.set_len(safe).and_then(|()| rows.seek(SeekFrom::End(0))).map_err(failed)?;
        let noted = state.images;
        Ok(Partial { out: out.to_owned(), folder, rows: BufWriter::new(rows), state, noted })
    }

    /// Images done.
    pub fn images(&self) -> usize {
        self.state.images
    }

    /// Appends the rows of the next `images` images, of which some may be unreadable.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn append(
        &mut self,
        images: usize,
        rows: &[f32],
        unreadable: &[Unreadable],
    ) -> Result<(), EmbeddingsError> {
        let bytes: Vec<u8> = rows.iter().flat_map(|number| number.to_le_bytes()).collect();
        let folder = &self.folder;
        let failed = |reason| EmbeddingsError::Write { path: folder.clone(), reason };
        self.rows.write_all(&bytes).map_err(failed)?;
        self.state.images += images;
        self.state.rows += rows.len() / self.state.source.width;
        self.state.unreadable.extend_from_slice(unreadable);
        if self.state.images - self.noted >= NOTE_EVERY {
            self.note()?;
        }
        Ok(())
    }

    /// Makes what was appended safe from a kill.
    fn note(&mut self) -> Result<(), EmbeddingsError> {
        let failed = |reason| EmbeddingsError::Write { path: self.folder.clone(), reason };
        self.rows.flush().map_err(failed)?;
        self.rows.get_ref().sync_data().map_err(failed)?;
        let text = serde_json::to_vec(&self.state).map_err(|error| failed(error.into()))?;
        run_folder::replace(&self.folder.join("state.json"), |file| fs::write(file, &text))?;
        self.noted = self.state.images;
        Ok(())
    }

    /// Writes the result, of which all rows are there, and removes the part.
    ///
    /// # Errors
    /// When it cannot be written, or there are no rows.
    pub fn finish(mut self, dataset: &Dataset, format: Format) -> Result<Summary, EmbeddingsError> {
        self.note()?;
        let State { source, rows, unreadable, images } = &self.state;
        if *rows == 0 {
            let reason = unreadable.first().map_or_else(String::new, |first| first.reason.clone());
            return Err(EmbeddingsError::NothingReadable { images: *images, reason });
        }
        let mut summary =
            Summary { source: source.clone(), rows: *rows, unreadable: unreadable.clone() };
        summary.unreadable.sort_by_key(|unreadable| unreadable.index);
        let file = Written { dataset, indices: summary.indices(), summary: &summary };
        let raw = self.folder.join("rows.f32");
        run_folder::replace(&self.out, |scratch| {
            let rows = Rows { file: BufReader::new(File::open(&raw)?), width: source.width };
            let mut out = BufWriter::new(File::create(scratch)?);
            match format {
                Format::Npy => file.npy(rows, &mut out)?,
                Format::Safetensors => file.safetensors(rows, &mut out)?,
                Format::Parquet => file.parquet(rows, &mut out)?,
                Format::Csv => file.csv(rows, &mut out)?,
            }
            out.flush()
        })?;
        if format == Format::Npy {
            run_folder::replace(&beside(&self.out, ".images.csv"), |scratch| {
                file.images_csv(File::create(scratch)?)
            })?;
        }
        run_folder::replace(&beside(&self.out, ".json"), |scratch| {
            fs::write(scratch, serde_json::to_string_pretty(&summary)? + "\n")
        })?;
        let removed = fs::remove_dir_all(&self.folder);
        let path = self.folder;
        removed.map_err(|reason| EmbeddingsError::Write { path, reason })?;
        Ok(summary)
    }
}

/// The raw rows, one after the other.
struct Rows {
    file: BufReader<File>,
    width: usize,
}

impl Rows {
    fn next(&mut self) -> io::Result<Vec<f32>> {
        let mut bytes = vec![0; self.width * size_of::<f32>()];
        self.file.read_exact(&mut bytes)?;
        Ok(bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
    }
}

/// What is written.
struct Written<'a> {
    dataset: &'a Dataset,
    /// The image of each row.
    indices: Vec<usize>,
    summary: &'a Summary,
}

impl Written<'_> {
    fn label(&self, image: usize) -> Option<&str> {
        self.dataset.label(image).map(|label| self.dataset.classes()[label].as_str())
    }

    fn npy(&self, mut rows: Rows, out: &mut impl Write) -> io::Result<()> {
        let shape = [self.indices.len() as u64, rows.width as u64];
        let options = npyz::WriteOptions::<f32>::new().default_dtype().shape(&shape);
        let mut array = options.writer(out).begin_nd()?;
        for _ in &self.indices {
            array.extend(rows.next()?)?;
        }
        array.finish()
    }

    fn images_csv(&self, out: File) -> io::Result<()> {
        let mut table = csv::Writer::from_writer(BufWriter::new(out));
        table.write_record(["index", "name", "label"])?;
        for &image in &self.indices {
            let index = image.to_string();
            let label = self.label(image).unwrap_or_default();
            table.write_record([&index, self.dataset.name(image), label])?;
        }
        table.flush()
    }

    fn csv(&self, mut rows: Rows, out: &mut impl Write) -> io::Result<()> {
        let mut table = csv::Writer::from_writer(out);
        let columns = ["index", "name", "label"].map(str::to_owned).into_iter();
        table.write_record(columns.chain((0..rows.width).map(|number| number.to_string())))?;
        for &image in &self.indices {
            let index = image.to_string();
            table.write_field(&index)?;
            table.write_field(self.dataset.name(image))?;
            table.write_field(self.label(image).unwrap_or_default())?;
            // The shortest text that reads back to the same number.
            table.write_record(rows.next()?.iter().map(f32::to_string))?;
        }
        table.flush()
    }

    /// By hand, because the crate wants every tensor whole in memory. The format is a length, a JSON
    /// header and the tensors one after the other.
    fn safetensors(&self, mut rows: Rows, out: &mut impl Write) -> io::Result<()> {
        let count = self.indices.len();
        let lengths = self.indices.iter().map(|&image| self.dataset.name(image).len());
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
            (&self.summary.source.output, "F32", vec![count, rows.width], count * rows.width * 4),
            ("names", "U8", vec![names], names),
        ] {
            let offsets = [offset, offset + bytes];
            offset += bytes;
            let entry =
                serde_json::json!({"dtype": dtype, "shape": shape, "data_offsets": offsets});
            header.insert(name.to_owned(), entry);
        }
        let metadata = serde_json::json!({
            "classes": serde_json::to_string(self.dataset.classes())?,
            "source": serde_json::to_string(&self.summary.source)?,
        });
        header.insert("__metadata__".to_owned(), metadata);
        let mut header = serde_json::to_vec(&header)?;
        header.resize(header.len().next_multiple_of(8), b' ');
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(&header)?;
        for &image in &self.indices {
            out.write_all(&(image as i64).to_le_bytes())?;
        }
        for &image in &self.indices {
            let label = self.dataset.label(image).map_or(-1, |label| label as i64);
            out.write_all(&label.to_le_bytes())?;
        }
        for end in name_ends {
            out.write_all(&end.to_le_bytes())?;
        }
        io::copy(&mut rows.file, out)?;
        for &image in &self.indices {
            out.write_all(self.dataset.name(image).as_bytes())?;
        }
        Ok(())
    }

    fn parquet(&self, mut rows: Rows, out: &mut (impl Write + Send)) -> io::Result<()> {
        const GROUP: usize = 8192;
        let output = &self.summary.source.output;
        let schema = parse_message_type(&format!(
            "message images {{ required int64 index; required binary name (UTF8); optional binary \
             label (UTF8); required group {output} (LIST) {{ repeated group list {{ required float \
             element; }} }} }}"
        ))?;
        let source = serde_json::to_string(&self.summary.source)?;
        let properties = WriterProperties::builder()
            .set_created_by(format!("protonce {}", env!("CARGO_PKG_VERSION")))
            .set_key_value_metadata(Some(vec![KeyValue::new("source".to_owned(), source)]))
            // Rows of an encoder neither repeat nor have meaningful bounds.
            .set_dictionary_enabled(false)
            .set_statistics_enabled(EnabledStatistics::None)
            .set_compression(Compression::UNCOMPRESSED)
            .build();
        let mut file = SerializedFileWriter::new(out, Arc::new(schema), Arc::new(properties))?;
        for images in self.indices.chunks(GROUP) {
            let mut group = file.next_row_group()?;
            let index: Vec<i64> = images.iter().map(|&image| image as i64).collect();
            let name = |&image: &usize| ByteArray::from(self.dataset.name(image));
            let names: Vec<ByteArray> = images.iter().map(name).collect();
            let labels: Vec<Option<&str>> = images.iter().map(|&image| self.label(image)).collect();
            let labelled: Vec<i16> =
                labels.iter().map(|label| i16::from(label.is_some())).collect();
            let labels: Vec<ByteArray> =
                labels.into_iter().flatten().map(ByteArray::from).collect();
            let mut numbers = Vec::with_capacity(images.len() * rows.width);
            for _ in images {
                numbers.extend(rows.next()?);
            }
            // All there; a row begins where nothing is repeated.
            let defined = vec![1; numbers.len()];
            let repeated: Vec<i16> =
                (0..numbers.len()).map(|place| i16::from(place % rows.width != 0)).collect();

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
}
