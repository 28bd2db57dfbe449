//! What a run discovered, as the page shows it: prototypes with their nearest images, from coarse
//! to fine; a map of the embeddings; labels against prototypes; images that stand out.
//!
//! A data set may be of any size, a page may not: what is shown is a sample within [`Limits`], and
//! the page says so. Sizes, purities and histograms count every image.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::ReportError;
use super::expectation::{
    Expectation, Granularity, Similarities, largest_first, mutual_information, nearest_first,
    read_assignments,
};
use super::map::{Neighbours, lay_out};
use crate::pretrain::prototype_files;
use protonce_images::data::Dataset;

/// How much a page shows at most.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Images that are laid out in the map and searched for outliers and near-duplicates.
    pub(super) map: usize,
    /// Prototypes that are described one by one, over all granularities.
    pub(super) prototypes: usize,
    /// Pairs of expectation steps whose assignments are compared.
    pub(super) changes: usize,
    /// Images that get a thumbnail.
    pub(super) thumbnails: usize,
}

/// Prototypes of each granularity that are described before their children are.
const GALLERY: usize = 120;
/// Nearest images of a prototype.
const NEAREST: usize = 12;
/// Nearest images of a prototype of the gallery.
const NEAREST_IN_GALLERY: usize = 24;
/// Children of a prototype, the largest first.
const CHILDREN: usize = 8;
/// Labels of a prototype, the commonest first.
const LABELS: usize = 12;
/// Typical, atypical and doubtful images, and pairs of near-duplicates.
const STANDOUTS: usize = 24;
/// Classes in the table of labels.
const CLASSES: usize = 100;
/// Bars of a histogram, at most.
const BARS: usize = 32;

/// Everything the page shows of one expectation step.
#[derive(Debug, Serialize)]
pub(super) struct Analysis {
    epoch: Option<usize>,
    images: usize,
    readable: usize,
    /// Names of the classes; empty without labels.
    classes: Vec<String>,
    granularities: Vec<GranularityView>,
    class_table: Vec<ClassView>,
    typical: Vec<(u32, f32)>,
    atypical: Vec<(u32, f32)>,
    duplicates: Vec<Pair>,
    /// Image, commonest label of its prototype, and that label's share.
    doubtful: Vec<(u32, usize, f64)>,
    changes: Vec<Change>,
    /// Expectation steps that the run has files of.
    steps: usize,
    /// Images that were sampled for the map.
    sampled: usize,
    mapped: bool,
    table: Table,
}

/// One granularity.
#[derive(Debug, Serialize)]
struct GranularityView {
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

/// How one class of labels was found.
#[derive(Debug, Serialize)]
struct ClassView {
    class: usize,
    images: u32,
    /// For each granularity: share of its images that lie in prototypes where it is the commonest,
    /// in percent, and how many such prototypes there are.
    found: Vec<(f64, usize)>,
}

/// Two images that look alike to the encoder.
#[derive(Debug, Serialize)]
struct Pair {
    images: [u32; 2],
    similarity: f32,
    /// The files are equal, byte for byte.
    identical: bool,
}

/// How one expectation step's assignments differ from those before it.
#[derive(Debug, Serialize)]
struct Change {
    from: usize,
    to: usize,
    /// For each granularity; none where there is nothing to compare.
    agreement: Vec<Option<f64>>,
    with_labels: Vec<Option<f64>>,
}

/// Equal bars from `low` to `high`.
#[derive(Debug, Serialize)]
struct Histogram {
    low: f64,
    high: f64,
    counts: Vec<u32>,
}

/// The images that the page speaks of, those with a thumbnail first. Numbers are little-endian in
/// base64.
#[derive(Debug, Serialize)]
struct Table {
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

/// What takes time while a discovery is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportWork {
    /// Finding each embedding's nearest neighbours and laying out the map; in percent.
    Map,
    /// Comparing expectation steps.
    Changes,
    /// Drawing thumbnails; counted in images.
    Thumbnails,
}

/// A discovery and the images that want a thumbnail, the most wanted first.
pub(super) struct Discovered {
    pub(super) analysis: Analysis,
    pub(super) wanted: Vec<usize>,
}

/// Reads the newest expectation step of the run in `run`; none when there was none yet.
///
/// Without a data set there are no names and no labels. `progress` is told how much of some work
/// is done.
pub(super) fn discover(
    run: &Path,
    dataset: Option<&Dataset>,
    limits: Limits,
    progress: &mut dyn FnMut(ReportWork, usize, usize),
) -> Result<Option<Discovered>, ReportError> {
    let files = prototype_files(run);
    let Some((_, newest)) = files.last() else { return Ok(None) };
    let step = Expectation::read(newest)?;
    let images = step.images();
    if let Some(dataset) = dataset
        && dataset.len() != images
    {
        return Err(ReportError::OtherData {
            data: dataset.argument().to_owned(),
            found: dataset.len(),
            expected: images,
        });
    }
    let labels: Option<Vec<i32>> = dataset.filter(|data| !data.classes().is_empty()).map(|data| {
        (0..images).map(|image| data.label(image).map_or(-1, |label| label as i32)).collect()
    });

    let sample = Sample::of(&step, limits.map);
    let (similarities, sample) = sample.read(&step)?;
    progress(ReportWork::Map, 0, 100);
    let dim = step.granularities[0].dim;
    let neighbours = Neighbours::of(&sample.rows, dim);
    progress(ReportWork::Map, 10, 100);
    let mut told = 10;
    let map = lay_out(&sample.rows, dim, &neighbours, &mut |share| {
        let percent = 10 + (90.0 * share) as usize;
        if percent > told {
            told = percent;
            progress(ReportWork::Map, percent, 100);
        }
    });
    progress(ReportWork::Map, 100, 100);

    let mut members: Vec<Vec<Vec<u32>>> =
        step.granularities.iter().map(Granularity::members).collect();
    let listed = Listed::choose(&step, &members, limits.prototypes);
    // Only those listed are put in order: sorting all would take longer than all else.
    if let Some(similarities) = &similarities {
        for (m, ids) in listed.ids.iter().enumerate() {
            for &id in ids {
                nearest_first(&mut members[m][id], &similarities[m]);
            }
        }
    }
    let tallies: Option<Vec<Vec<Tally>>> = labels.as_ref().map(|labels| {
        members.iter().map(|members| members.iter().map(|m| tally(m, labels)).collect()).collect()
    });

    let outliers = Outliers::find(&step, &sample, &neighbours, similarities.as_deref());
    let doubtful = match (&labels, &tallies, &similarities) {
        (Some(labels), Some(tallies), Some(similarities)) => {
            doubtful(&step.granularities[0], labels, &tallies[0], &similarities[0])
        }
        _ => Vec::new(),
    };

    let order = priority(&listed, &members, &outliers, &doubtful, &sample);
    let mut wanted: Vec<usize> = order.clone();
    wanted.truncate(limits.thumbnails);
    let place: HashMap<usize, u32> =
        order.iter().enumerate().map(|(place, &image)| (image, place as u32)).collect();
    let table = Table::of(&order, &step, dataset, labels.as_deref(), &sample, map.as_deref());

    let granularities = step
        .granularities
        .iter()
        .enumerate()
        .map(|(m, granularity)| {
            let tallies = tallies.as_ref().map(|tallies| &tallies[m]);
            view(granularity, m, &listed, &members[m], tallies, &place)
        })
        .collect();
    let at = |image: &usize| place.get(image).copied().unwrap_or(0);
    let analysis = Analysis {
        epoch: step.epoch,
        images,
        readable: step.granularities[0].assignment.iter().filter(|&&p| p >= 0).count(),
        classes: dataset
            .map_or(Vec::new(), |data| data.classes().iter().map(|name| shortened(name)).collect()),
        class_table: match (&labels, &tallies) {
            (Some(labels), Some(tallies)) => class_table(labels, tallies),
            _ => Vec::new(),
        },
        granularities,
        typical: outliers.typical.iter().map(|(image, score)| (at(image), *score)).collect(),
        atypical: outliers.atypical.iter().map(|(image, score)| (at(image), *score)).collect(),
        duplicates: outliers
            .pairs
            .iter()
            .map(|(a, b, similarity)| Pair {
                images: [at(a), at(b)],
                similarity: *similarity,
                identical: dataset.is_some_and(|data| equal_files(data, *a, *b)),
            })
            .collect(),
        doubtful: doubtful
            .iter()
            .map(|(image, label, share)| (at(image), *label, *share))
            .collect(),
        changes: changes(&files, labels.as_deref(), limits.changes, progress),
        steps: files.len(),
        sampled: sample.images.len(),
        mapped: map.is_some(),
        table,
    };
    Ok(Some(Discovered { analysis, wanted }))
}

impl Analysis {
    /// Images in the map.
    pub(super) fn mapped(&self) -> usize {
        if self.mapped { self.sampled } else { 0 }
    }
}

/// Images spread evenly over the readable ones, with their embeddings.
struct Sample {
    images: Vec<usize>,
    /// [images, dim], each of length 1; empty when the run keeps no embeddings of the step.
    rows: Vec<f32>,
}

impl Sample {
    fn of(step: &Expectation, most: usize) -> Sample {
        let assignment = &step.granularities[0].assignment;
        let readable: Vec<usize> = (0..assignment.len()).filter(|&i| assignment[i] >= 0).collect();
        let count = most.min(readable.len());
        let images = (0..count).map(|k| readable[k * readable.len() / count]).collect();
        Sample { images, rows: Vec::new() }
    }

    /// The similarity of every image to its prototypes, and the embeddings of the sample, in one
    /// pass over the file. Images without a finite embedding leave the sample.
    fn read(self, step: &Expectation) -> Result<(Option<Similarities>, Sample), ReportError> {
        let mut wanted = self.images.iter().copied().peekable();
        let mut kept = Sample { images: Vec::new(), rows: Vec::new() };
        let similarities = step.similarities(|image, row| {
            while wanted.next_if(|&next| next < image).is_some() {}
            if wanted.next_if_eq(&image).is_some() {
                kept.images.push(image);
                kept.rows.extend_from_slice(row);
            }
        })?;
        Ok((similarities, kept))
    }
}

/// The prototypes that are described one by one.
struct Listed {
    /// For each granularity, the largest first.
    ids: Vec<Vec<usize>>,
    /// For each granularity: of every listed prototype, which prototypes of the next granularity
    /// share how many images with it, the most first.
    relatives: Vec<HashMap<usize, Vec<(usize, u32)>>>,
}

impl Listed {
    /// The largest of every granularity, then the children of those and theirs, so that a walk
    /// from coarse to fine finds its way.
    fn choose(step: &Expectation, members: &[Vec<Vec<u32>>], most: usize) -> Listed {
        let count = members.len();
        let order: Vec<Vec<usize>> = members.iter().map(|members| largest_first(members)).collect();
        let mut listing = Listing {
            step,
            members,
            chosen: vec![HashSet::new(); count],
            relatives: vec![HashMap::new(); count],
            room: most,
        };
        for (m, order) in order.iter().enumerate() {
            order.iter().take(GALLERY).for_each(|&id| listing.add(m, id));
        }
        order[0].iter().for_each(|&id| listing.walk(0, id));
        for (m, order) in order.iter().enumerate().skip(1) {
            order.iter().for_each(|&id| listing.add(m, id));
        }
        let Listing { chosen, relatives, .. } = listing;
        let ids = order
            .into_iter()
            .zip(&chosen)
            .map(|(order, chosen)| order.into_iter().filter(|id| chosen.contains(id)).collect())
            .collect();
        Listed { ids, relatives }
    }
}

/// A choice of prototypes being made.
struct Listing<'a> {
    step: &'a Expectation,
    members: &'a [Vec<Vec<u32>>],
    chosen: Vec<HashSet<usize>>,
    relatives: Vec<HashMap<usize, Vec<(usize, u32)>>>,
    room: usize,
}

impl Listing<'_> {
    fn add(&mut self, m: usize, id: usize) {
        if self.room == 0 || !self.chosen[m].insert(id) {
            return;
        }
        self.room -= 1;
        let Some(next) = self.step.granularities.get(m + 1) else { return };
        let mut shared = BTreeMap::<usize, u32>::new();
        for &image in &self.members[m][id] {
            if let Ok(child) = usize::try_from(next.assignment[image as usize]) {
                *shared.entry(child).or_default() += 1;
            }
        }
        let mut shared: Vec<(usize, u32)> = shared.into_iter().collect();
        shared.sort_by_key(|&(child, images)| (Reverse(images), child));
        self.relatives[m].insert(id, shared);
    }

    /// Adds a prototype, its children and theirs.
    fn walk(&mut self, m: usize, id: usize) {
        self.add(m, id);
        let children: Vec<usize> = match self.relatives[m].get(&id) {
            Some(shared) => shared.iter().take(CHILDREN).map(|&(child, _)| child).collect(),
            None => return,
        };
        children.into_iter().for_each(|child| self.walk(m + 1, child));
    }
}

/// Labels of some images and how many have them, the commonest first.
type Tally = Vec<(usize, u32)>;

/// Counts the labels of some images; of equally common ones the first comes first.
fn tally(images: &[u32], labels: &[i32]) -> Tally {
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

fn view(
    granularity: &Granularity,
    m: usize,
    listed: &Listed,
    members: &[Vec<u32>],
    tallies: Option<&Vec<Tally>>,
    place: &HashMap<usize, u32>,
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
            nearest: nearest.filter_map(|&image| place.get(&(image as usize)).copied()).collect(),
        }
    });
    let sizes: Vec<f64> = members.iter().map(|members| members.len() as f64).collect();
    let with_images = |id: &usize| !members[*id].is_empty();
    let concentrations: Vec<f64> = (0..granularity.count)
        .filter(with_images)
        .map(|id| f64::from(granularity.concentration[id]))
        .collect();
    GranularityView {
        count: granularity.count,
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

fn nearest_of(rank: usize) -> usize {
    if rank < GALLERY { NEAREST_IN_GALLERY } else { NEAREST }
}

fn class_table(labels: &[i32], tallies: &[Vec<Tally>]) -> Vec<ClassView> {
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

/// Images that stand out, as positions in the data set.
struct Outliers {
    typical: Vec<(usize, f32)>,
    atypical: Vec<(usize, f32)>,
    pairs: Vec<(usize, usize, f32)>,
}

impl Outliers {
    fn find(
        step: &Expectation,
        sample: &Sample,
        neighbours: &Neighbours,
        similarities: Option<&[Vec<f32>]>,
    ) -> Outliers {
        // As near to its prototype as possible, one of each coarse prototype.
        let mut typical: Vec<(usize, f32)> = Vec::new();
        if let Some(similarities) = similarities {
            let assignment = &step.granularities[0].assignment;
            let mut best = HashMap::<i32, (usize, f32)>::new();
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
        Outliers { typical, atypical, pairs }
    }
}

/// Images whose label is not that of nearly all others of their prototype, the surest first.
fn doubtful(
    granularity: &Granularity,
    labels: &[i32],
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

/// All images that the page speaks of, those that most want a thumbnail first.
fn priority(
    listed: &Listed,
    members: &[Vec<Vec<u32>>],
    outliers: &Outliers,
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
    let standouts = outliers.typical.iter().chain(&outliers.atypical).map(|found| found.0);
    standouts.for_each(&mut want);
    outliers.pairs.iter().flat_map(|pair| [pair.0, pair.1]).for_each(&mut want);
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

impl Table {
    fn of(
        order: &[usize],
        step: &Expectation,
        dataset: Option<&Dataset>,
        labels: Option<&[i32]>,
        sample: &Sample,
        map: Option<&[(f32, f32)]>,
    ) -> Table {
        const NOWHERE: u16 = u16::MAX;
        let mut points: HashMap<usize, (u16, u16)> = HashMap::new();
        for (&image, &(x, y)) in sample.images.iter().zip(map.unwrap_or_default()) {
            let whole = |value: f32| (value.clamp(0.0, 1.0) * f32::from(NOWHERE - 1)) as u16;
            points.insert(image, (whole(x), whole(y)));
        }
        let point = |image: &usize| points.get(image).copied().unwrap_or((NOWHERE, NOWHERE));
        let unsigned = |value: i32| u32::try_from(value).unwrap_or(u32::MAX);
        Table {
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

/// A name, or its ends where it is longer than anybody reads.
fn shortened(name: &str) -> String {
    const MOST: usize = 120;
    if name.chars().count() <= MOST {
        return name.to_owned();
    }
    let start: String = name.chars().take(MOST / 2).collect();
    let end: String = name.chars().skip(name.chars().count() - MOST / 2).collect();
    format!("{start}…{end}")
}

fn equal_files(dataset: &Dataset, a: usize, b: usize) -> bool {
    let (mut first, mut second) = (Vec::new(), Vec::new());
    dataset.read(a, &mut first).is_ok() && dataset.read(b, &mut second).is_ok() && first == second
}

/// How successive expectation steps agree; of too many, some spread over the run.
///
/// A step whose file cannot be read is left out: an old one may be removed while this goes on.
fn changes(
    files: &[(usize, std::path::PathBuf)],
    labels: Option<&[i32]>,
    most: usize,
    progress: &mut dyn FnMut(ReportWork, usize, usize),
) -> Vec<Change> {
    let pairs = files.len().saturating_sub(1);
    let shown = pairs.min(most);
    let mut changes = Vec::new();
    let mut held: Option<(usize, Vec<Vec<i32>>)> = None;
    for k in 0..shown {
        // Both ends of the run are among them.
        let first = if shown < 2 { 0 } else { k * (pairs - 1) / (shown - 1) };
        let before = match held.take() {
            Some((position, assignments)) if position == first => Some(assignments),
            _ => read_assignments(&files[first].1).ok(),
        };
        let after = read_assignments(&files[first + 1].1).ok();
        if let (Some(before), Some(after)) = (&before, &after) {
            let agreement = before.iter().zip(after).map(|(a, b)| mutual_information(a, b));
            let with_labels = labels.map_or(Vec::new(), |labels| {
                after.iter().map(|after| mutual_information(after, labels)).collect()
            });
            let (from, to) = (files[first].0, files[first + 1].0);
            changes.push(Change { from, to, agreement: agreement.collect(), with_labels });
        }
        held = after.map(|assignments| (first + 1, assignments));
        progress(ReportWork::Changes, k + 1, shown);
    }
    changes
}

impl Histogram {
    /// `whole`: the values are counts, so that bars hold whole numbers.
    fn of(values: &[f64], whole: bool) -> Histogram {
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if !low.is_finite() || !high.is_finite() {
            return Histogram { low: 0.0, high: 1.0, counts: Vec::new() };
        }
        let (low, width, bars) = if whole {
            let width = ((high - low + 1.0) / BARS as f64).ceil();
            (low, width, ((high - low + 1.0) / width).ceil() as usize)
        } else if high > low {
            (low, (high - low) / BARS as f64, BARS)
        } else {
            (low, low.abs().max(1e-6) / BARS as f64, 1)
        };
        let mut counts = vec![0; bars];
        for value in values {
            counts[(((value - low) / width) as usize).min(bars - 1)] += 1;
        }
        Histogram { low, high: low + width * bars as f64, counts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_count_every_value_once() {
        for whole in [true, false] {
            for values in [&[3.0][..], &[1.0, 1.0, 1.0], &[0.0, 500.0, 77.0, 12.0], &[0.0; 9]] {
                let histogram = Histogram::of(values, whole);
                assert_eq!(histogram.counts.iter().sum::<u32>() as usize, values.len());
                assert!(histogram.counts.len() <= BARS && histogram.high > histogram.low);
            }
        }
        assert!(Histogram::of(&[], true).counts.is_empty());
        // 0 to 3 in four bars of one number each.
        assert_eq!(Histogram::of(&[0.0, 1.0, 1.0, 3.0], true).counts, [1, 2, 0, 1]);
    }

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
