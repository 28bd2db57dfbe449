//! Convolutions as matrix products over patches, in any precision on a CPU.
//!
//! The pixels that a pixel of the result depends on, laid side by side, are its *patch*: a row of
//! taps × channels. With one patch a row, P [pixels, taps · in], a convolution is P · Wᵀ and the
//! gradient of its weight Gᵀ · P: products that libtorch computes at full speed even where images are
//! small and channels many, which its own weight gradients in bf16 are not. Patches are made some MiB
//! at a time, of whole runs of taps, which lie side by side in channels-last memory already. Where a
//! patch is a pixel (1×1, stride 1), nothing is copied at all, and the gradient of the input is a
//! product too, G · W.

use std::ops::Range;

use tch::{Device, Kind, Tensor};

use super::autograd::parallel_for;
use super::convolution::{ConvShape, Pass};
use super::memory::{BFloat16, Element, Shared, elements, elements_mut};

/// Bytes of patches made at a time: few enough to stay in a large cache, enough rows for a product to
/// run at full speed.
const BLOCK_BYTES: i64 = 16 << 20;

/// Whether a pass is computed here.
pub(super) fn computes(pass: Pass, shape: &ConvShape) -> bool {
    let known = matches!(shape.kind, Kind::Float | Kind::BFloat16) && shape.images > 0;
    known && shape.groups == 1 && (pass != Pass::InputGradient || shape.is_pointwise())
}

/// The result, [n, out, h', w'] in channels-last memory.
pub(super) fn forward(x: &Tensor, weight: &Tensor, shape: &ConvShape) -> Tensor {
    let [height, width] = shape.result();
    let options = (shape.kind, Device::Cpu);
    let y = Tensor::empty([shape.images, height, width, shape.outputs], options);
    let rows = y.view([-1, shape.outputs]);
    let weight = matrix(weight).transpose(0, 1);
    for_patches(x, shape, |range, patches| {
        let _ = patches.mm_out(&narrow(&rows, range), &weight);
    });
    y.permute([0, 3, 1, 2])
}

/// The gradient of the images, [n, in, h, w] in channels-last memory, of a pointwise convolution.
pub(super) fn input_gradient(gradient: &Tensor, weight: &Tensor, shape: &ConvShape) -> Tensor {
    assert!(shape.is_pointwise(), "a patch that is not a pixel: {shape}");
    let rows = channels_last(gradient).view([-1, shape.outputs]).mm(&matrix(weight));
    let pixels = [shape.images, shape.height, shape.width, shape.inputs];
    rows.view(pixels).permute([0, 3, 1, 2])
}

/// The gradient of the weight, [out, in, size, size] in channels-last memory.
pub(super) fn weight_gradient(gradient: &Tensor, x: &Tensor, shape: &ConvShape) -> Tensor {
    let gradient = channels_last(gradient).view([-1, shape.outputs]);
    let mut sum = None::<Tensor>;
    for_patches(x, shape, |range, patches| {
        let gradient = narrow(&gradient, range).transpose(0, 1);
        match &mut sum {
            None => sum = Some(gradient.mm(patches)),
            Some(sum) if sum.kind() == patches.kind() && sum.kind() == Kind::Float => {
                let _ = sum.addmm_(&gradient, patches);
            }
            // bf16 would lose what is small beside the sum so far.
            Some(sum) => *sum = sum.to_kind(Kind::Float) + gradient.mm(patches),
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

/// The memory of [n, c, h, w] as [n, h, w, c], copied only where it is not laid out so.
fn channels_last(tensor: &Tensor) -> Tensor {
    tensor.permute([0, 2, 3, 1]).contiguous()
}

fn narrow(rows: &Tensor, range: Range<i64>) -> Tensor {
    rows.narrow(0, range.start, range.end - range.start)
}

/// Calls `body` with ranges of the result's pixels, in order, and their patches
/// [pixels, size · size · in].
fn for_patches(x: &Tensor, shape: &ConvShape, mut body: impl FnMut(Range<i64>, &Tensor)) {
    let x = channels_last(x);
    let [height, width] = shape.result();
    let pixels = shape.images * height * width;
    if shape.is_pointwise() {
        return body(0..pixels, &x.view([-1, shape.inputs]));
    }
    let length = shape.size * shape.size * shape.inputs;
    let size = shape.kind.elt_size_in_bytes() as i64;
    let most = (BLOCK_BYTES / (length * size)).clamp(1, pixels.max(1));
    let patches = Tensor::empty([most, length], (shape.kind, Device::Cpu));
    for start in (0..pixels).step_by(most as usize) {
        let range = start..pixels.min(start + most);
        let mut patches = patches.narrow(0, 0, range.end - range.start);
        match shape.kind {
            Kind::BFloat16 => {
                unfold::<BFloat16>(elements(&x), shape, start, elements_mut(&mut patches));
            }
            _ => unfold::<f32>(elements(&x), shape, start, elements_mut(&mut patches)),
        }
        body(range, &patches);
    }
}

/// Fills `patches` with those of the result's pixels from `first` on.
fn unfold<T: Element>(x: &[T], shape: &ConvShape, first: i64, patches: &mut [T]) {
    let [height, width] = shape.result();
    let channels = shape.inputs as usize;
    let length = (shape.size * shape.size) as usize * channels;
    let count = patches.len() / length;
    let shared = Shared::new(patches);
    parallel_for(count, (1 << 15) / length + 1, |range| {
        // SAFETY: each patch falls to one thread, and `patches` is borrowed until all are done.
        let patches = unsafe { shared.slice(range.start * length..range.end * length) };
        for (patch, number) in patches.chunks_exact_mut(length).zip(range) {
            let pixel = first + number as i64;
            let (image, row, column) =
                (pixel / (height * width), pixel / width % height, pixel % width);
            let left = column * shape.stride - shape.padding;
            // The taps of a line that lie inside the image.
            let inside = (-left).clamp(0, shape.size)..(shape.width - left).clamp(0, shape.size);
            let [before, after] = [inside.start, inside.end].map(|tap| tap as usize * channels);
            for (line, y) in patch
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
