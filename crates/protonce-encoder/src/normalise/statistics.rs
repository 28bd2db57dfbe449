//! The statistics that normalise an activation: of the batch, in one pass over it, or the running ones.

use std::iter::zip;

use tch::Tensor;

use super::affine::Affine;
use super::batch_norm::{BatchNorm, EPSILON, moved, per_channel};
use super::kernels;
use super::partition::Partition;
use crate::memory::{Element, elements_mut};

/// The statistics of each channel that normalise it.
pub(super) struct Statistics(pub(super) Vec<Channel>);

/// The statistics of one channel.
#[derive(Clone, Copy)]
pub(super) struct Channel {
    /// The mean in float32.
    pub(super) centre: f32,
    /// The mean less `centre`: what float32 cannot hold of it.
    pub(super) remainder: f64,
    /// The variance, biased.
    variance: f64,
    /// 1 / √(variance + ε).
    pub(super) inverse_deviation: f64,
}

impl Channel {
    fn new(mean: f64, variance: f64) -> Channel {
        let centre = mean as f32;
        Channel {
            centre,
            remainder: mean - f64::from(centre),
            variance,
            inverse_deviation: 1.0 / (variance + EPSILON).sqrt(),
        }
    }
}

impl Statistics {
    /// The running ones.
    pub(super) fn running(norm: &BatchNorm<'_>, partition: &Partition) -> Statistics {
        let mean = per_channel(norm.running_mean, partition.channels);
        let variance = per_channel(norm.running_var, partition.channels);
        let channel = |(mean, variance)| Channel::new(f64::from(mean), f64::from(variance));
        Statistics(zip(mean, variance).map(channel).collect())
    }

    /// Means and variances of a batch in one pass.
    ///
    /// Squares are summed of differences from the mean of a block's first four rows. Of n rows, that
    /// is no further than √(n / 4) deviations from the mean of all, so rounding costs n / 4 units in
    /// the last place at the very worst and about one as a rule; a mean far from zero costs nothing.
    /// Blocks are brought to the activation's first row and added in float64, where the same
    /// argument leaves digits to spare.
    pub(super) fn of<T: Element>(x: &[T], partition: &Partition) -> Statistics {
        let origin: Vec<f64> =
            x[..partition.channels].iter().map(|x| f64::from(x.widen())).collect();
        let [sums, squares] = partition.sum(|range, total| {
            let mut shift = vec![0.0; partition.width];
            let (mut sums, mut squares) = (vec![0.0; partition.width], vec![0.0; partition.width]);
            for block in partition.blocks(range) {
                let block = &x[block];
                kernels::write_first_mean(block, &mut shift);
                sums.fill(0.0);
                squares.fill(0.0);
                kernels::add_moments(block, &shift, &mut sums, &mut squares);
                for start in (0..partition.width.min(block.len())).step_by(partition.channels) {
                    // Rows this block has in these lanes.
                    let n = (block.len() - start).div_ceil(partition.width);
                    let lanes = start..start + partition.channels;
                    let moments = [&sums[lanes.clone()], &squares[lanes.clone()]];
                    kernels::move_moments(n, moments, &shift[lanes], &origin, total);
                }
            }
        });
        let n = partition.rows as f64;
        let channel = |((sum, square), origin): ((f64, f64), f64)| {
            let offset = sum / n;
            Channel::new(origin + offset, (square / n - offset * offset).max(0.0))
        };
        Statistics(zip(zip(sums, squares), origin).map(channel).collect())
    }

    /// Moves the running statistics towards these.
    pub(super) fn move_running(&self, norm: &BatchNorm<'_>, partition: &Partition) {
        for (running, values) in self.of_running(norm, partition) {
            let mut running = running.shallow_clone();
            for (running, value) in zip(elements_mut::<f32>(&mut running), values) {
                *running = moved(*running, value);
            }
        }
    }

    /// Makes the running statistics, in float64, these.
    pub(super) fn record(&self, norm: &BatchNorm<'_>, partition: &Partition) {
        for (running, values) in self.of_running(norm, partition) {
            running.shallow_clone().copy_(&Tensor::from_slice(&values));
        }
    }

    /// The running means and variances, each with what this batch has in their place.
    fn of_running<'a>(
        &self,
        norm: &BatchNorm<'a>,
        partition: &Partition,
    ) -> [(&'a Tensor, Vec<f64>); 2] {
        let n = partition.rows as f64;
        // The variance of a single row is unknown rather than infinite: its 0 stays.
        let unbiased = n / (n - 1.0).max(1.0);
        let mean = |channel: &Channel| f64::from(channel.centre) + channel.remainder;
        let means = self.0.iter().map(mean).collect();
        let variances = self.0.iter().map(|channel| channel.variance * unbiased).collect();
        for running in [norm.running_mean, norm.running_var] {
            assert_eq!(running.numel(), partition.channels, "one running statistic per channel");
        }
        [(norm.running_mean, means), (norm.running_var, variances)]
    }

    /// From an input to its normalised, scaled and shifted value.
    pub(super) fn affine(&self, weight: &[f32], bias: &[f32], partition: &Partition) -> Affine {
        let mut affine = Affine::default();
        for (channel, (&weight, &bias)) in zip(&self.0, zip(weight, bias)) {
            let scale = f64::from(weight) * channel.inverse_deviation;
            affine.centre.push(channel.centre);
            affine.scale.push(scale as f32);
            affine.offset.push((f64::from(bias) - channel.remainder * scale) as f32);
        }
        partition.affine_lanes(&affine)
    }
}
