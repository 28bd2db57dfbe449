//! What `PATH[#SUBFOLDER]` means: turned once from what was typed into where to look.

use std::borrow::Cow;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::name::is_image_name;
use super::shards::{self, ShardKind};
use super::source::Source;
use super::{DataError, packed, store};

/// Where a data set lies.
pub(super) struct Location {
    pub path: PathBuf,
    pub container: Container,
    /// Without leading and trailing `/`; never empty.
    pub subfolder: Option<String>,
    /// What is to be told of it, one sentence each.
    pub remarks: Vec<String>,
}

/// How a data set is stored.
pub(super) enum Container {
    Folder,
    /// One archive or table.
    Shard(ShardKind, Source),
    /// Several as one set: what a pattern stands for.
    Shards(ShardKind, Vec<Source>),
    List,
    Packed(Source),
}

/// Finds the path in an argument and sees what it holds.
///
/// A path may itself contain `#`, so the longest prefix that exists is the path and what follows it
/// the subfolder. Only where nothing exists is the argument a pattern.
pub(super) fn locate(argument: &str) -> Result<Location, DataError> {
    if is_url(argument) {
        return store::locate(argument);
    }
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
            let (container, subfolder) = (container(path)?, subfolder(end));
            let remarks = Vec::new();
            return Ok(Location { path: path.to_owned(), container, subfolder, remarks });
        }
    }
    for end in ends() {
        let files = shards::expand(&argument[..end])?;
        let Some(first) = files.first() else { continue };
        let kind = container(first)?.shard_kind(first)?;
        let paths: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
        let path = shards::common_folder(&paths);
        let container = Container::Shards(kind, files.into_iter().map(Source::File).collect());
        let remarks = Vec::new();
        return Ok(Location { path, container, subfolder: subfolder(end), remarks });
    }
    let path = argument.split('#').next().unwrap_or(argument);
    Err(DataError::Missing { path: path.into() })
}

/// Whether an argument names something in an object store or on a web server.
pub(super) fn is_url(argument: &str) -> bool {
    let scheme = argument.split_once("://").map(|(scheme, _)| scheme);
    scheme.is_some_and(|scheme| {
        scheme.len() > 1 && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric())
    })
}

/// A data argument without what gives access to it: of an address, user, password and what follows a `?`,
/// where signatures are. Whatever is written or shown is this.
pub fn without_secrets(argument: &str) -> Cow<'_, str> {
    let Some((scheme, rest)) = argument.split_once("://").filter(|_| is_url(argument)) else {
        return Cow::from(argument);
    };
    let (address, part) = match rest.split_once('#') {
        Some((address, part)) => (address, format!("#{part}")),
        None => (rest, String::new()),
    };
    // In the names of a bucket's objects a question mark stands for a character.
    let is_web = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    let address = if is_web { address.split('?').next().unwrap_or(address) } else { address };
    let (host, path) = address.split_at(address.find('/').unwrap_or(address.len()));
    let host = host.rsplit('@').next().unwrap_or(host);
    Cow::from(format!("{scheme}://{host}{path}{part}"))
}

impl Container {
    /// What kind of shard the file at `path` is, which is one of several; an error if it is none.
    pub fn shard_kind(&self, path: &Path) -> Result<ShardKind, DataError> {
        match self {
            Container::Shard(kind, _) => Ok(*kind),
            _ => Err(DataError::WrongKind {
                path: path.to_owned(),
                found: "no archive or table, while a pattern stands for several of these",
                remedy: "pass the folder it lies in, or a pattern such as \"shards/*.tar\""
                    .to_owned(),
            }),
        }
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
    let opened = File::open(path);
    opened.and_then(|file| file.take(HEAD).read_to_end(&mut head)).map_err(unreadable)?;
    of_head(&head, Source::File(path.to_owned()))
}

/// Bytes that tell what a file is.
pub(super) const HEAD: u64 = 512;

/// What a file is by its first [`HEAD`] bytes and its name.
pub(super) fn of_head(head: &[u8], source: Source) -> Result<Container, DataError> {
    let path = source.path();
    let wrong =
        |found, remedy: String| DataError::WrongKind { path: path.to_owned(), found, remedy };
    if let Some((found, command)) = compression(head) {
        let remedy = match source {
            Source::File(_) => format!("unpack it first, with `{command} '{}'`", path.display()),
            Source::Object(_) => format!("download it, unpack it with `{command}` and upload that"),
        };
        return Err(wrong(found, format!("{remedy}: a .tar itself is read in place")));
    }
    if head.starts_with(packed::MAGIC) {
        return Ok(Container::Packed(source));
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // What it holds counts more than its name, which is what is left of a damaged one.
    if let Some(kind) = ShardKind::of_head(head).or_else(|| ShardKind::of_name(&name)) {
        return Ok(Container::Shard(kind, source));
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
fn compression(head: &[u8]) -> Option<(&'static str, &'static str)> {
    const SIGNATURES: [(&[u8], &str, &str); 5] = [
        (b"\x1f\x8b", "a gzip file", "gzip -dk"),
        (b"BZh", "a bzip2 file", "bzip2 -dk"),
        (b"\xfd7zXZ\0", "an xz file", "xz -dk"),
        (b"\x28\xb5\x2f\xfd", "a zstd file", "zstd -d"),
        (b"7z\xbc\xaf\x27\x1c", "a 7z file", "7z x"),
    ];
    let (_, found, command) = SIGNATURES.iter().find(|(magic, ..)| head.starts_with(magic))?;
    Some((found, command))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_gives_access_is_left_out_and_nothing_else() {
        for (argument, shown) in [
            ("https://h/a.tar?X-Amz-Signature=1&b=2", "https://h/a.tar"),
            ("https://user:word@h:8000/a.tar#train", "https://h:8000/a.tar#train"),
            ("HTTP://h/a-{0..9}.tar?sig=1#a/b", "HTTP://h/a-{0..9}.tar#a/b"),
            ("s3://bucket/a/?.tar#train", "s3://bucket/a/?.tar#train"),
            ("s3://key:secret@bucket/a@b.tar", "s3://bucket/a@b.tar"),
            ("https://h?sig=1", "https://h"),
            ("photos?/a.tar#b", "photos?/a.tar#b"),
            ("c://a?b@c", "c://a?b@c"),
        ] {
            assert_eq!(without_secrets(argument), shown);
        }
    }
}
