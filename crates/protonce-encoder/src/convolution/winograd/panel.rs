//! 16 channels together, the unit of every loop here: two vectors of AVX2, one cache line.
//!
//! Every matrix is a sequence of [`Row`]s. Channels that do not fill their last panel are followed by
//! zeros.

/// Channels handled together.
pub(super) const PANEL: usize = 16;

/// One value for each channel of a panel: a cache line.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct Row(pub(super) [f32; PANEL]);

pub(super) const ZERO: Row = Row([0.0; PANEL]);

/// What lies outside an image.
pub(super) static NOTHING: [f32; PANEL] = [0.0; PANEL];

/// The first values of `values`, or zeros where they are fewer.
#[inline(always)]
pub(super) fn row(values: &[f32]) -> &[f32; PANEL] {
    values.first_chunk().unwrap_or(&NOTHING)
}
