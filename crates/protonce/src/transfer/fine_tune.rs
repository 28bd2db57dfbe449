//! Semi-supervised learning: the whole network fine-tuned on a share of the labels (PCL §4.2).
//!
//! The encoder's head is replaced by a classifier drawn afresh, which learns at a rate of its own,
//! larger than the backbone's.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use tch::{Kind, Tensor};

use super::linear_probe::{Step, shuffled};
use super::logistic::{TopAccuracy, top_accuracy};
use super::{FrozenEncoder, TransferError};
use crate::encoder::{BatchStats, Encoder, EncoderError, Sgd, image_tensor};
use protonce_images::data::{DataError, Dataset};
use protonce_images::views::Loader;
use protonce_run::{EncoderConfig, Head};

/// How fine-tuning goes; the defaults are the paper's (its appendix on implementation details).
#[derive(Debug, Clone)]
pub struct FineTune {
    /// Passes over the labelled images.
    pub epochs: usize,
    /// Images a step.
    pub batch_size: usize,
    /// Learning rate of the backbone.
    pub backbone_lr: f64,
    /// Learning rate of the classifier: 1 suits 1 % of ImageNet's labels, 0.1 suits 10 %.
    pub classifier_lr: f64,
    /// The epochs at which both fall to a fifth.
    pub milestones: Vec<usize>,
    /// Momentum of gradient descent.
    pub momentum: f64,
    /// L2 penalty.
    pub weight_decay: f64,
    /// What the classifier's first weights, the order and the crops follow from.
    pub seed: u64,
}

impl Default for FineTune {
    fn default() -> FineTune {
        FineTune {
            epochs: 20,
            batch_size: 256,
            backbone_lr: 0.01,
            classifier_lr: 1.0,
            milestones: vec![12, 16],
            momentum: 0.9,
            weight_decay: 5e-4,
            seed: 0,
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
    /// When images cannot be loaded, or the loss stops being a number.
    pub fn fit(
        &self,
        start: &FrozenEncoder,
        (images, labels): (&Dataset, &[i64]),
        classes: usize,
        observe: &mut dyn FnMut(Step),
    ) -> Result<FineTuned, TransferError> {
        let mut network = self.classifier_on(start, classes)?;
        let device = network.parameters().theta().device();
        let views = start.views().supervised();
        let classifier = Self::classifier_start(&network);
        let velocity = network.parameters().theta().zeros_like();
        for epoch in 0..self.epochs {
            let plan = shuffled(images.len(), self.batch_size, self.seed, epoch);
            let data = Arc::new(images.clone());
            let mut loader = Loader::single(data, views.clone(), plan, self.seed, epoch as u64, 0)?;
            let passed = self.milestones.iter().filter(|&&milestone| epoch >= milestone);
            let factor = 0.2f64.powi(passed.count() as i32);
            let (mut done, mut seen, mut sum) = (0, 0, 0.0);
            while let Some(batch) = loader.next() {
                let batch = batch?;
                done += batch.indices.len() + batch.unreadable.len();
                if epoch == 0 {
                    batch.unreadable.iter().for_each(|bad| observe(Step::Skipped(bad.clone())));
                }
                if !batch.indices.is_empty() {
                    let pixels = image_tensor(&batch.views[0], batch.image_size, device);
                    let truth: Vec<i64> =
                        batch.indices.iter().map(|&image| labels[image]).collect();
                    let truth = Tensor::from_slice(&truth).to_device(device);
                    // scores [batch, classes].
                    let loss =
                        network.scores(&pixels, BatchStats::Batch).cross_entropy_for_logits(&truth);
                    let gradient = network.parameters().gradient(&loss);
                    let value = loss.double_value(&[]);
                    if !value.is_finite() {
                        return Err(TransferError::Diverged { epoch: epoch + 1 });
                    }
                    let sgd = |learning_rate: f64| Sgd {
                        learning_rate: learning_rate * factor,
                        momentum: self.momentum,
                        weight_decay: self.weight_decay,
                    };
                    let (backbone, head) = (sgd(self.backbone_lr), sgd(self.classifier_lr));
                    let parameters = network.parameters_mut();
                    parameters.sgd_step(..classifier, &velocity, &gradient, backbone);
                    parameters.sgd_step(classifier.., &velocity, &gradient, head);
                    sum += value * batch.indices.len() as f64;
                    seen += batch.indices.len();
                }
                observe(Step::Images(done));
                loader.recycle(batch);
            }
            if seen == 0 {
                return Err(TransferError::NoFeatures { name: images.argument().to_owned() });
            }
            observe(Step::Epoch(epoch + 1, sum / seen as f64));
        }
        Ok(FineTuned { network })
    }

    /// The backbone of `start` under a classifier drawn afresh.
    fn classifier_on(
        &self,
        start: &FrozenEncoder,
        classes: usize,
    ) -> Result<Encoder, EncoderError> {
        let old = start.encoder();
        let config =
            EncoderConfig { head: Head::Linear, dim: classes as i64, ..old.config().clone() };
        let device = old.parameters().theta().device();
        let mut network = Encoder::new(&config, start.precision(), device, self.seed);
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
        observe: &mut dyn FnMut(Step),
    ) -> Result<TopAccuracy, TransferError> {
        let _guard = tch::no_grad_guard();
        let device = self.network.parameters().theta().device();
        let indices: Vec<usize> = (0..images.len()).collect();
        let plan = indices.chunks(batch_size.max(1)).map(<[usize]>::to_vec).collect();
        let mut loader =
            Loader::evaluation(Arc::new(images.clone()), start.views().clone(), plan, 0)?;
        let (mut scores, mut truth, mut done) = (Vec::new(), Vec::new(), 0);
        while let Some(batch) = loader.next() {
            let batch = batch?;
            done += batch.indices.len() + batch.unreadable.len();
            batch.unreadable.iter().for_each(|bad| observe(Step::Skipped(bad.clone())));
            if !batch.indices.is_empty() {
                let pixels = image_tensor(&batch.views[0], batch.image_size, device);
                scores.push(self.network.scores(&pixels, BatchStats::Running));
                truth.extend(batch.indices.iter().map(|&image| labels[image]));
            }
            observe(Step::Images(done));
            loader.recycle(batch);
        }
        if scores.is_empty() {
            return Err(TransferError::NoFeatures { name: images.argument().to_owned() });
        }
        let truth = Tensor::from_slice(&truth).to_device(device);
        Ok(top_accuracy(&Tensor::cat(&scores, 0).to_kind(Kind::Float), &truth))
    }
}

/// A share of each class's images, at least one, drawn by `seed`: positions in ascending order.
///
/// # Errors
/// When the share is not above 0 and at most 1.
pub fn share_of_each_class(
    labels: &[i64],
    share: f64,
    seed: u64,
) -> Result<Vec<usize>, TransferError> {
    if !(share > 0.0 && share <= 1.0) {
        let found = share.to_string();
        let expected = "above 0 and at most 1 (0.01 is 1 %)";
        return Err(TransferError::Option { option: "fraction", found, expected });
    }
    let mut order: Vec<usize> = (0..labels.len()).collect();
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    let mut of_class = std::collections::HashMap::new();
    for &label in labels {
        *of_class.entry(label).or_insert(0usize) += 1;
    }
    let mut left: std::collections::HashMap<i64, usize> = of_class
        .into_iter()
        .map(|(label, count)| (label, ((count as f64 * share).round() as usize).max(1)))
        .collect();
    let mut chosen: Vec<usize> = order
        .into_iter()
        .filter(|&position| match left.get_mut(&labels[position]) {
            Some(left) if *left > 0 => {
                *left -= 1;
                true
            }
            _ => false,
        })
        .collect();
    chosen.sort_unstable();
    Ok(chosen)
}

/// The images that a list names, one file name a line as in the official lists of 1 % and 10 % of
/// ImageNet: positions in ascending order.
///
/// # Errors
/// When the list cannot be read, or names an image that is not there.
pub fn listed(images: &Dataset, list: &Path) -> Result<Vec<usize>, TransferError> {
    let text = std::fs::read_to_string(list)
        .map_err(|source| DataError::Unreadable { path: list.to_owned(), source })?;
    let mut wanted: HashSet<&str> =
        text.lines().filter_map(|line| file_name(line.trim())).collect();
    let total = wanted.len();
    let chosen: Vec<usize> = (0..images.len())
        .filter(|&image| file_name(images.name(image)).is_some_and(|name| wanted.remove(name)))
        .collect();
    match wanted.iter().min() {
        Some(missing) => Err(TransferError::NotListed {
            list: PathBuf::from(list),
            name: (*missing).to_owned(),
            missing: wanted.len(),
            total,
            data: images.argument().to_owned(),
        }),
        None if chosen.is_empty() => Err(DataError::NoImages {
            place: list.display().to_string(),
            found: "not one file name".to_owned(),
        }
        .into()),
        None => Ok(chosen),
    }
}

fn file_name(path: &str) -> Option<&str> {
    path.rsplit('/').next().filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_takes_as_much_of_each_class_and_one_at_least() {
        let labels: Vec<i64> = (0..205).map(|image| i64::from(image >= 200)).collect();
        let chosen = share_of_each_class(&labels, 0.1, 3).unwrap();
        let first = chosen.iter().filter(|&&image| labels[image] == 0).count();
        assert_eq!((first, chosen.len() - first), (20, 1));
        assert!(chosen.is_sorted());
        assert_ne!(chosen, share_of_each_class(&labels, 0.1, 4).unwrap());
        assert_eq!(share_of_each_class(&labels, 1.0, 0).unwrap().len(), 205);
        for share in [0.0, -1.0, 1.5, f64::NAN] {
            let error = share_of_each_class(&labels, share, 0).unwrap_err().to_string();
            assert!(error.contains("fraction"), "{error}");
        }
    }
}
