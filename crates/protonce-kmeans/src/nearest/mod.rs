//! The nearest centroid of every row: what plain float32 arithmetic finds, without most of the work.
//!
//! Rows and centroids in; for each row, out comes the centroid c of least ‖x − c‖² as
//! [`squared_distance`](crate::squared_distance) computes it in float32, of several the first. Looking at all of them is the
//! cost of k-means, so most are ruled out, by inequalities that hold for the rounded numbers too:
//!
//! - *Codes.* An 8-bit product of prefixes ([`codes`], [`kernel`]) with the Cauchy-Schwarz inequality
//!   for all it leaves out bounds ‖x − c‖² from below, for an eighth of the price at most. Only
//!   centroids which may still be nearer than the best so far are looked at in float32: a handful.
//! - *Groups.* While centroids move, a [`Search`] remembers for every row how near any centroid of a
//!   group could be (Ding et al. 2015, "Yinyang K-Means"). A group that cannot have come near enough
//!   since is passed over; when clusters settle, nearly all are.
//!
//! The order in which rows are worked on and the number of threads change nothing of the result, and neither does
//! the rotation that comes before the codes ([`rotation`]): that only decides how much they rule out.

// A comparison with what is not a number must count as "may be nearer": that is what !(a < b) says. And
// loops of constant length are what is unrolled.
#![allow(clippy::neg_cmp_op_on_partial_ord, clippy::needless_range_loop)]

mod bounds;
mod codes;
mod directions;
mod kernel;
mod order;
mod pass;
mod prefix;
mod product;
mod quantizer;
mod rotation;
mod screen;

use bounds::farthest_moved;
use kernel::GROUP;
pub use quantizer::{QuantizedRows, Quantizer, RowCodes};
use rotation::LEVELS;
use screen::Screen;

use crate::assignment::{Assignment, Effort};
use crate::matrix::Matrix;
use crate::threads::Threads;

/// Bounds per row: one for each block of groups, as many as a word has bits.
const BOUNDS: usize = 64;
/// The passes before which the length of the prefix is tried, counted from 0: the longer it goes on,
/// the less changes.
const TRIALS: [usize; 5] = [0, 1, 4, 12, 36];

/// The passes of one start, which remember what they may rule out.
#[derive(Default)]
pub struct Search {
    order: Vec<u32>,
    /// See [`bounds::Bounds`]; of all rows. Empty where nothing is remembered.
    distances: Vec<f32>,
    moved: Vec<f64>,
    /// The centroids of the pass before.
    before: Vec<f32>,
    level: usize,
    passes: usize,
}

impl Search {
    /// Brings `assignment` up to date with `centroids`, of which there are as many each time. What it
    /// was before only decides how fast that goes.
    pub fn assign(
        &mut self,
        quantized: &QuantizedRows,
        centroids: Matrix,
        assignment: &mut Assignment,
        threads: &Threads,
    ) -> Effort {
        let groups = centroids.count().div_ceil(GROUP);
        let per_block = groups.div_ceil(BOUNDS);
        let blocks = groups.div_ceil(per_block);
        // The first centroids are rows, the second means; from then on they keep their places.
        if self.passes < 2 {
            self.order = order::order(centroids);
            self.distances.clear();
            self.distances.resize(quantized.rows.count() * blocks, 0.0);
            self.moved = vec![0.0; blocks];
        } else {
            for (moved, members) in self.moved.iter_mut().zip(self.order.chunks(per_block * GROUP))
            {
                *moved += farthest_moved(centroids, &self.before, members);
            }
        }
        self.before.clear();
        self.before.extend_from_slice(centroids.values);
        let quantizer = quantized.quantizer;
        let codes = quantizer.centroids(centroids, threads);
        let new_screen = |level| Screen::new(centroids, &codes, &self.order, quantizer, level);
        if TRIALS.contains(&self.passes) {
            // It changes little from one trial to the next.
            let levels = match self.passes {
                0 => 0..LEVELS,
                _ => self.level.saturating_sub(1)..LEVELS.min(self.level + 2),
            };
            self.level = prefix::cheapest(quantized, assignment, levels, new_screen, threads);
        }
        self.passes += 1;
        let distances = Some((self.distances.as_mut_slice(), self.moved.as_slice()));
        pass::pass(quantized, &new_screen(self.level), assignment, per_block, distances, threads)
    }
}

/// The nearest of `centroids` to each of `rows`, of which only `CHUNK` at a time are quantized: for rows
/// that are looked at once.
pub fn assign(
    rows: Matrix,
    centroids: Matrix,
    quantizer: &Quantizer,
    threads: &Threads,
) -> Assignment {
    const CHUNK: usize = 1 << 16;
    let order = order::order(centroids);
    let codes = quantizer.centroids(centroids, threads);
    let new_screen = |level| Screen::new(centroids, &codes, &order, quantizer, level);
    let mut whole = Assignment { nearest: Vec::new(), squared: Vec::new() };
    let mut screen: Option<Screen> = None;
    for first in (0..rows.count()).step_by(CHUNK) {
        let rows = rows.part(first, CHUNK);
        let codes = quantizer.rows(rows, threads);
        let quantized = QuantizedRows { rows, quantizer, codes: &codes };
        let mut part = Assignment::unknown(rows.count());
        let screen = screen.get_or_insert_with(|| {
            new_screen(prefix::cheapest(&quantized, &part, 0..LEVELS, new_screen, threads))
        });
        pass::pass(&quantized, screen, &mut part, screen.groups.len(), None, threads);
        whole.nearest.append(&mut part.nearest);
        whole.squared.append(&mut part.squared);
    }
    whole
}
