//! What the representation is worth while it grows: weighted kNN of backbone features, on labelled
//! images that were given for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use protonce_images::data::Dataset;
use protonce_images::views::Loader;
use protonce_run::{Config, Floor, Observer, Progress, Task};
use tch::{Device, Tensor};

use super::batches::{evaluation_loader, part};
use super::error::PretrainError;
use crate::transfer::{
    Knn, TransferError, TrivialFeatures, common_labels, knn_accuracy, trivial_floors,
};
use crate::world::World;
use protonce_encoder::{Encoder, Output, extract};

/// The labelled images of the kNN evaluation.
pub(super) struct Validation {
    train: Labelled,
    test: Labelled,
    /// Accuracy of guessing the most frequent class, in percent.
    pub(super) chance: f64,
}

/// Images with the number of each one's class.
struct Labelled {
    dataset: Arc<Dataset>,
    labels: Vec<i64>,
}

impl Validation {
    /// Opens the images that `config` names; none where it names none.
    ///
    /// # Errors
    /// When they cannot be opened, or lack labels in common.
    pub(super) fn open(config: &Config) -> Result<Option<Validation>, PretrainError> {
        if config.eval_train.is_empty() {
            return Ok(None);
        }
        let open = |argument: &str| Dataset::open_labelled(argument).map_err(TransferError::from);
        let train = open(&config.eval_train)?;
        let train = if config.per_class > 0 { train.per_class(config.per_class) } else { train };
        let test = open(&config.eval_test)?;
        let (train_labels, test_labels) = common_labels(&train, &test)?;
        let mut counts = vec![0usize; train.classes().len()];
        for &label in &test_labels {
            counts[label as usize] += 1;
        }
        let most = counts.into_iter().max().unwrap_or(0);
        Ok(Some(Validation {
            chance: 100.0 * most as f64 / test_labels.len().max(1) as f64,
            train: Labelled { dataset: Arc::new(train), labels: train_labels },
            test: Labelled { dataset: Arc::new(test), labels: test_labels },
        }))
    }

    /// What was left out of the images, one sentence each.
    pub(super) fn remarks(&self) -> impl Iterator<Item = &String> {
        [&self.train, &self.test].into_iter().flat_map(|part| part.dataset.remarks())
    }

    /// What `encoder` as the run begins with it, an untrained one and trivial features come to: known in the
    /// first process of `world`.
    ///
    /// # Errors
    /// When the images cannot be loaded.
    pub(super) fn floors(
        &self,
        encoder: &Encoder,
        device: Device,
        config: &Config,
        world: &World,
        observer: &mut Observer,
    ) -> Result<Option<Vec<Floor>>, PretrainError> {
        let mut floors = Vec::new();
        let mut measure = |name: &str, encoder: &Encoder| -> Result<(), PretrainError> {
            let knn = self.knn(encoder, device, config, world, observer)?;
            floors.extend(knn.map(|knn| Floor { name: name.to_owned(), knn }));
            Ok(())
        };
        if config.init.is_empty() {
            measure("untrained network", encoder)?;
        } else {
            measure("the weights it starts from", encoder)?;
            let untrained = Encoder::new(&config.encoder, encoder.precision(), device, config.seed);
            measure("untrained network", &untrained)?;
        }
        if !world.is_first() {
            return Ok(None);
        }
        let classes = self.train.dataset.classes().len() as i64;
        let train = self.train.trivial_features(config)?;
        let test = self.test.trivial_features(config)?;
        let [train, test] = [&train, &test].map(|(features, labels)| (features, labels));
        floors.extend(trivial_floors(&Knn::default(), train, test, classes));
        Ok(Some(floors))
    }

    /// Top-1 accuracy in percent by number of neighbours: known in the first process of `world`.
    ///
    /// # Errors
    /// When features cannot be computed.
    pub(super) fn knn(
        &self,
        encoder: &Encoder,
        device: Device,
        config: &Config,
        world: &World,
        observer: &mut Observer,
    ) -> Result<Option<BTreeMap<i64, f64>>, PretrainError> {
        let classes = self.train.dataset.classes().len() as i64;
        let train = self.train.features(encoder, device, config, world, observer)?;
        let test = self.test.features(encoder, device, config, world, observer)?;
        let Some(((bank, bank_labels), (queries, query_labels))) = train.zip(test) else {
            return Ok(None);
        };
        let accuracies = knn_accuracy(
            &Knn::default(),
            (&bank, &bank_labels),
            (&queries, &query_labels),
            classes,
        );
        let accuracies = accuracies.into_iter().map(|accuracy| (accuracy.k, accuracy.top1));
        Ok(Some(accuracies.collect()))
    }
}

impl Labelled {
    /// Features float32 [readable images, width] and labels int64 [readable images], in the first process;
    /// each computes a part of them.
    fn features(
        &self,
        encoder: &Encoder,
        device: Device,
        config: &Config,
        world: &World,
        observer: &mut Observer,
    ) -> Result<Option<(Tensor, Tensor)>, PretrainError> {
        let images: Vec<usize> = (0..self.dataset.len()).collect();
        let own = part(&images, config, world);
        let mut loader =
            evaluation_loader(&self.dataset, own, config.views.clone(), config, device)?;
        let extracted = extract(encoder, &mut loader, Output::Features, &mut |done| {
            let (done, total) = (done * images.len() / own.len(), images.len());
            observer(Progress::Task { task: Task::Features, done, total });
        })?;
        let found = world.gather_values(&extracted.images)?;
        let lengths: Vec<usize> = found.iter().map(Vec::len).collect();
        let rows = world.rows_in_first(&extracted.rows, &lengths)?;
        let labels = self.labels_of(&found.concat()).to_device(device);
        Ok(rows.map(|rows| (rows.to_device(device), labels)))
    }

    /// Trivial features of the readable images, and their labels.
    fn trivial_features(
        &self,
        config: &Config,
    ) -> Result<(TrivialFeatures, Tensor), PretrainError> {
        let mut loader = self.loader(config, Device::Cpu)?;
        let features = TrivialFeatures::of(&mut loader, &config.views)?;
        let labels = self.labels_of(&features.images);
        Ok((features, labels))
    }

    fn loader(&self, config: &Config, device: Device) -> Result<Loader, PretrainError> {
        let images: Vec<usize> = (0..self.dataset.len()).collect();
        Ok(evaluation_loader(&self.dataset, &images, config.views.clone(), config, device)?)
    }

    /// int64 [images].
    fn labels_of(&self, images: &[i64]) -> Tensor {
        let labels: Vec<i64> = images.iter().map(|&image| self.labels[image as usize]).collect();
        Tensor::from_slice(&labels)
    }
}
