//! The published linear protocol: a linear classifier trained by gradient descent on features of random
//! crops, the encoder frozen.
//!
//! Slower than [`Logistic`](super::Logistic) by the number of epochs, since every epoch computes the
//! features of other crops; the protocol of published figures.

use rand_distr::{Distribution, Normal};
use tch::{Kind, Tensor};

use super::classifier::LinearClassifier;
use super::{FrozenEncoder, SupervisedProgress, SupervisedSgd, TransferError};
use protonce_encoder::BatchStats;
use protonce_images::data::Dataset;
use protonce_images::random::{Purpose, generator};

/// The linear protocol; the defaults are the published code's (`eval_cls_imagenet.py`): 100 epochs, and
/// a learning rate of 5 that falls to a tenth at 60 and 80.
#[derive(Debug, Clone)]
pub struct LinearProbe {
    /// Epochs, batches, milestones.
    pub sgd: SupervisedSgd,
    /// Learning rate of the first epoch.
    pub lr: f64,
}

impl Default for LinearProbe {
    fn default() -> LinearProbe {
        LinearProbe {
            sgd: SupervisedSgd {
                epochs: 100,
                batch_size: 256,
                milestones: vec![60, 80],
                decay: 0.1,
                momentum: 0.9,
                weight_decay: 0.0,
                seed: 0,
            },
            lr: 5.0,
        }
    }
}

impl LinearProbe {
    /// Trains a classifier of `classes` outputs on `images`, whose `labels` are in 0..`classes`.
    ///
    /// # Errors
    /// When images cannot be loaded, or not one can be read.
    pub fn fit(
        &self,
        frozen: &FrozenEncoder,
        (images, labels): (&Dataset, &[i64]),
        classes: usize,
        observe: &mut dyn FnMut(SupervisedProgress),
    ) -> Result<LinearClassifier, TransferError> {
        let _guard = tch::no_grad_guard();
        let encoder = frozen.encoder();
        let device = encoder.parameters().theta().device();
        let views = frozen.views().supervised();
        let SupervisedSgd { momentum, weight_decay, .. } = self.sgd;
        let mut weights: Option<(Tensor, Tensor)> = None;
        let mut velocity: Option<(Tensor, Tensor)> = None;
        self.sgd.train((images, labels), &views, device, observe, &mut |batch| {
            let lr = self.lr * batch.rate;
            let truth = batch.labels;
            // features [batch, width], by running statistics: nothing of the encoder moves.
            let features = encoder.features(&batch.pixels, BatchStats::Running);
            let (weight, bias) = weights
                .get_or_insert_with(|| self.first_weights(classes, features.size()[1], device));
            let log_probability =
                features.linear(&*weight, Some(&*bias)).log_softmax(1, Kind::Float);
            let loss = -log_probability.gather(1, &truth.unsqueeze(1), false).sum(Kind::Double);
            // ∂loss/∂scores: (probability − truth) / batch.
            let error =
                (log_probability.exp() - truth.one_hot(classes as i64)) / truth.size()[0] as f64;
            let gradient = (
                error.tr().matmul(&features) + &*weight * weight_decay,
                error.sum_dim_intlist([0].as_slice(), false, Kind::Float) + &*bias * weight_decay,
            );
            let (by_weight, by_bias) = match velocity.take() {
                Some((w, b)) => (w * momentum + gradient.0, b * momentum + gradient.1),
                None => gradient,
            };
            *weight -= &by_weight * lr;
            *bias -= &by_bias * lr;
            velocity = Some((by_weight, by_bias));
            Ok(loss)
        })?;
        let name = || TransferError::NoFeatures { name: images.argument().to_owned() };
        let (weight, bias) = weights.ok_or_else(name)?;
        Ok(LinearClassifier { weight, bias })
    }

    /// Weights drawn with deviation 0.01, as in the published code, and a bias of 0.
    fn first_weights(&self, classes: usize, width: i64, device: tch::Device) -> (Tensor, Tensor) {
        let random = generator(self.sgd.seed, Purpose::Initial);
        let count = classes * width as usize;
        // A deviation that is finite and positive is never refused.
        let values: Vec<f32> = match Normal::new(0.0f32, 0.01) {
            Ok(normal) => normal.sample_iter(random).take(count).collect(),
            Err(_) => vec![0.0; count],
        };
        let weight = Tensor::from_slice(&values).view([classes as i64, width]).to_device(device);
        (weight, Tensor::zeros([classes as i64], (Kind::Float, device)))
    }
}
