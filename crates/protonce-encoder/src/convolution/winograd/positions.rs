//! A block of tiles at the 36 positions: transformed pixels in, the matrices that are multiplied out; or
//! products in, the values of one tile out.

use std::ops::Range;

use super::panel::{NOTHING, PANEL, Row};
use super::pixels::Pixels;
use super::tiling::Grid;
use super::transforms::{
    TILE, WINDOW, input_transform, output_gradient_transform, transform_square,
};

/// Values of a block of tiles at every position, `[POSITIONS][panels][tiles]` rows.
pub(super) struct Positions<'a> {
    rows: &'a mut [Row],
    tiles: usize,
    stride: usize,
}

impl<'a> Positions<'a> {
    /// Rows from one position to the next: one more than needed, so that the 36 rows that hold a tile's
    /// values do not fall on the same few lines of the cache.
    #[inline(always)]
    pub(super) fn stride(panels: usize, tiles: usize) -> usize {
        panels * tiles + 1
    }

    #[inline(always)]
    pub(super) fn new(rows: &'a mut [Row], panels: usize, tiles: usize) -> Positions<'a> {
        Positions { rows, tiles, stride: Self::stride(panels, tiles) }
    }

    /// The rows of all tiles in one panel at one position.
    #[inline(always)]
    pub(super) fn panel(&self, position: usize, panel: usize) -> &[Row] {
        let start = position * self.stride + panel * self.tiles;
        &self.rows[start..start + self.tiles]
    }

    #[inline(always)]
    pub(super) fn panel_mut(&mut self, position: usize, panel: usize) -> &mut [Row] {
        let start = position * self.stride + panel * self.tiles;
        &mut self.rows[start..start + self.tiles]
    }

    /// Puts one row of a tile's positions.
    #[inline(always)]
    pub(super) fn put(
        &mut self,
        panel: usize,
        tile: usize,
        row: usize,
        values: &[[f32; PANEL]; WINDOW],
    ) {
        let mut index = panel * self.tiles + tile + row * WINDOW * self.stride;
        for value in values {
            self.rows[index].0 = *value;
            index += self.stride;
        }
    }

    /// One tile's values at all positions.
    #[inline(always)]
    pub(super) fn window(&self, panel: usize, tile: usize) -> [[&[f32; PANEL]; WINDOW]; WINDOW] {
        let mut window = [[&NOTHING; WINDOW]; WINDOW];
        let mut index = panel * self.tiles + tile;
        for line in &mut window {
            for value in line {
                *value = &self.rows[index].0;
                index += self.stride;
            }
        }
        window
    }

    /// BᵀdB of `tiles`, for the channels in `panels`.
    #[inline(always)]
    pub(super) fn transform_input(
        &mut self,
        x: Pixels,
        grid: &Grid,
        tiles: Range<usize>,
        panels: Range<usize>,
    ) {
        let mut padded = [[NOTHING; WINDOW]; WINDOW];
        for (number, tile) in tiles.enumerate() {
            let pixels = grid.pixels(tile, 1);
            for (panel, channels) in panels.clone().enumerate() {
                let window = x.window(&pixels, channels, &mut padded);
                transform_square(&window, input_transform, |row, line| {
                    self.put(panel, number, row, line)
                });
            }
        }
    }

    /// A∂YAᵀ of `tiles`, for all channels.
    #[inline(always)]
    pub(super) fn transform_output_gradient(
        &mut self,
        gradient: Pixels,
        grid: &Grid,
        tiles: Range<usize>,
    ) {
        let mut padded = [[NOTHING; TILE]; TILE];
        for (number, tile) in tiles.enumerate() {
            let pixels = grid.pixels(tile, 0);
            for panel in 0..gradient.panels() {
                let window = gradient.window(&pixels, panel, &mut padded);
                transform_square(&window, output_gradient_transform, |row, line| {
                    self.put(panel, number, row, line);
                });
            }
        }
    }
}
