//! A folder of images, nested at will.

use std::collections::HashSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::DataError;
use super::error::some_of;
use super::listing::Listing;
use super::name::{first_folder, is_image_name, is_other_image, is_skipped_folder};
use super::shards::{self, ShardKind};
use super::source::Source;
use super::storage::Storage;

/// Lists the images under `root`, or under its `subfolder`, which then is the root.
///
/// A folder without an image in which archives or tables lie is the set of these.
pub(super) fn list(root: &Path, subfolder: Option<&str>) -> Result<(Storage, Listing), DataError> {
    let base = match subfolder {
        Some(subfolder) => inside(root, subfolder)?,
        None => root.to_owned(),
    };
    let mut walk = Walk::default();
    walk.enter(&base, "")?;
    // Linked folders come after all real ones, so that a link back into the tree never decides
    // under which of its two names a folder is found.
    while let Some((path, name)) = walk.linked.pop() {
        walk.enter(&path, &name)?;
    }
    let Walk { mut listing, mut others, skipped, shards, .. } = walk;
    let set = if listing.is_empty() { shards::of_one_kind(&shards) } else { None };
    for (kind, path) in &shards {
        if set.as_ref().is_none_or(|(taken, _)| taken != kind) {
            others.add(&path.strip_prefix(&base).unwrap_or(path).to_string_lossy());
        }
    }
    let storage = match set {
        Some((kind, files)) => {
            let files = files.into_iter().map(Source::File).collect();
            let (storage, found) = shards::list(kind, &base, files, None)?;
            listing = found;
            storage
        }
        None if listing.is_empty() => {
            let place = base.display().to_string();
            return Err(DataError::NoImages { place, found: others.describe() });
        }
        None => Storage::Files { base },
    };
    listing.remarks.extend(skipped);
    listing.remarks.extend(others.remark());
    Ok((storage, listing))
}

/// The folder `subfolder` of `root`; one that climbs out of `root` is as unknown as a missing one.
fn inside(root: &Path, subfolder: &str) -> Result<PathBuf, DataError> {
    let path = root.join(subfolder);
    let climbs = subfolder.split('/').any(|part| part == "..");
    if !climbs && path.is_dir() {
        return Ok(path);
    }
    let unreadable = |source| DataError::Unreadable { path: root.to_owned(), source };
    let mut folders: Vec<String> = fs::read_dir(root)
        .map_err(unreadable)?
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| !is_skipped_folder(name))
        .collect();
    folders.sort_unstable();
    Err(DataError::UnknownSubfolder {
        path: root.to_owned(),
        subfolder: subfolder.to_owned(),
        found: some_of(&folders, "folders"),
    })
}

#[derive(Default)]
struct Walk {
    listing: Listing,
    /// Resolved paths of the folders entered so far: each once, so a cycle of links ends.
    entered: HashSet<PathBuf>,
    /// Folders reached through a link, still to enter, the first in name order last.
    linked: Vec<(PathBuf, String)>,
    others: OtherFiles,
    /// Folders that may not be read, a sentence each.
    skipped: Vec<String>,
    /// Archives and tables, which count where there is no image.
    shards: Vec<(ShardKind, PathBuf)>,
}

impl Walk {
    /// Collects the images of a folder whose name under the root is `name`, then of those in it.
    ///
    /// Of the folders in it, those that may not be read or are gone meanwhile are skipped.
    fn enter(&mut self, path: &Path, name: &str) -> Result<(), DataError> {
        let mut open = vec![(path.to_owned(), name.to_owned())];
        let mut linked = Vec::new();
        while let Some((path, name)) = open.pop() {
            match self.enter_one(&path, &name, &mut open, &mut linked) {
                Ok(()) => {}
                Err(DataError::Unreadable { path, source })
                    if !name.is_empty()
                        && matches!(
                            source.kind(),
                            ErrorKind::PermissionDenied | ErrorKind::NotFound
                        ) =>
                {
                    self.skipped.push(format!(
                        "the folder {} is skipped: it cannot be read ({source})",
                        path.display()
                    ));
                }
                Err(error) => return Err(error),
            }
        }
        linked.sort_unstable_by(|a, b| b.1.cmp(&a.1));
        self.linked.splice(0..0, linked);
        Ok(())
    }

    /// Collects the images directly in a folder, and the folders in it.
    fn enter_one(
        &mut self,
        path: &Path,
        name: &str,
        open: &mut Vec<(PathBuf, String)>,
        linked: &mut Vec<(PathBuf, String)>,
    ) -> Result<(), DataError> {
        let unreadable = |source| DataError::Unreadable { path: path.to_owned(), source };
        if !self.entered.insert(fs::canonicalize(path).map_err(unreadable)?) {
            return Ok(());
        }
        for child in fs::read_dir(path).map_err(unreadable)? {
            let child = child.map_err(unreadable)?;
            let child_path = child.path();
            let Ok(file_name) = child.file_name().into_string() else {
                let odd = child.file_name().to_string_lossy().into_owned();
                if child_path.is_dir() || is_image_name(&odd) {
                    return Err(DataError::NameNotUnicode { path: child_path });
                }
                continue;
            };
            if file_name.starts_with('.') {
                continue;
            }
            let child_name =
                if name.is_empty() { file_name.clone() } else { format!("{name}/{file_name}") };
            let kind = child.file_type().map_err(unreadable)?;
            // A link to nowhere stays in: it is then reported by name when it is read, instead of
            // shifting every later index in silence.
            let target = if kind.is_symlink() { fs::metadata(&child_path).ok() } else { None };
            let is_folder = kind.is_dir() || target.as_ref().is_some_and(fs::Metadata::is_dir);
            let is_file = kind.is_file()
                || kind.is_symlink() && target.as_ref().is_none_or(fs::Metadata::is_file);
            if is_folder && is_skipped_folder(&file_name) {
                continue;
            } else if kind.is_dir() {
                open.push((child_path, child_name));
            } else if is_folder {
                linked.push((child_path, child_name));
            } else if is_file && is_image_name(&file_name) {
                self.listing.push(&child_name, first_folder(&child_name), None);
            } else if is_file && let Some(kind) = ShardKind::of_name(&file_name) {
                self.shards.push((kind, child_path));
            } else {
                // Pipes, sockets and devices too, whatever their names.
                self.others.add(&child_name);
            }
        }
        Ok(())
    }
}

/// Files that are no images, counted so that what is missing can be explained.
#[derive(Default)]
pub(super) struct OtherFiles {
    count: usize,
    example: String,
}

impl OtherFiles {
    /// Notes one more file. The example is the first in name order, if possible an image of a format
    /// that cannot be read.
    pub fn add(&mut self, name: &str) {
        if self.count == 0
            || is_other_image(name) && !is_other_image(&self.example)
            || is_other_image(name) == is_other_image(&self.example) && name < self.example.as_str()
        {
            name.clone_into(&mut self.example);
        }
        self.count += 1;
    }

    /// Adds what others have counted.
    pub fn absorb(&mut self, other: OtherFiles) {
        if other.count > 0 {
            self.add(&other.example);
            self.count += other.count - 1;
        }
    }

    /// "nothing", or how many and one of them.
    pub fn describe(&self) -> String {
        match self.count {
            0 => "nothing".to_owned(),
            1 => format!("only \"{}\"", self.example),
            count => format!("{count} other files such as \"{}\"", self.example),
        }
    }

    /// The sentence that says how many files beside the images are passed over, if any.
    pub fn remark(&self) -> Option<String> {
        match self.count {
            0 => None,
            1 => Some(format!("1 other file, \"{}\", is passed over", self.example)),
            count => {
                Some(format!("{count} other files, such as \"{}\", are passed over", self.example))
            }
        }
    }
}
