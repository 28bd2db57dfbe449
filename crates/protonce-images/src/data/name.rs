//! What the name of a file says: whether it is an image, and of which class.

use std::path::Path;

/// Extensions that mark a file in a folder or an archive as an image, in any case.
///
/// A text list names its files itself, so it may name others.
pub const IMAGE_EXTENSIONS: &[&str] = &[
    "jpg",
    "jpeg",
    "png",
    "webp",
    "bmp",
    "gif",
    "tif",
    "tiff",
    "jpe",
    "jfif",
    "jif",
    "dib",
    "apng",
    "ppm",
    "pgm",
    "pbm",
    "pnm",
    #[cfg(feature = "jpeg-xl")]
    "jxl",
];

/// Extensions of images that cannot be read: of the files that are passed over, the ones to name.
const OTHER_IMAGES: [&str; 25] = [
    "heic", "heif", "hif", "avif", "jxl", "jp2", "j2k", "jpx", "psd", "svg", "ico", "tga", "exr",
    "hdr", "dds", "qoi", "raw", "dng", "cr2", "cr3", "nef", "arw", "orf", "rw2", "raf",
];

/// Folders in which file managers, network storages and notebooks keep copies of their own.
const BOOKKEEPING: [&str; 9] = [
    "@eaDir",
    "@Recycle",
    "@Recently-Snapshot",
    "#recycle",
    "#snapshot",
    "$RECYCLE.BIN",
    "System Volume Information",
    "__MACOSX",
    "lost+found",
];

/// What people call a column of labels, in lower case, the surest first.
pub(super) const LABEL_COLUMNS: [&str; 13] = [
    "label",
    "class",
    "class_name",
    "classname",
    "label_name",
    "category",
    "target",
    "labels",
    "species",
    "breed",
    "class_id",
    "y",
    "cls",
];

/// The first folder of a name, which is its label in folders and archives.
pub(super) fn first_folder(name: &str) -> Option<&str> {
    name.split_once('/').map(|(folder, _)| folder)
}

/// Whether a folder of this name is no class: hidden, or somebody's bookkeeping.
pub(super) fn is_skipped_folder(name: &str) -> bool {
    name.starts_with('.') || BOOKKEEPING.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// Whether a file of this path in an archive lies in a folder that is skipped, or is hidden itself.
pub(super) fn is_skipped_path(path: &str) -> bool {
    path.split('/').any(is_skipped_folder)
}

/// Whether a file of this name counts as an image: a known extension, and not hidden.
pub(super) fn is_image_name(file_name: &str) -> bool {
    !file_name.starts_with('.') && has_extension(file_name, IMAGE_EXTENSIONS)
}

/// Whether a file's name says that it is an image that cannot be read.
pub(super) fn is_other_image(file_name: &str) -> bool {
    has_extension(file_name, &OTHER_IMAGES)
}

/// The part of a path behind its last folder.
pub(super) fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Whether a name ends in `.` and one of `extensions`, in any case.
pub(super) fn has_extension(file_name: &str, extensions: &[&str]) -> bool {
    let extension = Path::new(file_name).extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| {
        extensions.iter().any(|known| known.eq_ignore_ascii_case(extension))
    })
}
