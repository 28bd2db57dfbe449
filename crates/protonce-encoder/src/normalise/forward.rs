//! The forward pass on a CPU: statistics, then one pass that normalises, adds the residual and applies
//! the activation.

use tch::{Device, Tensor};

use super::affine::Affine;
use super::backward::{Backward, Relu};
use super::batch_norm::{Activation, BatchNorm, BatchStats, per_channel};
use super::kernels;
use super::partition::Partition;
use super::statistics::Statistics;
use crate::memory::{Element, channels_last, elements, elements_mut};

/// Which of a forward pass's activations are needed after it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// The output only: it may overwrite the input.
    Output,
    /// The input as well, for a backward pass.
    Both,
}

/// activation(normalise(rows) + residual) and the backward pass from it. `rows` is [batch, height,
/// width, channels], as everything named `rows` here; the result is [batch, channels, height, width].
pub(super) fn forward<T: Element>(
    mut rows: Tensor,
    norm: &BatchNorm<'_>,
    residual: Option<&Tensor>,
    activation: Activation,
    stats: BatchStats,
    keep: Keep,
) -> (Tensor, Backward) {
    let partition = Partition::new(&rows);
    let weight = per_channel(norm.weight, partition.channels);
    let bias = per_channel(norm.bias, partition.channels);
    let statistics = match stats {
        BatchStats::Batch | BatchStats::Recorded => {
            let statistics = Statistics::of::<T>(elements(&rows), &partition);
            match stats {
                BatchStats::Recorded => statistics.record(norm, &partition),
                _ => statistics.move_running(norm, &partition),
            }
            statistics
        }
        BatchStats::Running => Statistics::running(norm, &partition),
    };

    let residual = residual.map(|residual| {
        assert_eq!(
            residual.numel(),
            rows.numel(),
            "a residual has the shape of what it is added to"
        );
        channels_last(&residual.to_kind(T::KIND))
    });
    let affine = statistics.affine(&weight, &bias, &partition);
    let mut fresh = match keep {
        Keep::Output => None,
        Keep::Both => Some(Tensor::empty(rows.size(), (T::KIND, Device::Cpu))),
    };
    {
        let (x, y) = match &mut fresh {
            Some(fresh) => (Some(elements::<T>(&rows)), elements_mut::<T>(fresh)),
            None => (None, elements_mut::<T>(&mut rows)),
        };
        let residual = residual.as_ref().map(elements::<T>);
        write(x, residual, &affine, activation.floor(), y, &partition);
    }

    let y_rows = fresh.unwrap_or_else(|| rows.shallow_clone());
    let relu = match (activation, &residual) {
        (Activation::None, _) => Relu::None,
        (Activation::Relu, None) => Relu::OfAffine,
        // Detached: the output will hold this backward pass, which must not hold the output.
        (Activation::Relu, Some(_)) => Relu::OfSum { y_rows: y_rows.detach() },
    };
    let has_residual = residual.is_some();
    let backward =
        Backward { x_rows: rows, relu, has_residual, affine, weight, statistics, partition };
    (y_rows.permute([0, 3, 1, 2]), backward)
}

/// Writes max(affine(x) + residual, floor) into `y`, which is `x` as well where none is given.
pub(super) fn write<T: Element>(
    x: Option<&[T]>,
    residual: Option<&[T]>,
    affine: &Affine,
    floor: f32,
    y: &mut [T],
    partition: &Partition,
) {
    let outputs = partition.chunks_mut(y);
    partition.for_each(|number, range| {
        let mut y = outputs.lock(number);
        let x = x.map(|x| &x[range.clone()]);
        let residual = residual.map(|residual| &residual[range]);
        kernels::write_affine(x, residual, affine, floor, &mut y);
    });
}
