//! The nearest centroid of every row: what plain float32 arithmetic finds, without most of the work.
//!
//! Rows and centroids in; for each row, out comes the centroid c of least ‖x − c‖² as
//! [`squared_distance`] computes it in float32, of several the first. Looking at all of them is the
//! cost of k-means, so most are ruled out, by inequalities that hold for the rounded numbers too:
//!
//! - *Codes.* An 8-bit product of prefixes ([`codes`], [`kernel`]) with the Cauchy-Schwarz inequality
//!   for all it leaves out bounds ‖x − c‖² from below, for an eighth of the price at most. Only
//!   centroids which may still be nearer than the best so far are looked at in float32: a handful.
//! - *Groups.* While centroids move, a [`Search`] remembers for every row how near any centroid of a
//!   group could be (Ding et al. 2015, "Yinyang K-Means"). A group that cannot have come near enough
//!   since is passed over; when clusters settle, nearly all are.
//!
//! The order in which rows are worked on and the number of threads change nothing of the result.

// A comparison with what is not a number must count as "may be nearer": that is what !(a < b) says. And
// loops of constant length are what is unrolled.
#![allow(clippy::neg_cmp_op_on_partial_ord, clippy::needless_range_loop)]

mod codes;
mod groups;
mod kernel;

pub use codes::{Rows, share};
pub use kernel::{prefetch, squared_distance};

use codes::{Codes, LEVELS, Range, Turn, encode, usable};
use kernel::{
    CENTROID_LARGEST, CENTROID_LENGTH, GROUP, Group, ROW_LARGEST, ROW_LENGTH, TILE, distance_error,
    largest, not_below, row_byte,
};

use protonce_simd::multiversion;

/// Rows that a thread takes through all groups at a time: their codes stay in its cache.
const BLOCK: usize = 256;
/// Bounds a row: one a block of groups, as many as a word has bits.
const BOUNDS: usize = 64;
/// Rows on which the length of the prefix is tried.
const TRIAL: usize = 512;
/// The passes before which it is, counted from 0: the longer it goes on, the less changes.
const TRIALS: [usize; 5] = [0, 1, 4, 12, 36];

const ROW_RANGE: Range = Range { largest: ROW_LARGEST, longest: ROW_LENGTH };
const CENTROID_RANGE: Range = Range { largest: CENTROID_LARGEST, longest: CENTROID_LENGTH };

/// How the rows of a clustering are coded: a turn, and the size of a step.
pub struct Coding {
    turn: Turn,
    step: f32,
}

/// Codes of rows: what all starts and granularities share.
pub struct RowCodes(Codes<u8>);

/// Rows with their codes.
#[derive(Clone, Copy)]
pub struct Coded<'a> {
    /// The rows.
    pub rows: Rows<'a>,
    /// How they are coded.
    pub coding: &'a Coding,
    /// Their codes.
    pub codes: &'a RowCodes,
}

impl Coding {
    /// The coding that suits `rows`.
    pub fn new(rows: Rows) -> Coding {
        let sample = codes::sample(rows);
        let rows = Rows { values: &sample, dim: rows.dim };
        let turn = Turn::new(rows);
        let step = codes::step(&turn.turn(rows), turn.length, ROW_RANGE);
        Coding { turn, step }
    }

    /// Codes `rows`: a byte a value, and 60 a row for what the codes leave out.
    pub fn code(&self, rows: Rows) -> RowCodes {
        RowCodes(encode(rows, &self.turn, ROW_RANGE, Some(self.step), row_byte))
    }
}

/// The nearest centroid of each row and the squared distance to it.
#[derive(Clone)]
pub struct Assignment {
    /// Numbers of centroids: [rows].
    pub nearest: Vec<u32>,
    /// ‖x − c‖² as [`squared_distance`] computes it: [rows].
    pub squared: Vec<f32>,
}

impl Assignment {
    /// Of `count` rows, before anything is known: any centroid will do to begin with.
    pub fn unknown(count: usize) -> Assignment {
        Assignment { nearest: vec![0; count], squared: vec![0.0; count] }
    }
}

/// What a pass over the rows cost.
#[derive(Debug, Clone, Copy, Default)]
pub struct Effort {
    /// Scores from codes.
    pub scored: u64,
    /// Distances in float32.
    pub measured: u64,
}

/// Centroids as one pass sees them.
struct Screen<'a> {
    centroids: Rows<'a>,
    /// Centroids in the order of their groups.
    order: &'a [u32],
    /// The place of each centroid in that order.
    place: Vec<u32>,
    groups: Vec<Group>,
    margins: Vec<Margin>,
    level: usize,
    prefix: usize,
    /// What one unit of a score is worth: the product of both steps.
    unit: f32,
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
    fn new(
        centroids: Rows<'a>,
        codes: &Codes<i8>,
        order: &'a [u32],
        coding: &Coding,
        level: usize,
    ) -> Screen<'a> {
        let prefix = coding.turn.prefixes[level];
        let blind = !usable(codes.step) || !usable(coding.step);
        let unit = if blind { 1.0 } else { codes.step * coding.step };
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
                let turned = 2.0 * coding.turn.error as f32 * residue.norm;
                margin.norm = margin.norm.max((residue.error[level] + turned) / unit);
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
    fn margin(&self, group: usize, residue: &codes::Residue) -> f32 {
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

/// How near centroids can have come to rows they are not assigned to.
struct Bounds<'a> {
    /// For each row and block, a distance that all centroids of the block but the row's own keep,
    /// plus how far they could move before: [rows, blocks].
    distances: &'a mut [f32],
    /// How far the centroids of each block could move so far: [blocks].
    moved: &'a [f64],
}

/// A pass over some rows.
struct Pass<'a> {
    rows: Rows<'a>,
    codes: &'a Codes<u8>,
    /// The first of the rows' numbers in `codes`.
    first: usize,
    screen: &'a Screen<'a>,
    /// Groups a block.
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
    fn residue(&self, row: usize) -> &codes::Residue {
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

/// Covers what gets lost below the least normal numbers.
const TINY: f64 = 1e-30;

impl Bounds<'_> {
    /// A bit for each block that may have a centroid within √`squared` of `row`.
    #[inline(always)]
    fn needed(&self, row: usize, squared: f32, dim: usize) -> u64 {
        let within =
            (f64::from(squared) * (1.0 + 3.0 * distance_error(dim)) + TINY).sqrt() * (1.0 + 1e-6);
        let distances = &self.distances[row * self.moved.len()..][..self.moved.len()];
        let mut needed = 0;
        for (block, (&distance, &moved)) in distances.iter().zip(self.moved).enumerate() {
            needed |= u64::from(f64::from(distance) <= within + moved) << block;
        }
        needed
    }

    /// What is stored of a squared distance that the centroids of `block` keep.
    #[inline(always)]
    fn keeps(&self, block: usize, squared: f32) -> f32 {
        // Covers the error of the distance (or of its bound) and of the sum.
        let distance = f64::from(squared.max(0.0)).sqrt() * (1.0 - 1e-4);
        ((distance + self.moved[block]) * (1.0 - 1e-6)) as f32
    }
}

/// The passes of one start, which remember what they may rule out.
#[derive(Default)]
pub struct Search {
    order: Vec<u32>,
    /// See [`Bounds`]; of all rows. Empty where nothing is remembered.
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
        coded: &Coded,
        centroids: Rows,
        assignment: &mut Assignment,
    ) -> Effort {
        let groups = centroids.count().div_ceil(GROUP);
        let per_block = groups.div_ceil(BOUNDS);
        let blocks = groups.div_ceil(per_block);
        // The first centroids are rows, the second means; from then on they keep their places.
        if self.passes < 2 {
            self.order = groups::order(centroids);
            self.distances.clear();
            self.distances.resize(coded.rows.count() * blocks, 0.0);
            self.moved = vec![0.0; blocks];
        } else {
            for (moved, members) in self.moved.iter_mut().zip(self.order.chunks(per_block * GROUP))
            {
                *moved += farthest_moved(centroids, &self.before, members);
            }
        }
        self.before.clear();
        self.before.extend_from_slice(centroids.values);
        let coding = coded.coding;
        let codes = encode(centroids, &coding.turn, CENTROID_RANGE, None, |value| value as i8);
        if TRIALS.contains(&self.passes) {
            // It changes little from one trial to the next.
            let levels = match self.passes {
                0 => 0..LEVELS,
                _ => self.level.saturating_sub(1)..LEVELS.min(self.level + 2),
            };
            self.level = level(coded, centroids, &codes, &self.order, assignment, levels);
        }
        self.passes += 1;
        let screen = Screen::new(centroids, &codes, &self.order, coding, self.level);
        let distances = Some((self.distances.as_mut_slice(), self.moved.as_slice()));
        pass(coded, &screen, assignment, per_block, distances)
    }
}

/// How far any of `members` moved since `before`, or a little more.
fn farthest_moved(centroids: Rows, before: &[f32], members: &[u32]) -> f64 {
    let before = Rows { values: before, dim: centroids.dim };
    let moved = members
        .iter()
        .map(|&c| squared_distance(centroids.row(c as usize), before.row(c as usize)));
    let farthest = f64::from(moved.fold(0.0, f32::max));
    (farthest * (1.0 + 3.0 * distance_error(centroids.dim)) + TINY).sqrt()
}

/// The nearest of `centroids` to each of `rows`, of which only `CHUNK` at a time are coded: for rows
/// that are looked at once.
pub fn assign(rows: Rows, centroids: Rows, coding: &Coding) -> Assignment {
    const CHUNK: usize = 1 << 16;
    let order = groups::order(centroids);
    let codes = encode(centroids, &coding.turn, CENTROID_RANGE, None, |value| value as i8);
    let mut whole = Assignment { nearest: Vec::new(), squared: Vec::new() };
    let mut screen: Option<Screen> = None;
    for first in (0..rows.count()).step_by(CHUNK) {
        let rows = rows.part(first, CHUNK);
        let codes_of_rows = coding.code(rows);
        let coded = Coded { rows, coding, codes: &codes_of_rows };
        let mut part = Assignment::unknown(rows.count());
        let screen = screen.get_or_insert_with(|| {
            let level = level(&coded, centroids, &codes, &order, &part, 0..LEVELS);
            Screen::new(centroids, &codes, &order, coding, level)
        });
        pass(&coded, screen, &mut part, screen.groups.len(), None);
        whole.nearest.append(&mut part.nearest);
        whole.squared.append(&mut part.squared);
    }
    whole
}

/// Which of some prefixes makes a pass cheapest, by a trial of each on some of the rows.
fn level(
    coded: &Coded,
    centroids: Rows,
    codes: &Codes<i8>,
    order: &[u32],
    assignment: &Assignment,
    levels: std::ops::Range<usize>,
) -> usize {
    // Cycles, measured on Zen 3: a score takes 1/40 a value and 0.6 more, a distance 0.7 a value
    // and 60 more.
    let cost = |effort: Effort, prefix: usize| {
        effort.scored as f64 * (prefix as f64 / 40.0 + 0.6)
            + effort.measured as f64 * (60.0 + 0.7 * centroids.dim as f64)
    };
    let count = coded.rows.count();
    let stride = (count / TRIAL).max(16).min(count);
    let chosen: Vec<usize> = (0..count).step_by(stride).collect();
    let values = coded.rows.select(chosen.iter().copied());
    let sample = Coded {
        rows: Rows { values: &values, dim: coded.rows.dim },
        coding: coded.coding,
        codes: &RowCodes(coded.codes.0.select(&chosen)),
    };
    let mut cheapest = (f64::INFINITY, LEVELS - 1);
    for level in levels {
        let mut trial = Assignment {
            nearest: chosen.iter().map(|&row| assignment.nearest[row]).collect(),
            squared: vec![0.0; chosen.len()],
        };
        let screen = Screen::new(centroids, codes, order, coded.coding, level);
        let effort = pass(&sample, &screen, &mut trial, screen.groups.len(), None);
        let cost = cost(effort, screen.prefix);
        if cost < cheapest.0 {
            cheapest = (cost, level);
        }
    }
    cheapest.1
}

/// One pass over all rows, on all of libtorch's threads.
fn pass(
    coded: &Coded,
    screen: &Screen,
    assignment: &mut Assignment,
    per_block: usize,
    bounds: Option<(&mut [f32], &[f64])>,
) -> Effort {
    let effort = std::sync::Mutex::new(Effort::default());
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
            rows: coded.rows.part(block * BLOCK, BLOCK),
            codes: &coded.codes.0,
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
    share(passes, |mut pass| {
        run(&mut pass);
        if let Ok(mut effort) = effort.lock() {
            effort.scored += pass.effort.scored;
            effort.measured += pass.effort.measured;
        }
    });
    effort.into_inner().unwrap_or_default()
}
