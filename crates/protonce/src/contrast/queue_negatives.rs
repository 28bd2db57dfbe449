//! What each key of the queue weighs as a negative of each query, where not all weigh the same.
//!
//! The queue of a small set of images holds keys of a query's own image, and of images that show the
//! same. Pushing the query away from these undoes what it is to learn.

use tch::{Kind, Tensor};

use crate::prototypes::Prototypes;

/// Logarithms of weights: float32 [batch, r], −∞ for keys of the query's own image and 0 for others.
///
/// `images`: int64 \[batch\], the query's; `queue_images`: int64 \[r\], the keys'.
pub fn other_images(images: &Tensor, queue_images: &Tensor) -> Tensor {
    let own = images.unsqueeze(1).eq_tensor(&queue_images.unsqueeze(0));
    let weights = Tensor::zeros(own.size(), (Kind::Float, own.device()));
    weights.masked_fill(&own, f64::NEG_INFINITY)
}

/// Logarithms of weights: float32 [batch, r], ln(1 − p) for the probability p that a key belongs to
/// the prototype of the query's image, a mean over the granularities.
///
/// The probability of a prototype is the softmax of key · prototype / concentration over all
/// prototypes of the granularity. `keys`: [r, dim]; `own`: for each granularity int64 \[batch\], the
/// prototype of each query's image. The expectation of HCSC's random choice of negatives
/// (<https://arxiv.org/abs/2202.00455>, §3.3).
pub fn other_prototypes(keys: &Tensor, granularities: &[Prototypes], own: &[Tensor]) -> Tensor {
    let shares = granularities.iter().zip(own).map(|(granularity, own)| {
        let logits = keys.matmul(&granularity.prototypes.tr()) / &granularity.concentration;
        logits.softmax(1, Kind::Float).index_select(1, own).tr()
    });
    // Before the first E-step no key is known to belong to anything.
    let nothing = Tensor::zeros([1, 1], (Kind::Float, keys.device()));
    let mean = shares.fold(nothing, |sum, share| sum + share) / granularities.len().max(1) as f64;
    // A key that surely belongs to the prototype still weighs a thousandth.
    (-mean + 1.0).clamp_min(1e-3).log()
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn keys_of_the_own_image_weigh_nothing() {
        let weights =
            other_images(&Tensor::from_slice(&[3i64, 5]), &Tensor::from_slice(&[5i64, -1, 3]));
        let weights: Vec<f32> = Vec::try_from(weights.view([-1])).unwrap();
        assert_eq!(weights, [0.0, 0.0, f32::NEG_INFINITY, f32::NEG_INFINITY, 0.0, 0.0]);
    }

    #[test]
    fn keys_weigh_less_the_more_they_belong_to_the_prototype() {
        let corners = Tensor::eye(3, (Kind::Float, Device::Cpu));
        let granularity = |concentration: f64| Prototypes {
            assignment: Tensor::from_slice(&[0i64, 1, 2]),
            concentration: Tensor::full([3], concentration, (Kind::Float, Device::Cpu)),
            prototypes: corners.shallow_clone(),
        };
        let own = || Tensor::from_slice(&[0i64, 2]);
        // One granularity that tells corners apart, and one that hardly does.
        let granularities = [granularity(0.5), granularity(2.0)];
        let found = other_prototypes(&corners, &granularities, &[own(), own()]);
        let share = |concentration: f64, same: bool| {
            let own = (1.0 / concentration).exp();
            (if same { own } else { 1.0 }) / (own + 2.0)
        };
        for (query, own) in [0, 2].into_iter().enumerate() {
            for key in 0..3 {
                let p = (share(0.5, key == own) + share(2.0, key == own)) / 2.0;
                let found = found.double_value(&[query as i64, key]);
                assert!((found - (1.0 - p).ln()).abs() < 1e-6, "{found} for p {p}");
            }
        }
    }
}
