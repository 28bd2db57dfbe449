//! Images that stand out: the most typical, the odd ones out, and pairs that look alike.

use std::collections::{HashMap, HashSet};

use protonce_images::data::Dataset;
use serde::Serialize;

use super::sample::Sample;
use crate::expectation_step::ExpectationStep;
use crate::neighbours::Neighbours;

/// Typical, atypical and doubtful images, and pairs of near-duplicates.
pub(super) const STANDOUTS: usize = 24;

/// Two images that look alike to the encoder.
#[derive(Debug, Serialize)]
pub(super) struct SimilarPair {
    pub(super) images: [u32; 2],
    pub(super) similarity: f32,
    /// The files are equal, byte for byte.
    pub(super) identical: bool,
}

/// Images that stand out, as positions in the data set.
pub(super) struct Standouts {
    pub(super) typical: Vec<(usize, f32)>,
    pub(super) atypical: Vec<(usize, f32)>,
    pub(super) pairs: Vec<(usize, usize, f32)>,
}

impl Standouts {
    pub(super) fn find(
        step: &ExpectationStep,
        sample: &Sample,
        neighbours: &Neighbours,
        similarities: Option<&[Vec<f32>]>,
    ) -> Standouts {
        // As near to its prototype as possible, one of each coarse prototype.
        let mut typical: Vec<(usize, f32)> = Vec::new();
        if let Some(similarities) = similarities {
            let assignment = &step.granularities[0].assignment;
            let mut best = HashMap::<i64, (usize, f32)>::new();
            for &image in &sample.images {
                let similarity = similarities[0][image];
                let best = best.entry(assignment[image]).or_insert((image, similarity));
                if similarity > best.1 {
                    *best = (image, similarity);
                }
            }
            typical = best.into_values().collect();
            typical.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            typical.truncate(STANDOUTS);
        }

        // Far even from its fifth nearest neighbour: an image of its own kind, or of none.
        let fifth = 4.min(neighbours.count.saturating_sub(1));
        let mut atypical: Vec<(usize, f32)> = match neighbours.count {
            0 => Vec::new(),
            count => (0..sample.images.len())
                .map(|row| (sample.images[row], neighbours.similarities[row * count + fifth]))
                .collect(),
        };
        atypical.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
        atypical.truncate(STANDOUTS);

        let mut near: Vec<(usize, usize, f32)> = Vec::new();
        for row in 0..sample.images.len() {
            let closest = neighbours.of_row(row).take(3).filter(|&(other, _)| other > row);
            near.extend(closest.map(|(other, similarity)| (row, other, similarity)));
        }
        near.sort_by(|a, b| b.2.total_cmp(&a.2).then((a.0, a.1).cmp(&(b.0, b.1))));
        let mut taken = HashSet::new();
        let mut pairs = Vec::new();
        for (a, b, similarity) in near {
            if pairs.len() == STANDOUTS {
                break;
            }
            if !taken.contains(&a) && !taken.contains(&b) {
                taken.extend([a, b]);
                pairs.push((sample.images[a], sample.images[b], similarity));
            }
        }
        Standouts { typical, atypical, pairs }
    }
}

pub(super) fn equal_files(dataset: &Dataset, a: usize, b: usize) -> bool {
    let (mut first, mut second) = (Vec::new(), Vec::new());
    dataset.read(a, &mut first).is_ok() && dataset.read(b, &mut second).is_ok() && first == second
}
