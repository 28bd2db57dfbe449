//! The centroids as an assignment sees them: in groups, with scores that rule most of them out.

use super::codes::{Codes, Residue, usable};
use super::kernel::{GROUP, Group};
use super::quantizer::Quantizer;
use crate::matrix::Matrix;

/// Centroids as one pass sees them.
pub struct Screen<'a> {
    /// All of them.
    pub centroids: Matrix<'a>,
    /// Centroids in the order of their groups.
    pub order: &'a [u32],
    /// The place of each centroid in that order.
    pub place: Vec<u32>,
    /// Their codes, group by group.
    pub groups: Vec<Group>,
    margins: Vec<Margin>,
    /// Which of the prefixes is looked at.
    pub level: usize,
    /// Its length.
    pub prefix: usize,
    /// What one unit of a score is worth: the product of both steps.
    pub unit: f32,
    /// What rounding costs a score at most, in units, for each of a row's squared length.
    per_square: f32,
    /// Whether codes say nothing: every centroid is measured.
    blind: bool,
}

/// What the scores of a group leave out at most, in units: `error` times the rounding error of the
/// row, `norm` times its length, and `constant`.
struct Margin {
    error: f32,
    norm: f32,
    constant: f32,
}

impl<'a> Screen<'a> {
    /// Of `centroids` with their codes, grouped in the given order, which looks at the prefix of `level`.
    pub fn new(
        centroids: Matrix<'a>,
        codes: &Codes<i8>,
        order: &'a [u32],
        quantizer: &Quantizer,
        level: usize,
    ) -> Screen<'a> {
        let prefix = quantizer.rotation.prefixes[level];
        let blind = !usable(codes.step) || !usable(quantizer.step);
        let unit = if blind { 1.0 } else { codes.step * quantizer.step };
        let mut place = vec![0; order.len()];
        for (position, &centroid) in order.iter().enumerate() {
            place[centroid as usize] = position as u32;
        }
        let (mut groups, mut margins) = (Vec::new(), Vec::new());
        for members in order.chunks(GROUP) {
            let values: Vec<&[i8]> =
                members.iter().map(|&c| codes.prefix(c as usize, prefix)).collect();
            let mut group = Group::new(&values, prefix);
            let mut margin = Margin { error: 0.0, norm: 0.0, constant: 1.0 };
            for (lane, &centroid) in members.iter().enumerate() {
                let residue = &codes.residues[centroid as usize];
                if blind {
                    group.half_squares[lane] = 0.0;
                    continue;
                }
                // Where a rounding of float32 goes unmentioned, the constants more than cover it.
                group.half_squares[lane] = residue.square / 2.0 / unit;
                group.tails[lane] = residue.tail[level] / unit;
                let length = (residue.norm + residue.error[level]) / unit;
                margin.error = margin.error.max(length);
                let rotated = 2.0 * quantizer.rotation.error as f32 * residue.norm;
                margin.norm = margin.norm.max((residue.error[level] + rotated) / unit);
                margin.constant = margin.constant.max(1.0 + 4e-6 * group.half_squares[lane]);
            }
            groups.push(group);
            margins.push(margin);
        }
        let per_square = 4e-6 / unit;
        Screen { centroids, order, place, groups, margins, level, prefix, unit, per_square, blind }
    }

    /// What the scores of `group` leave out at most for the row of `residue`.
    #[inline(always)]
    pub fn margin(&self, group: usize, residue: &Residue) -> f32 {
        if self.blind {
            return f32::INFINITY;
        }
        let margin = &self.margins[group];
        margin.error * residue.error[self.level]
            + margin.norm * residue.norm
            + margin.constant
            + self.per_square * residue.square
    }
}
