//! The backward pass on a CPU: one pass that sums the gradient, one that writes the input's.

use std::iter::zip;

use tch::{Device, Tensor};

use super::affine::Affine;
use super::kernels;
use super::partition::Partition;
use super::statistics::{Channel, Statistics};
use crate::memory::{Element, channels_last, elements, elements_mut};

/// How the backward pass finds out what a ReLU let through.
pub(super) enum Relu {
    /// There was none.
    None,
    /// Without a residual, the input tells, at less cost than reading the output.
    OfAffine,
    /// With one, the output does.
    OfSum { y_rows: Tensor },
}

/// What a forward pass keeps, and the backward pass from it.
pub(super) struct Backward {
    pub(super) x_rows: Tensor,
    pub(super) relu: Relu,
    pub(super) has_residual: bool,
    /// From the input to the normalised output.
    pub(super) affine: Affine,
    pub(super) weight: Vec<f32>,
    pub(super) statistics: Statistics,
    pub(super) partition: Partition,
}

impl Backward {
    /// From the gradient g of the output to those of x, γ, β and the residual. With g already taken
    /// through the ReLU, x̂ the normalised input, n the rows:
    ///
    /// ```text
    /// dβ = Σ g    dγ = Σ g·x̂    dx = γ/σ · (g − dβ/n − x̂·dγ/n)    dresidual = g
    /// ```
    pub(super) fn run<T: Element>(&self, gradient: &Tensor) -> Vec<Option<Tensor>> {
        let gradient_rows = channels_last(&gradient.to_kind(T::KIND));
        let x = elements::<T>(&self.x_rows);
        let partition = &self.partition;
        let (sums, g_rows) = self.gradient_sums::<T>(gradient_rows, x);
        let g = elements::<T>(&g_rows);

        let n = partition.rows as f64;
        let mut slope = Vec::new();
        let mut correction = Affine::default();
        let (mut weight_gradient, mut bias_gradient) = (Vec::new(), Vec::new());
        let [sums, products] = sums;
        for (channel, (sum, product)) in zip(sums, products).enumerate() {
            let Channel { centre, remainder, inverse_deviation, .. } = self.statistics.0[channel];
            // Σ g·x̂, with x̂ = (x − centre − remainder) / σ.
            let along_x = (product - remainder * sum) * inverse_deviation;
            weight_gradient.push(along_x as f32);
            bias_gradient.push(sum as f32);
            slope.push((f64::from(self.weight[channel]) * inverse_deviation) as f32);
            let scale = -inverse_deviation * along_x / n;
            correction.centre.push(centre);
            correction.scale.push(scale as f32);
            correction.offset.push((-sum / n - scale * remainder) as f32);
        }
        let slope = partition.lanes(&slope);
        let correction = partition.affine_lanes(&correction);

        let mut dx_rows = Tensor::empty(self.x_rows.size(), (T::KIND, Device::Cpu));
        let relu = matches!(self.relu, Relu::OfAffine).then_some(&self.affine);
        let outputs = partition.chunks_mut(elements_mut::<T>(&mut dx_rows));
        partition.for_each(|number, range| {
            let mut dx = outputs.lock(number);
            let g = &g[range.clone()];
            kernels::write_input_gradient(g, &x[range], relu, &slope, &correction, &mut dx);
        });
        drop(outputs);

        let channels_first = |rows: Tensor| Some(rows.permute([0, 3, 1, 2]));
        let mut gradients = vec![
            channels_first(dx_rows),
            Some(Tensor::from_slice(&weight_gradient)),
            Some(Tensor::from_slice(&bias_gradient)),
        ];
        if self.has_residual {
            gradients.push(channels_first(g_rows));
        }
        gradients
    }

    /// Σ g and Σ g·(x − centre) of each channel, and g; but where the ReLU's input tells what it let
    /// through, the g returned is still that of the ReLU's output.
    fn gradient_sums<T: Element>(&self, gradient_rows: Tensor, x: &[T]) -> ([Vec<f64>; 2], Tensor) {
        let (partition, affine) = (&self.partition, &self.affine);
        let Relu::OfSum { y_rows } = &self.relu else {
            let g = elements::<T>(&gradient_rows);
            let relu = matches!(self.relu, Relu::OfAffine);
            let sums = partition.sum(|range, total| {
                add_gradient_sums(partition, affine, &g[range.clone()], &x[range], relu, total);
            });
            return (sums, gradient_rows);
        };
        let gradient = elements::<T>(&gradient_rows);
        let y = elements::<T>(y_rows);
        let mut g_rows = Tensor::empty(gradient_rows.size(), (T::KIND, Device::Cpu));
        let outputs = partition.chunks_mut(elements_mut::<T>(&mut g_rows));
        let sums = partition.sum(|range, total| {
            let number = range.start / partition.chunk;
            let mut g = outputs.lock(number);
            // Block by block, so that a block is still in the cache when it is summed.
            for (g, block) in zip(g.chunks_mut(partition.block), partition.blocks(range)) {
                kernels::write_before_relu(&gradient[block.clone()], &y[block.clone()], g);
                add_gradient_sums(partition, affine, g, &x[block], false, total);
            }
        });
        drop(outputs);
        (sums, g_rows)
    }
}

/// Adds Σ g and Σ g·(x − centre) of each channel to `total`; see [`kernels::add_gradient_sums`].
fn add_gradient_sums<T: Element>(
    partition: &Partition,
    affine: &Affine,
    g: &[T],
    x: &[T],
    relu: bool,
    total: &mut [Vec<f64>; 2],
) {
    let (mut sums, mut products) = (vec![0.0; partition.width], vec![0.0; partition.width]);
    for (g, x) in zip(g.chunks(partition.block), x.chunks(partition.block)) {
        sums.fill(0.0);
        products.fill(0.0);
        kernels::add_gradient_sums(g, x, affine, relu, &mut sums, &mut products);
        for (total, lanes) in zip(&mut *total, [&sums, &products]) {
            for lanes in lanes.chunks(partition.channels) {
                for (total, &lane) in zip(&mut *total, lanes) {
                    *total += f64::from(lane);
                }
            }
        }
    }
}
