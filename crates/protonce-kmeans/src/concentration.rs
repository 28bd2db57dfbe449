//! φ of prototypical contrastive learning: how tightly each cluster's members lie around its centroid.

use crate::Clustering;

/// How the concentrations are scaled (Li et al. 2021, "Prototypical Contrastive Learning", §3.3).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ConcentrationOptions {
    /// τ, which the concentrations average to.
    pub temperature: f64,
    /// α, which keeps small clusters from looking concentrated.
    pub smoothing: f64,
}

/// The least concentration, in units of τ.
const SHARPEST: f64 = 0.1;

/// The concentration of each cluster (PCL, equation 12, as the published code computes it): \[clusters\].
///
/// The mean distance over ln(size + α); clusters of fewer than two take the largest; clipped to the
/// 10th and 90th percentile; scaled to average τ, and at least τ/10, where the published code divides
/// by 0 when many points are the same. In float64 up to the result.
pub fn concentration(clustering: &Clustering, options: ConcentrationOptions) -> Vec<f32> {
    let clusters = clustering.clusters();
    // In the order of the points.
    let (mut sums, mut sizes) = (vec![0f64; clusters], vec![0f64; clusters]);
    for (&cluster, &distance) in clustering.assignment.iter().zip(&clustering.distances) {
        sums[cluster as usize] += f64::from(distance);
        sizes[cluster as usize] += 1.0;
    }
    let spread = |(sum, size): (f64, f64)| match size >= 2.0 {
        true => Some(sum / size / (size + options.smoothing).ln()),
        false => None,
    };
    let spreads: Vec<Option<f64>> = sums.into_iter().zip(sizes).map(spread).collect();
    let largest = spreads.iter().flatten().copied().fold(0.0, f64::max);
    let mut densities: Vec<f64> =
        spreads.into_iter().map(|spread| spread.unwrap_or(largest)).collect();
    let mut sorted = densities.clone();
    sorted.sort_unstable_by(f64::total_cmp);
    let [low, high] = [0.1, 0.9].map(|rank| quantile(&sorted, rank));
    densities.iter_mut().for_each(|density| *density = density.max(low).min(high));
    let mean = sum(&densities) / clusters as f64;
    // Clusters that are all points, or one point each, have no spread to scale by.
    let scaled = |density: f64| match mean > 0.0 {
        true => (density * options.temperature / mean).max(SHARPEST * options.temperature),
        false => options.temperature,
    };
    densities.into_iter().map(|density| scaled(density) as f32).collect()
}

/// The value at a rank from 0 to 1, interpolated between neighbours as torch and numpy do.
fn quantile(sorted: &[f64], rank: f64) -> f64 {
    let place = rank * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    let weight = place - place.floor();
    match weight < 0.5 {
        true => below + weight * (above - below),
        false => above - (above - below) * (1.0 - weight),
    }
}

/// The sum of `values` without loss by their order: compensated (Neumaier 1974).
fn sum(values: &[f64]) -> f64 {
    let (mut sum, mut lost) = (0f64, 0f64);
    for &value in values {
        let next = sum + value;
        let (large, small) = if sum.abs() >= value.abs() { (sum, value) } else { (value, sum) };
        lost += large - next + small;
        sum = next;
    }
    sum + lost
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: ConcentrationOptions =
        ConcentrationOptions { temperature: 0.2, smoothing: 10.0 };

    fn clustering(clusters: usize, assignment: &[i64], distances: &[f32]) -> Clustering {
        Clustering {
            centroids: vec![0.0; clusters],
            dim: 1,
            assignment: assignment.to_vec(),
            distances: distances.to_vec(),
            objective: 0.0,
            history: Vec::new(),
        }
    }

    #[test]
    fn clusters_without_spread_share_the_temperature() {
        let phi = concentration(&clustering(4, &[0, 1, 2], &[0.0; 3]), OPTIONS);
        assert_eq!(phi, [0.2; 4]);
    }

    #[test]
    fn points_that_are_the_same_leave_no_concentration_at_zero() {
        // Three clusters of two equal points each, and one that is spread out.
        let distances = [0.0f32, 0.0, 0.0, 0.0, 0.0, 0.0, 0.4, 0.6];
        let phi = concentration(&clustering(4, &[0, 0, 1, 1, 2, 2, 3, 3], &distances), OPTIONS);
        assert_eq!(phi[..3], [0.02; 3]);
        assert!(phi[3] > 0.2);
    }

    #[test]
    fn concentrations_average_to_the_temperature_and_tight_clusters_get_less() {
        let distances = [0.1f32, 0.1, 0.5, 0.5, 0.9, 0.9];
        let phi = concentration(&clustering(3, &[0, 0, 1, 1, 2, 2], &distances), OPTIONS);
        assert!((phi.iter().sum::<f32>() / 3.0 - 0.2).abs() < 1e-6);
        assert!(phi[0] < phi[1] && phi[1] < phi[2]);
    }
}
