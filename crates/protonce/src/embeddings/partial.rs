//! Rows on their way to disk.
//!
//! Rows are first appended, as they come, to a raw file in a hidden folder beside the result, together
//! with a note of how far they are safe; a killed run continues from there. When all are there, the
//! result is written from them in one pass and renamed into place. So every format is resumed alike,
//! and no more than a few rows are ever in memory.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::EmbeddingsError;
use super::formats::{Format, csv};
use super::provenance::{Provenance, Summary, beside};
use super::table::{EmbeddingTable, RowReader};
use protonce_images::data::Dataset;
use protonce_images::views::Unreadable;

/// How far a file of embeddings is.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    #[serde(rename = "source")]
    provenance: Provenance,
    /// Images done, the first ones of the data set.
    images: usize,
    /// Rows of these that are on disk.
    rows: usize,
    unreadable: Vec<Unreadable>,
}

/// A file of embeddings that is being made.
pub struct Partial {
    out: PathBuf,
    folder: PathBuf,
    rows: BufWriter<File>,
    state: State,
    /// Images done when the state was last written.
    noted: usize,
}

/// Images after which the state is written: a few seconds of work, the most that a kill costs.
const NOTE_EVERY: usize = 4096;

impl Partial {
    /// Opens what an earlier run of the same provenance has left of `out`, or begins again.
    ///
    /// # Errors
    /// When the folder beside `out` cannot be written.
    pub fn open(out: &Path, provenance: &Provenance) -> Result<Partial, EmbeddingsError> {
        let name = out.file_name().unwrap_or_default().to_string_lossy();
        let folder = out.with_file_name(format!(".{name}.partial"));
        let failed = |reason| EmbeddingsError::Write { path: folder.clone(), reason };
        let left = fs::read(folder.join("state.json")).ok();
        let left = left.and_then(|text| serde_json::from_slice::<State>(&text).ok());
        let left = left.filter(|state| state.provenance == *provenance);
        if left.is_none() && folder.exists() {
            fs::remove_dir_all(&folder).map_err(failed)?;
        }
        fs::create_dir_all(&folder).map_err(failed)?;
        let state = left.unwrap_or_else(|| State {
            provenance: provenance.clone(),
            images: 0,
            rows: 0,
            unreadable: Vec::new(),
        });
        let mut options = OpenOptions::new();
        let rows = options.create(true).truncate(false).write(true).open(folder.join("rows.f32"));
        let mut rows = rows.map_err(failed)?;
        // What came after the last note may be torn.
        let safe = (state.rows * provenance.width * size_of::<f32>()) as u64;
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
        self.state.rows += rows.len() / self.state.provenance.width;
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
        replace(&self.folder.join("state.json"), |file| fs::write(file, &text))?;
        self.noted = self.state.images;
        Ok(())
    }

    /// Writes the result, of which all rows are there, and removes the part.
    ///
    /// # Errors
    /// When it cannot be written, or there are no rows.
    pub fn finish(mut self, dataset: &Dataset, format: Format) -> Result<Summary, EmbeddingsError> {
        self.note()?;
        let State { provenance, rows, unreadable, images } = &self.state;
        if *rows == 0 {
            let reason = unreadable.first().map_or_else(String::new, |first| first.reason.clone());
            return Err(EmbeddingsError::NothingReadable { images: *images, reason });
        }
        let mut summary =
            Summary { provenance: provenance.clone(), rows: *rows, unreadable: unreadable.clone() };
        summary.unreadable.sort_by_key(|unreadable| unreadable.index);
        let table = EmbeddingTable { dataset, indices: summary.indices(), summary: &summary };
        let raw = self.folder.join("rows.f32");
        replace(&self.out, |scratch| {
            let rows = RowReader::new(File::open(&raw)?, provenance.width);
            let mut out = BufWriter::new(File::create(scratch)?);
            format.write(&table, rows, &mut out)?;
            out.flush()
        })?;
        if format == Format::Npy {
            replace(&beside(&self.out, ".images.csv"), |scratch| {
                csv::write_images(&table, File::create(scratch)?)
            })?;
        }
        replace(&beside(&self.out, ".json"), |scratch| {
            fs::write(scratch, serde_json::to_string_pretty(&summary)? + "\n")
        })?;
        let removed = fs::remove_dir_all(&self.folder);
        let path = self.folder;
        removed.map_err(|reason| EmbeddingsError::Write { path, reason })?;
        Ok(summary)
    }
}

/// Writes `path` beside its place and renames it.
fn replace(
    path: &Path,
    write: impl FnOnce(&Path) -> io::Result<()>,
) -> Result<(), EmbeddingsError> {
    protonce_disk::replace(path, write)
        .map_err(|reason| EmbeddingsError::Write { path: path.to_owned(), reason })
}
