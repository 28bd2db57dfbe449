//! The gradient of the filters: pixels and the output's gradient in, the gradient of each tap out.
//!
//! A thread transforms a block of tiles of both to the 36 positions and adds up their products there;
//! the sums over all tiles are transformed back to taps once, at the end.

use std::ops::Range;

use super::dispatch::fused;
use super::panel::{NOTHING, PANEL, Row, ZERO};
use super::pixels::Pixels;
use super::positions::Positions;
use super::scratch::{BLOCKS, FILTERS};
use super::tiling::{BLOCK, Grid};
use super::transforms::{POSITIONS, WINDOW, filter_gradient_transform, transform_square};
use crate::memory::Shared;
use crate::parallel::parallel_for;

/// Σ over a block's tiles of input · output gradient, for `ROWS` inputs from `FIRST` of a panel.
#[inline(always)]
fn multiply_channels<const FIRST: usize, const ROWS: usize>(
    inputs: &[Row],
    gradients: &[Row],
    sums: &mut [Row],
) {
    let mut products = [[0.0f32; PANEL]; ROWS];
    for (input, gradient) in inputs.iter().zip(gradients) {
        for row in 0..ROWS {
            for lane in 0..PANEL {
                products[row][lane] =
                    input.0[FIRST + row].mul_add(gradient.0[lane], products[row][lane]);
            }
        }
    }
    for row in 0..ROWS {
        for lane in 0..PANEL {
            sums[FIRST + row].0[lane] += products[row][lane];
        }
    }
}

/// How the gradient of the filters is shared out: `groups` of tiles, each with sums of its own, and
/// within each group `slices` of the input's panels.
#[derive(Clone, Copy)]
pub(super) struct Sharing {
    pub(super) groups: usize,
    pub(super) slices: usize,
    /// Tiles in a block.
    tiles: usize,
}

impl Sharing {
    /// Sums that all groups together may hold, in rows: 64 MiB.
    pub(super) const ROWS: usize = 1 << 20;

    pub(super) fn new(tiles: usize, inputs: usize, outputs: usize, threads: usize) -> Sharing {
        let each = inputs * outputs * POSITIONS * PANEL;
        // A group with less than a block would spend its time on its sums.
        let groups = (Self::ROWS / each).min(tiles.div_ceil(BLOCK)).clamp(1, threads);
        let slices = (threads / groups).clamp(1, inputs);
        Sharing { groups, slices, tiles: BLOCK.min(tiles.div_ceil(groups)).max(1) }
    }
}

/// Gradient of the filters: pixels [n, height, width, inputs] and [n, height, width, outputs] →
/// `weight` [outputs, 3, 3, inputs].
pub(super) fn gradient_of_filters(
    x: Pixels,
    gradient: Pixels,
    grid: &Grid,
    threads: usize,
    weight: &Shared<f32>,
) {
    let [inputs, outputs] = [x.panels(), gradient.panels()];
    let sharing = Sharing::new(grid.tiles, inputs, outputs, threads);
    let each = POSITIONS * PANEL;
    let group = inputs * outputs * each;
    FILTERS.with(|scratch| {
        scratch.with(sharing.groups * group, |sums| {
            let shared = Shared::new(sums);
            parallel_for(sharing.groups * sharing.slices, 1, |units| {
                for unit in units {
                    let [index, slice] = [unit / sharing.slices, unit % sharing.slices];
                    let panels = share(inputs, sharing.slices, slice);
                    let tiles = share(grid.tiles, sharing.groups, index);
                    let start = index * group + panels.start * outputs * each;
                    let end = index * group + panels.end * outputs * each;
                    // SAFETY: each slice of each group has its own sums, and falls to one thread.
                    let sums = unsafe { shared.slice(start..end) };
                    sum_products(x, gradient, grid, tiles, panels, sharing.tiles, sums);
                }
            });
            let sums = &*sums;
            parallel_for(inputs * outputs, 1, |blocks| {
                for block in blocks {
                    let groups: Vec<&[Row]> = sums
                        .chunks_exact(group)
                        .map(|sums| &sums[block * each..(block + 1) * each])
                        .collect();
                    let panels = [block % outputs, block / outputs];
                    let channels = [gradient.channels, x.channels];
                    transform_filter_gradients(&groups, panels, channels, weight);
                }
            });
        });
    });
}

/// Share `index` of `shares` about equal ones of 0..`whole`.
fn share(whole: usize, shares: usize, index: usize) -> Range<usize> {
    whole * index / shares..whole * (index + 1) / shares
}

/// Sets `sums`, `[panels][outputs][POSITIONS][16]` rows, to the products of all `tiles`, `step` at a
/// time.
fn sum_products(
    x: Pixels,
    gradient: Pixels,
    grid: &Grid,
    tiles: Range<usize>,
    panels: Range<usize>,
    step: usize,
    sums: &mut [Row],
) {
    sums.fill(ZERO);
    let values = POSITIONS * Positions::stride(panels.len(), step);
    let gradients = POSITIONS * Positions::stride(gradient.panels(), step);
    BLOCKS.with(|scratch| {
        scratch.with(values + gradients, |rows| {
            let (values, gradients) = rows.split_at_mut(values);
            for start in tiles.clone().step_by(step) {
                let tiles = start..(start + step).min(tiles.end);
                let panels = panels.clone();
                add_products(x, gradient, grid, tiles, panels, values, gradients, sums);
            }
        });
    });
}

fused! {
    /// Adds one block of tiles' products to `sums`, `[panels][outputs][POSITIONS][16]` rows.
    #[allow(clippy::too_many_arguments)]
    fn add_products(
        x: Pixels,
        gradient: Pixels,
        grid: &Grid,
        tiles: Range<usize>,
        panels: Range<usize>,
        values: &mut [Row],
        gradients: &mut [Row],
        sums: &mut [Row],
    ) {
        let outputs = gradient.panels();
        let mut values = Positions::new(values, panels.len(), tiles.len());
        let mut gradients = Positions::new(gradients, outputs, tiles.len());
        values.transform_input(x, grid, tiles.clone(), panels.clone());
        gradients.transform_output_gradient(gradient, grid, tiles);
        for position in 0..POSITIONS {
            for input in 0..panels.len() {
                let inputs = values.panel(position, input);
                for output in 0..outputs {
                    let gradients = gradients.panel(position, output);
                    let start = ((input * outputs + output) * POSITIONS + position) * PANEL;
                    let sums = &mut sums[start..start + PANEL];
                    multiply_channels::<0, 6>(inputs, gradients, sums);
                    multiply_channels::<6, 6>(inputs, gradients, sums);
                    multiply_channels::<12, 4>(inputs, gradients, sums);
                }
            }
        }
    }
}

fused! {
    /// Gᵀ(Σ groups)G of 16 inputs × 16 outputs, into their taps of `weight`
    /// [outputs, 3, 3, inputs].
    fn transform_filter_gradients(
        groups: &[&[Row]],
        panels: [usize; 2],
        channels: [usize; 2],
        weight: &Shared<f32>,
    ) {
        let [[output_panel, input_panel], [outputs, inputs]] = [panels, channels];
        let mut taps = [[ZERO; PANEL]; 9];
        for input in 0..PANEL {
            let mut sums = [NOTHING; POSITIONS];
            for group in groups {
                for (position, sum) in sums.iter_mut().enumerate() {
                    for output in 0..PANEL {
                        sum[output] += group[position * PANEL + input].0[output];
                    }
                }
            }
            let mut window = [[&NOTHING; WINDOW]; WINDOW];
            for (value, sum) in window.as_flattened_mut().iter_mut().zip(&sums) {
                *value = sum;
            }
            transform_square(&window, filter_gradient_transform, |line, values| {
                for (column, values) in values.iter().enumerate() {
                    for output in 0..PANEL {
                        taps[line * 3 + column][output].0[input] = values[output];
                    }
                }
            });
        }
        let within = PANEL.min(outputs - output_panel * PANEL);
        let width = PANEL.min(inputs - input_panel * PANEL);
        for output in 0..within {
            for (tap, rows) in taps.iter().enumerate() {
                let start = ((output_panel * PANEL + output) * 9 + tap) * inputs;
                let start = start + input_panel * PANEL;
                // SAFETY: each pair of panels has its own taps, falls to one thread, and the
                // caller holds the weight.
                let taps = unsafe { weight.slice(start..start + width) };
                taps.copy_from_slice(&rows[output].0[..width]);
            }
        }
    }
}
