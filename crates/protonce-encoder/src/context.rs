//! One forward pass: what all of its layers need to know.

use std::sync::Arc;

use super::convolution::ConvPlan;
use super::normalise::BatchStats;
use super::parameters::Parameters;

/// Whose parameters a forward pass uses and how it computes.
pub(super) struct ForwardContext<'a> {
    pub(super) parameters: &'a Parameters,
    pub(super) conv_plan: &'a Arc<ConvPlan>,
    pub(super) stats: BatchStats,
    /// Whether a block keeps only its input for the backward pass, and recomputes the rest there.
    pub(super) checkpoint_blocks: bool,
}
