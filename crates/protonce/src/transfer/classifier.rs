//! A linear classifier on features, and how often a classifier is right.

use serde::Serialize;
use tch::{Kind, Tensor};

/// A linear layer on features.
#[derive(Debug)]
pub struct LinearClassifier {
    /// float32 [classes, dim].
    pub weight: Tensor,
    /// float32 \[classes\].
    pub bias: Tensor,
}

impl LinearClassifier {
    /// [rows, dim] → [rows, classes].
    pub fn scores(&self, features: &Tensor) -> Tensor {
        features.linear(&self.weight, Some(&self.bias))
    }
}

/// Shares of images whose class is among the best-scored.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct TopAccuracy {
    /// The best-scored class is right, in percent.
    pub top1: f64,
    /// One of the five best-scored classes is right, in percent.
    pub top5: f64,
}

/// How often `labels` (int64 \[rows\]) are among the best of `scores` [rows, classes].
pub fn top_accuracy(scores: &Tensor, labels: &Tensor) -> TopAccuracy {
    let (rows, classes) = (scores.size()[0], scores.size()[1]);
    let (_, best) = scores.topk(classes.min(5), 1, true, true);
    let right = best.eq_tensor(&labels.unsqueeze(1));
    let percent =
        |hits: Tensor| hits.sum(Kind::Double).double_value(&[]) * 100.0 / rows.max(1) as f64;
    TopAccuracy { top1: percent(right.narrow(1, 0, 1)), top5: percent(right.shallow_clone()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn accuracy_counts_the_first_and_the_first_five() {
        let scores = Tensor::arange(6, (Kind::Float, Device::Cpu)).view([1, 6]).repeat([3, 1]);
        let accuracy = top_accuracy(&scores, &Tensor::from_slice(&[5i64, 1, 0]));
        assert!((accuracy.top1 - 100.0 / 3.0).abs() < 1e-9, "{accuracy:?}");
        assert!((accuracy.top5 - 200.0 / 3.0).abs() < 1e-9, "{accuracy:?}");
        let two = top_accuracy(&scores.narrow(1, 0, 2), &Tensor::from_slice(&[1i64, 0, 1]));
        assert_eq!(two.top5, 100.0);
    }
}
