//! One granularity as the page shows it: its prototypes, each with its nearest images, its labels and
//! the finer prototypes that share images with it.

use std::collections::HashMap;

use protonce_run::Granularity;
use serde::Serialize;

use super::histogram::Histogram;
use super::labels::Tally;
use super::listed::{CHILDREN, GALLERY, Listed};

/// Nearest images of a prototype.
pub(super) const NEAREST: usize = 12;
/// Nearest images of a prototype of the gallery.
pub(super) const NEAREST_IN_GALLERY: usize = 24;
/// Labels of a prototype, the commonest first.
const LABELS: usize = 12;

/// One granularity.
#[derive(Debug, Serialize)]
pub(super) struct GranularityView {
    count: usize,
    empty: usize,
    sizes: Histogram,
    concentrations: Histogram,
    /// Share of images that have the commonest label of their prototype, in percent.
    purity: Option<f64>,
    /// Those described one by one, the largest first.
    prototypes: Vec<PrototypeView>,
}

/// One prototype.
#[derive(Debug, Serialize)]
struct PrototypeView {
    id: usize,
    size: usize,
    concentration: f32,
    /// Labels and how many images have them, the commonest first.
    labels: Vec<(usize, u32)>,
    /// Positions among the next granularity's `prototypes`, and how many images are shared.
    children: Vec<(usize, u32)>,
    /// How many prototypes of the next granularity share images with it.
    relatives: usize,
    /// Positions in the table of images, the nearest first.
    nearest: Vec<u32>,
}

pub(super) fn describe(
    granularity: &Granularity,
    m: usize,
    listed: &Listed,
    members: &[Vec<u32>],
    tallies: Option<&Vec<Tally>>,
    row_of: &HashMap<usize, u32>,
) -> GranularityView {
    let position: HashMap<usize, usize> = match listed.ids.get(m + 1) {
        Some(next) => next.iter().enumerate().map(|(position, &id)| (id, position)).collect(),
        None => HashMap::new(),
    };
    let prototypes = listed.ids[m].iter().enumerate().map(|(rank, &id)| {
        let none = Vec::new();
        let relatives = listed.relatives.get(m).and_then(|all| all.get(&id)).unwrap_or(&none);
        let children = relatives.iter().take(CHILDREN);
        let nearest = members[id].iter().take(nearest_of(rank));
        PrototypeView {
            id,
            size: members[id].len(),
            concentration: granularity.concentration[id],
            labels: tallies
                .map_or(Vec::new(), |tallies| tallies[id].iter().take(LABELS).copied().collect()),
            children: children
                .filter_map(|(child, images)| Some((*position.get(child)?, *images)))
                .collect(),
            relatives: relatives.len(),
            nearest: nearest.filter_map(|&image| row_of.get(&(image as usize)).copied()).collect(),
        }
    });
    let sizes: Vec<f64> = members.iter().map(|members| members.len() as f64).collect();
    let with_images = |id: &usize| !members[*id].is_empty();
    let concentrations: Vec<f64> = (0..granularity.count())
        .filter(with_images)
        .map(|id| f64::from(granularity.concentration[id]))
        .collect();
    GranularityView {
        count: granularity.count(),
        empty: members.iter().filter(|members| members.is_empty()).count(),
        sizes: Histogram::of(&sizes, true),
        concentrations: Histogram::of(&concentrations, false),
        purity: tallies.map(|tallies| {
            let common: u32 = tallies.iter().filter_map(|tally| tally.first()).map(|t| t.1).sum();
            let labelled: u32 = tallies.iter().flatten().map(|(_, count)| count).sum();
            100.0 * f64::from(common) / f64::from(labelled.max(1))
        }),
        prototypes: prototypes.collect(),
    }
}

pub(super) fn nearest_of(rank: usize) -> usize {
    if rank < GALLERY { NEAREST_IN_GALLERY } else { NEAREST }
}
