//! One pass over rows: every row's nearest centroid brought up to date, with bounds and scores that
//! spare it most of the distances.

use std::sync::Mutex;

use protonce_simd::multiversion;

use super::bounds::{Bounds, TINY};
use super::codes::{Codes, Residue};
use super::kernel::{GROUP, TILE, largest, not_below};
use super::quantizer::QuantizedRows;
use super::screen::Screen;
use crate::assignment::{Assignment, Effort};
use crate::distance::{distance_error, squared_distance};
use crate::matrix::Matrix;
use crate::threads::Threads;

/// Rows that a thread takes through all groups at a time: their codes stay in its cache.
const BLOCK: usize = 256;

/// One pass over all rows. `bounds` are those of all rows, of which `per_block` groups share one each,
/// and how far the centroids of each block could move so far; see [`Bounds`].
pub fn pass(
    quantized: &QuantizedRows,
    screen: &Screen,
    assignment: &mut Assignment,
    per_block: usize,
    bounds: Option<(&mut [f32], &[f64])>,
    threads: &Threads,
) -> Effort {
    let effort = Mutex::new(Effort::default());
    let (mut distances, moved) = match bounds {
        Some((distances, moved)) => (Some(distances.chunks_mut(BLOCK * moved.len())), moved),
        None => (None, [].as_slice()),
    };
    let passes = assignment
        .nearest
        .chunks_mut(BLOCK)
        .zip(assignment.squared.chunks_mut(BLOCK))
        .enumerate()
        .map(|(block, (nearest, squared))| Pass {
            rows: quantized.rows.part(block * BLOCK, BLOCK),
            codes: &quantized.codes.0,
            first: block * BLOCK,
            screen,
            per_block,
            nearest,
            squared,
            bounds: distances
                .as_mut()
                .and_then(Iterator::next)
                .map(|distances| Bounds { distances, moved }),
            effort: Effort::default(),
        });
    threads.share(passes, |mut pass| {
        run(&mut pass);
        if let Ok(mut effort) = effort.lock() {
            effort.scored += pass.effort.scored;
            effort.measured += pass.effort.measured;
        }
    });
    effort.into_inner().unwrap_or_default()
}

/// A pass over some rows.
struct Pass<'a> {
    rows: Matrix<'a>,
    codes: &'a Codes<u8>,
    /// The first of the rows' numbers in `codes`.
    first: usize,
    screen: &'a Screen<'a>,
    /// Groups per block.
    per_block: usize,
    nearest: &'a mut [u32],
    squared: &'a mut [f32],
    bounds: Option<Bounds<'a>>,
    effort: Effort,
}

multiversion! {
    /// Brings the assignment and the bounds of the pass's rows up to date.
    fn run(pass: &mut Pass) {
        let count = pass.nearest.len();
        let groups = pass.screen.groups.len();
        let mut needed = [u64::MAX; BLOCK];
        let mut cuts = [0f32; BLOCK];
        for row in 0..count {
            let own = pass.screen.centroids.row(pass.nearest[row] as usize);
            pass.squared[row] = squared_distance(pass.rows.row(row), own);
            cuts[row] = pass.cut(row);
            if let Some(bounds) = &pass.bounds {
                needed[row] = bounds.needed(row, pass.squared[row], pass.rows.dim);
            }
        }
        let mut list = [0; BLOCK];
        let mut scores = [[0f32; GROUP]; TILE];
        for block in 0..groups.div_ceil(pass.per_block) {
            // Without a branch, which would go either way.
            let mut length = 0;
            for (row, needed) in needed[..count].iter().enumerate() {
                list[length] = row;
                length += (needed >> block & 1) as usize;
            }
            let list = &list[..length];
            // The squared distance that centroids of this block keep from each row.
            let mut lowest = [f32::INFINITY; BLOCK];
            let first = block * pass.per_block;
            for group in first..(first + pass.per_block).min(groups) {
                for tile in list.chunks(TILE) {
                    // The last tile is filled up with its first row.
                    let mut filled = [tile[0]; TILE];
                    filled[..tile.len()].copy_from_slice(tile);
                    let tile = filled;
                    // Loops: what `map` calls would be compiled for the oldest processors.
                    let (mut codes, mut tails) = ([[].as_slice(); TILE], [0f32; TILE]);
                    for r in 0..TILE {
                        codes[r] = pass.codes.prefix(pass.first + tile[r], pass.screen.prefix);
                        tails[r] = pass.residue(tile[r]).tail[pass.screen.level];
                    }
                    let most = pass.screen.groups[group].scores(codes, tails, &mut scores);
                    for (r, &row) in tile.iter().enumerate() {
                        if r > 0 && row == tile[0] {
                            break;
                        }
                        pass.consider(row, group, &mut scores[r], most[r], &mut cuts, &mut lowest);
                    }
                }
                pass.effort.scored += (list.len() * GROUP) as u64;
            }
            for &row in list {
                pass.remember(row, block, lowest[row]);
            }
        }
    }
}

impl Pass<'_> {
    #[inline(always)]
    fn residue(&self, row: usize) -> &Residue {
        &self.codes.residues[self.first + row]
    }

    /// The score below which a centroid is farther from `row` than the best so far, whatever
    /// float32 made of either distance: ‖x − c‖² = ‖x‖² − 2 (x · c − ‖c‖² / 2).
    #[inline(always)]
    fn cut(&self, row: usize) -> f32 {
        let squared = f64::from(self.squared[row]);
        let beaten = squared * (1.0 + 3.0 * distance_error(self.rows.dim)) + TINY;
        let cut =
            (f64::from(self.residue(row).square) - beaten) / 2.0 / f64::from(self.screen.unit);
        (cut - 4e-6 * cut.abs()) as f32
    }

    /// Measures the centroids of `group` whose scores allow them to be nearer to `row` than the best
    /// so far, best scores first; what the others keep goes into `lowest`.
    #[inline(always)]
    fn consider(
        &mut self,
        row: usize,
        group: usize,
        scores: &mut [f32; GROUP],
        mut most: f32,
        cuts: &mut [f32; BLOCK],
        lowest: &mut [f32; BLOCK],
    ) {
        let screen = self.screen;
        let own = screen.place[self.nearest[row] as usize] as usize;
        if own / GROUP == group {
            scores[own % GROUP] = f32::NEG_INFINITY;
            most = largest(scores);
        }
        let margin = screen.margin(group, self.residue(row));
        // Not "at least": a cut that is not a number rules nothing out.
        if most > f32::NEG_INFINITY && !(most + margin < cuts[row]) {
            // The best score first: it makes the cut that most of the others fall short of.
            let mut lane = not_below(scores, most).trailing_zeros() as usize;
            let mut left = u64::MAX;
            while lane < GROUP {
                // The row's own centroid, and lanes without one, have the score −∞.
                if scores[lane] > f32::NEG_INFINITY {
                    self.measure(row, group, lane, cuts, lowest);
                    scores[lane] = f32::NEG_INFINITY;
                }
                left &= !(1 << lane) & not_below(scores, cuts[row] - margin);
                lane = left.trailing_zeros() as usize;
            }
            most = largest(scores);
        }
        if self.bounds.is_some() {
            let keeps = self.residue(row).square - 2.0 * screen.unit * (most + margin);
            // An overflow to "not a number" keeps nothing.
            lowest[row] = if keeps.is_nan() { 0.0 } else { lowest[row].min(keeps) };
        }
    }

    /// Measures the centroid in a lane of `group`, and takes it if it is nearer or an equal of a lower
    /// number.
    #[inline(always)]
    fn measure(
        &mut self,
        row: usize,
        group: usize,
        lane: usize,
        cuts: &mut [f32; BLOCK],
        lowest: &mut [f32; BLOCK],
    ) {
        let screen = self.screen;
        let centroid = screen.order[group * GROUP + lane];
        let squared = squared_distance(self.rows.row(row), screen.centroids.row(centroid as usize));
        self.effort.measured += 1;
        let best = (self.squared[row], self.nearest[row]);
        if (squared, centroid) >= best {
            lowest[row] = lowest[row].min(squared);
            return;
        }
        (self.squared[row], self.nearest[row]) = (squared, centroid);
        cuts[row] = self.cut(row);
        let left = screen.place[best.1 as usize] as usize / GROUP / self.per_block;
        if left == group / self.per_block {
            lowest[row] = lowest[row].min(best.0);
        } else if let Some(bounds) = &mut self.bounds {
            let place = row * bounds.moved.len() + left;
            let keeps = bounds.keeps(left, best.0);
            bounds.distances[place] = bounds.distances[place].min(keeps);
        }
    }

    /// Stores what the centroids of `block` keep from `row`.
    #[inline(always)]
    fn remember(&mut self, row: usize, block: usize, lowest: f32) {
        if let Some(bounds) = &mut self.bounds {
            bounds.distances[row * bounds.moved.len() + block] = bounds.keeps(block, lowest);
        }
    }
}
