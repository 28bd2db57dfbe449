//! The M-step: one batch of query and key views in, one step of gradient descent done.

use std::sync::Arc;

use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use tch::{Device, Kind, Tensor};

use super::error::PretrainError;
use super::groups::Groups;
use super::loss_sums::LossSums;
use super::setup::precision;
use super::share::Share;
use crate::contrast::{
    Contrast, Queue, decorrelation, info_nce, other_images, other_prototypes, proto_nce,
    sample_negatives,
};
use crate::prototypes::Prototypes;
use crate::tensors::NamedTensors;
use crate::weights::Weights;
use crate::world::{World, WorldError, floats};
use protonce_encoder::convolution::ConvPlan;
use protonce_encoder::profile::{self, Part};
use protonce_encoder::{MomentumPair, Sgd, upload};
use protonce_images::random::{Purpose, generator};
use protonce_images::views::Batch;
use protonce_run::{
    Config, EncoderConfig, Expectation, Method, Position, QueueNegatives, RunError,
};

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
    /// Where in θ the parameters begin that are trained.
    trained: i64,
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
        let trained = match config.freeze_stages {
            0 => 0,
            4.. => pair.encoder.parameters().start_of("fc."),
            stages => pair.encoder.parameters().start_of(&format!("layer{}.", stages + 1)),
        };
        Trainer { config: config.clone(), device, world, pair, queue, bank, velocity, trained }
    }

    /// Takes over the weights of an encoder of the same shape, with its head if that is of the same
    /// shape too.
    pub(super) fn start_from(&mut self, weights: &Weights) -> Result<(), PretrainError> {
        let own = self.pair.encoder.config();
        let shape =
            |config: &EncoderConfig| format!("{} with {} stem", config.network(), config.stem);
        let (found, expected) = (shape(&weights.encoder), shape(own));
        if found != expected {
            return Err(PretrainError::OtherShape {
                init: self.config.init.clone(),
                found,
                expected,
            });
        }
        let with_head = (weights.encoder.head, weights.encoder.dim) == (own.head, own.dim);
        let mut tensors = self.pair.encoder.parameters().named_tensors();
        for (name, tensor) in &mut tensors {
            let given = weights.tensors.iter().find(|(given, _)| given == name);
            if let Some((_, given)) = given.filter(|_| with_head || !name.starts_with("fc.")) {
                *tensor = given.to_device(self.device);
            }
        }
        self.begin_with(&tensors)
    }

    /// Lets both encoders begin with `tensors`, which are all of theirs.
    pub(super) fn begin_with(&mut self, tensors: &NamedTensors) -> Result<(), PretrainError> {
        self.pair.encoder.parameters_mut().load(tensors)?;
        Ok(self.pair.momentum_encoder.parameters_mut().load(tensors)?)
    }

    /// Computes convolutions by the algorithms of `conv_plan` from now on.
    pub(super) fn set_conv_plan(&mut self, conv_plan: ConvPlan) {
        let conv_plan = Arc::new(conv_plan);
        self.pair.encoder.set_conv_plan(conv_plan.clone());
        self.pair.momentum_encoder.set_conv_plan(conv_plan);
    }

    /// What the processes have of `batch`, of which each has loaded a part.
    pub(super) fn share(&self, batch: &Batch) -> Result<Share, WorldError> {
        Share::of(batch, &self.world)
    }

    /// One step on one batch (PCL, Algorithm 1, lines 7 to 14), of which this process has loaded `batch`.
    pub(super) fn step(
        &mut self,
        batch: &Batch,
        share: &Share,
        granularities: &[Prototypes],
        position: Position,
    ) -> Result<LossSums, WorldError> {
        let config = self.config.clone();
        let images = &share.images;
        let (count, size) = (images.len(), batch.image_size);
        let groups = Groups::of(count, config.bn_splits, self.world.size());
        let (epoch, step) = (position.epoch as u64, position.step as u64);
        let random = |purpose| generator(config.seed, purpose);

        // The momentum encoder follows, then sees the key views: keys [batch, dim].
        self.pair.ema_update(config.momentum(position));
        let mut order: Vec<i64> = (0..count as i64).collect();
        order.shuffle(&mut random(Purpose::KeyOrder { epoch, step }));
        let keys = self.keys(&batch.views[1], size, share, &groups, &order)?;

        // What the queries are contrasted with, the queue as it was before this batch's keys.
        let targets = self.targets(&keys, images, granularities, &|granularity| {
            random(Purpose::Negatives { epoch, step, granularity })
        });

        let weight = config.weight_of_prototypes(position);

        // The gradient is the mean of those of the query views, which are seen one after the other.
        let mut gradient = None::<Tensor>;
        let loss = |trainer: &Trainer, queries: &Tensor| {
            trainer.losses(queries, &targets, granularities, weight)
        };
        for local in &batch.local_views {
            let (_, of_view) = self.view(local, batch.local_size, share, &groups, &loss)?;
            gradient = Some(gradient.map_or(of_view.shallow_clone(), |sum| sum + of_view));
        }
        let (losses, of_view) = self.view(&batch.views[0], size, share, &groups, &loss)?;
        let gradient = match gradient {
            Some(sum) => (sum + of_view) / (1 + batch.local_views.len()) as f64,
            None => of_view,
        };

        // Gradient descent with momentum and weight decay on all of θ.
        let sgd = Sgd {
            learning_rate: config.learning_rate(position),
            momentum: config.sgd_momentum,
            weight_decay: config.weight_decay,
        };
        let trained = self.trained..;
        self.pair.encoder.parameters_mut().sgd_step(trained, &self.velocity, &gradient, sgd);

        if let Some(bank) = &mut self.bank {
            let _ = bank.index_copy_(0, &targets.images, &keys);
        }
        self.queue.enqueue(&keys, &targets.images);
        Ok(LossSums::of(
            count,
            [
                Some(losses.total),
                Some(losses.instance.loss),
                Some(losses.instance.accuracy),
                losses.prototype_loss,
                losses.prototype_accuracy,
            ],
            self.device,
        ))
    }

    /// The keys of a batch's key views, in the batch's order: [batch, dim]. `order` is that in which images
    /// go into groups.
    fn keys(
        &mut self,
        pixels: &[f32],
        size: usize,
        share: &Share,
        groups: &Groups,
        order: &[i64],
    ) -> Result<Tensor, WorldError> {
        if self.world.size() == 1 {
            return Ok(self.pair.keys(pixels, size, self.config.bn_splits, order));
        }
        let _guard = tch::no_grad_guard();
        let width = size * size * 3;
        let pixels = share.pixels(pixels, width, groups, Some(order), &self.world)?;
        let lengths = self.own_lengths(groups);
        let (keys, statistics) = self.pair.key_groups(&pixels, size, &lengths);
        let keys = self.gather_rows(&keys, groups)?;
        let statistics = self.gather_statistics(statistics, groups)?;
        self.pair.momentum_encoder.parameters_mut().move_statistics(&statistics);
        // Back from the order of the groups.
        let order = upload(order, self.device);
        Ok(keys.index_select(0, &order.argsort(0, false)))
    }

    /// The loss of one query view and its gradient, laid out as θ. `pixels` are those of the images that this
    /// process has; `losses` is the loss of queries [batch, dim].
    ///
    /// Every process computes the loss of the whole batch, and from its gradient goes on with the queries of
    /// its own groups.
    fn view(
        &mut self,
        pixels: &[f32],
        size: usize,
        share: &Share,
        groups: &Groups,
        losses: &dyn Fn(&Trainer, &Tensor) -> Losses,
    ) -> Result<(Losses, Tensor), WorldError> {
        if self.world.size() == 1 {
            let queries = self.pair.queries(pixels, size, self.config.bn_splits);
            let losses = losses(self, &queries);
            let gradient = self.pair.encoder.parameters().gradient(&losses.total);
            return Ok((losses, gradient));
        }
        let pixels = share.pixels(pixels, size * size * 3, groups, None, &self.world)?;
        let lengths = self.own_lengths(groups);
        let (own, statistics) = self.pair.query_groups(&pixels, size, &lengths);
        let queries = self.gather_rows(&own, groups)?.set_requires_grad(true);
        let statistics = self.gather_statistics(statistics, groups)?;
        self.pair.encoder.parameters_mut().move_statistics(&statistics);

        let losses = losses(self, &queries);
        let of_queries = Tensor::run_backward(&[&losses.total], &[&queries], false, false);
        let parameters = self.pair.encoder.parameters();
        let of_groups: Vec<Tensor> = own
            .iter()
            .zip(groups.of_process(self.world.rank()))
            .map(|(own, images)| {
                let (start, length) = (images.start as i64, images.len() as i64);
                parameters.gradient_from(own, &of_queries[0].narrow(0, start, length))
            })
            .collect();
        let gradient = self.world.sum(&of_groups, &groups.counts(), parameters.theta())?;
        Ok((losses, gradient))
    }

    /// The images of each group of this process.
    fn own_lengths(&self, groups: &Groups) -> Vec<i64> {
        let own = groups.of_process(self.world.rank()).iter();
        own.map(|images| images.len() as i64).collect()
    }

    /// The rows of all groups, of which each process has its own: float32 [batch, dim], without a graph.
    fn gather_rows(&self, own: &[Tensor], groups: &Groups) -> Result<Tensor, WorldError> {
        let dim = self.config.encoder.dim as usize;
        let mut rows = Vec::new();
        for group in own {
            rows.extend(floats(group)?);
        }
        let lengths: Vec<usize> =
            (0..self.world.size()).map(|process| groups.images_of(process).len() * dim).collect();
        let rows = self.world.gather_known(&rows, &lengths)?;
        Ok(upload(&rows, self.device).view([-1, dim as i64]))
    }

    /// The batch statistics of all groups, of which each process has its own.
    fn gather_statistics(&self, own: Vec<f64>, groups: &Groups) -> Result<Vec<f64>, WorldError> {
        let all = self.pair.encoder.parameters().statistics_length();
        let lengths: Vec<usize> = groups.counts().iter().map(|count| count * all).collect();
        self.world.gather_known(&own, &lengths)
    }

    /// What the queries of `images` [batch] are pulled to and pushed from, whichever view they are of;
    /// `random` draws the negatives of the granularity of its number.
    fn targets(
        &self,
        keys: &Tensor,
        images: &[i64],
        granularities: &[Prototypes],
        random: &dyn Fn(u16) -> ChaCha8Rng,
    ) -> Targets {
        let _part = profile::part(Part::Losses);
        let config = &self.config;
        let rows = Tensor::from_slice(images);
        let (mut own, mut negatives) = (Vec::new(), Vec::new());
        for (m, granularity) in (0..).zip(granularities) {
            let mut prototypes = vec![0i64; images.len()];
            let assignment = granularity.assignment.index_select(0, &rows);
            assignment.copy_data(&mut prototypes, images.len());
            let clusters = granularity.prototypes.size()[0];
            let drawn = sample_negatives(&prototypes, clusters, config.negatives, random(m));
            own.push(upload(&prototypes, self.device));
            negatives.push(upload(&drawn, self.device));
        }
        let images = upload(images, self.device);
        let queue_weights = match config.queue_negatives {
            QueueNegatives::All => None,
            QueueNegatives::OtherImages => Some(other_images(&images, self.queue.images())),
            QueueNegatives::OtherPrototypes => {
                let belonging = other_prototypes(self.queue.keys(), granularities, &own);
                Some(other_images(&images, self.queue.images()) + belonging)
            }
        };
        Targets { keys: keys.shallow_clone(), images, queue_weights, own, negatives }
    }

    /// The loss of `queries` [batch, dim], in which prototypes have `weight`.
    fn losses(
        &self,
        queries: &Tensor,
        targets: &Targets,
        granularities: &[Prototypes],
        weight: f64,
    ) -> Losses {
        let _part = profile::part(Part::Losses);
        let config = &self.config;

        // InfoNCE against the queue.
        let weights = targets.queue_weights.as_ref();
        let (keys, queue) = (&targets.keys, self.queue.keys());
        let instance = info_nce(queries, keys, queue, weights, config.temperature);

        // ProtoNCE, averaged over the granularities.
        let (mut prototype_loss, mut prototype_accuracy) = (None::<Tensor>, None::<Tensor>);
        let share = 1.0 / granularities.len() as f64;
        for (m, granularity) in granularities.iter().enumerate() {
            let (own, negatives) = (&targets.own[m], &targets.negatives[m]);
            let term = proto_nce(queries, granularity, own, negatives, config.duplicates);
            let added = |sum: Option<Tensor>, value: Tensor| match sum {
                Some(sum) => Some(sum + value * share),
                None => Some(value * share),
            };
            prototype_loss = added(prototype_loss, term.loss);
            prototype_accuracy = added(prototype_accuracy, term.accuracy);
        }
        let mut total = instance.loss.shallow_clone();
        if let Some(prototype_loss) = &prototype_loss {
            total = match weight {
                1.0 => total + prototype_loss,
                weight => total + prototype_loss * weight,
            };
        }
        if config.decorrelation > 0.0 {
            total = &total + decorrelation(queries) * config.decorrelation;
        }
        Losses { total, instance, prototype_loss, prototype_accuracy }
    }

    /// The query encoder under torchvision's names, and everything else that resuming needs.
    pub(super) fn named_tensors(&self) -> (NamedTensors, NamedTensors) {
        let prefixed = self.pair.momentum_encoder.parameters().named_tensors().into_iter();
        let mut training: NamedTensors =
            prefixed.map(|(name, tensor)| (format!("momentum_encoder.{name}"), tensor)).collect();
        training.push(("queue".to_owned(), self.queue.keys().copy()));
        if self.config.queue_negatives != QueueNegatives::All {
            training.push(("queue_images".to_owned(), self.queue.images().copy()));
        }
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
        let (mut keys, mut images) = (None, None);
        for (name, tensor) in training {
            let tensor = tensor.to_device(self.device);
            match name.strip_prefix("momentum_encoder.") {
                Some(name) => momentum_encoder.push((name.to_owned(), tensor)),
                None if name == "queue" => keys = Some(tensor),
                None if name == "queue_images" => images = Some(tensor),
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
        if let Some(keys) = keys {
            self.queue = Queue::restore(keys, images, queue_position);
        }
        Ok(self.pair.momentum_encoder.parameters_mut().load(&momentum_encoder)?)
    }
}

/// What the queries of a batch are contrasted with.
struct Targets {
    /// Each query's positive: [batch, dim].
    keys: Tensor,
    /// The image of each query: int64 \[batch\].
    images: Tensor,
    /// Logarithms of what the keys of the queue weigh: [batch, r]; none where all weigh the same.
    queue_weights: Option<Tensor>,
    /// For each granularity, the prototype of each image: int64 \[batch\].
    own: Vec<Tensor>,
    /// For each granularity, the prototypes that are negatives of all: int64 [up to r].
    negatives: Vec<Tensor>,
}

/// The terms of the loss of one view.
struct Losses {
    total: Tensor,
    instance: Contrast,
    prototype_loss: Option<Tensor>,
    prototype_accuracy: Option<Tensor>,
}
