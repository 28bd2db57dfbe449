//! The benchmarks of the field, recognised by the names of their files and folders.
//!
//! Enters: the folder that a benchmark was unpacked into. Leaves: its training and its test images with
//! their labels, as its authors split them.

mod folders;
mod pixel_files;
mod places205;
mod voc07;

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::argument::{is_url, without_secrets};
use super::{DataError, Dataset};
use folders::folders;
use pixel_files::{cifar10, cifar100, stl10};
use places205::places205;
use voc07::voc07;

/// A data set whose results are published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Benchmark {
    /// ImageNet-1k (ILSVRC 2012).
    ImageNet,
    /// Places205.
    Places205,
    /// PASCAL VOC 2007.
    Voc07,
    /// CIFAR-10.
    #[serde(rename = "CIFAR-10")]
    Cifar10,
    /// CIFAR-100.
    #[serde(rename = "CIFAR-100")]
    Cifar100,
    /// STL-10.
    #[serde(rename = "STL-10")]
    Stl10,
    /// Ten easily told classes of ImageNet.
    Imagenette,
    /// Any other folder or archive with training and test images.
    Other,
}

impl Benchmark {
    /// Its name in print.
    pub fn name(self) -> &'static str {
        match self {
            Benchmark::ImageNet => "ImageNet",
            Benchmark::Places205 => "Places205",
            Benchmark::Voc07 => "VOC07",
            Benchmark::Cifar10 => "CIFAR-10",
            Benchmark::Cifar100 => "CIFAR-100",
            Benchmark::Stl10 => "STL-10",
            Benchmark::Imagenette => "Imagenette",
            Benchmark::Other => "other images",
        }
    }
}

/// What the layouts look like, for anyone who has another.
pub const LAYOUTS: &str = "\
ImageNet, Imagenette and other folders: train/CLASS/*.JPEG and val/CLASS/*.JPEG (or test/CLASS), also \
in one .tar; Places205: train_places205.csv, val_places205.csv and images256/; VOC07: \
VOCdevkit/VOC2007 with JPEGImages/ and ImageSets/Main/CLASS_{trainval,test}.txt; CIFAR-10 and \
CIFAR-100 (binary version): data_batch_1.bin … data_batch_5.bin, test_batch.bin and batches.meta.txt, \
or train.bin, test.bin and fine_label_names.txt; STL-10 (binary): train_X.bin, train_y.bin, test_X.bin, \
test_y.bin and class_names.txt";

/// Training and test images of a benchmark.
#[derive(Debug, Clone)]
pub struct Splits {
    /// Which one it is.
    pub benchmark: Benchmark,
    /// Images to learn from.
    pub train: Labelled,
    /// Images to be tested on.
    pub test: Labelled,
}

/// Images with the labels of a benchmark.
#[derive(Debug, Clone)]
pub enum Labelled {
    /// One label per image, which the data set knows.
    Single(Dataset),
    /// Any number of labels per image.
    Multiple(MultiLabel),
}

/// Images of which each may be of several classes.
#[derive(Debug, Clone)]
pub struct MultiLabel {
    /// The images, without labels of their own.
    pub images: Dataset,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// For each class, whether each image is of it. An image that is difficult (0 in VOC's lists) is
    /// not, as in the published code.
    pub positive: Vec<Vec<bool>>,
}

/// Opens the benchmark that was unpacked into `path`.
///
/// # Errors
/// When nothing there looks like one, or a part of it is missing or has another length than it should.
pub fn open_benchmark(path: &str) -> Result<Splits, DataError> {
    let folder = Path::new(path);
    if is_url(path) {
        return Err(DataError::Layout {
            path: without_secrets(path).into_owned().into(),
            problem: "is an address".to_owned(),
            expected: "a benchmark on a disk; what lies elsewhere is named by --train and --test",
        });
    }
    if !folder.exists() {
        return Err(DataError::Missing { path: folder.to_owned() });
    }
    let candidates = |names: &[&str]| -> Vec<PathBuf> {
        std::iter::once(folder.to_owned())
            .chain(names.iter().map(|name| folder.join(name)))
            .collect()
    };
    let with = |folders: Vec<PathBuf>, file: &str| {
        folders.into_iter().find(|folder| folder.join(file).exists())
    };
    let voc = candidates(&["VOC2007", "VOCdevkit/VOC2007"]);
    if let Some(root) = with(voc, "ImageSets/Main") {
        return voc07(&root);
    }
    if let Some(root) = with(candidates(&["stl10_binary"]), "train_X.bin") {
        return stl10(&root);
    }
    if let Some(root) = with(candidates(&["cifar-10-batches-bin"]), "data_batch_1.bin") {
        return cifar10(&root);
    }
    if let Some(root) = with(candidates(&["cifar-100-binary"]), "fine_label_names.txt") {
        return cifar100(&root);
    }
    for (name, pickle) in [("cifar-10-batches-py", "data_batch_1"), ("cifar-100-python", "meta")] {
        if let Some(root) = with(candidates(&[name]), pickle) {
            return Err(DataError::Layout {
                path: root,
                problem: "is the Python version of CIFAR, which only running its pickles opens"
                    .to_owned(),
                expected: "the binary version from the same page",
            });
        }
    }
    if let Some(root) = with(candidates(&["trainvalsplit_places205"]), "train_places205.csv") {
        return places205(folder, &root);
    }
    folders(path)
}

fn read_text(path: &Path) -> Result<String, DataError> {
    fs::read_to_string(path)
        .map_err(|source| DataError::Unreadable { path: path.to_owned(), source })
}
