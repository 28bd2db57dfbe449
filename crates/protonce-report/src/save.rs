//! Pictures and pages on disk, whole or not at all.

use std::fs;
use std::io;
use std::path::Path;

use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder, RgbImage};

use crate::ReportError;

/// Writes a picture as PNG, whole or not at all.
///
/// # Errors
///
/// [`ReportError::Write`] when the folder is missing or not writable, or the disk is full.
pub fn save_png(path: &Path, picture: &RgbImage) -> Result<(), ReportError> {
    let mut bytes = Vec::new();
    PngEncoder::new(&mut bytes)
        .write_image(picture, picture.width(), picture.height(), ExtendedColorType::Rgb8)
        .map_err(|error| ReportError::Write {
            path: path.to_owned(),
            source: io::Error::other(error),
        })?;
    save(path, &bytes)
}

/// Writes a file, whole or not at all.
///
/// # Errors
///
/// [`ReportError::Write`] when the folder is missing or not writable, or the disk is full.
pub(crate) fn save(path: &Path, bytes: &[u8]) -> Result<(), ReportError> {
    protonce_disk::replace(path, |scratch| fs::write(scratch, bytes))
        .map_err(|source| ReportError::Write { path: path.to_owned(), source })
}
