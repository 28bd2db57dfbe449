//! Which labelled images a semi-supervised evaluation learns from: a share of each class, or a list.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use rand::seq::SliceRandom;

use super::TransferError;
use protonce_images::data::{DataError, Dataset};
use protonce_images::random::{Purpose, generator};

/// A share of each class's images, at least one, drawn by `seed`: positions in ascending order.
///
/// # Errors
/// When the share is not above 0 and at most 1.
pub fn share_of_each_class(
    labels: &[i64],
    share: f64,
    seed: u64,
) -> Result<Vec<usize>, TransferError> {
    if !(share > 0.0 && share <= 1.0) {
        let found = share.to_string();
        let expected = "above 0 and at most 1 (0.01 is 1 %)";
        return Err(TransferError::Option { option: "fraction", found, expected });
    }
    let mut order: Vec<usize> = (0..labels.len()).collect();
    order.shuffle(&mut generator(seed, Purpose::LabelledImages));
    let mut of_class = HashMap::new();
    for &label in labels {
        *of_class.entry(label).or_insert(0usize) += 1;
    }
    let mut left: HashMap<i64, usize> = of_class
        .into_iter()
        .map(|(label, count)| (label, ((count as f64 * share).round() as usize).max(1)))
        .collect();
    let mut chosen: Vec<usize> = order
        .into_iter()
        .filter(|&position| match left.get_mut(&labels[position]) {
            Some(left) if *left > 0 => {
                *left -= 1;
                true
            }
            _ => false,
        })
        .collect();
    chosen.sort_unstable();
    Ok(chosen)
}

/// The images that a list names, one file name per line as in the official lists of 1 % and 10 % of
/// ImageNet: positions in ascending order.
///
/// # Errors
/// When the list cannot be read, or names an image that is not there.
pub fn listed(images: &Dataset, list: &Path) -> Result<Vec<usize>, TransferError> {
    let text = std::fs::read_to_string(list)
        .map_err(|source| DataError::Unreadable { path: list.to_owned(), source })?;
    let mut wanted: HashSet<&str> =
        text.lines().filter_map(|line| file_name(line.trim())).collect();
    let total = wanted.len();
    let chosen: Vec<usize> = (0..images.len())
        .filter(|&image| file_name(images.name(image)).is_some_and(|name| wanted.remove(name)))
        .collect();
    match wanted.iter().min() {
        Some(missing) => Err(TransferError::NotListed {
            list: PathBuf::from(list),
            name: (*missing).to_owned(),
            missing: wanted.len(),
            total,
            data: images.argument().to_owned(),
        }),
        None if chosen.is_empty() => Err(DataError::NoImages {
            place: list.display().to_string(),
            found: "not one file name".to_owned(),
        }
        .into()),
        None => Ok(chosen),
    }
}

fn file_name(path: &str) -> Option<&str> {
    path.rsplit('/').next().filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_takes_as_much_of_each_class_and_one_at_least() {
        let labels: Vec<i64> = (0..205).map(|image| i64::from(image >= 200)).collect();
        let chosen = share_of_each_class(&labels, 0.1, 3).unwrap();
        let first = chosen.iter().filter(|&&image| labels[image] == 0).count();
        assert_eq!((first, chosen.len() - first), (20, 1));
        assert!(chosen.is_sorted());
        assert_ne!(chosen, share_of_each_class(&labels, 0.1, 4).unwrap());
        assert_eq!(share_of_each_class(&labels, 1.0, 0).unwrap().len(), 205);
        for share in [0.0, -1.0, 1.5, f64::NAN] {
            let error = share_of_each_class(&labels, share, 0).unwrap_err().to_string();
            assert!(error.contains("fraction"), "{error}");
        }
    }
}
