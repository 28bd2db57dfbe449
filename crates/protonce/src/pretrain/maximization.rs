//! The M-step: one batch of query and key views in, one step of gradient descent done.

use std::sync::Arc;

use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use tch::{Device, Kind, Tensor};

use super::error::PretrainError;
use super::loss_sums::LossSums;
use super::setup::precision;
use crate::contrast::{Contrast, Queue, info_nce, proto_nce, sample_negatives};
use crate::encoder::convolution::ConvPlan;
use crate::encoder::{MomentumPair, Sgd, upload};
use crate::profile::{self, Part};
use crate::prototypes::Prototypes;
use crate::tensors::NamedTensors;
use crate::world::World;
use protonce_images::random::{Purpose, generator};
use protonce_images::views::Batch;
use protonce_run::{Config, Expectation, Method, RunError};

/// Everything that training changes.
pub(super) struct Trainer {
    config: Config,
    device: Device,
    pub(super) world: World,
    pub(super) pair: MomentumPair,
    pub(super) queue: Queue,
    /// The last key of each image, zeros where there was none: [images, dim]. Only where the E-step
    /// uses them.
    pub(super) bank: Option<Tensor>,
    /// The optimiser's velocity, laid out as θ.
    velocity: Tensor,
}

impl Trainer {
    pub(super) fn new(config: &Config, images: usize, device: Device, world: World) -> Trainer {
        let precision = precision(config, device);
        let mut pair = MomentumPair::new(&config.encoder, precision, device, config.seed);
        pair.encoder.set_checkpoint_blocks(config.checkpoint_blocks);
        let queue = Queue::new(config.queue, config.encoder.dim, device, config.seed);
        let velocity = pair.encoder.parameters().theta().zeros_like();
        let bank = (config.method == Method::Pcl && config.expectation == Expectation::Bank)
            .then(|| Tensor::zeros([images as i64, config.encoder.dim], (Kind::Float, device)));
        Trainer { config: config.clone(), device, world, pair, queue, bank, velocity }
    }

    /// Computes convolutions by the algorithms of `conv_plan` from now on.
    pub(super) fn set_conv_plan(&mut self, conv_plan: ConvPlan) {
        let conv_plan = Arc::new(conv_plan);
        self.pair.encoder.set_conv_plan(conv_plan.clone());
        self.pair.momentum_encoder.set_conv_plan(conv_plan);
    }

    /// One step on one batch (PCL, Algorithm 1, lines 7 to 14).
    pub(super) fn step(
        &mut self,
        batch: &Batch,
        granularities: &[Prototypes],
        learning_rate: f64,
        epoch: usize,
        step: usize,
    ) -> LossSums {
        let config = &self.config;
        let (count, size, splits) = (batch.indices.len(), batch.image_size, config.bn_splits);
        let (epoch, step) = (epoch as u64, step as u64);
        let random = |purpose| generator(config.seed, purpose);

        // The momentum encoder follows, then sees the key views: keys [batch, dim].
        self.pair.ema_update(config.encoder_momentum);
        let mut order: Vec<i64> = (0..count as i64).collect();
        order.shuffle(&mut random(Purpose::KeyOrder { epoch, step }));
        let keys = self.pair.keys(&batch.views[1], size, splits, &order);

        // Queries [batch, dim].
        let queries = self.pair.queries(&batch.views[0], size, splits);

        // Losses, with the queue as it was before this batch's keys.
        let images: Vec<i64> = batch.indices.iter().map(|&index| index as i64).collect();
        let losses = self.losses(&queries, &keys, &images, granularities, &|granularity| {
            random(Purpose::Negatives { epoch, step, granularity })
        });

        // Gradient descent with momentum and weight decay on all of θ.
        let gradient = self.pair.encoder.parameters().gradient(&losses.total);
        let gradient = self.world.all_reduce_mean(gradient);
        let sgd =
            Sgd { learning_rate, momentum: config.sgd_momentum, weight_decay: config.weight_decay };
        self.pair.encoder.parameters_mut().sgd_step(.., &self.velocity, &gradient, sgd);

        let keys = self.world.all_gather(keys);
        if let Some(bank) = &mut self.bank {
            let images = upload(&images, self.device);
            let _ = bank.index_copy_(0, &self.world.all_gather(images), &keys);
        }
        self.queue.enqueue(&keys);
        LossSums::of(
            count,
            [
                Some(losses.total),
                Some(losses.instance.loss),
                Some(losses.instance.accuracy),
                losses.prototype_loss,
                losses.prototype_accuracy,
            ],
            self.device,
        )
    }

    /// What `queries` [batch, dim] of `images` [batch] are pulled by; `random` draws the negatives of
    /// the granularity of its number.
    fn losses(
        &self,
        queries: &Tensor,
        keys: &Tensor,
        images: &[i64],
        granularities: &[Prototypes],
        random: &dyn Fn(u16) -> ChaCha8Rng,
    ) -> Losses {
        let _part = profile::part(Part::Losses);
        let config = &self.config;
        let rows = Tensor::from_slice(images);

        // InfoNCE against the queue.
        let instance = info_nce(queries, keys, self.queue.keys(), config.temperature);

        // ProtoNCE, averaged over the granularities.
        let (mut prototype_loss, mut prototype_accuracy) = (None::<Tensor>, None::<Tensor>);
        for (m, granularity) in (0..).zip(granularities) {
            let mut own = vec![0i64; images.len()];
            granularity.assignment.index_select(0, &rows).copy_data(&mut own, images.len());
            let clusters = granularity.prototypes.size()[0];
            let negatives = sample_negatives(&own, clusters, config.negatives, random(m));
            let [own, negatives] = [own, negatives].map(|rows| upload(&rows, self.device));
            let term = proto_nce(queries, granularity, &own, &negatives, config.duplicates);
            let share = 1.0 / granularities.len() as f64;
            let added = |sum: Option<Tensor>, value: Tensor| match sum {
                Some(sum) => Some(sum + value * share),
                None => Some(value * share),
            };
            prototype_loss = added(prototype_loss, term.loss);
            prototype_accuracy = added(prototype_accuracy, term.accuracy);
        }
        let total = match &prototype_loss {
            Some(prototype_loss) => &instance.loss + prototype_loss,
            None => instance.loss.shallow_clone(),
        };
        Losses { total, instance, prototype_loss, prototype_accuracy }
    }

    /// The query encoder under torchvision's names, and everything else that resuming needs.
    pub(super) fn named_tensors(&self) -> (NamedTensors, NamedTensors) {
        let prefixed = self.pair.momentum_encoder.parameters().named_tensors().into_iter();
        let mut training: NamedTensors =
            prefixed.map(|(name, tensor)| (format!("momentum_encoder.{name}"), tensor)).collect();
        training.push(("queue".to_owned(), self.queue.keys().copy()));
        training.push(("velocity".to_owned(), self.velocity.copy()));
        if let Some(bank) = &self.bank {
            training.push(("bank".to_owned(), bank.copy()));
        }
        (self.pair.encoder.parameters().named_tensors(), training)
    }

    /// Takes over what [`Trainer::named_tensors`] gave.
    pub(super) fn load(
        &mut self,
        encoder: &NamedTensors,
        training: NamedTensors,
        queue_position: i64,
    ) -> Result<(), PretrainError> {
        self.pair.encoder.parameters_mut().load(encoder)?;
        let mut momentum_encoder = NamedTensors::new();
        for (name, tensor) in training {
            let tensor = tensor.to_device(self.device);
            match name.strip_prefix("momentum_encoder.") {
                Some(name) => momentum_encoder.push((name.to_owned(), tensor)),
                None if name == "queue" => self.queue = Queue::restore(tensor, queue_position),
                None if name == "velocity" && tensor.size() == self.velocity.size() => {
                    self.velocity = tensor;
                }
                None if name == "bank"
                    && self.bank.as_ref().map(Tensor::size) == Some(tensor.size()) =>
                {
                    self.bank = Some(tensor);
                }
                None => return Err(RunError::Unexpected(name).into()),
            }
        }
        Ok(self.pair.momentum_encoder.parameters_mut().load(&momentum_encoder)?)
    }
}

/// The terms of a step's loss.
struct Losses {
    total: Tensor,
    instance: Contrast,
    prototype_loss: Option<Tensor>,
    prototype_accuracy: Option<Tensor>,
}
