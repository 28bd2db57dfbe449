//! CIFAR-10, CIFAR-100 and STL-10 in their binary versions: files of bare pixels, and labels.

use std::fs::{self, File};
use std::path::Path;

use super::{Benchmark, Labelled, Splits, read_text};
use crate::data::listing::Listing;
use crate::data::raw::RawFiles;
use crate::data::storage::Storage;
use crate::data::{DataError, Dataset};

/// The binary version of CIFAR-10: a label and 32 × 32 pixels per image.
pub(super) fn cifar10(root: &Path) -> Result<Splits, DataError> {
    let names = class_names(&root.join("batches.meta.txt"))?;
    let batches: Vec<String> = (1..=5).map(|number| format!("data_batch_{number}.bin")).collect();
    let batches: Vec<&str> = batches.iter().map(String::as_str).collect();
    let split = |files: &[&str]| cifar(root, files, 1, &names);
    Ok(Splits {
        benchmark: Benchmark::Cifar10,
        train: split(&batches)?,
        test: split(&["test_batch.bin"])?,
    })
}

/// The binary version of CIFAR-100: a coarse label, a fine one and 32 × 32 pixels per image.
pub(super) fn cifar100(root: &Path) -> Result<Splits, DataError> {
    let names = class_names(&root.join("fine_label_names.txt"))?;
    let split = |files: &[&str]| cifar(root, files, 2, &names);
    Ok(Splits {
        benchmark: Benchmark::Cifar100,
        train: split(&["train.bin"])?,
        test: split(&["test.bin"])?,
    })
}

fn cifar(
    root: &Path,
    files: &[&str],
    skip: usize,
    names: &[String],
) -> Result<Labelled, DataError> {
    let raw = raw_files(root, files, 32, skip, false)?;
    let mut labels = Vec::new();
    for (_, path) in &raw.files {
        let bytes = fs::read(path)
            .map_err(|source| DataError::Unreadable { path: path.clone(), source })?;
        // The last byte in front of the pixels is the finest label.
        labels.extend(bytes.chunks_exact(raw.stride).map(|image| image[skip - 1]));
    }
    raw_dataset(root, files, raw, &labels, names)
}

/// The binary version of STL-10: 96 × 96 pixels per image, labels from 1 in a file of their own.
pub(super) fn stl10(root: &Path) -> Result<Splits, DataError> {
    let names = class_names(&root.join("class_names.txt"))?;
    let split = |set: &str| {
        let pixels = format!("{set}_X.bin");
        let raw = raw_files(root, &[&pixels], 96, 0, true)?;
        let path = root.join(format!("{set}_y.bin"));
        let labels = fs::read(&path).map_err(|source| DataError::Unreadable { path, source })?;
        let labels: Vec<u8> = labels.into_iter().map(|label| label.wrapping_sub(1)).collect();
        raw_dataset(root, &[&pixels], raw, &labels, &names)
    };
    Ok(Splits { benchmark: Benchmark::Stl10, train: split("train")?, test: split("test")? })
}

fn class_names(path: &Path) -> Result<Vec<String>, DataError> {
    let text = read_text(path)?;
    Ok(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

/// Opens files of images of `side` × `side` pixels with `skip` bytes in front of each.
fn raw_files(
    root: &Path,
    files: &[&str],
    side: usize,
    skip: usize,
    by_columns: bool,
) -> Result<RawFiles, DataError> {
    let stride = skip + 3 * side * side;
    let mut opened = Vec::new();
    let mut images = None;
    for name in files {
        let path = root.join(name);
        let unreadable = |source| DataError::Unreadable { path: path.clone(), source };
        let file = File::open(&path).map_err(unreadable)?;
        let length = file.metadata().map_err(unreadable)?.len() as usize;
        let count = length / stride;
        if !length.is_multiple_of(stride)
            || count == 0
            || images.is_some_and(|images| images != count)
        {
            return Err(DataError::Layout {
                path,
                problem: format!("has {length} bytes, which is no whole number of images"),
                expected: "as many as its siblings; copy or download it again",
            });
        }
        images = Some(count);
        opened.push((file, path));
    }
    Ok(RawFiles { files: opened, images: images.unwrap_or(1), stride, skip, side, by_columns })
}

/// Images named by their number, so that their order by name is their order in the files.
fn raw_dataset(
    root: &Path,
    files: &[&str],
    raw: RawFiles,
    labels: &[u8],
    names: &[String],
) -> Result<Labelled, DataError> {
    let images = raw.images * raw.files.len();
    let wrong = |problem| DataError::Layout {
        path: root.join(files[0]),
        problem,
        expected: "one label for each image, each with a name; copy or download it again",
    };
    if labels.len() != images {
        return Err(wrong(format!("has {images} images and {} labels", labels.len())));
    }
    let mut listing = Listing::default();
    for (number, &label) in labels.iter().enumerate() {
        let Some(class) = names.get(usize::from(label)) else {
            return Err(wrong(format!("has the label {label} of {} classes", names.len())));
        };
        listing.push(&format!("{number:06}"), Some(class), None);
    }
    let argument = root.join(files[0]).display().to_string();
    Ok(Labelled::Single(Dataset::new(&argument, Storage::Raw(raw), listing)))
}
