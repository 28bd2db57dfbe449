//! A text list: one image per line, optionally followed by a tab and its label.

use std::fs;
use std::path::Path;

use super::DataError;
use super::error::some_of;
use super::name::first_folder;
use super::storage::{Entry, Storage};

/// Lists the images named in the file at `path`, or those of them in `subfolder`.
///
/// Relative paths are relative to the folder the list lies in. Lines without text are skipped.
pub(super) fn list(
    path: &Path,
    subfolder: Option<&str>,
) -> Result<(Storage, Vec<Entry>), DataError> {
    let text =
        fs::read(path).map_err(|source| DataError::Unreadable { path: path.to_owned(), source })?;
    let Ok(text) = String::from_utf8(text) else {
        return Err(DataError::WrongKind {
            path: path.to_owned(),
            found: "not UTF-8 text",
            remedy: "save the list as UTF-8",
        });
    };
    let all: Vec<(&str, Option<&str>)> =
        text.trim_start_matches('\u{feff}').lines().filter_map(line).collect();
    if all.is_empty() {
        let place = path.display().to_string();
        return Err(DataError::NoImages { place, found: "not one line with a path".to_owned() });
    }

    let prefix = subfolder.map_or(String::new(), |subfolder| format!("{subfolder}/"));
    let entries: Vec<Entry> = all
        .iter()
        .filter_map(|(name, label)| {
            let name = name.strip_prefix(&prefix)?.to_owned();
            Some(Entry { name, label: label.map(str::to_owned), extent: None })
        })
        .collect();
    if entries.is_empty() {
        let mut folders: Vec<String> =
            all.iter().filter_map(|(name, _)| first_folder(name)).collect();
        folders.sort_unstable();
        folders.dedup();
        return Err(DataError::UnknownSubfolder {
            path: path.to_owned(),
            subfolder: subfolder.unwrap_or_default().to_owned(),
            found: some_of(&folders, "folders"),
        });
    }
    let base = path.parent().unwrap_or(Path::new("")).join(&prefix);
    Ok((Storage::Files { base }, entries))
}

/// Splits a line into path and label; `./` in front of a path means nothing and goes.
fn line(line: &str) -> Option<(&str, Option<&str>)> {
    let (name, label) = match line.split_once('\t') {
        Some((name, label)) => (name, Some(label.trim())),
        None => (line, None),
    };
    let name = name.trim_start_matches("./");
    (!name.trim().is_empty()).then_some((name, label.filter(|label| !label.is_empty())))
}
