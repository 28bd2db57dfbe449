//! The images that the page speaks of: their names, labels, prototypes and points in the map, those that
//! most want a thumbnail first.

use std::collections::{HashMap, HashSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use protonce_images::data::Dataset;
use serde::Serialize;

use super::granularity_view::{NEAREST, NEAREST_IN_GALLERY, nearest_of};
use super::listed::{GALLERY, Listed};
use super::sample::Sample;
use super::standouts::Standouts;
use crate::expectation_step::ExpectationStep;

/// The images that the page speaks of, those with a thumbnail first. Numbers are little-endian in
/// base64.
#[derive(Debug, Serialize)]
pub(super) struct ImageTable {
    count: usize,
    names: Vec<String>,
    /// u32: position in the data set.
    index: String,
    /// u32: position in `classes`, or 2³² − 1.
    label: String,
    /// For each granularity, u32: prototype, or 2³² − 1.
    prototype: Vec<String>,
    /// u16: across and down, 0 to 65 534; 65 535 for images that are not in the map.
    x: String,
    y: String,
}

/// All images that the page speaks of, those that most want a thumbnail first.
pub(super) fn priority(
    listed: &Listed,
    members: &[Vec<Vec<u32>>],
    standouts: &Standouts,
    doubtful: &[(usize, usize, f64)],
    sample: &Sample,
) -> Vec<usize> {
    let mut order = Vec::new();
    let mut known = HashSet::new();
    let mut want = |image: usize| {
        if known.insert(image) {
            order.push(image);
        }
    };
    let found = standouts.typical.iter().chain(&standouts.atypical).map(|found| found.0);
    found.for_each(&mut want);
    standouts.pairs.iter().flat_map(|pair| [pair.0, pair.1]).for_each(&mut want);
    doubtful.iter().map(|found| found.0).for_each(&mut want);
    // The head of the gallery in full, then ever more images of ever more prototypes.
    for (ranks, images) in
        [(24, NEAREST), (GALLERY, 8), (usize::MAX, 4), (GALLERY, NEAREST_IN_GALLERY)]
    {
        for (members, ids) in members.iter().zip(&listed.ids) {
            for (rank, &id) in ids.iter().enumerate().take(ranks) {
                let count = images.min(nearest_of(rank));
                members[id].iter().take(count).for_each(|&image| want(image as usize));
            }
        }
    }
    for (members, ids) in members.iter().zip(&listed.ids) {
        for (rank, &id) in ids.iter().enumerate() {
            let nearest = members[id].iter().take(nearest_of(rank));
            nearest.for_each(|&image| want(image as usize));
        }
    }
    // In leaps: wherever the budget ends, thumbnails are spread over the map.
    let count = sample.images.len();
    let leap = leap(count);
    (0..count).for_each(|k| want(sample.images[k * leap % count]));
    order
}

/// About 0.618 of `count`, and without a common divisor: multiples of it visit everything once and
/// stay spread out.
fn leap(count: usize) -> usize {
    let divisor = |mut a: usize, mut b: usize| {
        while b > 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    let start = ((count as f64) * 0.618) as usize;
    (start..).find(|&leap| leap > 0 && divisor(leap, count) == 1).unwrap_or(1)
}

impl ImageTable {
    pub(super) fn of(
        order: &[usize],
        step: &ExpectationStep,
        dataset: Option<&Dataset>,
        labels: Option<&[i64]>,
        sample: &Sample,
        map: Option<&[(f32, f32)]>,
    ) -> ImageTable {
        const NOWHERE: u16 = u16::MAX;
        let mut points: HashMap<usize, (u16, u16)> = HashMap::new();
        for (&image, &(x, y)) in sample.images.iter().zip(map.unwrap_or_default()) {
            let whole = |value: f32| (value.clamp(0.0, 1.0) * f32::from(NOWHERE - 1)) as u16;
            points.insert(image, (whole(x), whole(y)));
        }
        let point = |image: &usize| points.get(image).copied().unwrap_or((NOWHERE, NOWHERE));
        let unsigned = |value: i64| u32::try_from(value).unwrap_or(u32::MAX);
        ImageTable {
            count: order.len(),
            names: dataset.map_or(Vec::new(), |data| {
                order.iter().map(|&image| shortened(data.name(image))).collect()
            }),
            index: words(order.iter().map(|&image| image as u32)),
            label: labels.map_or(String::new(), |labels| {
                words(order.iter().map(|&image| unsigned(labels[image])))
            }),
            prototype: step
                .granularities
                .iter()
                .map(|granularity| {
                    words(order.iter().map(|&image| unsigned(granularity.assignment[image])))
                })
                .collect(),
            x: STANDARD
                .encode(order.iter().flat_map(|i| point(i).0.to_le_bytes()).collect::<Vec<_>>()),
            y: STANDARD
                .encode(order.iter().flat_map(|i| point(i).1.to_le_bytes()).collect::<Vec<_>>()),
        }
    }
}

fn words(values: impl Iterator<Item = u32>) -> String {
    STANDARD.encode(values.flat_map(u32::to_le_bytes).collect::<Vec<u8>>())
}

/// A name, or its ends where it is longer than anyone reads.
pub(super) fn shortened(name: &str) -> String {
    const MOST: usize = 120;
    if name.chars().count() <= MOST {
        return name.to_owned();
    }
    let start: String = name.chars().take(MOST / 2).collect();
    let end: String = name.chars().skip(name.chars().count() - MOST / 2).collect();
    format!("{start}…{end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaps_visit_everything_once() {
        for count in [1, 2, 3, 10, 97, 1000] {
            let leap = leap(count);
            let visited: HashSet<usize> = (0..count).map(|k| k * leap % count).collect();
            assert_eq!(visited.len(), count);
        }
    }

    #[test]
    fn long_names_keep_their_ends() {
        let name = shortened(&format!("start{}end", "ü".repeat(500)));
        assert!(name.starts_with("start") && name.ends_with("end") && name.chars().count() == 121);
    }
}
