//! A tar archive: indexed once by walking its headers, then read in place.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::Path;

use super::DataError;
use super::error::some_of;
use super::folder::OtherFiles;
use super::name::{first_folder, is_image_name};
use super::storage::{Entry, Extent, Storage};

/// Lists the images of the archive at `path`, or of a `subfolder` in it, which then is the root.
pub(super) fn list(
    path: &Path,
    subfolder: Option<&str>,
) -> Result<(Storage, Vec<Entry>), DataError> {
    let unreadable = |source| DataError::Unreadable { path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    let length = file.metadata().map_err(unreadable)?.len();
    let Members { mut files, links } = members(path, &file, length)?;

    // A name stored twice means the later one, as for tar itself. The sort keeps their order, so
    // from the end the first of a run is the one to keep.
    files.sort_by(|a, b| a.0.cmp(&b.0));
    files.reverse();
    files.dedup_by(|later, kept| later.0 == kept.0);
    files.reverse();
    let targets: Vec<(String, Extent)> = links
        .into_iter()
        .filter_map(|(name, target)| {
            let found = files.binary_search_by(|file| file.0.as_str().cmp(&target)).ok()?;
            Some((name, files[found].1))
        })
        .collect();
    files.extend(targets);

    let prefix = subfolder.map_or(String::new(), |subfolder| format!("{subfolder}/"));
    let mut entries = Vec::new();
    let mut others = OtherFiles::default();
    let mut known_subfolder = subfolder.is_none();
    for (full_name, extent) in &files {
        let Some(name) = full_name.strip_prefix(&prefix) else { continue };
        known_subfolder = true;
        if name.split('/').any(|part| part.starts_with('.')) {
            continue;
        }
        if is_image_name(name.rsplit('/').next().unwrap_or(name)) {
            let label = first_folder(name);
            entries.push(Entry { name: name.to_owned(), label, extent: Some(*extent) });
        } else {
            others.add(name);
        }
    }
    if !known_subfolder {
        let folders: BTreeSet<String> =
            files.iter().filter_map(|(name, _)| first_folder(name)).collect();
        return Err(DataError::UnknownSubfolder {
            path: path.to_owned(),
            subfolder: subfolder.unwrap_or_default().to_owned(),
            found: some_of(&folders.into_iter().collect::<Vec<_>>(), "folders"),
        });
    }
    if entries.is_empty() {
        let place = match subfolder {
            Some(subfolder) => format!("{}#{subfolder}", path.display()),
            None => path.display().to_string(),
        };
        return Err(DataError::NoImages { place, found: others.describe() });
    }
    Ok((Storage::Archive { file, path: path.to_owned() }, entries))
}

/// The members of an archive by name.
#[derive(Default)]
struct Members {
    files: Vec<(String, Extent)>,
    /// Links to another member, by name.
    links: Vec<(String, String)>,
}

/// Walks the headers, seeking over the contents.
fn members(path: &Path, file: &File, length: u64) -> Result<Members, DataError> {
    let broken = |source| DataError::BrokenArchive { path: path.to_owned(), source };
    let mut found = Members::default();
    let mut archive = tar::Archive::new(file);
    for entry in archive.entries_with_seek().map_err(broken)? {
        let entry = entry.map_err(broken)?;
        let kind = entry.header().entry_type();
        let raw = entry.path_bytes();
        let Some(name) = std::str::from_utf8(&raw).ok().map(normalise) else {
            let lossy = String::from_utf8_lossy(&raw).into_owned();
            if kind.is_dir() || !is_image_name(lossy.rsplit('/').next().unwrap_or(&lossy)) {
                continue;
            }
            return Err(DataError::NameNotUnicode { path: path.join(lossy) });
        };
        if kind.is_gnu_sparse() {
            return Err(DataError::SparseArchive { path: path.to_owned(), name });
        }
        if kind.is_file() || kind.is_contiguous() {
            let extent =
                Extent { offset: entry.raw_file_position(), length: entry.size(), checksum: None };
            let end = extent.offset.saturating_add(extent.length);
            if end > length {
                let path = path.to_owned();
                return Err(DataError::TruncatedArchive {
                    path,
                    name,
                    expected: end,
                    found: length,
                });
            }
            found.files.push((name, extent));
        } else if (kind.is_hard_link() || kind.is_symlink())
            && let Some(target) = entry.link_name_bytes()
            && let Ok(target) = std::str::from_utf8(&target)
        {
            // A hard link names its target from the archive's root, a symbolic one from its folder.
            let target = match name.rsplit_once('/') {
                Some((folder, _)) if kind.is_symlink() => normalise(&format!("{folder}/{target}")),
                _ => normalise(target),
            };
            found.links.push((name, target));
        }
    }
    Ok(found)
}

/// `./a//b/../c` → `a/c`: one spelling for a name, however the archive was made.
fn normalise(name: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
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
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                bytes = &mut bytes[read..];
                offset += read as u64;
            }
        }
    }
    Ok(())
}
