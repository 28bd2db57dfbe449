//! The loops of normalisation over channels-last memory.
//!
//! Each works on a flat run of elements in which element `i` belongs to *lane* `i % width`; the slices
//! of one number per lane (`shift`, `sums`, an [`Affine`], …) are all `width` long. A lane is a channel,
//! or one of several of a channel where there are few channels, so that the innermost loops, which go
//! over lanes, are always long. The last row may be shorter than `width`.
//!
//! How they compile (counted in the disassembly of a release build; `add_gradient_sums` under AVX2 was
//! read whole): the innermost loops handle 8 lanes per vector under AVX2 (ymm) and 16 under AVX-512
//! (zmm), without calls or vector spills. What keeps them so: slices cut to one common length before
//! the loop, no `mul_add` (a library call where the processor lacks it), choices by value (`max`,
//! masks) rather than by branch.

use std::iter::zip;

use protonce_simd::multiversion;

use super::affine::Affine;
use crate::memory::Element;

/// Rows that share one load and store of their sums.
const TOGETHER: usize = 4;

multiversion! {
    /// Adds Σ (x − shift) and Σ (x − shift)² to the sums of each lane.
    pub(super) fn add_moments<T: Element>(
        x: &[T],
        shift: &[f32],
        sums: &mut [f32],
        squares: &mut [f32],
    ) {
        let width = shift.len();
        let (sums, squares) = (&mut sums[..width], &mut squares[..width]);
        let mut groups = x.chunks_exact(TOGETHER * width);
        for group in groups.by_ref() {
            let (a, b, c, d) = four_rows(group, width);
            for i in 0..width {
                let a = a[i].widen() - shift[i];
                let b = b[i].widen() - shift[i];
                let c = c[i].widen() - shift[i];
                let d = d[i].widen() - shift[i];
                sums[i] += (a + b) + (c + d);
                squares[i] += (a * a + b * b) + (c * c + d * d);
            }
        }
        for row in groups.remainder().chunks(width) {
            for (((x, shift), sum), square) in
                zip(zip(zip(row, shift), &mut *sums), &mut *squares)
            {
                let difference = x.widen() - shift;
                *sum += difference;
                *square += difference * difference;
            }
        }
    }
}

multiversion! {
    /// The mean of each lane's first four rows, or its first element where there are fewer.
    pub(super) fn write_first_mean<T: Element>(x: &[T], mean: &mut [f32]) {
        let width = mean.len();
        if x.len() < TOGETHER * width {
            for (mean, x) in zip(mean, x) {
                *mean = x.widen();
            }
            return;
        }
        let (a, b, c, d) = four_rows(&x[..TOGETHER * width], width);
        for i in 0..width {
            let [a, b, c, d] = [a[i], b[i], c[i], d[i]].map(|x| 0.25 * x.widen());
            mean[i] = (a + b) + (c + d);
        }
    }
}

multiversion! {
    /// Adds to `total` the moments of `n` rows around `shift` as moments around `origin`.
    pub(super) fn move_moments(
        n: usize,
        moments: [&[f32]; 2],
        shift: &[f32],
        origin: &[f64],
        total: &mut [Vec<f64>; 2],
    ) {
        let n = n as f64;
        let lanes = shift.len();
        let [sums, squares] = moments.map(|moments| &moments[..lanes]);
        let origin = &origin[..lanes];
        let [total_sums, total_squares] = total;
        let (total_sums, total_squares) = (&mut total_sums[..lanes], &mut total_squares[..lanes]);
        for i in 0..lanes {
            let moved = f64::from(shift[i]) - origin[i];
            let sum = f64::from(sums[i]);
            total_sums[i] += sum + n * moved;
            total_squares[i] += f64::from(squares[i]) + moved * (2.0 * sum + n * moved);
        }
    }
}

/// Four rows of `width`, each known to the compiler to be that long.
#[inline(always)]
fn four_rows<T>(group: &[T], width: usize) -> (&[T], &[T], &[T], &[T]) {
    let (a, rest) = group.split_at(width);
    let (b, rest) = rest.split_at(width);
    let (c, rest) = rest.split_at(width);
    (a, b, c, &rest[..width])
}

multiversion! {
    /// y ← max(affine(x) + residual, floor), with y itself as x where there is none. A NaN stays one.
    pub(super) fn write_affine<T: Element>(
        x: Option<&[T]>,
        residual: Option<&[T]>,
        affine: &Affine,
        floor: f32,
        y: &mut [T],
    ) {
        let width = affine.centre.len();
        for (number, y) in y.chunks_mut(width).enumerate() {
            let row = number * width..number * width + y.len();
            let lanes = row.len();
            let [centre, scale, offset] = affine.over(lanes);
            let value = |i: usize, x: T, residual: f32| {
                let value = (x.widen() - centre[i]) * scale[i] + offset[i] + residual;
                T::narrow(if value < floor { floor } else { value })
            };
            match (x.map(|x| &x[row.clone()]), residual.map(|residual| &residual[row])) {
                (Some(x), Some(residual)) => {
                    for i in 0..lanes {
                        y[i] = value(i, x[i], residual[i].widen());
                    }
                }
                (Some(x), None) => {
                    for i in 0..lanes {
                        y[i] = value(i, x[i], 0.0);
                    }
                }
                (None, Some(residual)) => {
                    for i in 0..lanes {
                        y[i] = value(i, y[i], residual[i].widen());
                    }
                }
                (None, None) => {
                    for (i, y) in y.iter_mut().enumerate() {
                        *y = value(i, *y, 0.0);
                    }
                }
            }
        }
    }
}

/// The gradient before a ReLU that gave `output`. As in PyTorch, the slope at 0 is 0 and a NaN lets
/// the gradient through.
#[inline(always)]
fn before_relu(gradient: f32, output: f32) -> f32 {
    if output <= 0.0 { 0.0 } else { gradient }
}

multiversion! {
    /// Adds Σ g and Σ g · (x − centre) to the sums of each lane. Here g is the gradient, or with
    /// `relu` what a ReLU of affine(x) lets through of it, which is computed again: reading the output
    /// would take longer.
    pub(super) fn add_gradient_sums<T: Element>(
        gradient: &[T],
        x: &[T],
        affine: &Affine,
        relu: bool,
        sums: &mut [f32],
        products: &mut [f32],
    ) {
        let width = affine.centre.len();
        for (g, x) in zip(gradient.chunks(TOGETHER * width), x.chunks(TOGETHER * width)) {
            if g.len() < TOGETHER * width {
                for (g, x) in zip(g.chunks(width), x.chunks(width)) {
                    let lanes = x.len();
                    let g = &g[..lanes];
                    let [centre, scale, offset] = affine.over(lanes);
                    let (sums, products) = (&mut sums[..lanes], &mut products[..lanes]);
                    for i in 0..lanes {
                        let difference = x[i].widen() - centre[i];
                        let output = if relu { difference * scale[i] + offset[i] } else { 1.0 };
                        let g = before_relu(g[i].widen(), output);
                        sums[i] += g;
                        products[i] += g * difference;
                    }
                }
                continue;
            }
            let [centre, scale, offset] = affine.over(width);
            let (sums, products) = (&mut sums[..width], &mut products[..width]);
            let (xa, xb, xc, xd) = four_rows(x, width);
            let (ga, gb, gc, gd) = four_rows(g, width);
            // Two loops rather than one with a branch in it.
            if relu {
                for i in 0..width {
                    let x = [xa[i], xb[i], xc[i], xd[i]].map(|x| x.widen() - centre[i]);
                    let y = x.map(|x| x * scale[i] + offset[i]);
                    let [a, b, c, d] = [
                        before_relu(ga[i].widen(), y[0]),
                        before_relu(gb[i].widen(), y[1]),
                        before_relu(gc[i].widen(), y[2]),
                        before_relu(gd[i].widen(), y[3]),
                    ];
                    sums[i] += (a + b) + (c + d);
                    products[i] += (a * x[0] + b * x[1]) + (c * x[2] + d * x[3]);
                }
            } else {
                for i in 0..width {
                    let x = [xa[i], xb[i], xc[i], xd[i]].map(|x| x.widen() - centre[i]);
                    let [a, b, c, d] = [ga[i], gb[i], gc[i], gd[i]].map(T::widen);
                    sums[i] += (a + b) + (c + d);
                    products[i] += (a * x[0] + b * x[1]) + (c * x[2] + d * x[3]);
                }
            }
        }
    }
}

multiversion! {
    /// passed ← what a ReLU that gave `output` lets through of the gradient.
    pub(super) fn write_before_relu<T: Element>(gradient: &[T], output: &[T], passed: &mut [T]) {
        for ((passed, gradient), output) in zip(zip(passed, gradient), output) {
            *passed = T::narrow(before_relu(gradient.widen(), output.widen()));
        }
    }
}

multiversion! {
    /// dx ← slope · (g + correction(x)). Here g is the gradient, or what a ReLU of the affine `relu`, whose
    /// centre is that of `correction`, lets through of it.
    pub(super) fn write_input_gradient<T: Element>(
        gradient: &[T],
        x: &[T],
        relu: Option<&Affine>,
        slope: &[f32],
        correction: &Affine,
        dx: &mut [T],
    ) {
        let width = slope.len();
        for (dx, (g, x)) in zip(dx.chunks_mut(width), zip(gradient.chunks(width), x.chunks(width)))
        {
            let lanes = dx.len();
            let (g, x, slope) = (&g[..lanes], &x[..lanes], &slope[..lanes]);
            let [centre, scale, offset] = correction.over(lanes);
            if let Some(relu) = relu {
                let [_, relu_scale, relu_offset] = relu.over(lanes);
                for i in 0..lanes {
                    let difference = x[i].widen() - centre[i];
                    let output = difference * relu_scale[i] + relu_offset[i];
                    let g = before_relu(g[i].widen(), output);
                    dx[i] = T::narrow(slope[i] * (g + (difference * scale[i] + offset[i])));
                }
            } else {
                for i in 0..lanes {
                    let difference = x[i].widen() - centre[i];
                    let along_x = difference * scale[i] + offset[i];
                    dx[i] = T::narrow(slope[i] * (g[i].widen() + along_x));
                }
            }
        }
    }
}
