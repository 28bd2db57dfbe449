//! Labels against prototypes. Training never saw them; they only judge what it found.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use protonce_run::Granularity;
use serde::Serialize;

use super::standouts::STANDOUTS;

/// Classes in the table of labels.
const CLASSES: usize = 100;

/// Labels of some images and how many have them, the commonest first.
pub(super) type Tally = Vec<(usize, u32)>;

/// Counts the labels of some images; of equally common ones the first comes first.
pub(super) fn tally(images: &[u32], labels: &[i64]) -> Tally {
    let mut counts = BTreeMap::<usize, u32>::new();
    for &image in images {
        if let Ok(label) = usize::try_from(labels[image as usize]) {
            *counts.entry(label).or_default() += 1;
        }
    }
    let mut counts: Vec<(usize, u32)> = counts.into_iter().collect();
    counts.sort_by_key(|&(label, count)| (Reverse(count), label));
    counts
}

/// How one class of labels was found.
#[derive(Debug, Serialize)]
pub(super) struct ClassView {
    class: usize,
    images: u32,
    /// For each granularity: share of its images that lie in prototypes where it is the commonest,
    /// in percent, and how many such prototypes there are.
    found: Vec<(f64, usize)>,
}

pub(super) fn class_table(labels: &[i64], tallies: &[Vec<Tally>]) -> Vec<ClassView> {
    let mut images = BTreeMap::<usize, u32>::new();
    for label in labels.iter().filter_map(|&label| usize::try_from(label).ok()) {
        *images.entry(label).or_default() += 1;
    }
    let mut found: Vec<HashMap<usize, (u32, usize)>> = Vec::new();
    for tallies in tallies {
        let mut commonest = HashMap::<usize, (u32, usize)>::new();
        for &(label, count) in tallies.iter().filter_map(|tally| tally.first()) {
            let entry = commonest.entry(label).or_default();
            *entry = (entry.0 + count, entry.1 + 1);
        }
        found.push(commonest);
    }
    let mut classes: Vec<(usize, u32)> = images.into_iter().collect();
    classes.sort_by_key(|&(class, images)| (Reverse(images), class));
    classes.truncate(CLASSES);
    classes
        .into_iter()
        .map(|(class, images)| {
            let found = found.iter().map(|commonest| {
                let (count, prototypes) = commonest.get(&class).copied().unwrap_or_default();
                (100.0 * f64::from(count) / f64::from(images), prototypes)
            });
            ClassView { class, images, found: found.collect() }
        })
        .collect()
}

/// Images whose label is not that of nearly all others of their prototype, the surest first.
pub(super) fn doubtful(
    granularity: &Granularity,
    labels: &[i64],
    tallies: &[Tally],
    similarities: &[f32],
) -> Vec<(usize, usize, f64)> {
    const LEAST_SIZE: u32 = 8;
    const LEAST_SHARE: f64 = 0.6;
    let mut found: Vec<(usize, usize, f64, f64)> = Vec::new();
    for (image, (&label, &prototype)) in labels.iter().zip(&granularity.assignment).enumerate() {
        let (Ok(label), Ok(prototype)) = (usize::try_from(label), usize::try_from(prototype))
        else {
            continue;
        };
        let tally = &tallies[prototype];
        let size: u32 = tally.iter().map(|(_, count)| count).sum();
        let Some(&(common, count)) = tally.first() else { continue };
        let share = f64::from(count) / f64::from(size);
        let similarity = f64::from(similarities[image]);
        if common != label && size >= LEAST_SIZE && share >= LEAST_SHARE && similarity.is_finite() {
            found.push((image, common, share, share * similarity));
        }
    }
    found.sort_by(|a, b| b.3.total_cmp(&a.3).then(a.0.cmp(&b.0)));
    found.truncate(STANDOUTS);
    found.into_iter().map(|(image, common, share, _)| (image, common, share)).collect()
}
