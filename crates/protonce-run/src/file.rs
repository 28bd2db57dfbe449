//! Files that are written whole or not at all, with errors that name them.

use std::io;
use std::path::Path;

use crate::RunError;
use crate::error::write_error;

/// Writes a file, whole or not at all.
///
/// # Errors
/// When it cannot be written; what was there before stays.
pub fn write_file(file: &Path, contents: &[u8]) -> Result<(), RunError> {
    replace(file, |scratch| std::fs::write(scratch, contents))
}

/// [`protonce_disk::replace`] with an error that names the file.
///
/// # Errors
/// When it cannot be written; what was there before stays.
pub fn replace(file: &Path, write: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), RunError> {
    protonce_disk::replace(file, write).map_err(write_error(file))
}
