//! What the name of a file says: whether it is an image, and of which class.

use std::path::Path;

/// Extensions that mark a file in a folder or an archive as an image, in any case.
///
/// A text list names its files itself, so it may name others.
pub const IMAGE_EXTENSIONS: [&str; 8] = ["jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff"];

/// The first folder of a name, which is its label in folders and archives.
pub(super) fn first_folder(name: &str) -> Option<String> {
    name.split_once('/').map(|(folder, _)| folder.to_owned())
}

/// Whether a file of this name counts as an image: a known extension, and not hidden.
pub(super) fn is_image_name(file_name: &str) -> bool {
    let extension = Path::new(file_name).extension().and_then(|extension| extension.to_str());
    !file_name.starts_with('.')
        && extension.is_some_and(|extension| {
            IMAGE_EXTENSIONS.iter().any(|known| known.eq_ignore_ascii_case(extension))
        })
}
