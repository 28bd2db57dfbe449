//! The output of a convolution, or the gradient of its input: pixels and transformed filters in,
//! pixels out.
//!
//! A thread transforms a block of tiles to the 36 positions, multiplies them by the filters and
//! transforms the products back to pixels, while the block lies in the cache.

use std::ops::Range;

use super::dispatch::fused;
use super::filters::Filters;
use super::panel::{PANEL, Row};
use super::pixels::Pixels;
use super::positions::Positions;
use super::scratch::BLOCKS;
use super::tiling::{BLOCK, Grid, OUTSIDE};
use super::transforms::{POSITIONS, output_transform, transform_square};
use crate::memory::Shared;
use crate::parallel::parallel_for;

/// Tiles a product computes at a time: 6 × 16 sums fill 12 of AVX2's 16 registers.
const STEP: usize = 6;

/// Σ over input panels of values · filters for `ROWS` tiles from `first`: one register tile of one
/// position's matrix product.
#[inline(always)]
fn multiply_tiles<const ROWS: usize>(
    values: &Positions,
    filters: &Filters,
    position: usize,
    output: usize,
    first: usize,
) -> [[f32; PANEL]; ROWS] {
    let mut sums = [[0.0f32; PANEL]; ROWS];
    for input in 0..filters.inputs.div_ceil(PANEL) {
        let tiles = &values.panel(position, input)[first..first + ROWS];
        let block = filters.block(position, output, input);
        let (Some(tiles), Some(block)) =
            (tiles.first_chunk::<ROWS>(), block.first_chunk::<PANEL>())
        else {
            return sums;
        };
        for channel in 0..PANEL {
            for row in 0..ROWS {
                for lane in 0..PANEL {
                    sums[row][lane] =
                        tiles[row].0[channel].mul_add(block[channel].0[lane], sums[row][lane]);
                }
            }
        }
    }
    sums
}

/// Calls `$function::<N>` for the one N of 1..6 that `$rows` is.
macro_rules! for_rows {
    ($rows:expr, $function:ident($($argument:expr),*) => $sums:ident, $then:expr) => {
        match $rows {
            1 => { let $sums = &$function::<1>($($argument),*)[..]; $then }
            2 => { let $sums = &$function::<2>($($argument),*)[..]; $then }
            3 => { let $sums = &$function::<3>($($argument),*)[..]; $then }
            4 => { let $sums = &$function::<4>($($argument),*)[..]; $then }
            5 => { let $sums = &$function::<5>($($argument),*)[..]; $then }
            _ => { let $sums = &$function::<6>($($argument),*)[..]; $then }
        }
    };
}

/// How a pass is divided into blocks that fit the cache.
#[derive(Clone, Copy)]
struct Blocking {
    /// Tiles in a block.
    tiles: usize,
    /// Output panels multiplied before they are transformed back.
    outputs: usize,
}

impl Blocking {
    /// At most 48 tiles and 64 outputs, measured from 64@32 to 512@4 (all from 24 to 96 tiles are
    /// within a few percent); fewer where a block for each thread would not be left.
    fn new(tiles: usize, outputs: usize, threads: usize) -> Blocking {
        let share = tiles.div_ceil(threads).max(STEP);
        Blocking { tiles: BLOCK.min(share), outputs: outputs.min(4) }
    }
}

/// `x` convolved with `filters`: pixels [n, height, width, inputs] → `y` [n, height, width, outputs].
pub(super) fn convolve_pixels(
    x: Pixels,
    filters: &Filters,
    grid: &Grid,
    threads: usize,
    y: &Shared<f32>,
) {
    let output_panels = filters.outputs.div_ceil(PANEL);
    let blocking = Blocking::new(grid.tiles, output_panels, threads);
    let inputs = POSITIONS * Positions::stride(x.panels(), blocking.tiles);
    let products = POSITIONS * Positions::stride(blocking.outputs, blocking.tiles);
    parallel_for(grid.tiles.div_ceil(blocking.tiles), 1, |blocks| {
        BLOCKS.with(|scratch| {
            scratch.with(inputs + products, |rows| {
                let (values, sums) = rows.split_at_mut(inputs);
                for block in blocks {
                    let start = block * blocking.tiles;
                    let tiles = start..(start + blocking.tiles).min(grid.tiles);
                    convolve_block(x, filters, grid, tiles, blocking, values, sums, y);
                }
            });
        });
    });
}

fused! {
    /// One block of tiles: to positions, products, and back to pixels.
    #[allow(clippy::too_many_arguments)]
    fn convolve_block(
        x: Pixels,
        filters: &Filters,
        grid: &Grid,
        tiles: Range<usize>,
        blocking: Blocking,
        values: &mut [Row],
        sums: &mut [Row],
        y: &Shared<f32>,
    ) {
        let count = tiles.len();
        let mut values = Positions::new(values, x.panels(), count);
        values.transform_input(x, grid, tiles.clone(), 0..x.panels());
        let panels = filters.outputs.div_ceil(PANEL);
        for begin in (0..panels).step_by(blocking.outputs) {
            let chunk = begin..(begin + blocking.outputs).min(panels);
            let mut products = Positions::new(sums, chunk.len(), count);
            for position in 0..POSITIONS {
                for (panel, output) in chunk.clone().enumerate() {
                    for first in (0..count).step_by(STEP) {
                        let rows = STEP.min(count - first);
                        for_rows!(rows, multiply_tiles(&values, filters, position, output, first)
                            => sums, {
                            let rows = &mut products.panel_mut(position, panel)[first..];
                            for (row, sum) in rows.iter_mut().zip(sums) {
                                row.0 = *sum;
                            }
                        });
                    }
                }
            }
            for (number, tile) in tiles.clone().enumerate() {
                let pixels = grid.pixels::<4>(tile, 0);
                for (panel, output) in chunk.clone().enumerate() {
                    let first = output * PANEL;
                    let width = PANEL.min(filters.outputs - first);
                    let window = products.window(panel, number);
                    transform_square(&window, output_transform, |row, line| {
                        for (pixel, values) in pixels[row].iter().zip(line) {
                            if *pixel == OUTSIDE {
                                continue;
                            }
                            let start = pixel * filters.outputs + first;
                            // SAFETY: a pixel belongs to one tile, a tile to one thread, and the
                            // caller holds the pixels.
                            let channels = unsafe { y.slice(start..start + width) };
                            match channels.first_chunk_mut() {
                                Some(channels) => *channels = *values,
                                None => channels.copy_from_slice(&values[..width]),
                            }
                        }
                    });
                }
            }
        }
    }
}
