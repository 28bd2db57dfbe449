//! The transforms of F(4×4, 3×3): pixels of a tile or taps of a filter in, values at 36 positions out,
//! and back.
//!
//! Each is a small constant matrix (Lavin & Gray, §4.3), written out so that few operations are left,
//! and applied to the columns and then to the rows of a square, for 16 channels at a time.

use super::panel::PANEL;

/// Pixels along a side of an output tile.
pub(super) const TILE: usize = 4;
/// Pixels along a side of what a tile depends on.
pub(super) const WINDOW: usize = TILE + 2;
/// Values that a tile and a filter are transformed to.
pub(super) const POSITIONS: usize = WINDOW * WINDOW;

/// Bᵀd: 6 pixels to 6 positions.
#[inline(always)]
pub(super) fn input_transform(d: [f32; 6]) -> [f32; 6] {
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
pub(super) fn output_transform(m: [f32; 6]) -> [f32; 4] {
    let [p, q] = [m[1] + m[2], m[1] - m[2]];
    let [r, s] = [m[3] + m[4], m[3] - m[4]];
    [m[0] + (p + r), s.mul_add(2.0, q), r.mul_add(4.0, p), s.mul_add(8.0, q) + m[5]]
}

/// A∂y: 4 pixels to 6 positions.
#[inline(always)]
pub(super) fn output_gradient_transform(y: [f32; 4]) -> [f32; 6] {
    let [even, odd] = [y[0] + y[2], y[1] + y[3]];
    let [even2, odd2] = [y[2].mul_add(4.0, y[0]), y[3].mul_add(8.0, y[1] * 2.0)];
    [y[0], even + odd, even - odd, even2 + odd2, even2 - odd2, y[3]]
}

/// Gw: 3 taps to 6 positions.
#[inline(always)]
pub(super) fn filter_transform(w: [f32; 3]) -> [f32; 6] {
    let [ends, middle] = [(w[0] + w[2]) * (-1.0 / 6.0), w[1] * (1.0 / 6.0)];
    let [ends2, middle2] = [w[0].mul_add(1.0 / 24.0, w[2] * (1.0 / 6.0)), w[1] * (1.0 / 12.0)];
    [w[0] * 0.25, ends - middle, ends + middle, ends2 + middle2, ends2 - middle2, w[2]]
}

/// Gᵀu: 6 positions to 3 taps.
#[inline(always)]
pub(super) fn filter_gradient_transform(u: [f32; 6]) -> [f32; 3] {
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
fn transform_line<const FROM: usize, const TO: usize>(
    line: [&[f32; PANEL]; FROM],
    transform: impl Fn([f32; FROM]) -> [f32; TO],
) -> [[f32; PANEL]; TO] {
    let mut result = [[0.0; PANEL]; TO];
    // The loop over channels is what becomes vector instructions.
    for channel in 0..PANEL {
        let mut values = [0.0; FROM];
        for i in 0..FROM {
            values[i] = line[i][channel];
        }
        let values = transform(values);
        for i in 0..TO {
            result[i][channel] = values[i];
        }
    }
    result
}

/// `transform` along the columns, then along the rows, each of which is handed to `put`.
#[inline(always)]
pub(super) fn transform_square<const FROM: usize, const TO: usize>(
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
        let line = transform_line(line, transform);
        for row in 0..TO {
            half[row][column] = line[row];
        }
    }
    for row in 0..TO {
        let mut line = [&half[row][0]; FROM];
        for column in 0..FROM {
            line[column] = &half[row][column];
        }
        put(row, &transform_line(line, transform));
    }
}
