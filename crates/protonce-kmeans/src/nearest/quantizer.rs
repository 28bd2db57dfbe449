//! The quantizer: vectors in, their 8-bit codes out, in steps that suit the points of a clustering.

use super::codes::{Codes, Range, step};
use super::kernel::{CENTROID_LARGEST, CENTROID_LENGTH, ROW_LARGEST, ROW_LENGTH, row_byte};
use super::rotation::PcaRotation;
use crate::matrix::Matrix;
use crate::threads::Threads;

/// Points that tell how the others lie: so many per dimension, and no more than so many in all.
const SAMPLE: [usize; 2] = [16, 8192];
/// Vectors that a thread rotates and codes at a time: what that takes stays in its cache.
const PIECE: usize = 128;
/// Centroids that tell how long a step has to be.
const FIRST: usize = 1024;

const ROW_RANGE: Range = Range { largest: ROW_LARGEST, longest: ROW_LENGTH };
const CENTROID_RANGE: Range = Range { largest: CENTROID_LARGEST, longest: CENTROID_LENGTH };

/// How the vectors of a clustering are quantized: a rotation, and the size of a step for points.
pub struct Quantizer {
    /// What vectors go through first.
    pub rotation: PcaRotation,
    /// The size of a step in the codes of points.
    pub step: f32,
}

/// Codes of points: what all starts and numbers of clusters share.
pub struct RowCodes(pub(super) Codes<u8>);

/// Points with their codes.
#[derive(Clone, Copy)]
pub struct QuantizedRows<'a> {
    /// The points.
    pub rows: Matrix<'a>,
    /// What made their codes.
    pub quantizer: &'a Quantizer,
    /// Their codes.
    pub codes: &'a RowCodes,
}

impl Quantizer {
    /// The quantizer that suits `rows`, by a sample of them.
    pub fn new(rows: Matrix, threads: &Threads) -> Quantizer {
        let sample = sample(rows);
        let rows = Matrix { values: &sample, dim: rows.dim };
        let rotation = PcaRotation::new(rows, threads);
        let step = step(&rotate(&rotation, rows, threads), rotation.length, ROW_RANGE);
        Quantizer { rotation, step }
    }

    /// The codes of points: a byte per value, and 60 per point for what the codes leave out.
    pub fn rows(&self, rows: Matrix, threads: &Threads) -> RowCodes {
        let length = self.rotation.length;
        let mut codes = Codes::empty(rows.count(), length, self.step);
        let pieces = codes.places(PIECE).enumerate();
        threads.share_with(pieces, Default::default, |scratch, (number, places)| {
            let (offsets, rotated, code): &mut (Vec<f32>, Vec<f32>, Vec<f32>) = scratch;
            let rows = rows.part(number * PIECE, PIECE);
            rotated.resize(rows.count() * length, 0.0);
            self.rotation.rotate(rows, offsets, rotated);
            places.fill(rotated, &self.rotation, ROW_RANGE, row_byte, code);
        });
        RowCodes(codes)
    }

    /// The codes of centroids, in steps that suit the first of them.
    pub fn centroids(&self, centroids: Matrix, threads: &Threads) -> Codes<i8> {
        let length = self.rotation.length;
        let rotated = rotate(&self.rotation, centroids, threads);
        let first = &rotated[..rotated.len().min(FIRST * length)];
        let mut codes =
            Codes::empty(centroids.count(), length, step(first, length, CENTROID_RANGE));
        let pieces = codes.places(PIECE).zip(rotated.chunks(PIECE * length));
        threads.share_with(pieces, Vec::new, |code, (places, rotated)| {
            places.fill(rotated, &self.rotation, CENTROID_RANGE, |value| value as i8, code);
        });
        codes
    }
}

/// `rows` rotated: [count, length].
fn rotate(rotation: &PcaRotation, rows: Matrix, threads: &Threads) -> Vec<f32> {
    let length = rotation.length;
    let mut rotated = vec![0f32; rows.count() * length];
    let pieces = rotated.chunks_mut(PIECE * length).enumerate();
    threads.share_with(pieces, Vec::new, |offsets, (number, rotated)| {
        rotation.rotate(rows.part(number * PIECE, PIECE), offsets, rotated);
    });
    rotated
}

/// The values of some of the points, evenly spread: enough to choose a rotation and a step by.
fn sample(rows: Matrix) -> Vec<f32> {
    let [per_dimension, in_all] = SAMPLE;
    let wanted = (per_dimension * rows.dim).min(in_all);
    let stride = rows.count().div_ceil(wanted).max(1);
    rows.select((0..rows.count()).step_by(stride))
}
