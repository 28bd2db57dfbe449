//! Archives and tables, one or several as one set: `shard-{000000..000127}.tar`, `data/*.parquet`, or a
//! folder that holds nothing else.
//!
//! In a set the name of a file stands in front of the names in it, so that names stay different and
//! neighbours in the order of images lie in one file; labels come from inside the files.

use std::path::{Path, PathBuf};

use super::listing::Listing;
use super::name::has_extension;
use super::source::Source;
use super::storage::Storage;
use super::{DataError, archive, zip};

/// What a shard is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ShardKind {
    Tar,
    Parquet,
    Zip,
}

impl ShardKind {
    /// What a file begins with, if that tells: its first 512 bytes.
    pub fn of_head(head: &[u8]) -> Option<ShardKind> {
        if head.get(257..262) == Some(b"ustar") {
            Some(ShardKind::Tar)
        } else if head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06") {
            Some(ShardKind::Zip)
        } else if head.starts_with(b"PAR1") {
            Some(ShardKind::Parquet)
        } else {
            None
        }
    }

    /// What a file of this name is, if it is a shard.
    pub fn of_name(file_name: &str) -> Option<ShardKind> {
        [(ShardKind::Tar, "tar"), (ShardKind::Parquet, "parquet"), (ShardKind::Zip, "zip")]
            .into_iter()
            .find(|(_, extension)| has_extension(file_name, &[extension]))
            .map(|(kind, _)| kind)
    }
}

/// A file of a set: where it is, and what stands in front of the names in it.
pub(super) struct Shard {
    pub source: Source,
    pub prefix: String,
}

impl Shard {
    pub fn path(&self) -> &Path {
        self.source.path()
    }
}

/// Lists the images of one file, or of a `subfolder` in it.
pub(super) fn list_one(
    kind: ShardKind,
    source: Source,
    subfolder: Option<&str>,
) -> Result<(Storage, Listing), DataError> {
    list_shards(kind, &[Shard { source, prefix: String::new() }], subfolder)
}

/// Lists the images of `files` below `base` as one set, or of a `subfolder` in each of them.
pub(super) fn list(
    kind: ShardKind,
    base: &Path,
    files: Vec<Source>,
    subfolder: Option<&str>,
) -> Result<(Storage, Listing), DataError> {
    let mut shards = Vec::with_capacity(files.len());
    for source in files {
        let path = source.path();
        let below = path.strip_prefix(base).unwrap_or(path);
        let Some(name) = below.to_str() else {
            return Err(DataError::NameNotUnicode { path: path.to_owned() });
        };
        let prefix = format!("{}/", name.replace('\\', "/"));
        shards.push(Shard { source, prefix });
    }
    shards.sort_unstable_by(|a, b| a.prefix.cmp(&b.prefix));
    shards.dedup_by(|a, b| a.path() == b.path());
    list_shards(kind, &shards, subfolder)
}

fn list_shards(
    kind: ShardKind,
    shards: &[Shard],
    subfolder: Option<&str>,
) -> Result<(Storage, Listing), DataError> {
    match kind {
        ShardKind::Tar => archive::list(shards, subfolder),
        ShardKind::Zip => zip::list(shards, subfolder),
        #[cfg(feature = "parquet")]
        ShardKind::Parquet => super::table::list(shards, subfolder),
        #[cfg(not(feature = "parquet"))]
        ShardKind::Parquet => Err(DataError::Table {
            path: shards.first().map(|shard| shard.path().to_owned()).unwrap_or_default(),
            problem: "is a parquet file, which this program was built without".to_owned(),
        }),
    }
}

/// The files of one kind: of the first in [`ShardKind`] of which there are any.
pub(super) fn of_one_kind<T: Clone>(found: &[(ShardKind, T)]) -> Option<(ShardKind, Vec<T>)> {
    [ShardKind::Tar, ShardKind::Parquet, ShardKind::Zip].into_iter().find_map(|kind| {
        let of_kind = found.iter().filter(|file| file.0 == kind);
        let files: Vec<T> = of_kind.map(|file| file.1.clone()).collect();
        (!files.is_empty()).then_some((kind, files))
    })
}

/// The folder in which all of `files` lie.
pub(super) fn common_folder(files: &[&Path]) -> PathBuf {
    let mut folders = files.first().map(|file| file.ancestors()).into_iter().flatten().skip(1);
    let common = folders.find(|folder| files.iter().all(|file| file.starts_with(folder)));
    common.unwrap_or(Path::new("")).to_owned()
}

/// The files that a pattern stands for: none where it is no pattern, or nothing matches its `*`, `?`
/// and `[…]`, or none of the files exists that its braces spell out. All of these have to, if one does.
pub(super) fn expand(pattern: &str) -> Result<Vec<PathBuf>, DataError> {
    let mut files = Vec::new();
    let mut missing = None;
    for pattern in braces(pattern) {
        if pattern.contains(['*', '?', '[']) {
            let Ok(found) = glob::glob(&pattern) else { return Ok(Vec::new()) };
            files.extend(found.flatten().filter(|path| path.is_file()));
            continue;
        }
        let path = PathBuf::from(pattern);
        match path.exists() {
            true => files.push(path),
            false => missing = missing.or(Some(path)),
        }
    }
    match missing {
        Some(path) if !files.is_empty() => Err(DataError::Missing { path }),
        _ => Ok(files),
    }
}

/// What a pattern with `{a,b}` and `{000..127}` spells out; itself, where there are none.
pub(super) fn braces(pattern: &str) -> Vec<String> {
    let itself = || vec![pattern.to_owned()];
    let Some((before, rest)) = pattern.split_once('{') else { return itself() };
    let Some((inside, after)) = rest.split_once('}') else { return itself() };
    let choices: Vec<String> = match inside.split_once("..") {
        Some((first, last)) => match (first.parse::<u32>(), last.parse::<u32>()) {
            // As many digits as the first number is written with.
            (Ok(from), Ok(to)) if from <= to && to - from < 1 << 20 => {
                let digits = first.len();
                (from..=to).map(|number| format!("{number:0digits$}")).collect()
            }
            _ => return itself(),
        },
        None if inside.contains(',') => inside.split(',').map(str::to_owned).collect(),
        None => return itself(),
    };
    let after = braces(after);
    let spelled = choices
        .iter()
        .flat_map(|choice| after.iter().map(move |after| format!("{before}{choice}{after}")));
    spelled.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_are_spelled_out_as_a_shell_does() {
        let cases: [(&str, &[&str]); 6] = [
            ("a.tar", &["a.tar"]),
            ("s-{008..011}.tar", &["s-008.tar", "s-009.tar", "s-010.tar", "s-011.tar"]),
            ("{train,val}-{0..1}", &["train-0", "train-1", "val-0", "val-1"]),
            ("{9..10}", &["9", "10"]),
            ("a{b}c", &["a{b}c"]),
            ("a{5..3}", &["a{5..3}"]),
        ];
        for (pattern, spelled) in cases {
            assert_eq!(braces(pattern), spelled, "{pattern}");
        }
    }

    #[test]
    fn the_common_folder_is_that_of_all_files() {
        for (files, folder) in [
            (&["a/b/1.tar", "a/b/2.tar"][..], "a/b"),
            (&["a/b/1.tar", "a/c/1.tar"], "a"),
            (&["/x/1.tar", "/y/1.tar"], "/"),
            (&["1.tar"], ""),
            (&["s3://b/c/1.tar", "s3://b/c/2.tar"], "s3://b/c"),
        ] {
            let files: Vec<&Path> = files.iter().map(Path::new).collect();
            assert_eq!(common_folder(&files).as_os_str(), folder);
        }
    }
}
