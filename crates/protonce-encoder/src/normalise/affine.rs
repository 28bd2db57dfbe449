//! The affine map that a normalisation comes to, with a number of each kind per channel.

/// (x − centre) · scale + offset, of each channel or lane.
///
/// The difference comes first: folded into the offset, a centre far from zero would cancel.
#[derive(Clone, Default)]
pub(super) struct Affine {
    pub(super) centre: Vec<f32>,
    pub(super) scale: Vec<f32>,
    pub(super) offset: Vec<f32>,
}

impl Affine {
    /// Centre, scale and offset of the first `lanes` lanes.
    #[inline(always)]
    pub(super) fn over(&self, lanes: usize) -> [&[f32]; 3] {
        [&self.centre[..lanes], &self.scale[..lanes], &self.offset[..lanes]]
    }
}
