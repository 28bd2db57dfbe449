//! A text list: one image per line, and its label if there is one.
//!
//! Our own way to write one is a tab in front of the label. Lists from elsewhere have commas (CSV, with
//! quotes and a header or without), semicolons or a blank there, which is told from all lines together:
//! names may contain any of these themselves.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::DataError;
use super::error::some_of;
use super::listing::Listing;
use super::name::{LABEL_COLUMNS, first_folder, is_image_name};
use super::storage::Storage;

/// Lists the images named in the file at `path`, or those of them in `subfolder`.
///
/// Relative paths are relative to the folder the list lies in. Lines without text are skipped.
pub(super) fn list(path: &Path, subfolder: Option<&str>) -> Result<(Storage, Listing), DataError> {
    let text =
        fs::read(path).map_err(|source| DataError::Unreadable { path: path.to_owned(), source })?;
    let Ok(text) = String::from_utf8(text) else {
        return Err(DataError::WrongKind {
            path: path.to_owned(),
            found: "not UTF-8 text",
            remedy: "save the list as UTF-8".to_owned(),
        });
    };
    let text = text.trim_start_matches('\u{feff}');
    let layout = Layout::of(text);
    let folder = path.parent().unwrap_or(Path::new(""));

    // Lists that were written on Windows have backslashes between folders, unless there is a file of
    // that very name.
    let mut first_backslash = None;
    layout.images(text, |name, _| {
        if first_backslash.is_none() && name.contains('\\') {
            first_backslash = Some(!folder.join(name).exists());
        }
    });
    let from_windows = first_backslash.unwrap_or(false);

    let prefix = subfolder.map_or(String::new(), |subfolder| format!("{subfolder}/"));
    let mut listing = Listing::default();
    let mut lines = 0;
    let mut folders = BTreeSet::new();
    layout.images(text, |name, label| {
        lines += 1;
        let name = match from_windows {
            true => Cow::from(name.replace('\\', "/")),
            false => Cow::from(name),
        };
        // "./" in front of a path means nothing.
        let name = name.trim_start_matches("./");
        if subfolder.is_some() {
            folders.extend(first_folder(name).map(str::to_owned));
        }
        if let Some(name) = name.strip_prefix(&prefix) {
            listing.push(name, label, None);
        }
    });
    if lines == 0 {
        let place = path.display().to_string();
        return Err(DataError::NoImages { place, found: "not one line with a path".to_owned() });
    }
    if listing.is_empty() {
        return Err(DataError::UnknownSubfolder {
            path: path.to_owned(),
            subfolder: subfolder.unwrap_or_default().to_owned(),
            found: some_of(&folders.into_iter().collect::<Vec<_>>(), "folders"),
        });
    }
    let base = folder.join(&prefix);
    // The first that is there ends the search; a list that was misunderstood shows soon, too.
    const LOOKED_FOR: usize = 1000;
    let is_there = |image| base.join(listing.name(image)).exists();
    if !(0..listing.len().min(LOOKED_FOR)).any(is_there) {
        return Err(DataError::NothingListed {
            path: path.to_owned(),
            lines: listing.len(),
            first: listing.name(0).to_owned(),
            folder: match base.as_os_str().is_empty() {
                true => Path::new(".").to_owned(),
                false => base,
            },
        });
    }
    Ok((Storage::Files { base }, listing))
}

/// How the lines of a list are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// A name, or a tab between name and label.
    Tabs,
    /// Columns with tabs between them and a header above.
    TabColumns(Columns),
    /// Columns of CSV with this byte between them.
    Csv(u8, Columns),
    /// A name, or one of these characters in front of a last word, which is the label.
    LastWord(&'static [char]),
}

/// Which columns matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Columns {
    has_header: bool,
    path: usize,
    label: Option<usize>,
}

impl Layout {
    fn of(text: &str) -> Layout {
        if text.contains('\t') {
            let mut rows = lines(text).map(|line| line.split('\t').collect::<Vec<_>>());
            return match rows.next().and_then(|first| Columns::of_header(&first)) {
                Some(columns) => Layout::TabColumns(columns),
                None => Layout::Tabs,
            };
        }
        if lines(text).all(|line| is_image(&unquoted(line))) {
            return Layout::Tabs;
        }
        for delimiter in [b',', b';'] {
            if let Some(columns) = Columns::of_csv(text, delimiter) {
                return Layout::Csv(delimiter, columns);
            }
        }
        const LAST: [&[char]; 2] = [&[',', ';'], &[' ']];
        for separators in LAST {
            let fits = |line: &str| is_image(&last_word(line, separators).0);
            if lines(text).all(fits) {
                return Layout::LastWord(separators);
            }
        }
        Layout::Tabs
    }

    /// Hands out name and label of each image.
    fn images(self, text: &str, mut visit: impl FnMut(&str, Option<&str>)) {
        let mut visit = |name: &str, label: Option<&str>| {
            if !name.trim().is_empty() {
                visit(name, label.map(str::trim).filter(|label| !label.is_empty()));
            }
        };
        match self {
            Layout::Tabs => {
                for line in lines(text) {
                    match line.split_once('\t') {
                        Some((name, label)) => visit(&unquoted(name), Some(&unquoted(label))),
                        None => visit(&unquoted(line), None),
                    }
                }
            }
            Layout::TabColumns(columns) => {
                for line in lines(text).skip(1) {
                    let field = |column| line.split('\t').nth(column).map(unquoted);
                    let label = columns.label.and_then(field);
                    visit(&field(columns.path).unwrap_or_default(), label.as_deref());
                }
            }
            Layout::Csv(delimiter, columns) => {
                for row in rows(text, delimiter).skip(usize::from(columns.has_header)) {
                    let label = columns.label.and_then(|label| row.get(label));
                    visit(row.get(columns.path).unwrap_or_default().trim_end(), label);
                }
            }
            Layout::LastWord(separators) => {
                for line in lines(text) {
                    let (name, label) = last_word(line, separators);
                    visit(&name, label);
                }
            }
        }
    }
}

impl Columns {
    /// What a first row says if it is a header: it names no image, and one column as people call
    /// the column of the images or of the labels.
    fn of_header(row: &[&str]) -> Option<Columns> {
        const PATHS: [&str; 16] = [
            "path",
            "file_name",
            "filename",
            "file",
            "filepath",
            "file_path",
            "image_path",
            "image_file",
            "image_name",
            "image",
            "images",
            "img_path",
            "img",
            "name",
            "image_id",
            "id",
        ];
        let words: Vec<String> = row.iter().map(|word| unquoted(word).to_lowercase()).collect();
        if words.iter().any(|word| is_image(word)) {
            return None;
        }
        let find = |known: &[&str]| {
            known.iter().find_map(|known| words.iter().position(|word| word == known))
        };
        let (path, label) = (find(&PATHS), find(&LABEL_COLUMNS));
        let path =
            path.or(label.and_then(|label| (0..words.len()).find(|&other| other != label)))?;
        // Of two columns the other one holds the labels, whatever it is called.
        let label = label.or((words.len() == 2).then_some(1 - path.min(1)));
        Some(Columns { has_header: true, path, label: label.filter(|&label| label != path) })
    }

    /// The columns of CSV, if each row has an image where the first one has, or below a header.
    fn of_csv(text: &str, delimiter: u8) -> Option<Columns> {
        let first = rows(text, delimiter).next()?;
        if let Some(columns) = Columns::of_header(&first.iter().collect::<Vec<_>>()) {
            // Several columns, or a header above a plain list.
            let one_column = || rows(text, delimiter).all(|row| row.len() == 1);
            return (first.len() > 1 || one_column()).then_some(columns);
        }
        let path = first.iter().position(|field| is_image(field.trim_end()))?;
        let label = match path + 1 < first.len() {
            true => Some(path + 1),
            false => path.checked_sub(1),
        };
        let fits = rows(text, delimiter)
            .all(|row| row.get(path).is_some_and(|field| is_image(field.trim_end())));
        fits.then_some(Columns { has_header: false, path, label })
    }
}

/// Lines with text, without the blanks at their ends.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim_end).filter(|line| !line.is_empty())
}

/// The rows of CSV that have text.
fn rows(text: &str, delimiter: u8) -> impl Iterator<Item = csv::StringRecord> {
    let reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(delimiter)
        .from_reader(text.as_bytes());
    reader.into_records().flatten().filter(|row| row.iter().any(|field| !field.trim().is_empty()))
}

fn is_image(path: &str) -> bool {
    is_image_name(path.rsplit(['/', '\\']).next().unwrap_or(path))
}

/// A field without the quotes around it, if there are any, and without blanks at its end.
fn unquoted(field: &str) -> Cow<'_, str> {
    let field = field.trim_end();
    for quote in ["\"", "'"] {
        let inside = field.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
        if let Some(inside) = inside {
            let doubled = quote.repeat(2);
            return match inside.replace(&doubled, "").contains(quote) {
                true => Cow::from(field),
                false => Cow::from(inside.replace(&doubled, quote)),
            };
        }
    }
    Cow::from(field)
}

/// A line that is an image's name as a whole, or name and label with one of `separators` before the
/// last word.
fn last_word<'l>(line: &'l str, separators: &[char]) -> (Cow<'l, str>, Option<&'l str>) {
    let whole = unquoted(line);
    match line.rsplit_once(separators) {
        Some((name, label)) if !is_image(&whole) => (unquoted(name), Some(label)),
        _ => (whole, None),
    }
}
