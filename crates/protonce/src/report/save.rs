use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder, RgbImage};

use super::ReportError;

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
/// The bytes go to a file beside `path`, reach the disk, and only then take the name; a crash
/// or a full disk leaves an earlier file as it was.
///
/// # Errors
///
/// [`ReportError::Write`] when the folder is missing or not writable, or the disk is full.
pub(super) fn save(path: &Path, bytes: &[u8]) -> Result<(), ReportError> {
    let failed = |source| ReportError::Write { path: path.to_owned(), source };
    let beside = beside(path).map_err(failed)?;
    let written = write_and_rename(&beside, path, bytes);
    if written.is_err() {
        // The first error is the one worth telling; a stray file is not.
        let _ = fs::remove_file(&beside);
    }
    written.map_err(failed)
}

/// A hidden name in the same folder, so that the rename stays within one file system.
fn beside(path: &Path) -> io::Result<PathBuf> {
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"))?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}", std::process::id()));
    Ok(path.with_file_name(hidden))
}

fn write_and_rename(beside: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(beside, path)?;
    // The new name itself is only on disk once the folder is. Not every system can do that.
    #[cfg(unix)]
    if let Some(folder) = path.parent() {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saved_file_reads_back_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.html");
        save(&path, b"old").unwrap();
        save(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_save_keeps_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        // A folder that is not empty cannot be replaced by a file.
        let path = folder.path().join("report.html");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("kept"), "old").unwrap();
        let error = save(&path, b"new").unwrap_err();
        assert!(matches!(error, ReportError::Write { .. }));
        assert_eq!(fs::read(path.join("kept")).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
