//! Convolutions as matrix products over unfolded pixels (im2col), in any precision on a CPU.
//!
//! The pixels that a pixel of the result depends on are laid side by side as one row of taps × channels.
//! With a row per pixel of the result, P [pixels, taps · in], a convolution is P · Wᵀ and the gradient of
//! its weight Gᵀ · P: products that libtorch computes at full speed even where images are small and
//! channels many, which its own weight gradients in bf16 are not. Rows are unfolded some MiB at a time,
//! by whole runs of taps, which lie side by side in channels-last memory already. Where a row is a pixel
//! (1×1, stride 1), nothing is copied at all, and the gradient of the input is a product too, G · W.

use std::ops::Range;

use tch::{Device, Kind, Tensor};

use super::shape::{ConvShape, Pass};
use crate::memory::{BFloat16, Element, Shared, channels_last, elements, elements_mut};
use crate::parallel::parallel_for;

/// Bytes unfolded at a time: few enough to stay in a large cache, enough rows for a product to run at
/// full speed.
const BLOCK_BYTES: i64 = 16 << 20;

/// Whether im2col computes a pass.
pub(super) fn computes(pass: Pass, shape: &ConvShape) -> bool {
    let known = matches!(shape.kind, Kind::Float | Kind::BFloat16) && shape.images > 0;
    known && shape.groups == 1 && (pass != Pass::InputGradient || shape.is_pointwise())
}

/// The result, [n, out, h', w'] in channels-last memory.
pub(super) fn forward(x: &Tensor, weight: &Tensor, shape: &ConvShape) -> Tensor {
    let [height, width] = shape.result();
    let options = (shape.kind, Device::Cpu);
    let y = Tensor::empty([shape.images, height, width, shape.outputs], options);
    let results = y.view([-1, shape.outputs]);
    let weight = matrix(weight).transpose(0, 1);
    for_unfolded(x, shape, |range, rows| {
        let _ = rows.mm_out(&narrow(&results, range), &weight);
    });
    y.permute([0, 3, 1, 2])
}

/// The gradient of the images, [n, in, h, w] in channels-last memory, of a pointwise convolution.
pub(super) fn input_gradient(gradient: &Tensor, weight: &Tensor, shape: &ConvShape) -> Tensor {
    assert!(shape.is_pointwise(), "a pixel of the result depends on several: {shape}");
    let rows = channels_last(gradient).view([-1, shape.outputs]).mm(&matrix(weight));
    let pixels = [shape.images, shape.height, shape.width, shape.inputs];
    rows.view(pixels).permute([0, 3, 1, 2])
}

/// The gradient of the weight, [out, in, size, size] in channels-last memory.
pub(super) fn weight_gradient(gradient: &Tensor, x: &Tensor, shape: &ConvShape) -> Tensor {
    let gradient = channels_last(gradient).view([-1, shape.outputs]);
    let mut sum = None::<Tensor>;
    for_unfolded(x, shape, |range, rows| {
        let gradient = narrow(&gradient, range).transpose(0, 1);
        match &mut sum {
            None => sum = Some(gradient.mm(rows)),
            Some(sum) if sum.kind() == rows.kind() && sum.kind() == Kind::Float => {
                let _ = sum.addmm_(&gradient, rows);
            }
            // bf16 would lose what is small beside the sum so far.
            Some(sum) => *sum = sum.to_kind(Kind::Float) + gradient.mm(rows),
        }
    });
    let taps = [shape.outputs, shape.size, shape.size, shape.inputs];
    let sum = sum.unwrap_or_else(|| Tensor::zeros(taps, (shape.kind, Device::Cpu)));
    sum.to_kind(shape.kind).view(taps).permute([0, 3, 1, 2])
}

/// A weight [out, in, size, size] as [out, size · size · in].
fn matrix(weight: &Tensor) -> Tensor {
    channels_last(weight).view([weight.size()[0], -1])
}

fn narrow(rows: &Tensor, range: Range<i64>) -> Tensor {
    rows.narrow(0, range.start, range.end - range.start)
}

/// Calls `body` with ranges of the result's pixels, in order, and what each depends on, unfolded:
/// [pixels, size · size · in].
fn for_unfolded(x: &Tensor, shape: &ConvShape, mut body: impl FnMut(Range<i64>, &Tensor)) {
    let x = channels_last(x);
    let [height, width] = shape.result();
    let pixels = shape.images * height * width;
    if shape.is_pointwise() {
        return body(0..pixels, &x.view([-1, shape.inputs]));
    }
    let length = shape.size * shape.size * shape.inputs;
    let size = shape.kind.elt_size_in_bytes() as i64;
    let most = (BLOCK_BYTES / (length * size)).clamp(1, pixels.max(1));
    let rows = Tensor::empty([most, length], (shape.kind, Device::Cpu));
    for start in (0..pixels).step_by(most as usize) {
        let range = start..pixels.min(start + most);
        let mut rows = rows.narrow(0, 0, range.end - range.start);
        match shape.kind {
            Kind::BFloat16 => {
                unfold::<BFloat16>(elements(&x), shape, start, elements_mut(&mut rows));
            }
            _ => unfold::<f32>(elements(&x), shape, start, elements_mut(&mut rows)),
        }
        body(range, &rows);
    }
}

/// Fills `rows` with what the result's pixels from `first` on depend on.
fn unfold<T: Element>(x: &[T], shape: &ConvShape, first: i64, rows: &mut [T]) {
    let [height, width] = shape.result();
    let channels = shape.inputs as usize;
    let length = (shape.size * shape.size) as usize * channels;
    let count = rows.len() / length;
    let shared = Shared::new(rows);
    parallel_for(count, (1 << 15) / length + 1, |range| {
        // SAFETY: each row falls to one thread, and `rows` is borrowed until all are done.
        let rows = unsafe { shared.slice(range.start * length..range.end * length) };
        for (taps, number) in rows.chunks_exact_mut(length).zip(range) {
            let pixel = first + number as i64;
            let (image, row, column) =
                (pixel / (height * width), pixel / width % height, pixel % width);
            let left = column * shape.stride - shape.padding;
            // The taps of a line that lie inside the image.
            let inside = (-left).clamp(0, shape.size)..(shape.width - left).clamp(0, shape.size);
            let [before, after] = [inside.start, inside.end].map(|tap| tap as usize * channels);
            for (line, y) in taps
                .chunks_exact_mut(shape.size as usize * channels)
                .zip(row * shape.stride - shape.padding..)
            {
                if y < 0 || y >= shape.height || after <= before {
                    line.fill(T::default());
                    continue;
                }
                let source = ((image * shape.height + y) * shape.width + left + inside.start)
                    as usize
                    * channels;
                line[..before].fill(T::default());
                line[before..after].copy_from_slice(&x[source..source + after - before]);
                line[after..].fill(T::default());
            }
        }
    });
}
