//! What can go wrong between an argument and an image's bytes.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use super::IMAGE_EXTENSIONS;
use super::StoreError;

/// A data set that cannot be opened, or an image whose bytes cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// Nothing at the path.
    #[error(
        "{} does not exist: expected a folder of images, a .tar, .zip or .parquet, a text list or a packed file; \
         check the path",
        path.display()
    )]
    Missing {
        /// The path that was looked for.
        path: PathBuf,
    },
    /// A folder, archive or list in which not one image was found.
    #[error(
        "no images in {place}: expected files ending in {}, found {found}; pass the folder, .tar \
         or list that holds the images",
        IMAGE_EXTENSIONS.join(", ")
    )]
    NoImages {
        /// The folder, archive or list.
        place: String,
        /// What is there instead.
        found: String,
    },
    /// `#SUBFOLDER` names nothing inside the root.
    #[error(
        "{} has no folder \"{subfolder}\": expected one of its folders after the '#'; it holds \
         {found}",
        path.display()
    )]
    UnknownSubfolder {
        /// The root.
        path: PathBuf,
        /// What was asked for.
        subfolder: String,
        /// The folders that are there.
        found: String,
    },
    /// A file that is none of the kinds a data set can be.
    #[error(
        "{} is {found}: expected a folder of images, an uncompressed .tar, a .zip, a .parquet or a \
         text list with one path[<tab>label] a line; {remedy}",
        path.display()
    )]
    WrongKind {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        found: &'static str,
        /// What to do.
        remedy: String,
    },
    /// A folder, an archive or an image that the operating system refuses to read.
    #[error("cannot read {}: {source}; check that it exists and that you may read it", path.display())]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What lies in an object store or on a web server cannot be found or read.
    #[error(transparent)]
    Store(StoreError),
    /// An archive whose headers make no sense.
    #[error(
        "{} is not a tar archive that can be read ({source}): expected an uncompressed, undamaged \
         .tar; pack it again",
        path.display()
    )]
    BrokenArchive {
        /// The archive.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An archive that ends before its last image does.
    #[error(
        "{} is cut short: \"{name}\" should end at byte {expected} but the file has {found}; copy \
         or download it again",
        path.display()
    )]
    TruncatedArchive {
        /// The archive.
        path: PathBuf,
        /// First image that does not fit.
        name: String,
        /// Bytes the archive should have at least.
        expected: u64,
        /// Bytes it has.
        found: u64,
    },
    /// A list that names not one file that is there.
    #[error(
        "{}: not one of the {lines} files that it names is there, the first being \"{first}\" in {}: \
         expected one path a line, relative to the list's folder or absolute, and a tab in front of \
         the label if there is one",
        path.display(),
        folder.display()
    )]
    NothingListed {
        /// The list.
        path: PathBuf,
        /// The folder that its paths are relative to.
        folder: PathBuf,
        /// Lines with a path.
        lines: usize,
        /// The first path, as it was understood.
        first: String,
    },
    /// A zip file whose directory makes no sense.
    #[error(
        "{} is not a zip file that can be read ({reason}): expected a whole, undamaged one; copy or \
         download it again",
        path.display()
    )]
    BrokenZip {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// An image in a zip file that is encrypted, or compressed in a rare way.
    #[error(
        "{} stores \"{name}\" {how}: expected files that are stored or deflated; pack it again with \
         `zip -r`, or unpack it",
        path.display()
    )]
    UnsupportedZip {
        /// The file.
        path: PathBuf,
        /// First image that cannot be read.
        name: String,
        /// How it is stored.
        how: &'static str,
    },
    /// A parquet file that cannot be read, or has no images.
    #[error(
        "{} {problem}: expected a column of encoded images, as binary or as a struct with `bytes`, \
         and at most one label a row",
        path.display()
    )]
    Table {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A packed file that is damaged, cut short or not finished.
    #[error(
        "{} is no packed file that can be read: {reason}; copy it again, or make it again with \
         `protonce data pack`",
        path.display()
    )]
    BrokenPack {
        /// The packed file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// An image in a packed or zip file whose bytes are not those that were written.
    #[error(
        "\"{name}\" in {} does not match its checksum: expected the bytes that were packed; copy \
         the file again",
        path.display()
    )]
    CorruptImage {
        /// The packed or zip file.
        path: PathBuf,
        /// The image.
        name: String,
    },
    /// A packed file would overwrite something.
    #[error("{} exists already: choose another name, or remove it first", path.display())]
    PackExists {
        /// The file.
        path: PathBuf,
    },
    /// A packed file that cannot be written.
    #[error(
        "cannot write {}: {source}; check that the folder exists and that the disk has room",
        path.display()
    )]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file in an archive that is not stored in one piece.
    #[error(
        "{} stores \"{name}\" as a sparse file: expected files in one piece; pack it again without \
         --sparse",
        path.display()
    )]
    SparseArchive {
        /// The archive.
        path: PathBuf,
        /// The sparse file.
        name: String,
    },
    /// A benchmark that is not laid out as its authors publish it.
    #[error("{} {problem}: expected {expected}", path.display())]
    Layout {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// What it should be.
        expected: &'static str,
    },
    /// A file whose name is not Unicode, which could not be written into lists and reports.
    #[error(
        "the file name {} is not valid UTF-8: expected names that can be written into lists and \
         reports; rename it",
        path.display()
    )]
    NameNotUnicode {
        /// The file, shown with replacement characters.
        path: PathBuf,
    },
}

impl DataError {
    /// A file or folder that cannot be read: what an object store said, if that is why.
    pub(super) fn unreadable(path: &Path, source: io::Error) -> DataError {
        DataError::of_store(source, |source| DataError::Unreadable {
            path: path.to_owned(),
            source,
        })
    }

    /// What an object store said, if that is behind `error`, which came through a parser of some
    /// format; else what `otherwise` makes of it.
    pub(super) fn of_store<E: Error + 'static>(
        error: E,
        otherwise: impl FnOnce(E) -> DataError,
    ) -> DataError {
        let mut cause: Option<&(dyn Error + 'static)> = Some(&error);
        while let Some(found) = cause {
            if let Some(store) = found.downcast_ref::<StoreError>() {
                return DataError::Store(store.clone());
            }
            // An `io::Error` passes its content over when asked for its source.
            let content = found.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            cause = match content {
                Some(content) => Some(content),
                None => found.source(),
            };
        }
        otherwise(error)
    }
}

/// "a, b, c and 5 more": enough of what is there to see a misspelling.
pub(super) fn some_of(names: &[String], noun: &str) -> String {
    const SHOWN: usize = 8;
    if names.is_empty() {
        return format!("no {noun}");
    }
    let shown: Vec<String> = names.iter().take(SHOWN).map(|name| format!("\"{name}\"")).collect();
    let shown = shown.join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
