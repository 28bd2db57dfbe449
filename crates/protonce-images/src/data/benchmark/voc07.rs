//! PASCAL VOC 2007, whose images may be of several classes.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use super::{Benchmark, LAYOUTS, Labelled, MultiLabel, Splits, read_text};
use crate::data::listing::Listing;
use crate::data::storage::Storage;
use crate::data::{DataError, Dataset};

/// `VOC2007`, whose lists `ImageSets/Main/CLASS_SET.txt` give each image 1 (there), 0 (difficult) or
/// −1 (absent).
pub(super) fn voc07(root: &Path) -> Result<Splits, DataError> {
    let lists = root.join("ImageSets/Main");
    let entries = fs::read_dir(&lists)
        .map_err(|source| DataError::Unreadable { path: lists.clone(), source })?;
    let mut classes: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter_map(|name| name.strip_suffix("_trainval.txt").map(str::to_owned))
        .collect();
    classes.sort_unstable();
    if classes.is_empty() {
        return Err(DataError::Layout {
            path: lists,
            problem: "holds no CLASS_trainval.txt".to_owned(),
            expected: LAYOUTS,
        });
    }
    let split = |set: &str| {
        let mut numbers: HashMap<String, usize> = HashMap::new();
        let mut found = Vec::new();
        for class in &classes {
            let list = lists.join(format!("{class}_{set}.txt"));
            for line in read_text(&list)?.lines().filter(|line| !line.trim().is_empty()) {
                let mut words = line.split_whitespace();
                let (name, label) = (words.next(), words.next());
                let label = label.and_then(|label| label.parse::<i8>().ok());
                let (Some(name), Some(label), None) = (name, label, words.next()) else {
                    return Err(DataError::Layout {
                        path: list,
                        problem: format!("has the line \"{line}\""),
                        expected: "an image's name and 1, 0 or -1 a line",
                    });
                };
                let count = numbers.len();
                let image = *numbers.entry(name.to_owned()).or_insert(count);
                found.push((class, image, label > 0));
            }
        }
        let mut names: Vec<(String, usize)> = numbers.into_iter().collect();
        names.sort();
        // Images are ordered by name; `position` tells where each ended up.
        let mut position = vec![0; names.len()];
        names.iter().enumerate().for_each(|(rank, &(_, number))| position[number] = rank);
        let mut positive = vec![vec![false; names.len()]; classes.len()];
        for (class, image, is_there) in found {
            let class = classes.binary_search(class).unwrap_or(0);
            positive[class][position[image]] = is_there;
        }
        let mut listing = Listing::default();
        for (name, _) in names {
            listing.push(&format!("{name}.jpg"), None, None);
        }
        let source = Storage::Files { base: root.join("JPEGImages") };
        let argument = format!("{}#{set}", root.display());
        let images = Dataset::new(&argument, source, listing);
        Ok(Labelled::Multiple(MultiLabel { images, classes: classes.clone(), positive }))
    };
    Ok(Splits { benchmark: Benchmark::Voc07, train: split("trainval")?, test: split("test")? })
}
