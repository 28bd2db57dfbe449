//! An ordered collection of encoded images: an index of names, labels and where the bytes lie.

use std::path::Path;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use super::argument::{self, Container, Location};
use super::fingerprint::Fingerprint;
use super::storage::{Entry, Extent, Storage};
use super::{DataError, archive, folder, list, packed};
use crate::random::{Purpose, generator};

/// An ordered collection of encoded images, some or all of which may carry a label.
///
/// Cloning is cheap: clones share the index and the open archive. A data set can be read from many
/// threads at once.
#[derive(Clone, Debug)]
pub struct Dataset {
    index: Arc<Index>,
}

/// Everything known about the images without reading one.
#[derive(Debug)]
struct Index {
    argument: String,
    storage: Arc<Storage>,
    /// All names end to end; one allocation for a million images instead of a million.
    names: String,
    /// Where each name ends in `names`.
    name_ends: Vec<usize>,
    /// Index into `classes`, or [`UNLABELLED`].
    labels: Vec<u32>,
    classes: Vec<String>,
    /// Bytes of each image, for the storages that address images by position.
    extents: Vec<Extent>,
}

const UNLABELLED: u32 = u32::MAX;

impl Dataset {
    /// Opens `PATH[#SUBFOLDER]`: a folder (nested; every folder is entered once, also through
    /// symbolic links), a `.tar` archive (its headers are walked once, images are then read in
    /// place), a text list with `path[<tab>label]` a line, or a packed file.
    ///
    /// In folders and archives an image's label is the first folder under the root; images directly
    /// in the root have none. `#SUBFOLDER` makes a folder inside the root.
    ///
    /// # Errors
    /// When the path or the subfolder does not exist, cannot be read, holds no images, or is
    /// neither of the four kinds.
    pub fn open(argument: &str) -> Result<Dataset, DataError> {
        let Location { path, container, subfolder } = argument::locate(argument)?;
        let (storage, entries) = match container {
            Container::Folder => folder::list(&path, subfolder.as_deref())?,
            Container::Archive => archive::list(&path, subfolder.as_deref())?,
            Container::List => list::list(&path, subfolder.as_deref())?,
            Container::Packed => packed::list(&path, subfolder.as_deref())?,
        };
        Ok(Dataset::new(argument, storage, entries))
    }

    /// The images that `entries` list, in any order.
    pub(super) fn new(argument: &str, storage: Storage, entries: Vec<Entry>) -> Dataset {
        Dataset { index: Arc::new(Index::new(argument, storage, entries)) }
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.index.name_ends.len()
    }

    /// Whether there are no images; only a [`Dataset::select`]ion can be empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What was typed to open this data set.
    pub fn argument(&self) -> &str {
        &self.index.argument
    }

    /// Name of an image: its path under the root, with `/` between folders.
    ///
    /// # Panics
    /// When `index` is not below [`Dataset::len`].
    pub fn name(&self, index: usize) -> &str {
        let start = if index == 0 { 0 } else { self.index.name_ends[index - 1] };
        &self.index.names[start..self.index.name_ends[index]]
    }

    /// Label of an image: a position in [`Dataset::classes`], or none.
    ///
    /// # Panics
    /// When `index` is not below [`Dataset::len`].
    pub fn label(&self, index: usize) -> Option<usize> {
        match self.index.labels[index] {
            UNLABELLED => None,
            label => Some(label as usize),
        }
    }

    /// Names of the classes, sorted byte by byte; empty without labels.
    pub fn classes(&self) -> &[String] {
        &self.index.classes
    }

    /// Labels of all images in order, or none as soon as one image has no label.
    pub fn labels(&self) -> Option<Vec<i64>> {
        let label = |&label: &u32| (label != UNLABELLED).then_some(i64::from(label));
        self.index.labels.iter().map(label).collect()
    }

    /// Reads the encoded bytes of an image into `bytes`, replacing what was there.
    ///
    /// # Errors
    /// When the file is gone, unreadable or, in an archive, shorter than it was at opening; in a
    /// packed file, when the bytes do not match their checksum.
    ///
    /// # Panics
    /// When `index` is not below [`Dataset::len`].
    pub fn read(&self, index: usize, bytes: &mut Vec<u8>) -> Result<(), DataError> {
        let extent = self.index.extents.get(index).copied();
        self.index.storage.read(self.name(index), extent, bytes)
    }

    /// Encoded bytes of all images, where that is known without looking at each: in archives and
    /// packed files.
    pub fn bytes(&self) -> Option<u64> {
        match &*self.index.storage {
            Storage::Files { .. } | Storage::Raw(_) => None,
            Storage::Archive { .. } => Some(self.index.extents.iter().map(|e| e.length).sum()),
        }
    }

    /// Whether the file of an image lies under the folder that was opened (of a list: the folder
    /// the list lies in) once symbolic links are followed. An image inside an archive always does.
    ///
    /// # Panics
    /// When `index` is not below [`Dataset::len`].
    pub fn lies_within(&self, index: usize) -> bool {
        match &*self.index.storage {
            Storage::Files { base } => lies_within(base, &base.join(self.name(index))),
            Storage::Archive { .. } | Storage::Raw(_) => true,
        }
    }

    /// The images at `indices`, in that order, with the same classes.
    ///
    /// # Panics
    /// When an index is not below [`Dataset::len`].
    pub fn select(&self, indices: &[usize]) -> Dataset {
        let from = &*self.index;
        let mut names = String::new();
        let mut name_ends = Vec::with_capacity(indices.len());
        for &index in indices {
            names.push_str(self.name(index));
            name_ends.push(names.len());
        }
        let extents = match &*from.storage {
            Storage::Files { .. } | Storage::Raw(_) => Vec::new(),
            Storage::Archive { .. } => indices.iter().map(|&index| from.extents[index]).collect(),
        };
        Dataset {
            index: Arc::new(Index {
                argument: from.argument.clone(),
                storage: Arc::clone(&from.storage),
                names,
                name_ends,
                labels: indices.iter().map(|&index| from.labels[index]).collect(),
                classes: from.classes.clone(),
                extents,
            }),
        }
    }

    /// The first `count` images of each class by name; without labels, the first `count` of all.
    ///
    /// Where only some images have labels, those without are left out.
    pub fn per_class(&self, count: usize) -> Dataset {
        if self.classes().is_empty() {
            let first: Vec<usize> = (0..self.len().min(count)).collect();
            return self.select(&first);
        }
        let mut taken = vec![0; self.classes().len()];
        let mut chosen = Vec::new();
        for index in 0..self.len() {
            if let Some(label) = self.label(index)
                && taken[label] < count
            {
                taken[label] += 1;
                chosen.push(index);
            }
        }
        self.select(&chosen)
    }

    /// `count` images drawn at random without replacement, in their order; all, if there are no more.
    /// Which follows from `seed`.
    pub fn sample(&self, count: usize, seed: u64) -> Dataset {
        let mut random = generator(seed, Purpose::Sample);
        let mut drawn =
            rand::seq::index::sample(&mut random, self.len(), count.min(self.len())).into_vec();
        drawn.sort_unstable();
        self.select(&drawn)
    }

    /// Hands `digest` what tells these images from others without reading them: their names and
    /// order, their stored lengths and when they were last modified.
    ///
    /// What was computed of the images can be kept under a hash of it. A file that is gone has no
    /// length; reading it will say so.
    pub fn describe(&self, digest: &mut dyn FnMut(&[u8])) {
        let mut file = |metadata: Option<std::fs::Metadata>| {
            let modified = metadata.as_ref().and_then(|metadata| metadata.modified().ok());
            let since = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
            let length = metadata.map_or(0, |metadata| metadata.len());
            digest(&length.to_le_bytes());
            digest(&since.map_or(0, |since| since.as_nanos()).to_le_bytes());
        };
        match &*self.index.storage {
            Storage::Files { base } => {
                for index in 0..self.len() {
                    file(base.join(self.name(index)).metadata().ok());
                }
            }
            Storage::Archive { file: archive, .. } => {
                file(archive.metadata().ok());
                for extent in &self.index.extents {
                    digest(&extent.offset.to_le_bytes());
                }
            }
            Storage::Raw(raw) => raw.files.iter().for_each(|(raw, _)| file(raw.metadata().ok())),
        }
        for index in 0..self.len() {
            digest(self.name(index).as_bytes());
            digest(b"\0");
        }
    }

    /// Sixteen hexadecimal digits that change when a name, a label or the order changes.
    ///
    /// A resumed run compares it to tell whether an index still means the same image. It does not
    /// look at pixels, nor at where or how the images are stored.
    pub fn fingerprint(&self) -> String {
        let mut hash = Fingerprint::new();
        for index in 0..self.len() {
            hash.write(self.name(index).as_bytes());
            let class = self.label(index).map_or("", |label| &self.classes()[label]);
            hash.write(class.as_bytes());
        }
        hash.digits()
    }
}

impl Index {
    /// Sorts the entries by name and numbers their labels.
    fn new(argument: &str, storage: Storage, mut entries: Vec<Entry>) -> Index {
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        let mut classes: Vec<String> =
            entries.iter().filter_map(|entry| entry.label.as_ref()).cloned().collect();
        classes.sort_unstable();
        classes.dedup();

        let mut index = Index {
            argument: argument.to_owned(),
            storage: Arc::new(storage),
            names: String::with_capacity(entries.iter().map(|entry| entry.name.len()).sum()),
            name_ends: Vec::with_capacity(entries.len()),
            labels: Vec::with_capacity(entries.len()),
            classes: Vec::new(),
            extents: Vec::new(),
        };
        for entry in entries {
            index.names.push_str(&entry.name);
            index.name_ends.push(index.names.len());
            let label = entry.label.and_then(|label| classes.binary_search(&label).ok());
            // More than 2³² − 1 classes would need as many images; their names alone fill memory.
            index.labels.push(label.map_or(UNLABELLED, |label| label as u32));
            index.extents.extend(entry.extent);
        }
        index.classes = classes;
        index
    }
}

/// Whether `path` is under `folder` once symbolic links are followed; a path that does not exist is
/// not.
pub fn lies_within(folder: &Path, path: &Path) -> bool {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    match (folder.canonicalize(), path.canonicalize()) {
        (Ok(folder), Ok(path)) => path.starts_with(folder),
        _ => false,
    }
}
