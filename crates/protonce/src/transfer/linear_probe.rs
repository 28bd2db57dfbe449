//! The published linear protocol: a linear classifier trained by gradient descent on features of random
//! crops, the encoder frozen.
//!
//! Slower than [`Logistic`](super::Logistic) by the number of epochs, since every epoch computes the
//! features of other crops; what published figures were measured with.

use std::sync::Arc;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};
use tch::{Kind, Tensor};

use super::logistic::LinearClassifier;
use super::{FrozenEncoder, TransferError};
use crate::encoder::{BatchStats, image_tensor};
use protonce_images::data::Dataset;
use protonce_images::views::{Loader, Unreadable};

/// How the learning rate and the images go by; the defaults are the published code's
/// (`eval_cls_imagenet.py`).
#[derive(Debug, Clone)]
pub struct LinearProbe {
    /// Passes over the images.
    pub epochs: usize,
    /// Images a step.
    pub batch_size: usize,
    /// Learning rate of the first epoch.
    pub lr: f64,
    /// The epochs at which it falls to a tenth.
    pub milestones: Vec<usize>,
    /// Momentum of gradient descent.
    pub momentum: f64,
    /// L2 penalty.
    pub weight_decay: f64,
    /// What the first weights, the order and the crops follow from.
    pub seed: u64,
}

impl Default for LinearProbe {
    fn default() -> LinearProbe {
        LinearProbe {
            epochs: 100,
            batch_size: 256,
            lr: 5.0,
            milestones: vec![60, 80],
            momentum: 0.9,
            weight_decay: 0.0,
            seed: 0,
        }
    }
}

/// Where a training stands.
#[derive(Debug, Clone)]
pub enum Step {
    /// Images of the epoch that are done.
    Images(usize),
    /// An epoch's end: its number from 1, and its mean cross-entropy.
    Epoch(usize, f64),
    /// An image that cannot be read; told once.
    Skipped(Unreadable),
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
        observe: &mut dyn FnMut(Step),
    ) -> Result<LinearClassifier, TransferError> {
        let _guard = tch::no_grad_guard();
        let encoder = frozen.encoder();
        let device = encoder.parameters().theta().device();
        let views = frozen.views().supervised();
        let mut weights: Option<(Tensor, Tensor)> = None;
        let mut velocity: Option<(Tensor, Tensor)> = None;
        for epoch in 0..self.epochs {
            let plan = shuffled(images.len(), self.batch_size, self.seed, epoch);
            let data = Arc::new(images.clone());
            let mut loader = Loader::single(data, views.clone(), plan, self.seed, epoch as u64, 0)?;
            let passed = self.milestones.iter().filter(|&&milestone| epoch >= milestone);
            let lr = self.lr * 0.1f64.powi(passed.count() as i32);
            let (mut done, mut seen) = (0, 0);
            let mut loss = Tensor::zeros([], (Kind::Double, device));
            while let Some(batch) = loader.next() {
                let batch = batch?;
                done += batch.indices.len() + batch.unreadable.len();
                if epoch == 0 {
                    batch.unreadable.iter().for_each(|bad| observe(Step::Skipped(bad.clone())));
                }
                if !batch.indices.is_empty() {
                    let pixels = image_tensor(&batch.views[0], batch.image_size, device);
                    // features [batch, width], by running statistics: nothing of the encoder moves.
                    let features = encoder.features(&pixels, BatchStats::Running);
                    let (weight, bias) = weights.get_or_insert_with(|| {
                        self.first_weights(classes, features.size()[1], device)
                    });
                    let count = batch.indices.len();
                    let truth: Vec<i64> =
                        batch.indices.iter().map(|&image| labels[image]).collect();
                    let truth = Tensor::from_slice(&truth).to_device(device);
                    let log_probability =
                        features.linear(&*weight, Some(&*bias)).log_softmax(1, Kind::Float);
                    loss -= log_probability.gather(1, &truth.unsqueeze(1), false).sum(Kind::Double);
                    // ∂loss/∂scores: (probability − truth) / batch.
                    let error =
                        (log_probability.exp() - truth.one_hot(classes as i64)) / count as f64;
                    let gradient = (
                        error.tr().matmul(&features) + &*weight * self.weight_decay,
                        error.sum_dim_intlist([0].as_slice(), false, Kind::Float)
                            + &*bias * self.weight_decay,
                    );
                    let (by_weight, by_bias) = match velocity.take() {
                        Some((w, b)) => {
                            (w * self.momentum + gradient.0, b * self.momentum + gradient.1)
                        }
                        None => gradient,
                    };
                    *weight -= &by_weight * lr;
                    *bias -= &by_bias * lr;
                    velocity = Some((by_weight, by_bias));
                    seen += count;
                }
                observe(Step::Images(done));
                loader.recycle(batch);
            }
            observe(Step::Epoch(epoch + 1, loss.double_value(&[]) / seen.max(1) as f64));
        }
        let name = || TransferError::NoFeatures { name: images.argument().to_owned() };
        let (weight, bias) = weights.ok_or_else(name)?;
        Ok(LinearClassifier { weight, bias })
    }

    /// Weights drawn with deviation 0.01, as in the published code, and a bias of 0.
    fn first_weights(&self, classes: usize, width: i64, device: tch::Device) -> (Tensor, Tensor) {
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        let count = classes * width as usize;
        // A deviation that is finite and positive is never refused.
        let values: Vec<f32> = match Normal::new(0.0f32, 0.01) {
            Ok(normal) => normal.sample_iter(&mut random).take(count).collect(),
            Err(_) => vec![0.0; count],
        };
        let weight = Tensor::from_slice(&values).view([classes as i64, width]).to_device(device);
        (weight, Tensor::zeros([classes as i64], (Kind::Float, device)))
    }
}

/// The images of an epoch in random order, in batches; an image left over alone is left out, because
/// it has no batch statistics.
pub(super) fn shuffled(
    images: usize,
    batch_size: usize,
    seed: u64,
    epoch: usize,
) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..images).collect();
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    // One stream of choices a training, one place in it an epoch.
    random.set_stream(epoch as u64 + 1);
    order.shuffle(&mut random);
    let mut batches: Vec<Vec<usize>> =
        order.chunks(batch_size.max(1)).map(<[usize]>::to_vec).collect();
    if batches.len() > 1 && batches.last().is_some_and(|last| last.len() == 1) {
        batches.pop();
    }
    batches
}
