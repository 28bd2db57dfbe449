//! 3×3 convolutions of stride 1 by Winograd's minimal filtering, in float32 on a CPU.
//!
//! Lavin & Gray 2016, "Fast Algorithms for Convolutional Neural Networks"
//! (<https://arxiv.org/abs/1509.09308>): the output is cut into tiles of 4×4 pixels, each of which
//! depends on 6×6 pixels of the input. Those 36 values and the 9 of a filter are transformed to 36
//! *positions*, in which the convolution is a product per position, summed over channels: 36
//! multiplications in place of 4 · 4 · 9 = 144 (F(4×4, 3×3), §4.3 there). With many tiles and
//! channels each position is a product of matrices:
//!
//! - output: Y = Aᵀ[(G w Gᵀ) ⊙ (Bᵀ d B)]A, products over input channels;
//! - gradient of the input: the same, with filters rotated by 180° and transposed;
//! - gradient of the filters: Gᵀ[(A ∂Y Aᵀ) ⊙ (Bᵀ d B)]G, products over tiles.
//!
//! A thread transforms a block of tiles, multiplies it and transforms it back while it lies in the
//! cache. The order of every sum is fixed by the shapes and the number of threads. Rounding is about
//! 4 times that of a direct float32 convolution: 1e-6 relative.
//!
//! `tiling`, `panel` and `transforms` say what is computed with; `pixels`, `positions` and `filters`
//! are the operands; `output` and `filter_gradient` are the two computations.

// Matrices read best by row and column, and loops of constant length are what is unrolled.
#![allow(clippy::needless_range_loop)]

mod dispatch;
mod filter_gradient;
mod filters;
mod output;
mod panel;
mod pixels;
mod positions;
mod scratch;
mod tiling;
mod transforms;

use tch::{Device, Kind, Tensor};

use super::shape::ConvShape;
use crate::memory::{Shared, channels_last, elements, elements_mut};
use dispatch::processor_suits;
use filter_gradient::gradient_of_filters;
use filters::{Direction, Filters};
use output::convolve_pixels;
use pixels::Pixels;
use tiling::Grid;
use transforms::TILE;

/// `x` [n, c, h, w] convolved with `weight` [o, c, 3, 3], stride 1, padding 1: [n, o, h, w] in
/// channels-last memory. All tensors here are float32 on the CPU, in any memory layout; channels-last
/// is not copied, and channels in whole multiples of 16 are fastest.
pub(super) fn forward(x: &Tensor, weight: &Tensor) -> Tensor {
    let [x, weight] = [x, weight].map(|tensor| channels_last(&tensor.detach()));
    convolve_tensors(&x, &weight, Direction::Forward, threads())
}

/// From the gradient of the output [n, o, h, w] to that of the input, [n, c, h, w].
pub(super) fn input_gradient(gradient: &Tensor, weight: &Tensor) -> Tensor {
    let [gradient, weight] = [gradient, weight].map(|tensor| channels_last(&tensor.detach()));
    convolve_tensors(&gradient, &weight, Direction::Backward, threads())
}

/// From the gradient of the output [n, o, h, w] and `x` to the gradient of the weight, [o, c, 3, 3].
pub(super) fn weight_gradient(gradient: &Tensor, x: &Tensor) -> Tensor {
    let [gradient, x] = [gradient, x].map(|tensor| channels_last(&tensor.detach()));
    filter_gradients(&x, &gradient, threads())
}

/// Whether this computes a convolution of that shape.
pub(super) fn computes(shape: &ConvShape) -> bool {
    let ConvShape { kind, size, stride, padding, groups, .. } = *shape;
    kind == Kind::Float && [size, stride, padding, groups] == [3, 1, 1, 1]
}

/// Whether this is faster than libtorch, as a rule.
///
/// It is where channels are many enough to hide the transforms, tiles do not mostly lie outside
/// the image, and there are enough of them to pay for transforming the filters. The bounds come from
/// measurements on AVX2 (`cargo bench -p protonce-encoder --bench winograd`). On processors with AVX-512 but
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

/// The sizes of a tensor of four dimensions.
fn sizes(tensor: &Tensor) -> [usize; 4] {
    let sizes = tensor.size();
    std::array::from_fn(|axis| usize::try_from(sizes[axis]).unwrap_or(0))
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
        gradient_of_filters(x, gradient, &grid, threads, &weight)
    })
}

/// Threads that libtorch computes with.
fn threads() -> usize {
    usize::try_from(tch::get_num_threads()).unwrap_or(1).max(1)
}

#[cfg(test)]
mod tests;
