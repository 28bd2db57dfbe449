//! The checksums of a checkpoint, `SHA256SUMS`: by which a file that was cut short or altered is known.
//!
//! A line for each file that the checkpoint needs, in the form that `sha256sum -c SHA256SUMS` checks in
//! the checkpoint's folder. Checkpoints of earlier versions have no such file.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::read_error;
use crate::{RunError, write_file};

/// The name of the file.
const NAME: &str = "SHA256SUMS";

/// Writes the checksums of `files`, paths relative to `folder`, into that folder. A path that begins
/// above the folder is looked up from `place`, where the folder is going to be.
pub(crate) fn write(folder: &Path, place: &Path, files: &[String]) -> Result<(), RunError> {
    let mut text = String::new();
    for name in files {
        let from = if name.starts_with("..") { place } else { folder };
        // The folder need not be there yet, which the system would ask of a path through it.
        let path = lexically(from, name);
        text += &format!("{}  {name}\n", checksum(&path).map_err(read_error(&path))?);
    }
    write_file(&folder.join(NAME), text.as_bytes())
}

/// Compares `files` of the checkpoint in `folder` with their checksums, which must be there. Nothing is
/// compared where there are no checksums at all.
///
/// # Errors
/// When a file is missing, cannot be read or is not what was written.
pub(crate) fn check(folder: &Path, files: &[&str]) -> Result<(), RunError> {
    let Some(sums) = read(folder)? else { return Ok(()) };
    for &name in files {
        let Some((expected, _)) = sums.iter().find(|(_, known)| known == name) else {
            return Err(read_error(&folder.join(NAME))("it is cut short"));
        };
        let path = lexically(folder, name);
        if checksum(&path).map_err(read_error(&path))? != *expected {
            return Err(read_error(&path)("it is not what was written, by its checksum"));
        }
    }
    Ok(())
}

/// As [`check`], of `files` and all others that have a checksum.
pub(crate) fn check_all(folder: &Path, files: &[&str]) -> Result<(), RunError> {
    let sums = read(folder)?.unwrap_or_default();
    let more = sums.iter().map(|(_, name)| name.as_str()).filter(|name| !files.contains(name));
    let all: Vec<&str> = files.iter().copied().chain(more).collect();
    check(folder, &all)
}

/// Checksum and name of each file; none where there are no checksums.
fn read(folder: &Path) -> Result<Option<Vec<(String, String)>>, RunError> {
    let sums = folder.join(NAME);
    let text = match fs::read_to_string(&sums) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text.map_err(read_error(&sums))?,
    };
    let entry = |line: &str| {
        let (sum, name) = line.split_once("  ")?;
        Some((sum.to_owned(), name.to_owned()))
    };
    let entries: Option<Vec<_>> = text.lines().map(entry).collect();
    entries.map(Some).ok_or_else(|| read_error(&sums)("it is cut short"))
}

/// `folder/name`, where `name` may begin with `../`.
fn lexically(folder: &Path, name: &str) -> PathBuf {
    let (mut folder, mut name) = (folder, name);
    while let (Some(rest), Some(parent)) = (name.strip_prefix("../"), folder.parent()) {
        (folder, name) = (parent, rest);
    }
    folder.join(name)
}

/// SHA-256 of a file, as 64 hexadecimal digits.
fn checksum(file: &Path) -> io::Result<String> {
    let mut file = File::open(file)?;
    let (mut hash, mut block) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut block)? {
            0 => break,
            length => hash.update(&block[..length]),
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_standard_and_notice_every_change() {
        let run = tempfile::tempdir().unwrap();
        let folder = run.path().join("checkpoints/epoch-0001");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("a"), "abc").unwrap();
        fs::write(folder.join("b"), "").unwrap();
        fs::write(run.path().join("c"), "abc").unwrap();
        let names = ["a", "b", "../../c"].map(str::to_owned);
        write(&folder, &folder, &names).unwrap();
        // FIPS 180-2, appendix B.1, and the well-known one of nothing.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let expected = format!("{abc}  a\n{empty}  b\n{abc}  ../../c\n");
        assert_eq!(fs::read_to_string(folder.join(NAME)).unwrap(), expected);

        let files = ["a", "b"];
        check_all(&folder, &files).unwrap();
        fs::write(folder.join("b"), "x").unwrap();
        let said = check_all(&folder, &files).unwrap_err().to_string();
        assert!(said.contains("not what was written"), "{said}");
        check(&folder, &["a"]).unwrap();
        fs::write(folder.join("b"), "").unwrap();
        fs::write(run.path().join("c"), "ab").unwrap();
        assert!(check_all(&folder, &files).is_err());
        check(&folder, &files).unwrap();
        fs::remove_file(run.path().join("c")).unwrap();
        assert!(check_all(&folder, &files).is_err());
        for cut in [40, 68] {
            fs::write(folder.join(NAME), &expected[..cut]).unwrap();
            assert!(check(&folder, &files).unwrap_err().to_string().contains("cut short"));
        }
        fs::remove_file(folder.join(NAME)).unwrap();
        check_all(&folder, &files).unwrap();
    }
}
