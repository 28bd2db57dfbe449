//! What `PATH[#SUBFOLDER]` means: turned once from what was typed into where to look.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::name::is_image_name;
use super::{DataError, packed};

/// Where a data set lies.
pub(super) struct Location {
    pub path: PathBuf,
    pub container: Container,
    /// Without leading and trailing `/`; never empty.
    pub subfolder: Option<String>,
}

/// How a data set is stored.
pub(super) enum Container {
    Folder,
    Archive,
    List,
    Packed,
}

/// Finds the path in an argument and sees what it holds.
///
/// A path may itself contain `#`, so the longest prefix that exists is the path and what follows it
/// the subfolder.
pub(super) fn locate(argument: &str) -> Result<Location, DataError> {
    let hashes = argument.rmatch_indices('#').map(|(position, _)| position);
    for end in std::iter::once(argument.len()).chain(hashes) {
        let path = Path::new(&argument[..end]);
        if end > 0 && exists(path)? {
            let subfolder = argument[end..].trim_start_matches('#').trim_matches('/');
            return Ok(Location {
                path: path.to_owned(),
                container: container(path)?,
                subfolder: (!subfolder.is_empty()).then(|| subfolder.to_owned()),
            });
        }
    }
    let path = argument.split('#').next().unwrap_or(argument);
    Err(DataError::Missing { path: path.into() })
}

fn exists(path: &Path) -> Result<bool, DataError> {
    match fs::metadata(path) {
        Ok(_) => Ok(true),
        // A file where a folder was expected ("list.txt/train") is also just not there.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(false)
        }
        Err(source) => Err(DataError::Unreadable { path: path.to_owned(), source }),
    }
}

fn container(path: &Path) -> Result<Container, DataError> {
    let unreadable = |source| DataError::Unreadable { path: path.to_owned(), source };
    if fs::metadata(path).map_err(unreadable)?.is_dir() {
        return Ok(Container::Folder);
    }
    let mut head = Vec::new();
    File::open(path).and_then(|file| file.take(512).read_to_end(&mut head)).map_err(unreadable)?;
    let wrong = |found, remedy| DataError::WrongKind { path: path.to_owned(), found, remedy };
    if let Some(found) = compression(&head) {
        return Err(wrong(found, "unpack it first"));
    }
    if head.starts_with(packed::MAGIC) {
        return Ok(Container::Packed);
    }
    let extension = path.extension().unwrap_or_default();
    if extension.eq_ignore_ascii_case("tar") || head.get(257..262) == Some(b"ustar") {
        return Ok(Container::Archive);
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if is_image_name(&name) {
        return Err(wrong("a single image", "pass the folder it lies in"));
    }
    if head.contains(&0) {
        return Err(wrong("a binary file", "check that this is the file you meant"));
    }
    Ok(Container::List)
}

/// The compression formats in which data sets are usually downloaded.
fn compression(head: &[u8]) -> Option<&'static str> {
    const SIGNATURES: [(&[u8], &str); 6] = [
        (b"\x1f\x8b", "a gzip file"),
        (b"BZh", "a bzip2 file"),
        (b"\xfd7zXZ\0", "an xz file"),
        (b"\x28\xb5\x2f\xfd", "a zstd file"),
        (b"PK\x03\x04", "a zip file"),
        (b"7z\xbc\xaf\x27\x1c", "a 7z file"),
    ];
    SIGNATURES.iter().find(|(magic, _)| head.starts_with(magic)).map(|&(_, name)| name)
}
