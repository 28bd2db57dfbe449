//! A folder of images, nested at will.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::DataError;
use super::error::some_of;
use super::name::{first_folder, is_image_name};
use super::storage::{Entry, Storage};

/// Lists the images under `root`, or under its `subfolder`, which then is the root.
pub(super) fn list(
    root: &Path,
    subfolder: Option<&str>,
) -> Result<(Storage, Vec<Entry>), DataError> {
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
    if walk.entries.is_empty() {
        let place = base.display().to_string();
        return Err(DataError::NoImages { place, found: walk.others.describe() });
    }
    Ok((Storage::Files { base }, walk.entries))
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
        .filter(|name| !name.starts_with('.'))
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
    entries: Vec<Entry>,
    /// Resolved paths of the folders entered so far: each once, so a cycle of links ends.
    entered: HashSet<PathBuf>,
    /// Folders reached through a link, still to enter, the first in name order last.
    linked: Vec<(PathBuf, String)>,
    others: OtherFiles,
}

impl Walk {
    /// Collects the images of a folder whose name under the root is `name`, then of those in it.
    fn enter(&mut self, path: &Path, name: &str) -> Result<(), DataError> {
        let unreadable = |source| DataError::Unreadable { path: path.to_owned(), source };
        let mut open = vec![(path.to_owned(), name.to_owned())];
        let mut linked = Vec::new();
        while let Some((path, name)) = open.pop() {
            if !self.entered.insert(fs::canonicalize(&path).map_err(unreadable)?) {
                continue;
            }
            for child in fs::read_dir(&path).map_err(unreadable)? {
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
                if kind.is_dir() {
                    open.push((child_path, child_name));
                } else if kind.is_symlink() && child_path.is_dir() {
                    linked.push((child_path, child_name));
                } else if is_image_name(&file_name) {
                    // A link to nowhere stays in: it is then reported by name when it is read,
                    // instead of shifting every later index in silence.
                    let label = first_folder(&child_name);
                    self.entries.push(Entry { name: child_name, label, extent: None });
                } else {
                    self.others.add(&child_name);
                }
            }
        }
        linked.sort_unstable_by(|a, b| b.1.cmp(&a.1));
        self.linked.splice(0..0, linked);
        Ok(())
    }
}

/// Files that are no images, counted so that an empty result can be explained.
#[derive(Default)]
pub(super) struct OtherFiles {
    count: usize,
    example: String,
}

impl OtherFiles {
    /// Notes one more file; the first in name order becomes the example.
    pub fn add(&mut self, name: &str) {
        if self.count == 0 || name < self.example.as_str() {
            name.clone_into(&mut self.example);
        }
        self.count += 1;
    }

    /// "nothing", or how many and one of them.
    pub fn describe(&self) -> String {
        match self.count {
            0 => "nothing".to_owned(),
            1 => format!("only \"{}\"", self.example),
            count => format!("{count} other files such as \"{}\"", self.example),
        }
    }
}
