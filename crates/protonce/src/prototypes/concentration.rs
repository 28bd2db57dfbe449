//! φ: how tightly each cluster's members lie around its centroid.

use tch::{Kind, Tensor};

use super::ConcentrationOptions;

/// The concentration of each of `clusters` clusters (PCL, equation 12, as the published code
/// computes it): float32 [clusters].
///
/// `distances`: float32 [rows], L2 distance of each row to its unnormalised centroid;
/// `assignment`: int64 [rows]. The mean distance over ln(size + α); clusters of fewer than two
/// take the largest; clipped to the 10th and 90th percentile; scaled to average τ.
pub fn concentration(
    distances: &Tensor,
    assignment: &Tensor,
    clusters: i64,
    options: ConcentrationOptions,
) -> Tensor {
    let sums = Tensor::zeros([clusters], (Kind::Double, distances.device()));
    let sums = sums.index_put(&[Some(assignment)], &distances.to_kind(Kind::Double), true);
    let sizes = assignment.bincount(None::<&Tensor>, clusters).to_kind(Kind::Double);
    let density = sums / sizes.clamp_min(1.0) / (&sizes + options.smoothing).log();
    let several = sizes.ge(2.0);
    let density = density.where_scalarother(&several, 0.0);
    let density = density.where_self(&several, &density.max());
    let bounds = Tensor::from_slice(&[0.1, 0.9]);
    let bounds = density.quantile(&bounds, 0, false, "linear");
    let density = density.clamp_tensor(Some(bounds.get(0)), Some(bounds.get(1)));
    let mean = density.mean(Kind::Double);
    // Clusters that are all points, or one point each, have no spread to scale by.
    let concentration = if mean.double_value(&[]) > 0.0 {
        density * options.temperature / mean
    } else {
        density.full_like(options.temperature)
    };
    concentration.to_kind(Kind::Float)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: ConcentrationOptions =
        ConcentrationOptions { temperature: 0.2, smoothing: 10.0 };

    #[test]
    fn clusters_without_spread_share_the_temperature() {
        let distances = Tensor::zeros([3], (Kind::Float, tch::Device::Cpu));
        let phi = concentration(&distances, &Tensor::from_slice(&[0i64, 1, 2]), 4, OPTIONS);
        let phi: Vec<f32> = phi.try_into().unwrap();
        assert_eq!(phi, [0.2; 4]);
    }

    #[test]
    fn concentrations_average_to_the_temperature_and_tight_clusters_get_less() {
        let distances = Tensor::from_slice(&[0.1f32, 0.1, 0.5, 0.5, 0.9, 0.9]);
        let phi =
            concentration(&distances, &Tensor::from_slice(&[0i64, 0, 1, 1, 2, 2]), 3, OPTIONS);
        let phi: Vec<f32> = phi.try_into().unwrap();
        assert!((phi.iter().sum::<f32>() / 3.0 - 0.2).abs() < 1e-6);
        assert!(phi[0] < phi[1] && phi[1] < phi[2]);
    }
}
