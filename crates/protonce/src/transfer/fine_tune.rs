//! Semi-supervised learning: the whole network fine-tuned on a share of the labels (PCL §4.2).
//!
//! The encoder's head is replaced by a new random classifier, which learns at a rate of its own,
//! larger than the backbone's.

use std::sync::Arc;

use tch::{Kind, Tensor};

use super::classifier::{TopAccuracy, top_accuracy};
use super::supervised::each_batch;
use super::{FrozenEncoder, SupervisedProgress, SupervisedSgd, TransferError};
use protonce_encoder::{BatchStats, Encoder, EncoderError, Sgd};
use protonce_images::data::Dataset;
use protonce_images::views::{Crops, Loader, LoaderOptions};
use protonce_run::{EncoderConfig, Head};

/// How fine-tuning goes; the defaults are the paper's (its appendix on implementation details): 20
/// epochs, and learning rates that fall to a fifth at 12 and 16.
#[derive(Debug, Clone)]
pub struct FineTune {
    /// Epochs, batches, milestones.
    pub sgd: SupervisedSgd,
    /// Learning rate of the backbone.
    pub backbone_lr: f64,
    /// Learning rate of the classifier: 1 suits 1 % of ImageNet's labels, 0.1 suits 10 %.
    pub classifier_lr: f64,
}

impl Default for FineTune {
    fn default() -> FineTune {
        FineTune {
            sgd: SupervisedSgd {
                epochs: 20,
                batch_size: 256,
                milestones: vec![12, 16],
                decay: 0.2,
                momentum: 0.9,
                weight_decay: 5e-4,
                seed: 0,
            },
            backbone_lr: 0.01,
            classifier_lr: 1.0,
        }
    }
}

/// A network that ends in a classifier.
pub struct FineTuned {
    /// Its head is the classifier.
    pub network: Encoder,
}

impl FineTune {
    /// Fine-tunes a copy of `start` on `images`, whose `labels` are in 0..`classes`.
    ///
    /// # Errors
    /// When images cannot be loaded, not one can be read, or the loss stops being a number.
    pub fn fit(
        &self,
        start: &FrozenEncoder,
        (images, labels): (&Dataset, &[i64]),
        classes: usize,
        observe: &mut dyn FnMut(SupervisedProgress),
    ) -> Result<FineTuned, TransferError> {
        let mut network = self.classifier_on(start, classes)?;
        let device = network.parameters().theta().device();
        let views = start.views().supervised();
        let classifier = Self::classifier_start(&network);
        let velocity = network.parameters().theta().zeros_like();
        self.sgd.train((images, labels), &views, device, observe, &mut |batch| {
            // scores [batch, classes].
            let scores = network.scores(&batch.pixels, BatchStats::Batch);
            let loss = scores.cross_entropy_for_logits(&batch.labels);
            let gradient = network.parameters().gradient(&loss);
            if !loss.double_value(&[]).is_finite() {
                return Err(TransferError::Diverged { epoch: batch.epoch + 1 });
            }
            let sgd = |learning_rate: f64| Sgd {
                learning_rate: learning_rate * batch.rate,
                momentum: self.sgd.momentum,
                weight_decay: self.sgd.weight_decay,
            };
            let (backbone, head) = (sgd(self.backbone_lr), sgd(self.classifier_lr));
            let parameters = network.parameters_mut();
            parameters.sgd_step(..classifier, &velocity, &gradient, backbone);
            parameters.sgd_step(classifier.., &velocity, &gradient, head);
            Ok(loss.detach().to_kind(Kind::Double) * batch.labels.size()[0] as f64)
        })?;
        Ok(FineTuned { network })
    }

    /// The backbone of `start` under a new random classifier.
    fn classifier_on(
        &self,
        start: &FrozenEncoder,
        classes: usize,
    ) -> Result<Encoder, EncoderError> {
        let old = start.encoder();
        let config =
            EncoderConfig { head: Head::Linear, dim: classes as i64, ..old.config().clone() };
        let device = old.parameters().theta().device();
        let mut network = Encoder::new(&config, start.precision(), device, self.sgd.seed);
        let is_head = |name: &str| name.starts_with("fc.");
        let backbone = old.parameters().named_tensors();
        let mut tensors: Vec<(String, Tensor)> =
            backbone.into_iter().filter(|(name, _)| !is_head(name)).collect();
        let fresh = network.parameters().named_tensors();
        tensors.extend(fresh.into_iter().filter(|(name, _)| is_head(name)));
        network.parameters_mut().load(&tensors)?;
        network.parameters_mut().track_gradients();
        Ok(network)
    }

    /// Where the classifier's numbers begin in θ, of which they are the last.
    fn classifier_start(network: &Encoder) -> i64 {
        let head = network.parameters().named_tensors();
        let head = head.iter().filter(|(name, _)| name.starts_with("fc."));
        let count: i64 = head.map(|(_, tensor)| tensor.numel() as i64).sum();
        network.parameters().theta().numel() as i64 - count
    }
}

impl FineTuned {
    /// How often the class of a centre crop is right.
    ///
    /// # Errors
    /// When images cannot be loaded, or not one can be read.
    pub fn test(
        &self,
        start: &FrozenEncoder,
        (images, labels): (&Dataset, &[i64]),
        batch_size: usize,
        observe: &mut dyn FnMut(SupervisedProgress),
    ) -> Result<TopAccuracy, TransferError> {
        let _guard = tch::no_grad_guard();
        let device = self.network.parameters().theta().device();
        let indices: Vec<usize> = (0..images.len()).collect();
        let batches = indices.chunks(batch_size.max(1)).map(<[usize]>::to_vec).collect();
        let views = start.views().clone();
        let options = LoaderOptions { views, batches, crops: Crops::Centre, threads: 0 };
        let loader = Loader::new(Arc::new(images.clone()), options)?;
        let (mut scores, mut truth) = (Vec::new(), Vec::new());
        each_batch(loader, labels, device, observe, &mut |pixels, labels| {
            scores.push(self.network.scores(&pixels, BatchStats::Running));
            truth.push(labels);
            Ok(())
        })?;
        if scores.is_empty() {
            return Err(TransferError::NoFeatures { name: images.argument().to_owned() });
        }
        let scores = Tensor::cat(&scores, 0).to_kind(Kind::Float);
        Ok(top_accuracy(&scores, &Tensor::cat(&truth, 0)))
    }
}
