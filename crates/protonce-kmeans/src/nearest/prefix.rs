//! How long a prefix of the codes an assignment looks at: the one that is cheapest on a few of the rows.

use std::ops::Range;

use super::pass::pass;
use super::quantizer::{QuantizedRows, RowCodes};
use super::rotation::LEVELS;
use super::screen::Screen;
use crate::assignment::{Assignment, Effort};
use crate::matrix::Matrix;
use crate::threads::Threads;

/// Rows on which prefixes are tried.
const TRIAL: usize = 512;

/// Which of some prefixes makes a pass cheapest, by a trial of each on some of the rows. `screen` makes
/// the centroids' screen for a prefix.
pub fn cheapest<'a>(
    quantized: &QuantizedRows,
    assignment: &Assignment,
    levels: Range<usize>,
    screen: impl Fn(usize) -> Screen<'a>,
    threads: &Threads,
) -> usize {
    let dim = quantized.rows.dim;
    // Cycles, measured on Zen 3: a score takes 1/40 per value and 0.6 more, a distance 0.7 per value
    // and 60 more.
    let cost = |effort: Effort, prefix: usize| {
        effort.scored as f64 * (prefix as f64 / 40.0 + 0.6)
            + effort.measured as f64 * (60.0 + 0.7 * dim as f64)
    };
    let count = quantized.rows.count();
    let stride = (count / TRIAL).max(16).min(count);
    let chosen: Vec<usize> = (0..count).step_by(stride).collect();
    let values = quantized.rows.select(chosen.iter().copied());
    let sample = QuantizedRows {
        rows: Matrix { values: &values, dim },
        quantizer: quantized.quantizer,
        codes: &RowCodes(quantized.codes.0.select(&chosen)),
    };
    let mut cheapest = (f64::INFINITY, LEVELS - 1);
    for level in levels {
        let mut trial = Assignment {
            nearest: chosen.iter().map(|&row| assignment.nearest[row]).collect(),
            squared: vec![0.0; chosen.len()],
        };
        let screen = screen(level);
        let effort = pass(&sample, &screen, &mut trial, screen.groups.len(), None, threads);
        let cost = cost(effort, screen.prefix);
        if cost < cheapest.0 {
            cheapest = (cost, level);
        }
    }
    cheapest.1
}
