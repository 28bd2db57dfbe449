//! Filters at the 36 positions: weights in, the matrices that pixels are multiplied by out.

use super::dispatch::fused;
use super::panel::{NOTHING, PANEL, Row, ZERO};
use super::scratch::FILTERS;
use super::transforms::{POSITIONS, WINDOW, filter_transform, transform_square};
use crate::memory::Shared;
use crate::parallel::parallel_for;

/// Filters at every position: `[outputs / 16][POSITIONS][inputs]` rows of 16 outputs, both rounded up
/// to whole panels.
pub(super) struct Filters<'a> {
    rows: &'a [Row],
    pub(super) inputs: usize,
    pub(super) outputs: usize,
}

/// Which convolution filters are for.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Direction {
    /// From input to output.
    Forward,
    /// From the output's gradient to the input's: taps rotated by 180°, inputs and outputs swapped.
    Backward,
}

impl Filters<'_> {
    #[inline(always)]
    fn stride(inputs: usize) -> usize {
        inputs.next_multiple_of(PANEL) + 1
    }

    /// Runs `body` with the filters of `weight` [outputs, 3, 3, inputs].
    pub(super) fn with(
        weight: &[f32],
        [outputs, inputs]: [usize; 2],
        direction: Direction,
        body: impl FnOnce(&Filters),
    ) {
        let [from, to] = match direction {
            Direction::Forward => [inputs, outputs],
            Direction::Backward => [outputs, inputs],
        };
        let each = POSITIONS * Self::stride(from);
        let panels = to.div_ceil(PANEL);
        FILTERS.with(|scratch| {
            scratch.with(panels * each, |rows| {
                let shared = Shared::new(rows);
                parallel_for(panels, 1, |panels| {
                    for panel in panels {
                        // SAFETY: each panel has its own stretch, and falls to one thread.
                        let rows = unsafe { shared.slice(panel * each..(panel + 1) * each) };
                        transform_filters(weight, [outputs, inputs], direction, panel, rows);
                    }
                });
                body(&Filters { rows, inputs: from, outputs: to });
            });
        });
    }

    /// The filters from panel `input` to panel `output`.
    #[inline(always)]
    pub(super) fn block(&self, position: usize, output: usize, input: usize) -> &[Row] {
        let start = (output * POSITIONS + position) * Self::stride(self.inputs) + input * PANEL;
        &self.rows[start..start + PANEL]
    }
}

fused! {
    /// GwGᵀ of the filters of one panel of outputs, into all of its `rows`.
    fn transform_filters(
        weight: &[f32],
        shape: [usize; 2],
        direction: Direction,
        panel: usize,
        rows: &mut [Row],
    ) {
        let from = shape[if direction == Direction::Forward { 1 } else { 0 }];
        let stride = Filters::stride(from);
        let mut taps = [[ZERO; PANEL]; 9];
        for block in 0..from.div_ceil(PANEL) {
            match direction {
                Direction::Forward => gather(weight, shape, panel, block, &mut taps, true),
                Direction::Backward => gather(weight, shape, block, panel, &mut taps, false),
            }
            for channel in 0..PANEL {
                let mut window = [[&NOTHING; 3]; 3];
                for i in 0..3 {
                    for j in 0..3 {
                        let tap = match direction {
                            Direction::Forward => i * 3 + j,
                            Direction::Backward => 8 - (i * 3 + j),
                        };
                        window[i][j] = &taps[tap][channel].0;
                    }
                }
                transform_square(&window, filter_transform, |line, values| {
                    for (column, value) in values.iter().enumerate() {
                        let position = line * WINDOW + column;
                        rows[position * stride + block * PANEL + channel].0 = *value;
                    }
                });
            }
        }
    }
}

/// The taps from 16 inputs to 16 outputs of `weight` [outputs, 3, 3, inputs]: a row for each output,
/// or for each input where they are to be `transposed`. Zeros past the last.
#[inline(always)]
fn gather(
    weight: &[f32],
    [outputs, inputs]: [usize; 2],
    output_panel: usize,
    input_panel: usize,
    taps: &mut [[Row; PANEL]; 9],
    transposed: bool,
) {
    *taps = [[ZERO; PANEL]; 9];
    let within = PANEL.min(outputs - output_panel * PANEL);
    let width = PANEL.min(inputs - input_panel * PANEL);
    for output in 0..within {
        for (tap, rows) in taps.iter_mut().enumerate() {
            let start = ((output_panel * PANEL + output) * 9 + tap) * inputs;
            let start = start + input_panel * PANEL;
            let mut row = ZERO;
            row.0[..width].copy_from_slice(&weight[start..start + width]);
            if transposed {
                for input in 0..PANEL {
                    rows[input].0[output] = row.0[input];
                }
            } else {
                rows[output] = row;
            }
        }
    }
}
