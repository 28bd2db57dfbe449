//! Whether results can be written where they are asked for: looked at before the work, not after it.

use std::path::{Path, PathBuf};

use anyhow::Context;

/// A folder for several files, which is made with its parents when the first of them is written.
pub fn check_folder(folder: &Path) -> anyhow::Result<()> {
    // What is there already, from the folder up; a bare name lies in the current one.
    let there = folder.ancestors().find(|above| above.symlink_metadata().is_ok());
    let there = there.filter(|there| !there.as_os_str().is_empty()).unwrap_or(Path::new("."));
    try_in(there).with_context(|| unwritable(folder))
}

/// A file in a folder that is there.
pub fn check_file(file: &Path) -> anyhow::Result<()> {
    if file.is_dir() {
        anyhow::bail!("{} is a folder: expected the name of a file", file.display());
    }
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    try_in(folder.unwrap_or(Path::new("."))).with_context(|| unwritable(file))
}

/// Writes an empty file and takes it away: permissions, file systems that only read, and full disks all
/// have a say.
fn try_in(folder: &Path) -> std::io::Result<()> {
    let trial: PathBuf = folder.join(format!(".protonce-{}", std::process::id()));
    std::fs::File::create_new(&trial)?;
    std::fs::remove_file(&trial)
}

fn unwritable(path: &Path) -> String {
    format!("cannot write {}: choose another place, with free space", path.display())
}
