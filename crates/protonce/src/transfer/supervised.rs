//! Gradient descent on labels: what the linear probe and fine-tuning have in common.
//!
//! Enters: labelled images and a step, which changes a model by one batch and gives its loss. Leaves: a
//! trained model, and the mean loss of each epoch. Order, crops and learning rates are decided here, so
//! that both protocols differ in their step alone.

use std::sync::Arc;

use rand::seq::SliceRandom;
use tch::{Device, Kind, Tensor};

use super::TransferError;
use protonce_encoder::image_tensor;
use protonce_images::batches;
use protonce_images::data::Dataset;
use protonce_images::random::{Purpose, View, generator};
use protonce_images::views::{Crops, Loader, LoaderOptions, Unreadable, ViewConfig};

/// How gradient descent on labels goes.
#[derive(Debug, Clone)]
pub struct SupervisedSgd {
    /// Passes over the images.
    pub epochs: usize,
    /// Images per step.
    pub batch_size: usize,
    /// The epochs, from 0, from which on every learning rate is multiplied by `decay`.
    pub milestones: Vec<usize>,
    /// What a milestone multiplies the learning rates by.
    pub decay: f64,
    /// Momentum of gradient descent.
    pub momentum: f64,
    /// L2 penalty.
    pub weight_decay: f64,
    /// Decides the first weights, the order and the crops.
    pub seed: u64,
}

/// How far training or testing is.
#[derive(Debug, Clone)]
pub enum SupervisedProgress {
    /// Images of the epoch, or of the test, that are done.
    Images(usize),
    /// An epoch's end: its number from 1, and its mean cross-entropy.
    Epoch(usize, f64),
    /// An image that cannot be read; reported once.
    Skipped(Unreadable),
}

/// A batch to learn from.
pub(super) struct LabelledBatch {
    /// The epoch, from 0.
    pub(super) epoch: usize,
    /// What the milestones passed have made of a learning rate of 1.
    pub(super) rate: f64,
    /// Random views, normalised: float32 [batch, 3, height, width].
    pub(super) pixels: Tensor,
    /// int64 [batch].
    pub(super) labels: Tensor,
}

impl SupervisedSgd {
    /// All epochs over `images`. `step` learns from a batch and gives the sum of its images'
    /// cross-entropies, float64 [].
    ///
    /// # Errors
    /// When images cannot be loaded, not one can be read, or a step fails.
    pub(super) fn train(
        &self,
        (images, labels): (&Dataset, &[i64]),
        views: &ViewConfig,
        device: Device,
        observe: &mut dyn FnMut(SupervisedProgress),
        step: &mut dyn FnMut(LabelledBatch) -> Result<Tensor, TransferError>,
    ) -> Result<(), TransferError> {
        for epoch in 0..self.epochs {
            let batches = self.batches(images.len(), epoch);
            let data = Arc::new(images.clone());
            let query = vec![View::Query];
            let crops = Crops::Random { seed: self.seed, epoch: epoch as u64, views: query };
            let options = LoaderOptions { views: views.clone(), batches, crops, threads: 0 };
            let loader = Loader::new(data, options)?;
            let rate = self.rate(epoch);
            let mut loss = Tensor::zeros([], (Kind::Double, device));
            let mut observe_once = |progress: SupervisedProgress| {
                if epoch == 0 || !matches!(progress, SupervisedProgress::Skipped(_)) {
                    observe(progress);
                }
            };
            let seen =
                each_batch(loader, labels, device, &mut observe_once, &mut |pixels, labels| {
                    loss += step(LabelledBatch { epoch, rate, pixels, labels })?;
                    Ok(())
                })?;
            if seen == 0 {
                return Err(TransferError::NoFeatures { name: images.argument().to_owned() });
            }
            observe(SupervisedProgress::Epoch(epoch + 1, loss.double_value(&[]) / seen as f64));
        }
        Ok(())
    }

    /// What the milestones passed by `epoch` have made of a learning rate of 1.
    fn rate(&self, epoch: usize) -> f64 {
        let passed = self.milestones.iter().filter(|&&milestone| epoch >= milestone);
        self.decay.powi(passed.count() as i32)
    }

    /// The images of an epoch in random order, in batches.
    fn batches(&self, images: usize, epoch: usize) -> Vec<Vec<usize>> {
        let mut order: Vec<usize> = (0..images).collect();
        order.shuffle(&mut generator(self.seed, Purpose::SupervisedOrder { epoch: epoch as u64 }));
        batches(&order, self.batch_size)
    }
}

/// Hands the pixels [batch, 3, height, width] and labels (int64 [batch], of `labels`, which has one per
/// image) of each batch that has readable images to `visit`, both on `device`; gives how many images
/// were readable.
pub(super) fn each_batch(
    mut loader: Loader,
    labels: &[i64],
    device: Device,
    observe: &mut dyn FnMut(SupervisedProgress),
    visit: &mut dyn FnMut(Tensor, Tensor) -> Result<(), TransferError>,
) -> Result<usize, TransferError> {
    let (mut done, mut readable) = (0, 0);
    while let Some(batch) = loader.next() {
        let batch = batch?;
        done += batch.indices.len() + batch.unreadable.len();
        batch.unreadable.iter().for_each(|bad| observe(SupervisedProgress::Skipped(bad.clone())));
        if !batch.indices.is_empty() {
            let pixels = image_tensor(&batch.views[0], batch.image_size, device);
            let labels: Vec<i64> = batch.indices.iter().map(|&image| labels[image]).collect();
            visit(pixels, Tensor::from_slice(&labels).to_device(device))?;
            readable += batch.indices.len();
        }
        observe(SupervisedProgress::Images(done));
        loader.recycle(batch);
    }
    Ok(readable)
}

#[cfg(test)]
mod tests {
    use crate::transfer::{FineTune, LinearProbe, SupervisedSgd};

    #[test]
    fn learning_rates_fall_at_each_milestone() {
        let probe = LinearProbe::default().sgd;
        assert_eq!([59, 60, 80].map(|epoch| probe.rate(epoch)), [1.0, 0.1, 0.1f64.powi(2)]);
        let fine = FineTune::default().sgd;
        assert_eq!([11, 12, 19].map(|epoch| fine.rate(epoch)), [1.0, 0.2, 0.2f64.powi(2)]);
    }

    #[test]
    fn every_image_is_learnt_from_in_every_epoch() {
        let sgd = SupervisedSgd { batch_size: 4, ..LinearProbe::default().sgd };
        let mut orders = Vec::new();
        for epoch in 0..3 {
            let batches = sgd.batches(9, epoch);
            // The ninth image joins the last batch: alone it has no batch statistics.
            assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [4, 5]);
            let order = batches.concat();
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..9).collect::<Vec<_>>());
            orders.push(order);
        }
        assert!(orders[0] != orders[1] && orders[1] != orders[2]);
    }
}
