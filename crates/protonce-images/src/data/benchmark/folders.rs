//! Benchmarks that are one folder per class, and any other images laid out like them.

use super::{Benchmark, LAYOUTS, Labelled, Splits};
use crate::data::{DataError, Dataset};

/// `train` with `val` or `test` beside it, in a folder or an archive.
pub(super) fn folders(path: &str) -> Result<Splits, DataError> {
    let unknown = |_| DataError::Layout {
        path: path.into(),
        problem: "is no benchmark that is known by its files".to_owned(),
        expected: LAYOUTS,
    };
    let train = Dataset::open_labelled(&format!("{path}#train")).map_err(unknown)?;
    let test = Dataset::open_labelled(&format!("{path}#val"))
        .or_else(|_| Dataset::open_labelled(&format!("{path}#test")))
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
