//! An ordered collection of encoded images: an index of names, labels and where the bytes lie.

use std::path::Path;
use std::sync::Arc;

use super::argument::{self, Container, Location, without_secrets};
use super::fingerprint::Fingerprint;
use super::listing::{Listing, UNLABELLED};
use super::source::version_of;
use super::storage::Storage;
use super::store::Flight;
use super::{DataError, folder, list, packed, shards};
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
    /// Sorted by name, unless it is a selection.
    listing: Listing,
}

impl Dataset {
    /// Opens `PATH[#SUBFOLDER]`: a folder (nested; every folder is entered once, also through
    /// symbolic links), a `.tar` archive (its headers are walked once, images are then read in
    /// place), a `.zip`, a `.parquet` with a column of images, a text list with `path[<tab>label]` a
    /// line, or a packed file.
    ///
    /// Several archives or tables are one set: a pattern such as `shard-{000..127}.tar` or
    /// `data/*.parquet`, or a folder in which nothing else lies.
    ///
    /// An archive, table or packed file, or several, can also lie in an object store or on a web server:
    /// `s3://`, `gs://`, `az://` and `https://`, see [`cache_objects`](super::cache_objects).
    ///
    /// In folders and archives an image's label is the first folder under the root; images directly
    /// in the root have none. In tar archives a `.cls` or `.json` of the same name comes before that.
    /// `#SUBFOLDER` makes a folder inside the root.
    ///
    /// # Errors
    /// When the path or the subfolder does not exist, cannot be read, holds no images, or is
    /// none of these kinds.
    pub fn open(argument: &str) -> Result<Dataset, DataError> {
        let Location { path, container, subfolder, remarks } = argument::locate(argument)?;
        let subfolder = subfolder.as_deref();
        let (storage, mut listing) = match container {
            Container::Folder => folder::list(&path, subfolder)?,
            Container::Shard(kind, source) => shards::list_one(kind, source, subfolder)?,
            Container::Shards(kind, files) => shards::list(kind, &path, files, subfolder)?,
            Container::List => list::list(&path, subfolder)?,
            Container::Packed(source) => packed::list(&source, subfolder)?,
        };
        listing.remarks.extend(remarks);
        Ok(Dataset::new(&without_secrets(argument), storage, listing))
    }

    /// The same where labels are needed: if some images have labels, those without (a picture beside
    /// the folders of the classes) are left out, which one of [`Dataset::remarks`] says.
    ///
    /// # Errors
    /// As [`Dataset::open`].
    pub fn open_labelled(argument: &str) -> Result<Dataset, DataError> {
        let dataset = Dataset::open(argument)?;
        let labels = &dataset.index.listing.labels;
        let Some(first) = labels.iter().position(|&label| label == UNLABELLED) else {
            return Ok(dataset);
        };
        let labelled: Vec<usize> =
            (0..labels.len()).filter(|&index| labels[index] != UNLABELLED).collect();
        if labelled.is_empty() {
            return Ok(dataset);
        }
        let remark = format!(
            "{} of {} images have no label and are left out, such as \"{}\"",
            labels.len() - labelled.len(),
            labels.len(),
            dataset.name(first)
        );
        let mut selected = dataset.select(&labelled);
        if let Some(index) = Arc::get_mut(&mut selected.index) {
            index.listing.remarks.push(remark);
        }
        Ok(selected)
    }

    /// The images of `listing`, in any order.
    pub(super) fn new(argument: &str, storage: Storage, mut listing: Listing) -> Dataset {
        listing.sort();
        let (argument, storage) = (argument.to_owned(), Arc::new(storage));
        Dataset { index: Arc::new(Index { argument, storage, listing }) }
    }

    /// What was passed over, skipped or left out when this data set was opened, one sentence each:
    /// to be shown to whoever opened it.
    pub fn remarks(&self) -> &[String] {
        &self.index.listing.remarks
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.index.listing.len()
    }

    /// Whether there are no images; only a [`Dataset::select`]ion can be empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What was typed to open this data set, as [`without_secrets`] leaves it.
    pub fn argument(&self) -> &str {
        &self.index.argument
    }

    /// Name of an image: its path under the root, with `/` between folders.
    ///
    /// # Panics
    /// When `index` is not below [`Dataset::len`].
    pub fn name(&self, index: usize) -> &str {
        self.index.listing.name(index)
    }

    /// Label of an image: a position in [`Dataset::classes`], or none.
    ///
    /// # Panics
    /// When `index` is not below [`Dataset::len`].
    pub fn label(&self, index: usize) -> Option<usize> {
        match self.index.listing.labels[index] {
            UNLABELLED => None,
            label => Some(label as usize),
        }
    }

    /// Names of the classes, sorted byte by byte; empty without labels.
    pub fn classes(&self) -> &[String] {
        &self.index.listing.classes
    }

    /// Labels of all images in order, or none as soon as one image has no label.
    pub fn labels(&self) -> Option<Vec<i64>> {
        let label = |&label: &u32| (label != UNLABELLED).then_some(i64::from(label));
        self.index.listing.labels.iter().map(label).collect()
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
        let extent = self.index.listing.extents.get(index).copied();
        self.index.storage.read(self.name(index), extent, bytes)
    }

    /// Whether the images come from an object store or a web server.
    pub fn is_remote(&self) -> bool {
        self.index.storage.is_remote()
    }

    /// Bytes that the cache holds of images from object stores and web servers; none for others.
    pub fn cache_limit(&self) -> Option<u64> {
        let first = self.index.listing.extents.first()?;
        self.index.storage.place(*first).map(|(object, _)| object.cache_limit())
    }

    /// Begins to fetch what [`Dataset::read`] will need of the image, unless it is there already.
    pub(super) fn fetch(&self, index: usize) -> Vec<Arc<Flight>> {
        let extent = self.index.listing.extents.get(index).copied();
        let place = extent.and_then(|extent| self.index.storage.place(extent));
        place.map_or(Vec::new(), |(object, range)| object.fetch(range))
    }

    /// Encoded bytes of all images, where that is known without looking at each: in archives and
    /// packed files.
    pub fn bytes(&self) -> Option<u64> {
        match &*self.index.storage {
            Storage::Archives(_) => {
                let extents = &self.index.listing.extents;
                Some(extents.iter().map(|extent| u64::from(extent.length)).sum())
            }
            _ => None,
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
            _ => true,
        }
    }

    /// The images at `indices`, in that order, with the same classes.
    ///
    /// # Panics
    /// When an index is not below [`Dataset::len`].
    pub fn select(&self, indices: &[usize]) -> Dataset {
        let listing = self.index.listing.select(indices);
        let (argument, storage) = (self.index.argument.clone(), Arc::clone(&self.index.storage));
        Dataset { index: Arc::new(Index { argument, storage, listing }) }
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
        let mut file = |(length, modified): (u64, u128)| {
            digest(&length.to_le_bytes());
            digest(&modified.to_le_bytes());
        };
        match &*self.index.storage {
            Storage::Files { base } => {
                for index in 0..self.len() {
                    file(version_of(base.join(self.name(index)).metadata().ok()));
                }
            }
            Storage::Archives(archives) => {
                archives.iter().for_each(|archive| file(archive.version()));
                for extent in &self.index.listing.extents {
                    digest(&extent.offset.to_le_bytes());
                }
            }
            #[cfg(feature = "parquet")]
            Storage::Tables(tables) => tables.blobs().for_each(|table| file(table.version())),
            Storage::Raw(raw) => {
                raw.files.iter().for_each(|(raw, _)| file(version_of(raw.metadata().ok())));
            }
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

/// Whether `path` is under `folder` once symbolic links are followed; a path that does not exist is
/// not.
pub fn lies_within(folder: &Path, path: &Path) -> bool {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    match (folder.canonicalize(), path.canonicalize()) {
        (Ok(folder), Ok(path)) => path.starts_with(folder),
        _ => false,
    }
}
