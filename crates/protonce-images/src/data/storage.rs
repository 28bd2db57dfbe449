//! How the bytes of images are stored, and how one image's are read.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::DataError;
use super::raw::RawFiles;
use super::source::Blob;
use super::store::Object;
#[cfg(feature = "parquet")]
use super::table::Tables;

/// How the bytes of an image are reached.
#[derive(Debug)]
pub(super) enum Storage {
    /// One file per image: `base` joined with the image's name. Serves folders and lists.
    Files { base: PathBuf },
    /// Archives or a packed file, read at an [`Extent`].
    Archives(Vec<Blob>),
    /// Tables with a column of images; an [`Extent`] names file and row.
    #[cfg(feature = "parquet")]
    Tables(Tables),
    /// Files of bare pixels; an image's name is its number.
    Raw(RawFiles),
}

/// Where an image lies inside a larger file, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    pub offset: u64,
    pub length: u32,
    /// Which of several files.
    pub file: u32,
    /// CRC-32 of the image, unless its `coding` says that there is none.
    pub checksum: u32,
    pub coding: Coding,
}

/// What the bytes at an [`Extent`] are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    /// The image.
    Plain,
    /// The image, whose checksum is known.
    Checked,
    /// The image, deflated.
    Deflated,
}

/// No image that can be decoded has as many bytes.
const MAX_BYTES: u64 = 1 << 30;

impl Extent {
    /// Bytes of the first file without a checksum.
    pub fn plain(offset: u64, length: u64) -> Extent {
        // What is too long to be an image is listed, and refused when it is read.
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        Extent { offset, length, file: 0, checksum: 0, coding: Coding::Plain }
    }
}

/// Replaces `bytes` by the image called `name` at `extent` of an archive.
fn read_extent(
    archive: &Blob,
    name: &str,
    extent: Extent,
    bytes: &mut Vec<u8>,
) -> Result<(), DataError> {
    let unreadable = |source| DataError::unreadable(&archive.path().join(name), source);
    if u64::from(extent.length) > MAX_BYTES {
        return Err(unreadable(ErrorKind::FileTooLarge.into()));
    }
    bytes.resize(extent.length as usize, 0);
    archive.read_exact_at(bytes, extent.offset).map_err(unreadable)?;
    let corrupt = || {
        let (path, name) = (archive.path().to_owned(), name.to_owned());
        DataError::CorruptImage { path, name }
    };
    if extent.coding == Coding::Deflated {
        let mut inflated = Vec::with_capacity(2 * bytes.len());
        let inflater = flate2::read::DeflateDecoder::new(&bytes[..]);
        inflater.take(MAX_BYTES).read_to_end(&mut inflated).map_err(|_| corrupt())?;
        *bytes = inflated;
    }
    if extent.coding != Coding::Plain && crc32fast::hash(bytes) != extent.checksum {
        return Err(corrupt());
    }
    Ok(())
}

impl Storage {
    /// Whether images come from an object store.
    pub fn is_remote(&self) -> bool {
        match self {
            Storage::Archives(archives) => archives.iter().any(|blob| blob.object().is_some()),
            #[cfg(feature = "parquet")]
            Storage::Tables(tables) => tables.blobs().any(|blob| blob.object().is_some()),
            _ => false,
        }
    }

    /// The object in which the image at `extent` lies, and where; none of what is on a disk.
    pub fn place(&self, extent: Extent) -> Option<(&Arc<Object>, Range<u64>)> {
        match self {
            Storage::Archives(archives) => {
                let object = archives.get(extent.file as usize)?.object()?;
                Some((object, extent.offset..extent.offset + u64::from(extent.length)))
            }
            #[cfg(feature = "parquet")]
            Storage::Tables(tables) => tables.place(extent),
            _ => None,
        }
    }

    /// Replaces `bytes` by the encoded bytes of the image called `name`, at `extent` in an archive.
    pub fn read(
        &self,
        name: &str,
        extent: Option<Extent>,
        bytes: &mut Vec<u8>,
    ) -> Result<(), DataError> {
        bytes.clear();
        let missing = || DataError::Missing { path: name.into() };
        match self {
            Storage::Files { base } => {
                let path = base.join(name);
                open_regular(&path)
                    .and_then(|mut file| file.read_to_end(bytes))
                    .map_err(|source| DataError::Unreadable { path, source })?;
            }
            Storage::Archives(archives) => {
                let extent = extent.ok_or_else(missing)?;
                let archive = archives.get(extent.file as usize).ok_or_else(missing)?;
                read_extent(archive, name, extent, bytes)?;
            }
            #[cfg(feature = "parquet")]
            Storage::Tables(tables) => tables.read(name, extent.ok_or_else(missing)?, bytes)?,
            Storage::Raw(raw) => raw.read(name.parse().map_err(|_| missing())?, bytes)?,
        }
        Ok(())
    }
}

/// Opens a file unless it is a pipe, a device or a folder: opening a pipe waits for a writer, and a
/// device may never end.
pub(super) fn open_regular(path: &Path) -> io::Result<File> {
    match fs::metadata(path)?.is_file() {
        true => File::open(path),
        false => Err(io::Error::new(ErrorKind::InvalidInput, "it is not a regular file")),
    }
}

/// Fills `bytes` from `offset` on without moving a shared position, so that threads never wait for
/// one another.
#[cfg(unix)]
pub(super) fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

/// Fills `bytes` from `offset` on.
#[cfg(windows)]
pub(super) fn read_exact_at(file: &File, mut bytes: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, bytes, offset)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            read => {
                bytes = &mut bytes[read..];
                offset += read as u64;
            }
        }
    }
    Ok(())
}
