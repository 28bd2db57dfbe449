//! The two contrasts: queries, keys and prototypes in, losses out.
//!
//! [`info_nce`] tells a query's own key from the keys of past images (MoCo, equation 1);
//! [`proto_nce`] tells its own prototype from other prototypes, each with its own concentration as
//! temperature (PCL, equation 11). All rows are L2-normalised float32.

mod decorrelation;
mod queue;
mod queue_negatives;

pub use decorrelation::decorrelation;
pub use queue::Queue;
pub use queue_negatives::{other_images, other_prototypes};

use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use tch::{Kind, Reduction, Tensor};

use protonce_run::Duplicates;

use crate::prototypes::Prototypes;

/// One loss term and how often it would have picked the right answer.
pub struct Contrast {
    /// Mean cross-entropy over the batch: float32 scalar, differentiable.
    pub loss: Tensor,
    /// The share of queries whose positive scores highest, 0 to 1: float32 scalar.
    pub accuracy: Tensor,
}

/// InfoNCE: every query against its key and the queue.
///
/// `query`, `key`: [batch, dim]; `queue`: [r, dim], as it was before this batch's keys entered.
/// `log_weights` [batch, r], where there are any, are the logarithms of what each negative weighs.
pub fn info_nce(
    query: &Tensor,
    key: &Tensor,
    queue: &Tensor,
    log_weights: Option<&Tensor>,
    temperature: f64,
) -> Contrast {
    let positive = (query * key).sum_dim_intlist([1].as_slice(), true, Kind::Float);
    let negative = query.matmul(&queue.tr());
    // logits: [batch, 1 + r], the positive first
    let mut logits = Tensor::cat(&[positive, negative], 1) / temperature;
    if let Some(log_weights) = log_weights {
        logits = &logits + log_weights.constant_pad_nd([1, 0]);
    }
    let target = Tensor::zeros([query.size()[0]], (Kind::Int64, query.device()));
    cross_entropy(&logits, &target)
}

/// ProtoNCE of one granularity: every query against the batch's own prototypes, in order, and
/// `negatives`.
///
/// `query`: [batch, dim]; `own`: int64 \[batch\], the prototype of each query's image; `negatives`:
/// int64 [up to r], prototypes that no image of the batch belongs to (see [`sample_negatives`]).
pub fn proto_nce(
    query: &Tensor,
    granularity: &Prototypes,
    own: &Tensor,
    negatives: &Tensor,
    duplicates: Duplicates,
) -> Contrast {
    let batch = query.size()[0];
    let selected = Tensor::cat(&[own, negatives], 0);
    let prototypes = granularity.prototypes.index_select(0, &selected);
    let concentration = granularity.concentration.index_select(0, &selected);
    // logits: [batch, batch + r], each column over its prototype's concentration
    let mut logits = query.matmul(&prototypes.tr()) / concentration;
    if duplicates == Duplicates::Mask {
        let same = own.unsqueeze(1).eq_tensor(&own.unsqueeze(0));
        let itself = Tensor::eye(batch, (Kind::Bool, query.device()));
        let others = same.logical_and(&itself.logical_not());
        let kept = Tensor::zeros([batch, negatives.size()[0]], (Kind::Bool, query.device()));
        logits = logits.masked_fill(&Tensor::cat(&[others, kept], 1), f64::NEG_INFINITY);
    }
    let target = Tensor::arange(batch, (Kind::Int64, query.device()));
    cross_entropy(&logits, &target)
}

fn cross_entropy(logits: &Tensor, target: &Tensor) -> Contrast {
    let loss = logits.cross_entropy_loss(target, None::<&Tensor>, Reduction::Mean, -100, 0.0);
    let correct = logits.detach().argmax(1, false).eq_tensor(target);
    Contrast { loss, accuracy: correct.to_kind(Kind::Float).mean(Kind::Float) }
}

/// Up to `negatives` of `clusters` prototypes, drawn without replacement from those that are not in
/// `own`.
pub fn sample_negatives(
    own: &[i64],
    clusters: i64,
    negatives: usize,
    mut random: ChaCha8Rng,
) -> Vec<i64> {
    let mut taken = vec![false; clusters as usize];
    for &prototype in own {
        taken[prototype as usize] = true;
    }
    let mut free: Vec<i64> = (0..clusters).filter(|&c| !taken[c as usize]).collect();
    if free.len() > negatives {
        let (chosen, _) = free.partial_shuffle(&mut random, negatives);
        return chosen.to_vec();
    }
    free
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn negatives_are_distinct_and_never_a_prototype_of_the_batch() {
        let own = [3, 3, 7, 0];
        let drawn = sample_negatives(&own, 20, 10, ChaCha8Rng::from_seed([1; 32]));
        assert_eq!(drawn.len(), 10);
        let distinct: std::collections::BTreeSet<_> = drawn.iter().collect();
        assert_eq!(distinct.len(), 10);
        assert!(drawn.iter().all(|c| !own.contains(c) && (0..20).contains(c)));
        assert_eq!(drawn, sample_negatives(&own, 20, 10, ChaCha8Rng::from_seed([1; 32])));
        assert_ne!(drawn, sample_negatives(&own, 20, 10, ChaCha8Rng::from_seed([2; 32])));
    }

    #[test]
    fn fewer_free_prototypes_than_asked_for_are_all_taken() {
        assert_eq!(sample_negatives(&[1, 2], 4, 16_384, ChaCha8Rng::from_seed([0; 32])), [0, 3]);
        assert!(sample_negatives(&[0, 1], 2, 16_384, ChaCha8Rng::from_seed([0; 32])).is_empty());
    }

    #[test]
    fn masked_duplicates_do_not_push_each_other_away() {
        let device = tch::Device::Cpu;
        let prototypes = Tensor::eye(3, (Kind::Float, device));
        let granularity = Prototypes {
            assignment: Tensor::from_slice(&[0i64, 0, 1]),
            concentration: Tensor::full([3], 0.5, (Kind::Float, device)),
            prototypes: prototypes.shallow_clone(),
        };
        let query = prototypes.index_select(0, &Tensor::from_slice(&[0i64, 0]));
        let own = Tensor::from_slice(&[0i64, 0]);
        let negatives = Tensor::from_slice(&[1i64, 2]);
        let loss = |duplicates| {
            proto_nce(&query, &granularity, &own, &negatives, duplicates).loss.double_value(&[])
        };
        // With itself at logit 2 and two others at 0: ln(e² + 2) − 2; the duplicate adds e².
        let e2 = 2f64.exp();
        assert!((loss(Duplicates::Mask) - ((e2 + 2.0).ln() - 2.0)).abs() < 1e-6);
        assert!((loss(Duplicates::Keep) - ((2.0 * e2 + 2.0).ln() - 2.0)).abs() < 1e-6);
    }
}
