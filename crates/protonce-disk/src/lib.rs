//! Files that are there whole or not at all, whatever happens while they are written.
//!
//! Enters: a path and what is to be written there. Leaves: the file, forced to disk and renamed to its
//! name, or an error and the file that was there before. Training that is killed, or loses power, in the
//! middle of a checkpoint thus always finds a whole one. [`cache_folder`] says where files belong that
//! can be computed anew.
//!
//! ```
//! let folder = tempfile::tempdir()?;
//! let file = folder.path().join("state.json");
//! protonce_disk::replace(&file, |scratch| std::fs::write(scratch, "{}"))?;
//! assert_eq!(std::fs::read_to_string(&file)?, "{}");
//! # Ok::<(), std::io::Error>(())
//! ```

mod cache;

pub use cache::cache_folder;

use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Calls `write` with the path of a temporary file beside `file`, and renames that to `file` once it is
/// on disk. If anything fails, a file of that name stays as it was and the temporary one is removed.
///
/// # Errors
/// When `write` fails, or the file cannot be synced or renamed.
pub fn replace(file: &Path, write: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let name = file
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"))?;
    // Hidden, and of this process, so that two that write the same file never share a half-written
    // one; in the same folder, since a rename does not leave a file system.
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}", std::process::id()));
    let scratch = file.with_file_name(hidden);
    let written = write(&scratch).and_then(|()| settle(&scratch, file));
    if written.is_err() {
        // The first error is the one worth telling; a stray file is not.
        let _ = fs::remove_file(&scratch);
    }
    written
}

/// Forces the file `scratch` to disk and renames it to `file`, in the same folder.
///
/// For a writer that keeps an unfinished file across runs; others use [`replace`].
///
/// # Errors
/// When it cannot be synced or renamed.
pub fn settle(scratch: &Path, file: &Path) -> io::Result<()> {
    File::open(scratch)?.sync_all()?;
    fs::rename(scratch, file)?;
    // A bare name lies in the current folder.
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    sync_folder(folder.unwrap_or(Path::new(".")))
}

/// Forces the names in a folder to disk; without this, a power cut can undo a rename. Where the file
/// system knows no such thing, as some networks' do not, nothing happens.
///
/// # Errors
/// When the folder cannot be opened or synced.
#[cfg(unix)]
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder)?.sync_all() {
        Err(error)
            if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) =>
        {
            Ok(())
        }
        synced => synced,
    }
}

/// Elsewhere a folder is no file that could be synced.
///
/// # Errors
/// Never.
#[cfg(not(unix))]
pub fn sync_folder(_folder: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_reads_back_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("report.html");
        for contents in ["old", "new"] {
            replace(&file, |scratch| fs::write(scratch, contents)).unwrap();
            assert_eq!(fs::read_to_string(&file).unwrap(), contents);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failure_at_any_point_keeps_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("state.json");
        fs::write(&file, "old").unwrap();
        let full = |scratch: &Path| {
            fs::write(scratch, "half of wh")?;
            Err(io::Error::from(io::ErrorKind::StorageFull))
        };
        assert_eq!(replace(&file, full).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs::read_to_string(&file).unwrap(), "old");
        // A folder that is not empty cannot be replaced by a file.
        let taken = folder.path().join("taken");
        fs::create_dir(&taken).unwrap();
        fs::write(taken.join("kept"), "old").unwrap();
        replace(&taken, |scratch| fs::write(scratch, "new")).unwrap_err();
        assert_eq!(fs::read_to_string(taken.join("kept")).unwrap(), "old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
