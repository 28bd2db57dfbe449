//! 8-bit codes of vectors, with bounds on everything that they leave out.
//!
//! Vectors are moved by the rows' mean and turned so that their principal directions come first
//! ([`Turn`]); then a product of short prefixes tells most of what a whole product would. A [`Code`]
//! has the values of a turned vector in whole steps, and, for every prefix that may be used, how long
//! the rounding error within it and the tail beyond it are. With these the Cauchy-Schwarz inequality
//! bounds the product of two vectors from that of their codes.

use tch::{Device, Kind, Tensor};

use super::kernel::{QUAD, halves};
use crate::encoder::parallel_for;
use protonce_simd::multiversion;

/// Steps of the prefix: eighths of the dimensions that may be looked at.
const EIGHTHS: [usize; 6] = [1, 2, 3, 4, 6, 8];
/// Prefixes to choose from.
pub const LEVELS: usize = EIGHTHS.len();
/// Rows turned at a time: what that takes stays in the processor's caches.
const CHUNK: usize = 1024;
/// Rows that tell how the others lie: so many a dimension, and no more than so many in all.
const SAMPLE: [usize; 2] = [16, 8192];

/// Rows of equal length, one after the other.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    /// Their values: [count, dim].
    pub values: &'a [f32],
    /// The length of each.
    pub dim: usize,
}

impl<'a> Rows<'a> {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.values.len() / self.dim
    }

    /// One of them.
    #[inline(always)]
    pub fn row(&self, index: usize) -> &'a [f32] {
        &self.values[index * self.dim..][..self.dim]
    }

    /// The values of some of them.
    pub fn select(&self, chosen: impl ExactSizeIterator<Item = usize>) -> Vec<f32> {
        let mut values = Vec::with_capacity(chosen.len() * self.dim);
        chosen.for_each(|index| values.extend_from_slice(self.row(index)));
        values
    }

    /// Those from `first` on, at most `count`.
    pub fn part(&self, first: usize, count: usize) -> Rows<'a> {
        let last = (first + count).min(self.count());
        Rows { values: &self.values[first * self.dim..last * self.dim], dim: self.dim }
    }
}

/// Moves by a mean and turns towards principal directions.
pub struct Turn {
    mean: Vec<f32>,
    /// [dim, dim], a direction a column.
    rotation: Vec<f32>,
    /// Bound on the relative error of a product of turned vectors, and of a squared length: rounding,
    /// and how far the rotation is from an exact one.
    pub error: f64,
    /// Values of a turned vector: the dimension, rounded up to whole quads with zeros.
    pub length: usize,
    /// The prefixes that may be looked at.
    pub prefixes: [usize; LEVELS],
}

impl Turn {
    /// The turn that suits `rows`.
    pub fn new(rows: Rows) -> Turn {
        let dim = rows.dim;
        let length = dim.next_multiple_of(QUAD);
        let mut offsets = tensor(rows.values, dim).to_kind(Kind::Double);
        let mean = offsets.mean_dim([0].as_slice(), false, Kind::Double).to_kind(Kind::Float);
        let offsets = offsets.subtract_(&mean);
        // Eigenvalues ascend; the columns of the vectors are turned round with them.
        let (_, directions) = offsets.tr().matmul(&offsets).linalg_eigh("L");
        let rotation = directions.flip([1]).to_kind(Kind::Float).contiguous();
        let exact = rotation.to_kind(Kind::Double);
        let identity = Tensor::eye(dim as i64, (Kind::Double, Device::Cpu));
        let defect = (exact.tr().matmul(&exact) - identity).square().sum(Kind::Double).sqrt();
        // A sum of d products in any order: relative to the lengths at most (d + 2) u each, times
        // the Frobenius norm √d of the rotation; for both vectors, and again for good measure.
        let rounding =
            4.0 * (dim as f64 + 4.0) * (dim as f64).sqrt() * f64::from(f32::EPSILON) / 2.0;
        let prefixes = EIGHTHS.map(|eighths| (length * eighths).div_ceil(8 * QUAD).max(1) * QUAD);
        Turn {
            mean: values(&mean),
            rotation: values(&rotation),
            error: rounding + defect.double_value(&[]),
            length,
            prefixes,
        }
    }

    /// `rows` turned: [count, length].
    pub fn turn(&self, rows: Rows) -> Vec<f32> {
        let offsets = tensor(rows.values, rows.dim).subtract_(&Tensor::from_slice(&self.mean));
        let turned = offsets.matmul(&tensor(&self.rotation, rows.dim));
        match self.length - rows.dim {
            0 => values(&turned),
            padding => values(&turned.constant_pad_nd([0, padding as i64])),
        }
    }
}

/// The values of some of the rows, evenly spread: enough to choose a [`Turn`] and a [`step`] by.
pub fn sample(rows: Rows) -> Vec<f32> {
    let [a_dimension, in_all] = SAMPLE;
    let wanted = (a_dimension * rows.dim).min(in_all);
    let stride = rows.count().div_ceil(wanted).max(1);
    rows.select((0..rows.count()).step_by(stride))
}

/// [count, dim] of `values`.
fn tensor(values: &[f32], dim: usize) -> Tensor {
    Tensor::from_slice(values).view([-1, dim as i64])
}

/// The values of a float32 tensor on the CPU, row by row.
fn values(tensor: &Tensor) -> Vec<f32> {
    let mut values = vec![0f32; tensor.numel()];
    tensor.contiguous().copy_data(&mut values, tensor.numel());
    values
}

/// How long a code may be, in steps.
#[derive(Clone, Copy)]
pub struct Range {
    /// Largest magnitude of a value.
    pub largest: f32,
    /// Largest Euclidean length of either half.
    pub longest: f32,
}

/// What is known of one vector beside its code.
#[derive(Clone, Copy)]
pub struct Residue {
    /// At least the length of the rounding error within each prefix.
    pub error: [f32; LEVELS],
    /// At least the length of what lies beyond each prefix.
    pub tail: [f32; LEVELS],
    /// At most the squared length of the vector.
    pub square: f32,
    /// At least its length.
    pub norm: f32,
}

/// Codes of vectors in steps of one size.
pub struct Codes<T> {
    /// The values: [count, length].
    pub values: Vec<T>,
    /// What is known beside, for each vector.
    pub residues: Vec<Residue>,
    /// The size of a step.
    pub step: f32,
    length: usize,
}

impl<T: Copy> Codes<T> {
    /// The first `length` values of one code.
    #[inline(always)]
    pub fn prefix(&self, index: usize, length: usize) -> &[T] {
        &self.values[index * self.length..][..length]
    }

    /// Some of them.
    pub fn select(&self, chosen: &[usize]) -> Codes<T> {
        let values = chosen.iter().flat_map(|&index| self.prefix(index, self.length)).copied();
        Codes {
            values: values.collect(),
            residues: chosen.iter().map(|&index| self.residues[index]).collect(),
            step: self.step,
            length: self.length,
        }
    }
}

/// Codes `rows` in steps of the given size, or of the one that suits the first of them; vectors that
/// exceed `range` are coded shortened, which their residues tell. `byte` is how a value is stored.
pub fn encode<T: Copy + Default + Send>(
    rows: Rows,
    turn: &Turn,
    range: Range,
    given: Option<f32>,
    byte: impl Fn(f32) -> T + Sync,
) -> Codes<T> {
    let length = turn.length;
    let mut known = given;
    let mut values = vec![T::default(); rows.count() * length];
    let empty = Residue { error: [0.0; LEVELS], tail: [0.0; LEVELS], square: 0.0, norm: 0.0 };
    let mut residues = vec![empty; rows.count()];
    for first in (0..rows.count()).step_by(CHUNK) {
        let turned = turn.turn(rows.part(first, CHUNK));
        let step = *known.get_or_insert_with(|| step(&turned, length, range));
        let count = turned.len() / length;
        let values = &mut values[first * length..][..count * length];
        let jobs = values
            .chunks_mut(64 * length)
            .zip(residues[first..][..count].chunks_mut(64))
            .zip(turned.chunks(64 * length));
        share(jobs, |((values, residues), turned)| {
            let mut code = vec![0f32; length];
            for ((values, residue), vector) in
                values.chunks_mut(length).zip(residues).zip(turned.chunks(length))
            {
                encode_one(vector, turn, range, step, &mut code, residue);
                for (value, &coded) in values.iter_mut().zip(&code) {
                    *value = byte(coded);
                }
            }
        });
    }
    Codes { values, residues, step: known.unwrap_or_default(), length }
}

/// Hands `jobs` out to libtorch's threads, each to whichever is free.
pub fn share<J: Send>(jobs: impl Iterator<Item = J> + Send, work: impl Fn(J) + Sync) {
    let jobs = std::sync::Mutex::new(jobs);
    let threads = usize::try_from(tch::get_num_threads()).unwrap_or(1).max(1);
    parallel_for(threads, 1, |range| {
        for _ in range {
            // A poisoned queue cannot be met: a panicking thread ends the program.
            while let Some(job) = jobs.lock().ok().and_then(|mut jobs| jobs.next()) {
                work(job);
            }
        }
    });
}

/// The size of step with which one in a thousand of the `turned` vectors, each of `length` values,
/// exceeds `range`.
pub fn step(turned: &[f32], length: usize, range: Range) -> f32 {
    let mut steps: Vec<f32> = turned
        .chunks(length)
        .map(|vector| {
            let largest = vector.iter().fold(0f32, |most, value| most.max(value.abs()));
            let [a, b] = halves(vector);
            // Rounding to whole steps adds up to half a step a value.
            let longest = range.longest - 0.5 * (length as f32 / 2.0).sqrt();
            (largest / range.largest).max(a.max(b).sqrt() / longest.max(range.longest / 2.0))
        })
        .collect();
    let place = (steps.len() - 1) * 999 / 1000;
    let (_, step, _) = steps.select_nth_unstable_by(place, f32::total_cmp);
    *step
}

/// Whether float32 can compute with the inverse of a step and with products of two steps. If not
/// (identical rows, values near the ends of float32), codes are zeros and rule nothing out.
pub fn usable(step: f32) -> bool {
    (1e-12..1e12).contains(&step)
}

multiversion! {
    /// Rounds `vector` to whole steps, into `code`; what that leaves out, into `residue`.
    fn encode_one(
        vector: &[f32],
        turn: &Turn,
        range: Range,
        step: f32,
        code: &mut [f32],
        residue: &mut Residue,
    ) {
        // Added and taken off again, it rounds what is below 2²² to whole numbers: 1.5 · 2²³.
        const WHOLE: f32 = 12_582_912.0;
        // Lengths are sums in float64; a part in a million covers their rounding to float32 and more.
        const UP: f64 = 1.000_001;
        let mut shrink = if usable(step) { 1.0 / step } else { 0.0 };
        loop {
            for (coded, value) in code.iter_mut().zip(vector) {
                *coded = (value * shrink).clamp(-range.largest, range.largest) + WHOLE - WHOLE;
            }
            let [a, b] = halves(code);
            let longest = a.max(b).sqrt();
            if longest <= range.longest {
                break;
            }
            shrink *= (range.longest / longest) * 0.99;
        }
        let (vector, code) = (vector.as_chunks::<QUAD>().0, code.as_chunks::<QUAD>().0);
        let (mut errors, mut squares, mut first) = ([0f64; QUAD], [0f64; QUAD], 0);
        let mut heads = [0f64; LEVELS];
        for (level, &prefix) in turn.prefixes.iter().enumerate() {
            let quads = first..prefix / QUAD;
            first = quads.end;
            for (vector, code) in vector[quads.clone()].iter().zip(&code[quads]) {
                for lane in 0..QUAD {
                    let value = f64::from(vector[lane]);
                    let error = value - f64::from(code[lane]) * f64::from(step);
                    errors[lane] += error * error;
                    squares[lane] += value * value;
                }
            }
            heads[level] = squares.iter().sum();
            residue.error[level] = (errors.iter().sum::<f64>().sqrt() * UP) as f32;
        }
        let square = heads[LEVELS - 1];
        for level in 0..LEVELS {
            residue.tail[level] = ((square - heads[level]).max(0.0).sqrt() * UP) as f32;
        }
        residue.square = (square * (1.0 - 2.0 * turn.error) / UP).max(0.0) as f32;
        residue.norm = (square.sqrt() * (1.0 + turn.error) * UP) as f32;
    }
}
