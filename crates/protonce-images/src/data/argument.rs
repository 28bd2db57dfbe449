//! What `PATH[#SUBFOLDER]` means: turned once from what was typed into where to look.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::name::is_image_name;
use super::shards::{self, ShardKind};
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
    /// One archive or table.
    Shard(ShardKind),
    /// Several as one set: what a pattern stands for.
    Shards(ShardKind, Vec<PathBuf>),
    List,
    Packed,
}

/// Finds the path in an argument and sees what it holds.
///
/// A path may itself contain `#`, so the longest prefix that exists is the path and what follows it
/// the subfolder. Only where nothing exists is the argument a pattern.
pub(super) fn locate(argument: &str) -> Result<Location, DataError> {
    let ends = || {
        let hashes = argument.rmatch_indices('#').map(|(position, _)| position);
        std::iter::once(argument.len()).chain(hashes).filter(|&end| end > 0)
    };
    let subfolder = |end: usize| {
        let subfolder = argument[end..].trim_start_matches('#').trim_matches('/');
        (!subfolder.is_empty()).then(|| subfolder.to_owned())
    };
    for end in ends() {
        let path = Path::new(&argument[..end]);
        if exists(path)? {
            let container = container(path)?;
            return Ok(Location { path: path.to_owned(), container, subfolder: subfolder(end) });
        }
    }
    for end in ends() {
        let files = shards::expand(&argument[..end])?;
        let Some(first) = files.first() else { continue };
        let kind = match container(first)? {
            Container::Shard(kind) => kind,
            _ => return Err(not_a_shard(first)),
        };
        let path = shards::common_folder(&files);
        let container = Container::Shards(kind, files);
        return Ok(Location { path, container, subfolder: subfolder(end) });
    }
    let path = argument.split('#').next().unwrap_or(argument);
    Err(DataError::Missing { path: path.into() })
}

fn not_a_shard(path: &Path) -> DataError {
    DataError::WrongKind {
        path: path.to_owned(),
        found: "no archive or table, while a pattern stands for several of these",
        remedy: "pass the folder it lies in, or a pattern such as \"shards/*.tar\"".to_owned(),
    }
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
    let wrong =
        |found, remedy: String| DataError::WrongKind { path: path.to_owned(), found, remedy };
    let metadata = fs::metadata(path).map_err(unreadable)?;
    if metadata.is_dir() {
        return Ok(Container::Folder);
    }
    if !metadata.is_file() {
        return Err(wrong("a pipe or a device", "write it to a file first".to_owned()));
    }
    let mut head = Vec::new();
    File::open(path).and_then(|file| file.take(512).read_to_end(&mut head)).map_err(unreadable)?;
    if let Some((found, remedy)) = compression(&head, path) {
        return Err(wrong(found, remedy));
    }
    if head.starts_with(packed::MAGIC) {
        return Ok(Container::Packed);
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // What it holds counts more than its name, which is what is left of a damaged one.
    if let Some(kind) = ShardKind::of_head(&head).or_else(|| ShardKind::of_name(&name)) {
        return Ok(Container::Shard(kind));
    }
    if is_image_name(&name) {
        return Err(wrong("a single image", "pass the folder it lies in".to_owned()));
    }
    if head.starts_with(b"\xff\xfe") || head.starts_with(b"\xfe\xff") {
        return Err(wrong("text in UTF-16", "save the list as UTF-8".to_owned()));
    }
    if head.contains(&0) {
        return Err(wrong("a binary file", "check that this is the file you meant".to_owned()));
    }
    Ok(Container::List)
}

/// The compression formats in which data sets are usually downloaded, and the command that unpacks.
fn compression(head: &[u8], path: &Path) -> Option<(&'static str, String)> {
    const SIGNATURES: [(&[u8], &str, &str); 5] = [
        (b"\x1f\x8b", "a gzip file", "gzip -dk"),
        (b"BZh", "a bzip2 file", "bzip2 -dk"),
        (b"\xfd7zXZ\0", "an xz file", "xz -dk"),
        (b"\x28\xb5\x2f\xfd", "a zstd file", "zstd -d"),
        (b"7z\xbc\xaf\x27\x1c", "a 7z file", "7z x"),
    ];
    let (_, found, command) = SIGNATURES.iter().find(|(magic, ..)| head.starts_with(magic))?;
    let remedy = format!(
        "unpack it first, with `{command} '{}'`: a .tar itself is read in place",
        path.display()
    );
    Some((found, remedy))
}
