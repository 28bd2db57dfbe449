//! A batch's images cut into tiles of 4×4 pixels: from the number of a tile to the pixels that it
//! covers or depends on.

use super::transforms::TILE;

/// The tiles of a batch, numbered along rows, then down, then by image.
#[derive(Clone, Copy)]
pub(super) struct Grid {
    height: usize,
    width: usize,
    rows: usize,
    columns: usize,
    pub(super) tiles: usize,
}

/// Stands for a pixel of the padding.
pub(super) const OUTSIDE: usize = usize::MAX;

impl Grid {
    pub(super) fn new(images: usize, height: usize, width: usize) -> Grid {
        let [rows, columns] = [height.div_ceil(TILE), width.div_ceil(TILE)];
        Grid { height, width, rows, columns, tiles: images * rows * columns }
    }

    /// The pixels from `margin` above and left of a tile, `SIDE` × `SIDE` of them, counted through
    /// the batch; [`OUTSIDE`] where there is none.
    #[inline(always)]
    pub(super) fn pixels<const SIDE: usize>(
        &self,
        tile: usize,
        margin: usize,
    ) -> [[usize; SIDE]; SIDE] {
        let [row, column] = [tile / self.columns, tile % self.columns];
        let [image, row] = [row / self.rows, row % self.rows];
        let mut pixels = [[OUTSIDE; SIDE]; SIDE];
        for (i, line) in pixels.iter_mut().enumerate() {
            // Wraps far past the image where it would be negative.
            let y = (row * TILE + i).wrapping_sub(margin);
            for (j, pixel) in line.iter_mut().enumerate() {
                let x = (column * TILE + j).wrapping_sub(margin);
                if y < self.height && x < self.width {
                    *pixel = (image * self.height + y) * self.width + x;
                }
            }
        }
        pixels
    }
}

/// Tiles that a thread handles together: few enough that they stay in the cache, enough that fetching
/// the filters for them pays.
pub(super) const BLOCK: usize = 48;
