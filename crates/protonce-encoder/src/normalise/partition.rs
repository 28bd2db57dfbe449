//! How an activation is shared out among threads and blocks: by its shape alone, so that sums come to
//! the same bits for any number of threads.

use std::iter::zip;
use std::ops::Range;
use std::sync::OnceLock;

use tch::Tensor;

use super::affine::Affine;
use crate::parallel::{ChunksMut, parallel_for};

/// How the elements of an activation [rows, channels] are shared out.
#[derive(Clone, Copy)]
pub(super) struct Partition {
    pub(super) channels: usize,
    /// Pixels (batch × height × width).
    pub(super) rows: usize,
    /// Lanes of the kernels: a multiple of the channels.
    pub(super) width: usize,
    /// Elements of a chunk, which one thread works on; a multiple of `width`.
    pub(super) chunk: usize,
    /// Elements of a block, which is summed in float32; a multiple of `width`.
    pub(super) block: usize,
}

impl Partition {
    /// Shorter rows are handled several together.
    const MIN_WIDTH: usize = 256;
    /// Rows of lanes in a block.
    const BLOCK_ROWS: usize = 32;
    /// Below this many elements a thread costs more than it saves.
    const MIN_CHUNK: usize = 1 << 14;
    /// Enough for the threads of a large machine; each has partial sums of its own.
    const MAX_CHUNKS: usize = 128;

    pub(super) fn new(rows: &Tensor) -> Partition {
        let channels = rows.size().last().map_or(1, |&channels| channels as usize);
        let count = rows.numel();
        let width = channels * Self::MIN_WIDTH.div_ceil(channels);
        let chunk = count.div_ceil(Self::MAX_CHUNKS).max(Self::MIN_CHUNK);
        Partition {
            channels,
            rows: count / channels,
            width,
            chunk: chunk.next_multiple_of(width),
            block: Self::BLOCK_ROWS * width,
        }
    }

    fn count(&self) -> usize {
        self.rows * self.channels
    }

    /// Calls `body` with the number and the elements of each chunk, on libtorch's threads.
    pub(super) fn for_each(&self, body: impl Fn(usize, Range<usize>) + Sync) {
        parallel_for(self.count().div_ceil(self.chunk), 1, |numbers| {
            for number in numbers {
                let start = number * self.chunk;
                body(number, start..self.count().min(start + self.chunk));
            }
        });
    }

    /// The blocks of a chunk.
    pub(super) fn blocks(&self, chunk: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        let (length, end) = (self.block, chunk.end);
        chunk.step_by(length).map(move |start| start..end.min(start + length))
    }

    /// The chunks of an output.
    pub(super) fn chunks_mut<'a, T>(&self, output: &'a mut [T]) -> ChunksMut<'a, T> {
        ChunksMut::new(output, self.chunk)
    }

    /// Two sums per channel: `body` adds those of a chunk. Chunks are added in their order.
    pub(super) fn sum(
        &self,
        body: impl Fn(Range<usize>, &mut [Vec<f64>; 2]) + Sync,
    ) -> [Vec<f64>; 2] {
        let zeros = || [vec![0.0; self.channels], vec![0.0; self.channels]];
        let chunks = self.count().div_ceil(self.chunk);
        let partial: Vec<OnceLock<[Vec<f64>; 2]>> = (0..chunks).map(|_| OnceLock::new()).collect();
        self.for_each(|number, range| {
            let mut total = zeros();
            body(range, &mut total);
            partial[number].get_or_init(|| total);
        });
        let mut total = zeros();
        for partial in partial.iter().filter_map(OnceLock::get) {
            for (total, partial) in zip(&mut total, partial) {
                for (total, partial) in zip(total, partial) {
                    *total += partial;
                }
            }
        }
        total
    }

    /// From one number per channel to one per lane.
    pub(super) fn lanes(&self, channels: &[f32]) -> Vec<f32> {
        channels.repeat(self.width / self.channels)
    }

    /// From a map per channel to one per lane.
    pub(super) fn affine_lanes(&self, affine: &Affine) -> Affine {
        Affine {
            centre: self.lanes(&affine.centre),
            scale: self.lanes(&affine.scale),
            offset: self.lanes(&affine.offset),
        }
    }
}
