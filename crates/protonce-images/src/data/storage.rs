//! How the bytes of images are stored, and how one image's are read.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::PathBuf;

use super::raw::RawFiles;
use super::{DataError, archive};

/// How the bytes of an image are reached.
#[derive(Debug)]
pub(super) enum Storage {
    /// One file per image: `base` joined with the image's name. Serves folders and lists.
    Files { base: PathBuf },
    /// One archive or packed file, read at an [`Extent`].
    Archive { file: File, path: PathBuf },
    /// Files of bare pixels; an image's name is its number.
    Raw(RawFiles),
}

/// Where an image lies inside a larger file, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    pub offset: u64,
    pub length: u64,
    /// CRC-32 of these bytes, where it is known.
    pub checksum: Option<u32>,
}

/// One image as the modules that list a data set report it, before sorting.
#[derive(Debug)]
pub(super) struct Entry {
    pub name: String,
    /// Label as text, or none.
    pub label: Option<String>,
    pub extent: Option<Extent>,
}

impl Storage {
    /// Replaces `bytes` by the encoded bytes of the image called `name`, at `extent` in an archive.
    pub(super) fn read(
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
                File::open(&path)
                    .and_then(|mut file| file.read_to_end(bytes))
                    .map_err(|source| DataError::Unreadable { path, source })?;
            }
            Storage::Archive { file, path } => {
                let extent = extent.ok_or_else(missing)?;
                let unreadable = |source| DataError::Unreadable { path: path.join(name), source };
                let length = usize::try_from(extent.length)
                    .map_err(|_| unreadable(ErrorKind::FileTooLarge.into()))?;
                bytes.resize(length, 0);
                archive::read_exact_at(file, bytes, extent.offset).map_err(unreadable)?;
                if extent.checksum.is_some_and(|checksum| crc32fast::hash(bytes) != checksum) {
                    let (path, name) = (path.clone(), name.to_owned());
                    return Err(DataError::CorruptImage { path, name });
                }
            }
            Storage::Raw(raw) => raw.read(name.parse().map_err(|_| missing())?, bytes)?,
        }
        Ok(())
    }
}
