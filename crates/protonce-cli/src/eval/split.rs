//! The labelled images of an evaluation: some to learn from, others to be tested on.

use anyhow::bail;
use protonce::transfer::common_labels;
use protonce_images::data::{Benchmark, Dataset, Labelled};

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
    /// One class per image.
    Single { train: Vec<i64>, test: Vec<i64> },
    /// For each class, whether each image is of it.
    Multiple { train: Vec<Vec<bool>>, test: Vec<Vec<bool>> },
}

impl Split {
    /// Whether encoders are tested on the very images that they learn from.
    pub fn same_images(&self) -> bool {
        // Names and order are not enough: both folders of a benchmark may have the same ones.
        self.train.argument() == self.test.argument()
            && self.train.fingerprint() == self.test.fingerprint()
    }

    /// Puts the labels of `train` and `test` in one numbering; of each class, the first `per_class`
    /// training images (0: all).
    pub fn new(
        benchmark: Benchmark,
        train: Labelled,
        test: Labelled,
        per_class: usize,
    ) -> anyhow::Result<Split> {
        match (train, test) {
            (Labelled::Single(train), Labelled::Single(test)) => {
                let train = match per_class {
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
                if per_class > 0 {
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
