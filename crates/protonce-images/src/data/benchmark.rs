//! The benchmarks of the field, recognised by the names of their files and folders.
//!
//! Enters: the folder that a benchmark was unpacked into. Leaves: its training and its test images with
//! their labels, as its authors split them.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::raw::RawFiles;
use super::{DataError, Dataset, Entry, Source};

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

/// What the layouts look like, for whoever has another.
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
    /// One label an image, which the data set knows.
    Single(Dataset),
    /// Any number of labels an image.
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
    if !folder.exists() {
        return Err(DataError::Missing { path: folder.to_owned() });
    }
    let places = |names: &[&str]| -> Vec<PathBuf> {
        std::iter::once(folder.to_owned())
            .chain(names.iter().map(|name| folder.join(name)))
            .collect()
    };
    let with = |places: Vec<PathBuf>, file: &str| {
        places.into_iter().find(|place| place.join(file).exists())
    };
    let voc = places(&["VOC2007", "VOCdevkit/VOC2007"]);
    if let Some(root) = with(voc, "ImageSets/Main") {
        return voc07(&root);
    }
    if let Some(root) = with(places(&["stl10_binary"]), "train_X.bin") {
        return stl10(&root);
    }
    if let Some(root) = with(places(&["cifar-10-batches-bin"]), "data_batch_1.bin") {
        return cifar10(&root);
    }
    if let Some(root) = with(places(&["cifar-100-binary"]), "fine_label_names.txt") {
        return cifar100(&root);
    }
    for (place, pickle) in [("cifar-10-batches-py", "data_batch_1"), ("cifar-100-python", "meta")] {
        if let Some(root) = with(places(&[place]), pickle) {
            return Err(DataError::Layout {
                path: root,
                problem: "is the Python version of CIFAR, which only running its pickles opens"
                    .to_owned(),
                expected: "the binary version from the same page",
            });
        }
    }
    if let Some(root) = with(places(&["trainvalsplit_places205"]), "train_places205.csv") {
        return places205(folder, &root);
    }
    folders(path)
}

/// `train` with `val` or `test` beside it, in a folder or an archive.
fn folders(path: &str) -> Result<Splits, DataError> {
    let unknown = |_| DataError::Layout {
        path: path.into(),
        problem: "is no benchmark that is known by its files".to_owned(),
        expected: LAYOUTS,
    };
    let train = Dataset::open(&format!("{path}#train")).map_err(unknown)?;
    let test = Dataset::open(&format!("{path}#val"))
        .or_else(|_| Dataset::open(&format!("{path}#test")))
        .map_err(unknown)?;
    if !test.classes().is_empty() || train.classes().is_empty() {
        let benchmark = by_classes(train.classes());
        return Ok(Splits {
            benchmark,
            train: Labelled::Single(train),
            test: Labelled::Single(test),
        });
    }
    Err(DataError::Layout {
        path: test.argument().into(),
        problem: "holds images without folders".to_owned(),
        expected: "one folder a class, as in train; sort them by the validation labels first",
    })
}

/// Which benchmark has these classes.
fn by_classes(classes: &[String]) -> Benchmark {
    const CIFAR10: [&str; 10] =
        ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];
    const IMAGENETTE: [&str; 10] = [
        "n01440764",
        "n02102040",
        "n02979186",
        "n03000684",
        "n03028079",
        "n03394916",
        "n03417042",
        "n03425413",
        "n03445777",
        "n03888257",
    ];
    let is_wnid = |class: &String| {
        class.strip_prefix('n').is_some_and(|digits| {
            digits.len() == 8 && digits.bytes().all(|byte| byte.is_ascii_digit())
        })
    };
    match classes.len() {
        10 if classes == CIFAR10 => Benchmark::Cifar10,
        10 if classes == IMAGENETTE => Benchmark::Imagenette,
        1000 if classes.iter().all(is_wnid) => Benchmark::ImageNet,
        _ => Benchmark::Other,
    }
}

fn read_text(path: &Path) -> Result<String, DataError> {
    fs::read_to_string(path)
        .map_err(|source| DataError::Unreadable { path: path.to_owned(), source })
}

/// `VOC2007`, whose lists `ImageSets/Main/CLASS_SET.txt` give each image 1 (there), 0 (difficult) or
/// −1 (absent).
fn voc07(root: &Path) -> Result<Splits, DataError> {
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
        // Images are ordered by name; `place` tells where each ended up.
        let mut place = vec![0; names.len()];
        names.iter().enumerate().for_each(|(position, &(_, number))| place[number] = position);
        let mut positive = vec![vec![false; names.len()]; classes.len()];
        for (class, image, is_there) in found {
            let class = classes.binary_search(class).unwrap_or(0);
            positive[class][place[image]] = is_there;
        }
        let entries = names
            .into_iter()
            .map(|(name, _)| Entry { name: format!("{name}.jpg"), label: None, extent: None })
            .collect();
        let source = Source::Files { base: root.join("JPEGImages") };
        let argument = format!("{}#{set}", root.display());
        let images = Dataset::new(&argument, source, entries);
        Ok(Labelled::Multiple(MultiLabel { images, classes: classes.clone(), positive }))
    };
    Ok(Splits { benchmark: Benchmark::Voc07, train: split("trainval")?, test: split("test")? })
}

/// Places205: lists of `path label`, images in `images256` (or beside the lists).
fn places205(folder: &Path, lists: &Path) -> Result<Splits, DataError> {
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
        let entries = text
            .lines()
            .filter(|line| !line.trim().is_empty())
            .map(|line| {
                let image = line.split([' ', ',', '\t']).next().unwrap_or(line);
                // "a/abbey/gsun_0.jpg": the label's number says no more than the folder.
                let label = image.rsplit_once('/').map(|(folder, _)| folder.to_owned());
                Entry { name: image.to_owned(), label, extent: None }
            })
            .collect();
        let argument = list.display().to_string();
        let source = Source::Files { base: base.clone() };
        Ok(Labelled::Single(Dataset::new(&argument, source, entries)))
    };
    Ok(Splits { benchmark: Benchmark::Places205, train: split("train")?, test: split("val")? })
}

/// The binary version of CIFAR-10: a label and 32 × 32 pixels an image.
fn cifar10(root: &Path) -> Result<Splits, DataError> {
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

/// The binary version of CIFAR-100: a coarse label, a fine one and 32 × 32 pixels an image.
fn cifar100(root: &Path) -> Result<Splits, DataError> {
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

/// The binary version of STL-10: 96 × 96 pixels an image, labels from 1 in a file of their own.
fn stl10(root: &Path) -> Result<Splits, DataError> {
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
    let mut entries = Vec::with_capacity(images);
    for (number, &label) in labels.iter().enumerate() {
        let Some(class) = names.get(usize::from(label)) else {
            return Err(wrong(format!("has the label {label} of {} classes", names.len())));
        };
        let name = format!("{number:06}");
        entries.push(Entry { name, label: Some(class.clone()), extent: None });
    }
    let argument = root.join(files[0]).display().to_string();
    Ok(Labelled::Single(Dataset::new(&argument, Source::Raw(raw), entries)))
}
