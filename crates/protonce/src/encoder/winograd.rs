//! 3×3 convolutions of stride 1 by Winograd's minimal filtering, in float32 on a CPU.
//!
//! Lavin & Gray 2016, "Fast Algorithms for Convolutional Neural Networks"
//! (<https://arxiv.org/abs/1509.09308>): the output is cut into tiles of 4×4 pixels, each of which
//! depends on 6×6 pixels of the input. Those 36 values and the 9 of a filter are taken to 36
//! *positions*, in which the convolution is a product per position, summed over channels: 36
//! multiplications in place of 4 · 4 · 9 = 144 (F(4×4, 3×3), §4.3 there). With many tiles and
//! channels each position is a product of matrices:
//!
//! - output: Y = Aᵀ[(G w Gᵀ) ⊙ (Bᵀ d B)]A, products over input channels;
//! - gradient of the input: the same, with filters turned round and transposed;
//! - gradient of the filters: Gᵀ[(A ∂Y Aᵀ) ⊙ (Bᵀ d B)]G, products over tiles.
//!
//! A thread takes a block of tiles through all three steps while it lies in the cache. Channels are
//! handled in *panels* of 16, so that every matrix here is a sequence of [`Row`]s, one cache line
//! each. The order of every sum is fixed by the shapes and the number of threads. Rounding is about
//! 4 times that of a direct float32 convolution: 1e-6 relative.

// Matrices read best by row and column, and loops of constant length are what is unrolled.
#![allow(clippy::needless_range_loop)]

use std::cell::RefCell;
use std::ops::Range;

use tch::{Device, Kind, Tensor};

use super::autograd::parallel_for;
use super::convolution::ConvShape;
use super::memory::{Shared, elements, elements_mut};

/// `x` [n, c, h, w] convolved with `weight` [o, c, 3, 3], stride 1, padding 1: [n, o, h, w] in
/// channels-last memory. All tensors here are float32 on the CPU, in any memory layout; channels-last
/// is taken as it is, and widths of whole multiples of 16 are fastest.
pub(super) fn forward(x: &Tensor, weight: &Tensor) -> Tensor {
    let [x, weight] = [x, weight].map(channels_last);
    convolve_tensors(&x, &weight, Direction::Forward, threads())
}

/// From the gradient of the output [n, o, h, w] to that of the input, [n, c, h, w].
pub(super) fn input_gradient(gradient: &Tensor, weight: &Tensor) -> Tensor {
    let [gradient, weight] = [gradient, weight].map(channels_last);
    convolve_tensors(&gradient, &weight, Direction::Backward, threads())
}

/// From the gradient of the output [n, o, h, w] and `x` to the gradient of the weight, [o, c, 3, 3].
pub(super) fn weight_gradient(gradient: &Tensor, x: &Tensor) -> Tensor {
    let [gradient, x] = [gradient, x].map(channels_last);
    filter_gradients(&x, &gradient, threads())
}

/// Whether this computes a convolution of that shape.
pub(super) fn computes(shape: &ConvShape) -> bool {
    let ConvShape { kind, size, stride, padding, groups, .. } = *shape;
    kind == Kind::Float && [size, stride, padding, groups] == [3, 1, 1, 1]
}

/// Whether it does so faster than libtorch, as a rule.
///
/// It does where channels are many enough to hide the transforms, tiles do not mostly lie outside
/// the image, and there are enough of them to pay for transforming the filters. The bounds come from
/// measurements on AVX2 (`cargo bench -p protonce --bench winograd`). On processors with AVX-512 but
/// without bf16 units, where libtorch's own convolutions are twice as wide, it was not measured.
pub(super) fn suits(shape: &ConvShape) -> bool {
    let ConvShape { images, inputs, height, width, outputs, .. } = *shape;
    let tile = TILE as i64;
    let tiles = (height + tile - 1) / tile * ((width + tile - 1) / tile);
    computes(shape)
        && processor_suits()
        && inputs >= 32
        && outputs >= 32
        && tiles * tile * tile <= 2 * height * width
        && images * tiles >= LEAST_TILES
}

/// Tiles from which the products save clearly more than transforming the filters costs: with 32 the
/// gradient of the input at 512 channels took as long as libtorch's, with 64 three quarters of it.
const LEAST_TILES: i64 = 64;

/// The memory of [n, c, h, w] as [n, h, w, c], copied only where it is not laid out so.
fn channels_last(tensor: &Tensor) -> Tensor {
    tensor.detach().permute([0, 2, 3, 1]).contiguous()
}

/// The sizes of a tensor of four dimensions.
fn sizes(tensor: &Tensor) -> [usize; 4] {
    let sizes = tensor.size();
    std::array::from_fn(|place| usize::try_from(sizes[place]).unwrap_or(0))
}

/// A new tensor [a, b, c, d] that `fill` writes every value of, seen as [a, d, b, c].
fn filled([a, b, c, d]: [usize; 4], fill: impl FnOnce(Shared<f32>)) -> Tensor {
    let shape = [a, b, c, d].map(|size| size as i64);
    let mut tensor = Tensor::empty(shape, (Kind::Float, Device::Cpu));
    fill(Shared::new(elements_mut(&mut tensor)));
    tensor.permute([0, 3, 1, 2])
}

/// Pixels [n, h, w, c] convolved with `weight` [o, 3, 3, i] in either direction: [n, channels, h, w].
fn convolve_tensors(x: &Tensor, weight: &Tensor, direction: Direction, threads: usize) -> Tensor {
    let [images, height, width, channels] = sizes(x);
    let [outputs, _, _, inputs] = sizes(weight);
    let [from, to] = match direction {
        Direction::Forward => [inputs, outputs],
        Direction::Backward => [outputs, inputs],
    };
    assert_eq!(channels, from, "channels of the image and of the filters");
    let pixels = Pixels { values: elements(x), channels };
    let grid = Grid::new(images, height, width);
    filled([images, height, width, to], |y| {
        Filters::with(elements(weight), [outputs, inputs], direction, |filters| {
            convolve_pixels(pixels, filters, &grid, threads, &y);
        });
    })
}

/// Gradient of the filters from pixels [n, h, w, i] and [n, h, w, o]: [o, i, 3, 3].
fn filter_gradients(x: &Tensor, gradient: &Tensor, threads: usize) -> Tensor {
    let [[images, height, width, inputs], [.., outputs]] = [sizes(x), sizes(gradient)];
    let grid = Grid::new(images, height, width);
    let x = Pixels { values: elements(x), channels: inputs };
    let gradient = Pixels { values: elements(gradient), channels: outputs };
    filled([outputs, 3, 3, inputs], |weight| {
        convolve_gradients(x, gradient, &grid, threads, &weight)
    })
}

/// Channels handled together.
const PANEL: usize = 16;
/// Pixels a side of an output tile.
const TILE: usize = 4;
/// Pixels a side of what a tile depends on.
const WINDOW: usize = TILE + 2;
/// Values a tile and a filter are taken to.
const POSITIONS: usize = WINDOW * WINDOW;

/// One value for each channel of a panel: a cache line.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Row([f32; PANEL]);

const ZERO: Row = Row([0.0; PANEL]);

/// Bᵀd: 6 pixels to 6 positions.
#[inline(always)]
fn input_transform(d: [f32; 6]) -> [f32; 6] {
    let [p, q] = [d[2].mul_add(-4.0, d[4]), d[1].mul_add(-4.0, d[3])];
    let [r, s] = [d[4] - d[2], (d[3] - d[1]) * 2.0];
    [
        d[0].mul_add(4.0, d[2].mul_add(-5.0, d[4])),
        p + q,
        p - q,
        r + s,
        r - s,
        d[1].mul_add(4.0, d[3].mul_add(-5.0, d[5])),
    ]
}

/// Aᵀm: 6 positions to 4 pixels.
#[inline(always)]
fn output_transform(m: [f32; 6]) -> [f32; 4] {
    let [p, q] = [m[1] + m[2], m[1] - m[2]];
    let [r, s] = [m[3] + m[4], m[3] - m[4]];
    [m[0] + (p + r), s.mul_add(2.0, q), r.mul_add(4.0, p), s.mul_add(8.0, q) + m[5]]
}

/// A∂y: 4 pixels to 6 positions.
#[inline(always)]
fn output_gradient_transform(y: [f32; 4]) -> [f32; 6] {
    let [even, odd] = [y[0] + y[2], y[1] + y[3]];
    let [even2, odd2] = [y[2].mul_add(4.0, y[0]), y[3].mul_add(8.0, y[1] * 2.0)];
    [y[0], even + odd, even - odd, even2 + odd2, even2 - odd2, y[3]]
}

/// Gw: 3 taps to 6 positions.
#[inline(always)]
fn filter_transform(w: [f32; 3]) -> [f32; 6] {
    let [ends, middle] = [(w[0] + w[2]) * (-1.0 / 6.0), w[1] * (1.0 / 6.0)];
    let [ends2, middle2] = [w[0].mul_add(1.0 / 24.0, w[2] * (1.0 / 6.0)), w[1] * (1.0 / 12.0)];
    [w[0] * 0.25, ends - middle, ends + middle, ends2 + middle2, ends2 - middle2, w[2]]
}

/// Gᵀu: 6 positions to 3 taps.
#[inline(always)]
fn filter_gradient_transform(u: [f32; 6]) -> [f32; 3] {
    let [sum, difference] = [(u[1] + u[2]) * (-1.0 / 6.0), u[2] - u[1]];
    let [sum2, difference2] = [u[3] + u[4], u[3] - u[4]];
    [
        u[0].mul_add(0.25, sum2.mul_add(1.0 / 24.0, sum)),
        difference.mul_add(1.0 / 6.0, difference2 * (1.0 / 12.0)),
        sum2.mul_add(1.0 / 6.0, sum + u[5]),
    ]
}

/// `transform` along one line, for all channels of a panel.
#[inline(always)]
fn one_way<const FROM: usize, const TO: usize>(
    line: [&[f32; PANEL]; FROM],
    transform: impl Fn([f32; FROM]) -> [f32; TO],
) -> [[f32; PANEL]; TO] {
    let mut result = [[0.0; PANEL]; TO];
    // The loop over channels is what becomes vector instructions.
    for channel in 0..PANEL {
        let mut values = [0.0; FROM];
        for place in 0..FROM {
            values[place] = line[place][channel];
        }
        let values = transform(values);
        for place in 0..TO {
            result[place][channel] = values[place];
        }
    }
    result
}

/// `transform` along the columns, then along the rows, each of which `put` is given.
#[inline(always)]
fn both_ways<const FROM: usize, const TO: usize>(
    values: &[[&[f32; PANEL]; FROM]; FROM],
    transform: impl Fn([f32; FROM]) -> [f32; TO] + Copy,
    mut put: impl FnMut(usize, &[[f32; PANEL]; TO]),
) {
    let mut half = [[[0.0; PANEL]; FROM]; TO];
    for column in 0..FROM {
        let mut line = [values[0][column]; FROM];
        for row in 0..FROM {
            line[row] = values[row][column];
        }
        let line = one_way(line, transform);
        for row in 0..TO {
            half[row][column] = line[row];
        }
    }
    for row in 0..TO {
        let mut line = [&half[row][0]; FROM];
        for column in 0..FROM {
            line[column] = &half[row][column];
        }
        put(row, &one_way(line, transform));
    }
}

/// Defines a function that is also compiled for AVX2 with fused multiplication, and picks at run
/// time. What it calls must be `#[inline(always)]` to be compiled with it.
macro_rules! fused {
    ($(#[$attribute:meta])* fn $name:ident($($argument:ident: $type:ty),* $(,)?) $body:block) => {
        $(#[$attribute])*
        fn $name($($argument: $type),*) {
            #[inline(always)]
            fn plain($($argument: $type),*) $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($argument: $type),*) {
                    plain($($argument),*);
                }
                if processor_suits() {
                    // SAFETY: `avx2` asks for nothing but the features just found.
                    return unsafe { avx2($($argument),*) };
                }
            }
            plain($($argument),*);
        }
    };
}

/// Whether the processor has what this was written for. Elsewhere it computes the same, slowly.
fn processor_suits() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// A batch's images cut into tiles, numbered along rows, then down, then by image.
#[derive(Clone, Copy)]
struct Grid {
    height: usize,
    width: usize,
    rows: usize,
    columns: usize,
    tiles: usize,
}

/// A pixel that padding stands for.
const OUTSIDE: usize = usize::MAX;

impl Grid {
    fn new(images: usize, height: usize, width: usize) -> Grid {
        let [rows, columns] = [height.div_ceil(TILE), width.div_ceil(TILE)];
        Grid { height, width, rows, columns, tiles: images * rows * columns }
    }

    /// The pixels from `margin` above and left of a tile, `SIDE` × `SIDE` of them, counted through
    /// the batch; [`OUTSIDE`] where there is none.
    #[inline(always)]
    fn pixels<const SIDE: usize>(&self, tile: usize, margin: usize) -> [[usize; SIDE]; SIDE] {
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

/// What lies outside an image.
static NOTHING: [f32; PANEL] = [0.0; PANEL];

/// The first values of `values`, or zeros where they are fewer.
#[inline(always)]
fn row(values: &[f32]) -> &[f32; PANEL] {
    values.first_chunk().unwrap_or(&NOTHING)
}

/// The pixels of a batch: [batch · height · width, channels].
#[derive(Clone, Copy)]
struct Pixels<'a> {
    values: &'a [f32],
    channels: usize,
}

impl<'a> Pixels<'a> {
    /// The channels of one panel at each of `pixels`; zeros outside the image. Where the panel has
    /// fewer than 16 channels, they lie in `padded`, with zeros after them.
    #[inline(always)]
    fn window<'b, const SIDE: usize>(
        &self,
        pixels: &[[usize; SIDE]; SIDE],
        panel: usize,
        padded: &'b mut [[[f32; PANEL]; SIDE]; SIDE],
    ) -> [[&'b [f32; PANEL]; SIDE]; SIDE]
    where
        'a: 'b,
    {
        let mut window = [[&NOTHING; SIDE]; SIDE];
        let first = panel * PANEL;
        if first + PANEL > self.channels {
            self.pad(pixels, first, padded);
            for i in 0..SIDE {
                for j in 0..SIDE {
                    window[i][j] = &padded[i][j];
                }
            }
            return window;
        }
        for i in 0..SIDE {
            for j in 0..SIDE {
                if pixels[i][j] != OUTSIDE {
                    let start = pixels[i][j] * self.channels + first;
                    window[i][j] = row(&self.values[start..start + PANEL]);
                }
            }
        }
        window
    }

    #[inline(never)]
    fn pad<const SIDE: usize>(
        &self,
        pixels: &[[usize; SIDE]; SIDE],
        first: usize,
        padded: &mut [[[f32; PANEL]; SIDE]; SIDE],
    ) {
        *padded = [[NOTHING; SIDE]; SIDE];
        for (pixel, place) in pixels.as_flattened().iter().zip(padded.as_flattened_mut()) {
            if *pixel != OUTSIDE {
                let start = pixel * self.channels;
                let rest = &self.values[start + first..start + self.channels];
                place[..rest.len()].copy_from_slice(rest);
            }
        }
    }

    fn panels(&self) -> usize {
        self.channels.div_ceil(PANEL)
    }
}

/// Values of a block of tiles at every position, `[POSITIONS][panels][tiles]` rows.
struct Positions<'a> {
    rows: &'a mut [Row],
    tiles: usize,
    stride: usize,
}

impl<'a> Positions<'a> {
    /// Rows from one position to the next: one more than needed, so that the 36 places a tile's
    /// values go to do not fall on the same few lines of the cache.
    fn stride(panels: usize, tiles: usize) -> usize {
        panels * tiles + 1
    }

    fn new(rows: &'a mut [Row], panels: usize, tiles: usize) -> Positions<'a> {
        Positions { rows, tiles, stride: Self::stride(panels, tiles) }
    }

    /// The rows of all tiles in one panel at one position.
    #[inline(always)]
    fn panel(&self, position: usize, panel: usize) -> &[Row] {
        let start = position * self.stride + panel * self.tiles;
        &self.rows[start..start + self.tiles]
    }

    #[inline(always)]
    fn panel_mut(&mut self, position: usize, panel: usize) -> &mut [Row] {
        let start = position * self.stride + panel * self.tiles;
        &mut self.rows[start..start + self.tiles]
    }

    /// Puts one row of a tile's positions.
    #[inline(always)]
    fn put(&mut self, panel: usize, tile: usize, row: usize, values: &[[f32; PANEL]; WINDOW]) {
        let mut place = panel * self.tiles + tile + row * WINDOW * self.stride;
        for value in values {
            self.rows[place].0 = *value;
            place += self.stride;
        }
    }

    /// One tile's values at all positions.
    #[inline(always)]
    fn window(&self, panel: usize, tile: usize) -> [[&[f32; PANEL]; WINDOW]; WINDOW] {
        let mut window = [[&NOTHING; WINDOW]; WINDOW];
        let mut place = panel * self.tiles + tile;
        for line in &mut window {
            for value in line {
                *value = &self.rows[place].0;
                place += self.stride;
            }
        }
        window
    }

    /// BᵀdB of `tiles`, for the channels in `panels`.
    #[inline(always)]
    fn transform_input(
        &mut self,
        x: Pixels,
        grid: &Grid,
        tiles: Range<usize>,
        panels: Range<usize>,
    ) {
        let mut padded = [[NOTHING; WINDOW]; WINDOW];
        for (place, tile) in tiles.enumerate() {
            let pixels = grid.pixels(tile, 1);
            for (panel, channels) in panels.clone().enumerate() {
                let window = x.window(&pixels, channels, &mut padded);
                both_ways(&window, input_transform, |row, line| self.put(panel, place, row, line));
            }
        }
    }

    /// A∂YAᵀ of `tiles`, for all channels.
    #[inline(always)]
    fn transform_output_gradient(&mut self, gradient: Pixels, grid: &Grid, tiles: Range<usize>) {
        let mut padded = [[NOTHING; TILE]; TILE];
        for (place, tile) in tiles.enumerate() {
            let pixels = grid.pixels(tile, 0);
            for panel in 0..gradient.panels() {
                let window = gradient.window(&pixels, panel, &mut padded);
                both_ways(&window, output_gradient_transform, |row, line| {
                    self.put(panel, place, row, line);
                });
            }
        }
    }
}

/// What a thread keeps from one call to the next. An allocation for each call would fall into the
/// gaps between activations and leave no room there for the next of those.
#[derive(Default)]
struct Kept(RefCell<Vec<Row>>);

thread_local! {
    /// One block's values at all positions.
    static BLOCKS: Kept = Kept::default();
    /// Filters at all positions, or sums of their gradients, of the thread that shares out a pass.
    static FILTERS: Kept = Kept::default();
}

impl Kept {
    /// Runs `body` on `rows` rows, whose values are whatever was left there.
    fn with<T>(&self, rows: usize, body: impl FnOnce(&mut [Row]) -> T) -> T {
        let mut kept = self.0.borrow_mut();
        if kept.len() < rows {
            // Made anew rather than grown: nothing in it is worth copying.
            *kept = Vec::new();
            kept.resize(rows, ZERO);
        }
        body(&mut kept[..rows])
    }
}

/// Filters at every position, ready to be multiplied by: `[outputs / 16][POSITIONS][inputs]` rows
/// of 16 outputs, both rounded up to whole panels.
struct Filters<'a> {
    rows: &'a [Row],
    inputs: usize,
    outputs: usize,
}

/// Which convolution filters are wanted for.
#[derive(Clone, Copy, PartialEq)]
enum Direction {
    /// From input to output.
    Forward,
    /// From the output's gradient to the input's: taps turned round, inputs and outputs swapped.
    Backward,
}

impl Filters<'_> {
    fn stride(inputs: usize) -> usize {
        inputs.next_multiple_of(PANEL) + 1
    }

    /// Runs `body` with the filters of `weight` [outputs, 3, 3, inputs].
    fn with(
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
        FILTERS.with(|kept| {
            kept.with(panels * each, |rows| {
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
    fn block(&self, position: usize, output: usize, input: usize) -> &[Row] {
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
                both_ways(&window, filter_transform, |line, values| {
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

/// How a pass is cut into blocks that fit the cache.
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

/// Tiles in a block: few enough that a block stays in the cache, enough that fetching the filters
/// for it pays.
const BLOCK: usize = 48;

/// Threads that libtorch computes with.
fn threads() -> usize {
    usize::try_from(tch::get_num_threads()).unwrap_or(1).max(1)
}

/// `x` convolved with `filters`: pixels [n, height, width, inputs] → `y` [n, height, width, outputs].
fn convolve_pixels(x: Pixels, filters: &Filters, grid: &Grid, threads: usize, y: &Shared<f32>) {
    let output_panels = filters.outputs.div_ceil(PANEL);
    let blocking = Blocking::new(grid.tiles, output_panels, threads);
    let inputs = POSITIONS * Positions::stride(x.panels(), blocking.tiles);
    let products = POSITIONS * Positions::stride(blocking.outputs, blocking.tiles);
    parallel_for(grid.tiles.div_ceil(blocking.tiles), 1, |blocks| {
        BLOCKS.with(|kept| {
            kept.with(inputs + products, |scratch| {
                let (values, sums) = scratch.split_at_mut(inputs);
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
                            let places = &mut products.panel_mut(position, panel)[first..];
                            for (place, sum) in places.iter_mut().zip(sums) {
                                place.0 = *sum;
                            }
                        });
                    }
                }
            }
            for (place, tile) in tiles.clone().enumerate() {
                let pixels = grid.pixels::<4>(tile, 0);
                for (panel, output) in chunk.clone().enumerate() {
                    let first = output * PANEL;
                    let width = PANEL.min(filters.outputs - first);
                    let window = products.window(panel, place);
                    both_ways(&window, output_transform, |row, line| {
                        for (pixel, values) in pixels[row].iter().zip(line) {
                            if *pixel == OUTSIDE {
                                continue;
                            }
                            let start = pixel * filters.outputs + first;
                            // SAFETY: a pixel belongs to one tile, a tile to one thread, and the
                            // caller holds the pixels.
                            let place = unsafe { y.slice(start..start + width) };
                            match place.first_chunk_mut() {
                                Some(place) => *place = *values,
                                None => place.copy_from_slice(&values[..width]),
                            }
                        }
                    });
                }
            }
        }
    }
}

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
struct Sharing {
    groups: usize,
    slices: usize,
    /// Tiles in a block.
    tiles: usize,
}

impl Sharing {
    /// Sums that all groups together may hold, in rows: 64 MiB.
    const ROWS: usize = 1 << 20;

    fn new(tiles: usize, inputs: usize, outputs: usize, threads: usize) -> Sharing {
        let each = inputs * outputs * POSITIONS * PANEL;
        // A group with less than a block would spend its time on its sums.
        let groups = (Self::ROWS / each).min(tiles.div_ceil(BLOCK)).clamp(1, threads);
        let slices = (threads / groups).clamp(1, inputs);
        Sharing { groups, slices, tiles: BLOCK.min(tiles.div_ceil(groups)).max(1) }
    }
}

/// Gradient of the filters: pixels [n, height, width, inputs] and [n, height, width, outputs] →
/// `weight` [outputs, 3, 3, inputs].
fn convolve_gradients(
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
    FILTERS.with(|kept| {
        kept.with(sharing.groups * group, |sums| {
            let shared = Shared::new(sums);
            parallel_for(sharing.groups * sharing.slices, 1, |units| {
                for unit in units {
                    let [index, slice] = [unit / sharing.slices, unit % sharing.slices];
                    let panels = part(inputs, sharing.slices, slice);
                    let tiles = part(grid.tiles, sharing.groups, index);
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

/// Part `index` of `parts` about equal ones of 0..`whole`.
fn part(whole: usize, parts: usize, index: usize) -> Range<usize> {
    whole * index / parts..whole * (index + 1) / parts
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
    BLOCKS.with(|kept| {
        kept.with(values + gradients, |scratch| {
            let (values, gradients) = scratch.split_at_mut(values);
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
    /// Gᵀ(Σ groups)G of 16 inputs × 16 outputs, into their places of `weight`
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
            for (place, sum) in window.as_flattened_mut().iter_mut().zip(&sums) {
                *place = sum;
            }
            both_ways(&window, filter_gradient_transform, |line, values| {
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
                let place = unsafe { weight.slice(start..start + width) };
                place.copy_from_slice(&rows[output].0[..width]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    const OPTIONS: (Kind, Device) = (Kind::Float, Device::Cpu);

    /// Normal values from `seed`, in channels-last memory or not.
    fn normal(shape: [i64; 4], seed: u64, channels_last: bool) -> Tensor {
        let random = ChaCha8Rng::seed_from_u64(seed);
        let count = shape.iter().product::<i64>() as usize;
        let values: Vec<f32> = random.sample_iter(rand_distr::StandardNormal).take(count).collect();
        let [a, b, c, d] = shape;
        let values = Tensor::from_slice(&values);
        match channels_last {
            true => values.view([a, c, d, b]).permute([0, 3, 1, 2]),
            false => values.view([a, b, c, d]),
        }
    }

    /// Output and both gradients of Σ output · `gradient`.
    fn three_passes(x: &Tensor, weight: &Tensor, gradient: &Tensor) -> [Tensor; 3] {
        [forward(x, weight), input_gradient(gradient, weight), weight_gradient(gradient, x)]
    }

    /// The same by libtorch, in the precision of `x`.
    fn by_libtorch(x: &Tensor, weight: &Tensor, gradient: &Tensor) -> [Tensor; 3] {
        let [x, weight] = [x, weight].map(|tensor| tensor.detach().set_requires_grad(true));
        let output = x.conv2d(&weight, None::<&Tensor>, [1, 1], [1, 1], [1, 1], 1);
        let loss = (&output * gradient).sum(x.kind());
        let gradients = Tensor::run_backward(&[&loss], &[&x, &weight], false, false);
        [output.detach(), gradients[0].shallow_clone(), gradients[1].shallow_clone()]
    }

    fn relative_error(found: &Tensor, expected: &Tensor) -> f64 {
        assert_eq!(found.size(), expected.size());
        let difference = found.to_kind(Kind::Double) - expected;
        difference.norm().double_value(&[]) / expected.norm().double_value(&[])
    }

    /// Compares all three passes with libtorch's in float64.
    fn check([images, inputs, outputs, height, width]: [i64; 5], seed: u64, channels_last: bool) {
        let shape = [images, inputs, outputs, height, width];
        let x = normal([images, inputs, height, width], seed, channels_last);
        let weight = normal([outputs, inputs, 3, 3], seed + 1, channels_last);
        let gradient = normal([images, outputs, height, width], seed + 2, channels_last);
        let found = three_passes(&x, &weight, &gradient);
        let [x, weight, gradient] =
            [x, weight, gradient].map(|tensor| tensor.to_kind(Kind::Double));
        let expected = by_libtorch(&x, &weight, &gradient);
        for (pass, (found, expected)) in ["output", "gradient of input", "gradient of filters"]
            .iter()
            .zip(found.iter().zip(&expected))
        {
            let error = relative_error(found, expected);
            assert!(error <= 1e-5, "{pass} of {shape:?}: relative error {error:e}");
        }
    }

    #[test]
    fn all_passes_agree_with_float64() {
        for (inputs, outputs) in [(3, 64), (32, 32), (64, 64), (100, 36), (512, 512)] {
            for (height, width) in [(1, 1), (4, 4), (5, 7), (8, 8), (16, 16), (32, 32)] {
                let images = if inputs == 512 { 1 } else { 3 };
                check([images, inputs, outputs, height, width], 5, true);
            }
        }
    }

    #[test]
    fn any_shape_and_layout_agrees_with_float64() {
        let mut random = ChaCha8Rng::seed_from_u64(11);
        for seed in 0..60 {
            let shape = [
                random.random_range(1..=5),
                random.random_range(1..=70),
                random.random_range(1..=70),
                random.random_range(1..=19),
                random.random_range(1..=19),
            ];
            check(shape, seed, random.random());
        }
    }

    #[test]
    fn repeated_passes_have_equal_bits() {
        let x = normal([9, 48, 13, 10], 1, true);
        let weight = normal([80, 48, 3, 3], 2, true);
        let gradient = normal([9, 80, 13, 10], 3, true);
        let first = three_passes(&x, &weight, &gradient);
        for _ in 0..3 {
            assert_eq!(three_passes(&x, &weight, &gradient), first);
        }
    }

    #[test]
    fn any_number_of_threads_gives_the_same_output_and_close_filter_gradients() {
        let x = channels_last(&normal([9, 48, 13, 10], 1, true));
        let weight = channels_last(&normal([80, 48, 3, 3], 2, true));
        let gradient = channels_last(&normal([9, 80, 13, 10], 3, true));
        let output = convolve_tensors(&x, &weight, Direction::Forward, 1);
        let filters = filter_gradients(&x, &gradient, 1).to_kind(Kind::Double);
        for threads in [2, 3, 7, 64] {
            assert_eq!(convolve_tensors(&x, &weight, Direction::Forward, threads), output);
            let found = filter_gradients(&x, &gradient, threads);
            assert!(relative_error(&found, &filters) <= 1e-5);
        }
    }

    #[test]
    fn sums_of_the_filter_gradient_are_shared_out_within_their_bound() {
        for threads in [1, 2, 3, 16, 100] {
            for (tiles, panels) in [(1, 1), (16384, 4), (4096, 8), (1024, 16), (256, 32)] {
                let sharing = Sharing::new(tiles, panels, panels, threads);
                assert!(sharing.groups * sharing.slices <= threads);
                let sums = sharing.groups * panels * panels * POSITIONS * PANEL;
                assert!(sharing.groups == 1 || sums <= Sharing::ROWS);
            }
        }
        let sharing = Sharing::new(256, 32, 32, 16);
        assert_eq!([sharing.groups, sharing.slices], [1, 16]);
    }

    #[test]
    fn an_empty_batch_has_an_empty_output_and_no_gradient() {
        let x = Tensor::zeros([0, 32, 8, 8], OPTIONS);
        let weight = normal([32, 32, 3, 3], 1, true);
        let gradient = Tensor::zeros([0, 32, 8, 8], OPTIONS);
        let [output, _, filters] = three_passes(&x, &weight, &gradient);
        assert_eq!(output.size(), [0, 32, 8, 8]);
        assert_eq!(filters, Tensor::zeros([32, 32, 3, 3], OPTIONS));
    }

    #[test]
    fn only_plain_float32_convolutions_of_many_channels_are_taken() {
        let shape = ConvShape {
            kind: Kind::Float,
            images: 16,
            inputs: 32,
            height: 8,
            width: 8,
            outputs: 32,
            size: 3,
            stride: 1,
            padding: 1,
            groups: 1,
        };
        assert_eq!(suits(&shape), processor_suits());
        for other in [
            ConvShape { images: 15, ..shape },
            ConvShape { stride: 2, ..shape },
            ConvShape { padding: 0, ..shape },
            ConvShape { groups: 2, ..shape },
            ConvShape { size: 1, padding: 0, ..shape },
            ConvShape { kind: Kind::BFloat16, ..shape },
            ConvShape { height: 1, width: 64, ..shape },
            ConvShape { inputs: 16, ..shape },
        ] {
            assert!(!suits(&other), "{other:?}");
        }
    }
}
