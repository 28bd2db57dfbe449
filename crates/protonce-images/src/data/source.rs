//! A file that holds many images, on a disk or in an object store, read at positions by many threads at once.
//!
//! Enters: a path, or an object that was found. Leaves: its length and its bytes. Archives, tables and packed
//! files are read through this alone, so that none of them knows where it lies.

use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use super::DataError;
use super::storage::{open_regular, read_exact_at};
use super::store::Object;

/// Where a file with many images lies.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// On a disk.
    File(PathBuf),
    /// In an object store.
    #[cfg_attr(not(feature = "object-store"), allow(dead_code))]
    Object(Arc<Object>),
}

impl Source {
    /// What messages call it.
    pub fn path(&self) -> &Path {
        match self {
            Source::File(path) => path,
            Source::Object(object) => object.name(),
        }
    }

    pub fn open(&self) -> Result<Blob, DataError> {
        let file = match self {
            Source::File(path) => {
                let file = open_regular(path)
                    .map_err(|source| DataError::Unreadable { path: path.clone(), source })?;
                Some(file)
            }
            Source::Object(_) => None,
        };
        Ok(Blob { source: self.clone(), file })
    }
}

/// A [`Source`] that was opened.
#[derive(Debug)]
pub(super) struct Blob {
    source: Source,
    /// None: of an object, or opened for each read.
    file: Option<File>,
}

impl Blob {
    /// More files than this are not held open at once: systems allow a thousand or so.
    const OPEN: usize = 256;

    /// The same as the `number`-th file of a data set.
    pub fn held_as(mut self, number: usize) -> Blob {
        if number >= Blob::OPEN {
            self.file = None;
        }
        self
    }

    pub fn path(&self) -> &Path {
        self.source.path()
    }

    /// The object, if it is one.
    pub fn object(&self) -> Option<&Arc<Object>> {
        match &self.source {
            Source::File(_) => None,
            Source::Object(object) => Some(object),
        }
    }

    pub fn length(&self) -> io::Result<u64> {
        match (&self.source, &self.file) {
            (Source::Object(object), _) => Ok(object.length()),
            (_, Some(file)) => Ok(file.metadata()?.len()),
            (Source::File(path), None) => Ok(path.metadata()?.len()),
        }
    }

    /// What tells this file from what another time lies in its place: its length and a number; zeros
    /// where it is gone.
    pub fn version(&self) -> (u64, u128) {
        let metadata = match (&self.source, &self.file) {
            (Source::Object(object), _) => return (object.length(), object.version()),
            (_, Some(file)) => file.metadata(),
            (Source::File(path), None) => path.metadata(),
        };
        version_of(metadata.ok())
    }

    /// Fills `bytes` from `offset` on.
    pub fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        match (&self.source, &self.file) {
            (Source::Object(object), _) => object.read_exact_at(bytes, offset),
            (_, Some(file)) => read_exact_at(file, bytes, offset),
            (Source::File(path), None) => read_exact_at(&File::open(path)?, bytes, offset),
        }
    }
}

/// What tells a file from what another time lies in its place: its length, and when it was modified.
pub(super) fn version_of(metadata: Option<Metadata>) -> (u64, u128) {
    let Some(metadata) = metadata else { return (0, 0) };
    let modified = metadata.modified().ok();
    let since = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    (metadata.len(), since.map_or(0, |since| since.as_nanos()))
}

/// Reads a blob forward from a position that can be moved.
#[derive(Debug)]
pub(super) struct Reader<B> {
    blob: B,
    position: u64,
    length: u64,
}

impl<B: Deref<Target = Blob>> Reader<B> {
    pub fn new(blob: B, position: u64) -> io::Result<Reader<B>> {
        let length = blob.length()?;
        Ok(Reader { blob, position, length })
    }
}

impl<B: Deref<Target = Blob>> Read for Reader<B> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let left = self.length.saturating_sub(self.position);
        let count = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        self.blob.read_exact_at(&mut bytes[..count], self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}

impl<B: Deref<Target = Blob>> Seek for Reader<B> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(distance) => self.position.checked_add_signed(distance),
            SeekFrom::End(distance) => self.length.checked_add_signed(distance),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}
