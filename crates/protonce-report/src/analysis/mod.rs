//! What a run discovered, as the page shows it: prototypes with their nearest images, from coarse
//! to fine; a map of the embeddings; labels against prototypes; images that stand out.
//!
//! A data set may be of any size, a page may not: what is shown is a sample within [`Limits`], and
//! the page says so. Sizes, purities and histograms count every image.

mod agreement;
mod granularity_view;
mod histogram;
mod image_table;
mod labels;
mod listed;
mod sample;
mod standouts;

use std::collections::HashMap;
use std::path::Path;

use protonce_images::data::Dataset;
use protonce_run::prototype_files;
use serde::Serialize;

use crate::ReportError;
use crate::expectation_step::{ExpectationStep, members_of, nearest_first};
use crate::neighbours::Neighbours;
use agreement::{StepAgreement, agreements};
use granularity_view::{GranularityView, describe};
use image_table::{ImageTable, priority, shortened};
use labels::{ClassView, Tally, class_table, doubtful, tally};
use listed::Listed;
use sample::Sample;
use standouts::{SimilarPair, Standouts, equal_files};

/// How much a page shows at most.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Images that are laid out in the map and searched for outliers and near-duplicates.
    pub(crate) map: usize,
    /// Prototypes that are described one by one, over all granularities.
    pub(crate) prototypes: usize,
    /// Pairs of expectation steps whose assignments are compared.
    pub(crate) changes: usize,
    /// Images that get a thumbnail.
    pub(crate) thumbnails: usize,
}

/// Everything the page shows of one expectation step.
#[derive(Debug, Serialize)]
pub(crate) struct Analysis {
    epoch: Option<usize>,
    images: usize,
    readable: usize,
    /// Names of the classes; empty without labels.
    classes: Vec<String>,
    granularities: Vec<GranularityView>,
    class_table: Vec<ClassView>,
    typical: Vec<(u32, f32)>,
    atypical: Vec<(u32, f32)>,
    duplicates: Vec<SimilarPair>,
    /// Image, commonest label of its prototype, and that label's share.
    doubtful: Vec<(u32, usize, f64)>,
    changes: Vec<StepAgreement>,
    /// Expectation steps that the run has files of.
    steps: usize,
    /// Images that were sampled for the map.
    sampled: usize,
    mapped: bool,
    table: ImageTable,
}

/// What takes time while a report is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportTask {
    /// Finding each embedding's nearest neighbours and laying out the map; in percent.
    Map,
    /// Comparing the assignments of expectation steps.
    Agreements,
    /// Drawing thumbnails; counted in images.
    Thumbnails,
}

/// An analysis and the images that want a thumbnail, the most wanted first.
pub(crate) struct Analysed {
    pub(crate) analysis: Analysis,
    pub(crate) wanted: Vec<usize>,
}

/// Reads the newest expectation step of the run in `run`; none when there was none yet.
///
/// Without a data set there are no names and no labels. `progress` is told how much of some work
/// is done.
pub(crate) fn analyse(
    run: &Path,
    dataset: Option<&Dataset>,
    limits: Limits,
    progress: &mut dyn FnMut(ReportTask, usize, usize),
) -> Result<Option<Analysed>, ReportError> {
    let files = prototype_files(run);
    let Some((_, newest)) = files.last() else { return Ok(None) };
    let step = ExpectationStep::read(newest)?;
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
    let labels: Option<Vec<i64>> = dataset.filter(|data| !data.classes().is_empty()).map(|data| {
        (0..images).map(|image| data.label(image).map_or(-1, |label| label as i64)).collect()
    });

    let sample = Sample::of(&step, limits.map);
    let (similarities, sample) = sample.read(&step)?;
    progress(ReportTask::Map, 0, 100);
    let dim = step.granularities[0].dim;
    let neighbours = Neighbours::of(&sample.rows, dim);
    progress(ReportTask::Map, 10, 100);
    let map = lay_out(&sample.rows, dim, &neighbours, progress);
    progress(ReportTask::Map, 100, 100);

    let mut members: Vec<Vec<Vec<u32>>> = step.granularities.iter().map(members_of).collect();
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

    let standouts = Standouts::find(&step, &sample, &neighbours, similarities.as_deref());
    let doubtful = match (&labels, &tallies, &similarities) {
        (Some(labels), Some(tallies), Some(similarities)) => {
            doubtful(&step.granularities[0], labels, &tallies[0], &similarities[0])
        }
        _ => Vec::new(),
    };

    let order = priority(&listed, &members, &standouts, &doubtful, &sample);
    let mut wanted: Vec<usize> = order.clone();
    wanted.truncate(limits.thumbnails);
    let row_of: HashMap<usize, u32> =
        order.iter().enumerate().map(|(row, &image)| (image, row as u32)).collect();
    let table = ImageTable::of(&order, &step, dataset, labels.as_deref(), &sample, map.as_deref());

    let granularities = step
        .granularities
        .iter()
        .enumerate()
        .map(|(m, granularity)| {
            let tallies = tallies.as_ref().map(|tallies| &tallies[m]);
            describe(granularity, m, &listed, &members[m], tallies, &row_of)
        })
        .collect();
    let at = |image: &usize| row_of.get(image).copied().unwrap_or(0);
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
        typical: standouts.typical.iter().map(|(image, score)| (at(image), *score)).collect(),
        atypical: standouts.atypical.iter().map(|(image, score)| (at(image), *score)).collect(),
        duplicates: standouts
            .pairs
            .iter()
            .map(|(a, b, similarity)| SimilarPair {
                images: [at(a), at(b)],
                similarity: *similarity,
                identical: dataset.is_some_and(|data| equal_files(data, *a, *b)),
            })
            .collect(),
        doubtful: doubtful
            .iter()
            .map(|(image, label, share)| (at(image), *label, *share))
            .collect(),
        changes: agreements(&files, labels.as_deref(), limits.changes, progress),
        steps: files.len(),
        sampled: sample.images.len(),
        mapped: map.is_some(),
        table,
    };
    Ok(Some(Analysed { analysis, wanted }))
}

/// A map of the sample: (x, y) of each row.
#[cfg(feature = "map")]
fn lay_out(
    rows: &[f32],
    dim: usize,
    neighbours: &Neighbours,
    progress: &mut dyn FnMut(ReportTask, usize, usize),
) -> Option<Vec<(f32, f32)>> {
    let nearest: Vec<Vec<(usize, f32)>> =
        (0..rows.len() / dim.max(1)).map(|row| neighbours.of_row(row).collect()).collect();
    let mut told = 10;
    protonce_map::lay_out(rows, dim, &nearest, &mut |share| {
        let percent = 10 + (90.0 * share) as usize;
        if percent > told {
            told = percent;
            progress(ReportTask::Map, percent, 100);
        }
    })
}

/// No map: this build has none.
#[cfg(not(feature = "map"))]
fn lay_out(
    _rows: &[f32],
    _dim: usize,
    _neighbours: &Neighbours,
    _progress: &mut dyn FnMut(ReportTask, usize, usize),
) -> Option<Vec<(f32, f32)>> {
    None
}

impl Analysis {
    /// Images in the map.
    pub(crate) fn mapped(&self) -> usize {
        if self.mapped { self.sampled } else { 0 }
    }
}
