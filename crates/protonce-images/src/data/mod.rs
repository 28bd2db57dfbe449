//! Where images come from.
//!
//! Enters: one argument, `PATH[#SUBFOLDER]`: a folder, a `.tar`, a text list or a packed file. Leaves: a
//! [`Dataset`], which knows every image's name and label and hands out its bytes, still encoded.
//! Nothing here decodes, so that opening a million images costs an index and no more.
//!
//! Images are ordered by name, byte by byte. That makes an index a durable name for an image: the
//! prototypes of an epoch, the random views and a resumed run all speak of image 17 and mean the
//! same picture on every machine, whichever of the four ways it is stored.

mod archive;
mod argument;
mod benchmark;
mod error;
mod folder;
mod list;
mod packed;
mod raw;

pub use benchmark::{Benchmark, LAYOUTS, Labelled, MultiLabel, Splits, open_benchmark};
pub use error::DataError;
pub use packed::PackWriter;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use argument::{Container, Location};
use error::some_of;
use raw::RawFiles;

/// Extensions that mark a file in a folder or an archive as an image, in any case.
///
/// A text list names its files itself, so it may name others.
pub const IMAGE_EXTENSIONS: [&str; 8] = ["jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff"];

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
    source: Arc<Source>,
    /// All names end to end; one allocation for a million images instead of a million.
    names: String,
    /// Where each name ends in `names`.
    name_ends: Vec<usize>,
    /// Index into `classes`, or [`UNLABELLED`].
    labels: Vec<u32>,
    classes: Vec<String>,
    /// Bytes of each image, for the sources that address images by position.
    extents: Vec<Extent>,
}

const UNLABELLED: u32 = u32::MAX;

/// How the bytes of an image are reached.
#[derive(Debug)]
enum Source {
    /// One file an image: `base` joined with the image's name. Serves folders and lists.
    Files { base: PathBuf },
    /// One archive or packed file, read at an [`Extent`].
    Archive { file: File, path: PathBuf },
    /// Bare pixels; an image's name is its number.
    Raw(RawFiles),
}

/// Where an image lies inside a larger file, in bytes.
#[derive(Clone, Copy, Debug)]
struct Extent {
    offset: u64,
    length: u64,
    /// CRC-32 of these bytes, where it is known.
    checksum: Option<u32>,
}

/// One image as the modules that list a source report it, before sorting.
#[derive(Debug)]
struct Entry {
    name: String,
    /// Label as text, or none.
    label: Option<String>,
    extent: Option<Extent>,
}

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
        let (source, entries) = match container {
            Container::Folder => folder::list(&path, subfolder.as_deref())?,
            Container::Archive => archive::list(&path, subfolder.as_deref())?,
            Container::List => list::list(&path, subfolder.as_deref())?,
            Container::Packed => packed::list(&path, subfolder.as_deref())?,
        };
        Ok(Dataset::new(argument, source, entries))
    }

    fn new(argument: &str, source: Source, entries: Vec<Entry>) -> Dataset {
        Dataset { index: Arc::new(Index::new(argument, source, entries)) }
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
        bytes.clear();
        let name = self.name(index);
        match &*self.index.source {
            Source::Files { base } => {
                let path = base.join(name);
                File::open(&path)
                    .and_then(|mut file| file.read_to_end(bytes))
                    .map_err(|source| DataError::Unreadable { path, source })?;
            }
            Source::Archive { file, path } => {
                let extent = self.index.extents[index];
                let unreadable = |source| DataError::Unreadable { path: path.join(name), source };
                let length = usize::try_from(extent.length)
                    .map_err(|_| unreadable(std::io::ErrorKind::FileTooLarge.into()))?;
                bytes.resize(length, 0);
                archive::read_exact_at(file, bytes, extent.offset).map_err(unreadable)?;
                if extent.checksum.is_some_and(|checksum| crc32fast::hash(bytes) != checksum) {
                    let (path, name) = (path.clone(), name.to_owned());
                    return Err(DataError::CorruptImage { path, name });
                }
            }
            Source::Raw(raw) => {
                let missing = || DataError::Missing { path: name.into() };
                raw.read(name.parse().map_err(|_| missing())?, bytes)?;
            }
        }
        Ok(())
    }

    /// Encoded bytes of all images, where that is known without looking at each: in archives and
    /// packed files.
    pub fn bytes(&self) -> Option<u64> {
        match &*self.index.source {
            Source::Files { .. } | Source::Raw(_) => None,
            Source::Archive { .. } => Some(self.index.extents.iter().map(|e| e.length).sum()),
        }
    }

    /// Whether the file of an image lies under the folder that was opened (of a list: the folder
    /// the list lies in) once symbolic links are followed. An image inside an archive always does.
    ///
    /// # Panics
    /// When `index` is not below [`Dataset::len`].
    pub fn lies_within(&self, index: usize) -> bool {
        match &*self.index.source {
            Source::Files { base } => lies_within(base, &base.join(self.name(index))),
            Source::Archive { .. } | Source::Raw(_) => true,
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
        let extents = match &*from.source {
            Source::Files { .. } | Source::Raw(_) => Vec::new(),
            Source::Archive { .. } => indices.iter().map(|&index| from.extents[index]).collect(),
        };
        Dataset {
            index: Arc::new(Index {
                argument: from.argument.clone(),
                source: Arc::clone(&from.source),
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
        match &*self.index.source {
            Source::Files { base } => {
                for index in 0..self.len() {
                    file(base.join(self.name(index)).metadata().ok());
                }
            }
            Source::Archive { file: archive, .. } => {
                file(archive.metadata().ok());
                for extent in &self.index.extents {
                    digest(&extent.offset.to_le_bytes());
                }
            }
            Source::Raw(raw) => raw.files.iter().for_each(|(raw, _)| file(raw.metadata().ok())),
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
        let mut hash = Fnv::new();
        for index in 0..self.len() {
            hash.write(self.name(index).as_bytes());
            let class = self.label(index).map_or("", |label| &self.classes()[label]);
            hash.write(class.as_bytes());
        }
        format!("{:016x}", hash.0)
    }
}

impl Index {
    /// Sorts the entries by name and numbers their labels.
    fn new(argument: &str, source: Source, mut entries: Vec<Entry>) -> Index {
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        let mut classes: Vec<String> =
            entries.iter().filter_map(|entry| entry.label.as_ref()).cloned().collect();
        classes.sort_unstable();
        classes.dedup();

        let mut index = Index {
            argument: argument.to_owned(),
            source: Arc::new(source),
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

/// The first folder of a name, which is its label in folders and archives.
fn first_folder(name: &str) -> Option<String> {
    name.split_once('/').map(|(folder, _)| folder.to_owned())
}

/// Whether a file of this name counts as an image: a known extension, and not hidden.
fn is_image_name(file_name: &str) -> bool {
    let extension = Path::new(file_name).extension().and_then(|extension| extension.to_str());
    !file_name.starts_with('.')
        && extension.is_some_and(|extension| {
            IMAGE_EXTENSIONS.iter().any(|known| known.eq_ignore_ascii_case(extension))
        })
}

/// FNV-1a over length-prefixed strings: ours, because the standard hasher may change between
/// releases and a fingerprint outlives the program that wrote it.
struct Fnv(u64);

impl Fnv {
    fn new() -> Fnv {
        Fnv(0xcbf2_9ce4_8422_2325)
    }

    fn write(&mut self, bytes: &[u8]) {
        let length = (bytes.len() as u64).to_le_bytes();
        for &byte in length.iter().chain(bytes) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}
