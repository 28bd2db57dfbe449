//! Labels of training and test images in one numbering.

use super::TransferError;
use protonce_images::data::Dataset;

/// The labels of both sets in the numbering of `train`'s classes.
///
/// # Errors
/// When either set lacks labels, `train` has one class only, or `test` has a class that `train` lacks.
pub fn common_labels(
    train: &Dataset,
    test: &Dataset,
) -> Result<(Vec<i64>, Vec<i64>), TransferError> {
    let labels = |set: &Dataset| {
        set.labels().ok_or_else(|| TransferError::NoLabels { name: set.argument().to_owned() })
    };
    let (train_labels, test_labels) = (labels(train)?, labels(test)?);
    let known = train.classes();
    if let [class] = known {
        return Err(TransferError::OneClass {
            name: train.argument().to_owned(),
            class: class.clone(),
        });
    }
    let mut number = Vec::new();
    for class in test.classes() {
        match known.binary_search(class) {
            Ok(found) => number.push(found as i64),
            Err(_) => {
                return Err(TransferError::UnknownClass {
                    class: class.clone(),
                    test: test.argument().to_owned(),
                    train: train.argument().to_owned(),
                    known: known.join(", "),
                });
            }
        }
    }
    let test_labels = test_labels.into_iter().map(|label| number[label as usize]).collect();
    Ok((train_labels, test_labels))
}
