//! Which images an evaluation learns from and is tested on.

use anyhow::bail;
use clap::Args;
use protonce::transfer::common_labels;
use protonce_images::data::{Benchmark, Dataset, Labelled, open_benchmark};

/// The labelled images of an evaluation.
#[derive(Args)]
pub struct DataArgs {
    /// A benchmark as it was unpacked: ImageNet, Places205, VOCdevkit, CIFAR (binary), STL-10 (binary),
    /// Imagenette, or any folder or .tar with train and val (or test) in it.
    #[arg(long, value_name = "PATH", conflicts_with_all = ["train", "test"])]
    data: Option<String>,
    /// Labelled images to learn from.
    #[arg(long, value_name = "DATA", required_unless_present = "data", requires = "test")]
    train: Option<String>,
    /// Labelled images to be tested on.
    #[arg(long, value_name = "DATA", required_unless_present = "data", requires = "train")]
    test: Option<String>,
    /// Use only the first N training images of each class, by name (0: all).
    #[arg(long, value_name = "N", default_value_t = 0)]
    per_class: usize,
}

/// Training and test images, and their labels in one numbering.
pub struct Split {
    pub benchmark: Benchmark,
    pub classes: Vec<String>,
    pub train: Dataset,
    pub test: Dataset,
    pub labels: Labels,
}

/// The labels of training and test images.
pub enum Labels {
    /// One class an image.
    Single { train: Vec<i64>, test: Vec<i64> },
    /// For each class, whether each image is of it.
    Multiple { train: Vec<Vec<bool>>, test: Vec<Vec<bool>> },
}

impl DataArgs {
    pub fn open(&self) -> anyhow::Result<Split> {
        let (benchmark, train, test) = match (&self.data, &self.train, &self.test) {
            (Some(data), ..) => {
                let splits = open_benchmark(data)?;
                (splits.benchmark, splits.train, splits.test)
            }
            (None, Some(train), Some(test)) => {
                let open = |argument: &str| Dataset::open(argument).map(Labelled::Single);
                (Benchmark::Other, open(train)?, open(test)?)
            }
            _ => bail!("no images: expected --data, or --train and --test"),
        };
        match (train, test) {
            (Labelled::Single(train), Labelled::Single(test)) => {
                let train = match self.per_class {
                    0 => train,
                    count => train.per_class(count),
                };
                let (train_labels, test_labels) = common_labels(&train, &test)?;
                Ok(Split {
                    benchmark,
                    classes: train.classes().to_vec(),
                    train,
                    test,
                    labels: Labels::Single { train: train_labels, test: test_labels },
                })
            }
            (Labelled::Multiple(train), Labelled::Multiple(test)) => {
                if self.per_class > 0 {
                    bail!(
                        "--per-class does not go with {}, whose images have several classes each: \
                         use --shots",
                        benchmark.name()
                    );
                }
                Ok(Split {
                    benchmark,
                    classes: train.classes,
                    train: train.images,
                    test: test.images,
                    labels: Labels::Multiple { train: train.positive, test: test.positive },
                })
            }
            _ => bail!(
                "training and test images differ in kind: expected one label an image in both"
            ),
        }
    }
}

impl Split {
    /// The labels of training and test images that have one class each.
    pub fn single_labels(&self) -> anyhow::Result<(&[i64], &[i64])> {
        match &self.labels {
            Labels::Single { train, test } => Ok((train, test)),
            Labels::Multiple { .. } => bail!(
                "the images of {} have several classes each: expected one; this benchmark goes with \
                 `eval svm` alone",
                self.benchmark.name()
            ),
        }
    }
}
