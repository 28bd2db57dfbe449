//! Codes of vectors, 8 bits per value, with bounds on everything that they leave out.
//!
//! "Code" is product quantization's word: a vector in a few bits. A code here holds the values of a
//! rotated vector ([`PcaRotation`]) in whole steps; its [`Residue`] says, for every prefix that may be
//! looked at, how long the rounding error within it and the tail beyond it are. With these the
//! Cauchy-Schwarz inequality bounds the product of two vectors from that of their codes.

use protonce_simd::multiversion;

use super::kernel::{QUAD, halves};
use super::rotation::{LEVELS, PcaRotation};

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

/// Some of the places of [`Codes`], to be filled in.
pub struct Places<'a, T> {
    values: &'a mut [T],
    residues: &'a mut [Residue],
    length: usize,
    step: f32,
}

impl<T: Copy + Default> Codes<T> {
    /// Places for the codes of `count` vectors of `length` values.
    pub fn empty(count: usize, length: usize, step: f32) -> Codes<T> {
        let empty = Residue { error: [0.0; LEVELS], tail: [0.0; LEVELS], square: 0.0, norm: 0.0 };
        let (values, residues) = (vec![T::default(); count * length], vec![empty; count]);
        Codes { values, residues, step, length }
    }

    /// All places, `count` at a time.
    pub fn places(&mut self, count: usize) -> impl Iterator<Item = Places<'_, T>> {
        let (length, step) = (self.length, self.step);
        let residues = self.residues.chunks_mut(count);
        let places = self.values.chunks_mut(count * length).zip(residues);
        places.map(move |(values, residues)| Places { values, residues, length, step })
    }

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

impl<T> Places<'_, T> {
    /// Codes `rotated` vectors, one per place; those that exceed `range` are coded shortened, which
    /// their residues tell. `byte` is how a value is stored, `code` is scratch memory.
    pub fn fill(
        self,
        rotated: &[f32],
        rotation: &PcaRotation,
        range: Range,
        byte: impl Fn(f32) -> T,
        code: &mut Vec<f32>,
    ) {
        code.resize(self.length, 0.0);
        let vectors = rotated.chunks(self.length).zip(self.residues);
        for (values, (vector, residue)) in self.values.chunks_mut(self.length).zip(vectors) {
            encode(vector, rotation, range, self.step, code, residue);
            for (value, &coded) in values.iter_mut().zip(code.iter()) {
                *value = byte(coded);
            }
        }
    }
}

/// The size of step with which one in a thousand of the `rotated` vectors, each of `length` values,
/// exceeds `range`.
pub fn step(rotated: &[f32], length: usize, range: Range) -> f32 {
    let mut steps: Vec<f32> = rotated
        .chunks(length)
        .map(|vector| {
            let largest = vector.iter().fold(0f32, |most, value| most.max(value.abs()));
            let [a, b] = halves(vector);
            // Rounding to whole steps adds up to half a step per value.
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
    fn encode(
        vector: &[f32],
        rotation: &PcaRotation,
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
        for (level, &prefix) in rotation.prefixes.iter().enumerate() {
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
        residue.square = (square * (1.0 - 2.0 * rotation.error) / UP).max(0.0) as f32;
        residue.norm = (square.sqrt() * (1.0 + rotation.error) * UP) as f32;
    }
}
