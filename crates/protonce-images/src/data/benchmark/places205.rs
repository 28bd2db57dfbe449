//! Places205, whose lists name the images of its splits.

use std::path::Path;

use super::{Benchmark, Labelled, Splits, read_text};
use crate::data::listing::Listing;
use crate::data::storage::Storage;
use crate::data::{DataError, Dataset};

/// Places205: lists of `path label`, images in `images256` (or beside the lists).
pub(super) fn places205(folder: &Path, lists: &Path) -> Result<Splits, DataError> {
    let images = ["images256", "data/vision/torralba/deeplearning/images256", ""]
        .into_iter()
        .flat_map(|name| [folder.join(name), lists.join(name)])
        .find(|base| base.join("a").is_dir());
    let Some(base) = images else {
        return Err(DataError::Layout {
            path: folder.to_owned(),
            problem: "has the lists of Places205 but not its images".to_owned(),
            expected: "images256/ with the folders a to z beside them",
        });
    };
    let split = |set: &str| {
        let list = lists.join(format!("{set}_places205.csv"));
        let text = read_text(&list)?;
        let mut listing = Listing::default();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let image = line.split([' ', ',', '\t']).next().unwrap_or(line);
            // "a/abbey/gsun_0.jpg": the label's number says no more than the folder.
            let label = image.rsplit_once('/').map(|(folder, _)| folder);
            listing.push(image, label, None);
        }
        let argument = list.display().to_string();
        let source = Storage::Files { base: base.clone() };
        Ok(Labelled::Single(Dataset::new(&argument, source, listing)))
    };
    Ok(Splits { benchmark: Benchmark::Places205, train: split("train")?, test: split("val")? })
}
