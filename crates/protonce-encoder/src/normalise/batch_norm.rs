//! What a batch normalisation is asked for: its parameters, whose statistics it uses and what follows
//! it.

use tch::Tensor;

use crate::memory::elements;

/// The parameters and statistics of a batch normalisation, each float32 \[channels\].
#[derive(Debug, Clone, Copy)]
pub struct BatchNorm<'a> {
    /// γ, the deviation of the result.
    pub weight: &'a Tensor,
    /// β, the mean of the result.
    pub bias: &'a Tensor,
    /// Moving average of the batches' means; moves in training.
    pub running_mean: &'a Tensor,
    /// Moving average of the batches' unbiased variances; moves in training.
    pub running_var: &'a Tensor,
}

/// Whose statistics normalise an activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchStats {
    /// The batch's own (training); the running statistics move towards them.
    Batch,
    /// The batch's own as well (training), to be moved to later: the running statistics, which must be
    /// float64, take the batch's as they are.
    Recorded,
    /// The running statistics, unchanged (evaluation).
    Running,
}

/// What follows a normalisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// max(x, 0).
    Relu,
    /// x as it is.
    None,
}

impl Activation {
    /// The least value that it lets through.
    pub(super) fn floor(self) -> f32 {
        match self {
            Activation::Relu => 0.0,
            Activation::None => f32::NEG_INFINITY,
        }
    }
}

/// torchvision's momentum of the running statistics.
pub(super) const MOMENTUM: f64 = 0.1;
/// torchvision's floor under the variance.
pub(super) const EPSILON: f64 = 1e-5;

/// A running statistic after a batch whose statistic is `value`.
pub(crate) fn moved(before: f32, value: f64) -> f32 {
    ((1.0 - MOMENTUM) * f64::from(before) + MOMENTUM * value) as f32
}

/// The values of a float32 parameter or statistic of `channels` channels.
pub(super) fn per_channel(parameter: &Tensor, channels: usize) -> Vec<f32> {
    let parameter = parameter.detach().contiguous();
    assert_eq!(parameter.numel(), channels, "one parameter per channel");
    elements::<f32>(&parameter).to_vec()
}
