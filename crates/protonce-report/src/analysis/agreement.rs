//! How much assignments change from one E-step to the next.

use std::path::PathBuf;

use serde::Serialize;

use super::ReportTask;
use crate::expectation_step::{mutual_information, read_assignments};

/// How one expectation step's assignments differ from those before it.
#[derive(Debug, Serialize)]
pub(super) struct StepAgreement {
    from: usize,
    to: usize,
    /// For each granularity; none where there is nothing to compare.
    agreement: Vec<Option<f64>>,
    with_labels: Vec<Option<f64>>,
}

/// How successive expectation steps agree; of too many, some spread over the run.
///
/// A step whose file cannot be read is left out: an old one may be removed while this goes on.
pub(super) fn agreements(
    files: &[(usize, PathBuf)],
    labels: Option<&[i64]>,
    most: usize,
    progress: &mut dyn FnMut(ReportTask, usize, usize),
) -> Vec<StepAgreement> {
    let pairs = files.len().saturating_sub(1);
    let shown = pairs.min(most);
    let mut agreements = Vec::new();
    let mut held: Option<(usize, Vec<Vec<i64>>)> = None;
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
            agreements.push(StepAgreement {
                from,
                to,
                agreement: agreement.collect(),
                with_labels,
            });
        }
        held = after.map(|assignments| (first + 1, assignments));
        progress(ReportTask::Agreements, k + 1, shown);
    }
    agreements
}
