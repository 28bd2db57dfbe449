//! The EM loop: images and settings in, a trained encoder and its prototypes out (PCL, Algorithm 1).
//!
//! Every epoch begins with an E-step, which clusters the momentum embeddings of all images into
//! prototypes, and goes on with an M-step, gradient descent on ProtoNCE. All random choices follow
//! from the seed and from where in the run they are made, never from what happened before, so a
//! run that was killed goes on from its last checkpoint to the same bits.

mod conv_plan;
mod maximization;
pub mod measure;
pub(crate) mod run_folder;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use protonce_kmeans::normalised_mutual_information;
use protonce_run::{
    Config, ConfigError, Event, Method, Observer, PrecisionChoice, Progress, Shuffle, Task, Tune,
};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use tch::{Device, Kind, Tensor};

pub use run_folder::{
    NamedTensors, RunError, RunFolder, data_fingerprint, prototype_files, read_events, write_file,
    write_tensors,
};

use crate::encoder::convolution::{ConvAlgorithms, ConvPlan};
use crate::encoder::{EncoderError, Output, Precision, extract};
use crate::prototypes::{
    ConcentrationOptions, KMeans, Metric, Points, PrototypeError, Prototypes, quality,
};
use crate::transfer::{Knn, TransferError, common_labels, knn_accuracy};
use crate::world::World;
use maximization::{Sums, Trainer};
use protonce_images::data::Dataset;
use protonce_images::views::{Loader, LoaderError, Unreadable};
use run_folder::Position;

/// What can stop a run.
#[derive(Debug, thiserror::Error)]
pub enum PretrainError {
    /// The run folder.
    #[error(transparent)]
    Run(#[from] RunError),
    /// Settings.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The views.
    #[error(transparent)]
    Loader(#[from] LoaderError),
    /// The clustering.
    #[error(transparent)]
    Prototypes(#[from] PrototypeError),
    /// The weights of a checkpoint.
    #[error(transparent)]
    Encoder(#[from] EncoderError),
    /// The evaluation.
    #[error(transparent)]
    Transfer(#[from] TransferError),
    /// Nothing to tell apart.
    #[error("{data} has one image: contrastive learning tells images apart and needs at least two")]
    OneImage {
        /// The data argument.
        data: String,
    },
    /// A batch that the images cannot fill.
    #[error(
        "a batch of {batch} cannot be filled from the {images} images of {data}: use --batch-size {images} or less"
    )]
    BatchTooLarge {
        /// The batch size.
        batch: usize,
        /// Images there are.
        images: usize,
        /// The data argument.
        data: String,
    },
    /// Other images than those the run began with.
    #[error(
        "{data} is not what this run began with (names or labels differ): continue with the same images"
    )]
    OtherData {
        /// The data argument.
        data: String,
    },
    /// Too many images that cannot be read.
    #[error("{bad} of {images} images cannot be read, more than --max-bad {max_bad} allows; the first: {}", names.join("; "))]
    TooManyBad {
        /// Images that cannot be read.
        bad: usize,
        /// Images there are.
        images: usize,
        /// The share that is allowed.
        max_bad: f64,
        /// The first ten, with reasons.
        names: Vec<String>,
    },
    /// Training has diverged.
    #[error("the loss is no longer finite in epoch {epoch}, step {step}: lower --lr; {}", match last { Some(path) => format!("the last good checkpoint is {}", path.display()), None => "there is no checkpoint yet".to_owned() })]
    NotFinite {
        /// The epoch.
        epoch: usize,
        /// The step.
        step: usize,
        /// The last checkpoint.
        last: Option<PathBuf>,
    },
}

/// How a run came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All epochs are done.
    Finished,
    /// It was asked to stop, and saved where it was.
    Stopped,
}

/// Whether a run folder is begun or continued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// There must be no run yet.
    Fresh,
    /// Goes on from the last checkpoint.
    Resume,
}

/// Everything a run needs to know before it begins.
pub struct Setup<'a> {
    /// The settings.
    pub config: &'a Config,
    /// The images.
    pub dataset: Arc<Dataset>,
    /// The run folder.
    pub out: &'a Path,
    /// Whether it is begun or continued.
    pub start: Start,
    /// Where tensors live.
    pub device: Device,
    /// The processes that train together.
    pub world: World,
}

/// Pretrains an encoder and leaves everything in the run folder.
///
/// `observer` is told what happens; `stop` is asked after every step.
///
/// # Errors
/// Anything named in [`PretrainError`]. What was saved before stays and can be resumed.
///
/// # Panics
/// When libtorch fails, for example for lack of memory.
pub fn pretrain(
    setup: Setup,
    observer: &mut Observer,
    stop: &dyn Fn() -> bool,
) -> Result<Outcome, PretrainError> {
    let config = setup.config;
    let mut run = Run::open(setup, observer)?;
    let mut prototypes = Vec::new();
    for epoch in run.epoch..config.epochs {
        // E-step: embed all images, cluster them at each granularity.
        match config.expectation_before(epoch) {
            Some(due) if due == epoch && !run.resumed_within => {
                prototypes = run.expectation(epoch)?
            }
            // A run that goes on between two E-steps finds the prototypes on disk.
            Some(due) if prototypes.is_empty() => prototypes = run.stored_prototypes(due)?,
            _ => {}
        }
        run.resumed_within = false;
        // M-step: pull every query towards its key and its prototypes.
        let learning_rate = config.learning_rate(epoch);
        let batches = run.batches(epoch);
        let mut loader = run.loader(&batches[run.step..], epoch)?;
        let mut watch = Stopwatch::start(&loader);
        while let Some(batch) = loader.next() {
            let batch = batch?;
            run.note_unreadable(&batch.unreadable)?;
            // One image alone has nothing to be told apart from in its batch.
            if batch.indices.len() > 1 {
                let sums = run.trainer.step(&batch, &prototypes, learning_rate, epoch, run.step);
                run.since_log += &sums;
                watch.images += batch.indices.len();
            }
            loader.recycle(batch);
            run.step += 1;
            run.progress(Task::Training, run.step, batches.len());
            let last = run.step == batches.len();
            if last || run.step % config.log_every == 0 {
                run.log(epoch, batches.len(), learning_rate, &mut watch, &loader)?;
            }
            if !last && stop() {
                run.log(epoch, batches.len(), learning_rate, &mut watch, &loader)?;
                run.save()?;
                return Ok(Outcome::Stopped);
            }
        }
        run.end_epoch(epoch, learning_rate, &watch, &loader)?;
        let done = epoch + 1;
        if done % config.eval_every == 0 || done == config.epochs {
            run.evaluate()?;
        }
        let stopped = stop() && done < config.epochs;
        if stopped || done % config.save_every == 0 || done == config.epochs {
            run.save()?;
        }
        if stopped {
            return Ok(Outcome::Stopped);
        }
    }
    // What the finished encoder sees in the images.
    if config.method == Method::Pcl {
        run.expectation(config.epochs)?;
    }
    Ok(Outcome::Finished)
}

/// Seconds and images of the M-step, since the last log line and since the epoch began.
struct Stopwatch {
    epoch_start: Instant,
    log_start: Instant,
    images: usize,
    epoch_images: usize,
    waited: f64,
}

impl Stopwatch {
    fn start(loader: &Loader) -> Stopwatch {
        let now = Instant::now();
        let waited = loader.waited().as_secs_f64();
        Stopwatch { epoch_start: now, log_start: now, images: 0, epoch_images: 0, waited }
    }
}

/// A run in progress.
struct Run<'a, 'b> {
    config: &'a Config,
    device: Device,
    dataset: Arc<Dataset>,
    folder: RunFolder,
    trainer: Trainer,
    observer: &'a mut Observer<'b>,
    /// Epochs completed.
    epoch: usize,
    /// Steps of the next epoch completed.
    step: usize,
    /// Why each unreadable image is so.
    unreadable: BTreeMap<usize, Unreadable>,
    since_log: Sums,
    epoch_sums: Sums,
    fingerprint: String,
    /// A run that was stopped within an epoch finds that epoch's prototypes on disk.
    resumed_within: bool,
    evaluation: Option<Evaluation>,
}

/// The labelled images of the kNN evaluation.
struct Evaluation {
    train: (Arc<Dataset>, Vec<i64>),
    test: (Arc<Dataset>, Vec<i64>),
    chance: f64,
}

impl Evaluation {
    fn open(config: &Config) -> Result<Option<Evaluation>, PretrainError> {
        if config.eval_train.is_empty() {
            return Ok(None);
        }
        let open = |argument: &str| Dataset::open(argument).map_err(TransferError::from);
        let train = open(&config.eval_train)?;
        let train = if config.per_class > 0 { train.per_class(config.per_class) } else { train };
        let test = open(&config.eval_test)?;
        let (train_labels, test_labels) = common_labels(&train, &test)?;
        let mut counts = vec![0usize; train.classes().len()];
        for &label in &test_labels {
            counts[label as usize] += 1;
        }
        let most = counts.into_iter().max().unwrap_or(0);
        Ok(Some(Evaluation {
            train: (Arc::new(train), train_labels),
            chance: 100.0 * most as f64 / test_labels.len().max(1) as f64,
            test: (Arc::new(test), test_labels),
        }))
    }
}

impl<'a, 'b> Run<'a, 'b> {
    fn open(setup: Setup<'a>, observer: &'a mut Observer<'b>) -> Result<Self, PretrainError> {
        let Setup { config, dataset, out, start, device, world } = setup;
        check_sizes(config, &dataset)?;
        let evaluation = Evaluation::open(config)?;
        let fingerprint = dataset.fingerprint();
        let mut trainer = Trainer::new(config, dataset.len(), device, world);
        let (folder, checkpoint, conv_plan) = match start {
            Start::Fresh => {
                RunFolder::vacant(out)?;
                let conv_plan = conv_plan(config, &trainer, observer);
                (RunFolder::create(out, config, &conv_plan)?, None, conv_plan)
            }
            Start::Resume => {
                let (folder, checkpoint) = RunFolder::resume(out)?;
                let conv_plan = folder.conv_plan()?;
                (folder, checkpoint, conv_plan)
            }
        };
        trainer.set_conv_plan(conv_plan);
        let mut run = Run {
            trainer,
            config,
            device,
            dataset,
            folder,
            observer,
            epoch: 0,
            step: 0,
            unreadable: BTreeMap::new(),
            since_log: Sums::zero(device),
            epoch_sums: Sums::zero(device),
            fingerprint,
            resumed_within: false,
            evaluation,
        };
        if let Some(checkpoint) = checkpoint {
            let position = checkpoint.position;
            if position.data_fingerprint != run.fingerprint {
                let data = run.dataset.argument().to_owned();
                return Err(PretrainError::OtherData { data });
            }
            run.trainer.load(&checkpoint.encoder, checkpoint.training, position.queue_position)?;
            run.epoch = position.epoch;
            run.step = position.step;
            run.resumed_within = position.step > 0;
            run.epoch_sums = Sums::restore(&position.epoch_sums, device);
            run.unreadable = position.unreadable.into_iter().map(|bad| (bad.index, bad)).collect();
        }
        if start == Start::Resume {
            run.folder.update_settings(config)?;
        }
        Ok(run)
    }

    /// The E-step that begins `epoch`: prototypes of each granularity from the momentum
    /// embeddings of all images (PCL, Algorithm 1, lines 3 to 6).
    fn expectation(&mut self, epoch: usize) -> Result<Vec<Prototypes>, PretrainError> {
        let embedding_start = Instant::now();
        // The finished encoder is shown as it is, not as it was.
        let finished = epoch == self.config.epochs;
        let bank = if finished { None } else { self.trainer.bank.as_ref().map(Tensor::copy) };
        let (embeddings, images, reused) = self.embeddings(bank)?;
        let embedding_seconds = embedding_start.elapsed().as_secs_f64();

        let clustering_start = Instant::now();
        let options = ConcentrationOptions {
            temperature: self.config.temperature,
            smoothing: self.config.smoothing,
        };
        let rows = Tensor::from_slice(&images).to_device(self.device);
        let points = Points::from_tensor(&embeddings.index_select(0, &rows), Metric::Euclidean)?;
        let before = self.assignments_before(epoch, &images);
        let clusters = self.config.clusters.counts(images.len());
        let (mut prototypes, mut granularities) = (Vec::new(), Vec::new());
        for (m, &count) in clusters.iter().enumerate() {
            let before = before.get(m).map(Vec::as_slice);
            let observer = &mut *self.observer;
            let clustering = KMeans::default().fit(
                &points,
                usize::try_from(count).unwrap_or(0),
                m as u64,
                before.filter(|_| self.config.warm_start),
                &self.trainer.world,
                &mut |done, total| {
                    let (done, total) = (m * total + done, clusters.len() * total);
                    observer(Progress::Task { task: Task::Clustering, done, total });
                },
            )?;
            let granularity = Prototypes::new(&clustering, &images, self.dataset.len(), options);
            let agreement = before.map(|before| {
                let now = Vec::<i64>::try_from(&clustering.assignment);
                normalised_mutual_information(before, &now.unwrap_or_default())
            });
            granularities.push(quality(&clustering, &granularity.concentration, agreement));
            prototypes.push(granularity);
        }
        self.folder.save_prototypes(&expectation_name(epoch), &named_prototypes(&prototypes))?;
        self.folder.save_prototypes("embeddings", &vec![("embeddings".to_owned(), embeddings)])?;
        self.event(Event::Expectation {
            epoch,
            images: images.len(),
            reused,
            granularities,
            embedding_seconds,
            clustering_seconds: clustering_start.elapsed().as_secs_f64(),
        })?;
        Ok(prototypes)
    }

    /// An embedding of each image, zeros where it cannot be read: [all images, dim]; the images that
    /// have one; and how many of these are from `bank`, of the same shape. Only images that `bank`
    /// lacks are looked at.
    fn embeddings(
        &mut self,
        bank: Option<Tensor>,
    ) -> Result<(Tensor, Vec<i64>, usize), PretrainError> {
        let count = self.dataset.len();
        let known: Vec<bool> = match &bank {
            None => vec![false; count],
            Some(bank) => Vec::try_from(&bank.any_dim(1, false).to_device(Device::Cpu))
                .unwrap_or_else(|_| vec![false; count]),
        };
        let missing: Vec<usize> = (0..count)
            .filter(|index| !known[*index] && !self.unreadable.contains_key(index))
            .collect();
        let size = [count as i64, self.config.encoder.dim];
        let mut embeddings =
            bank.unwrap_or_else(|| Tensor::zeros(size, (Kind::Float, self.device)));
        let mut images: Vec<i64> =
            (0..count as i64).filter(|&index| known[index as usize]).collect();
        let reused = images.len();
        if !missing.is_empty() {
            let total = missing.len();
            let mut loader = self.evaluation_loader(self.dataset.clone(), missing)?;
            let observer = &mut *self.observer;
            let embedded = extract(
                &self.trainer.pair.momentum_encoder,
                &mut loader,
                Output::Embeddings,
                &mut |done| observer(Progress::Task { task: Task::Embedding, done, total }),
            )?;
            self.note_unreadable(&embedded.unreadable)?;
            let rows = Tensor::from_slice(&embedded.images).to_device(self.device);
            embeddings = embeddings.index_copy(0, &rows, &embedded.rows);
            images.extend(embedded.images);
            images.sort_unstable();
        }
        Ok((embeddings, images, reused))
    }

    /// Which clusters `images` were in at the E-step before that of `epoch`, for each granularity:
    /// [images], −1 where unknown. Empty where there was no such E-step.
    fn assignments_before(&self, epoch: usize, images: &[i64]) -> Vec<Vec<i64>> {
        let before = epoch.checked_sub(1).and_then(|last| self.config.expectation_before(last));
        let stored = before.and_then(|before| self.stored_prototypes(before).ok());
        let rows = Tensor::from_slice(images);
        let assignment = |granularity: &Prototypes| {
            Vec::try_from(&granularity.assignment.index_select(0, &rows)).unwrap_or_default()
        };
        stored.iter().flatten().map(assignment).collect()
    }

    /// The prototypes of the E-step that began `epoch`.
    fn stored_prototypes(&self, epoch: usize) -> Result<Vec<Prototypes>, PretrainError> {
        let stored = self.folder.read_prototypes(&expectation_name(epoch))?;
        Ok(restore_prototypes(&stored, self.device))
    }

    /// The batches of `epoch`.
    fn batches(&self, epoch: usize) -> Vec<Vec<usize>> {
        let order = order(self.config, self.dataset.len(), self.dataset.bytes(), epoch);
        into_batches(&order, self.config.batch_size)
    }

    fn loader(&self, batches: &[Vec<usize>], epoch: usize) -> Result<Loader, PretrainError> {
        let readable = batches
            .iter()
            .map(|batch| {
                let kept = batch.iter().filter(|index| !self.unreadable.contains_key(index));
                kept.copied().collect()
            })
            .collect();
        Ok(Loader::training(
            self.dataset.clone(),
            self.config.views.clone(),
            readable,
            self.config.seed,
            epoch as u64,
            self.config.view_threads(self.device.is_cuda()),
        )?)
    }

    fn evaluation_loader(
        &self,
        dataset: Arc<Dataset>,
        images: Vec<usize>,
    ) -> Result<Loader, LoaderError> {
        let batches = images.chunks(self.config.batch_size).map(<[usize]>::to_vec).collect();
        let views = self.config.views.clone();
        Loader::evaluation(dataset, views, batches, self.config.view_threads(self.device.is_cuda()))
    }

    /// Names images that turned out unreadable, and stops the run when they are too many.
    fn note_unreadable(&mut self, found: &[Unreadable]) -> Result<(), PretrainError> {
        for bad in found {
            if self.unreadable.insert(bad.index, bad.clone()).is_none() {
                self.event(Event::Skipped {
                    index: bad.index,
                    name: bad.name.clone(),
                    reason: bad.reason.clone(),
                })?;
            }
        }
        let (bad, images) = (self.unreadable.len(), self.dataset.len());
        if !found.is_empty() && bad as f64 > self.config.max_bad * images as f64 {
            let first = self.unreadable.values().take(10);
            let names = first.map(|bad| format!("{} ({})", bad.name, bad.reason)).collect();
            return Err(PretrainError::TooManyBad {
                bad,
                images,
                max_bad: self.config.max_bad,
                names,
            });
        }
        Ok(())
    }

    /// Writes a `step` event of what has gathered since the last.
    ///
    /// Reading the sums waits for the device, so this is also where a diverged loss is noticed.
    fn log(
        &mut self,
        epoch: usize,
        steps: usize,
        learning_rate: f64,
        watch: &mut Stopwatch,
        loader: &Loader,
    ) -> Result<(), PretrainError> {
        let Some(measures) = self.since_log.measures() else { return Ok(()) };
        if !measures.loss.is_finite() {
            let last = self.folder.last();
            return Err(PretrainError::NotFinite { epoch, step: self.step, last });
        }
        let seconds = watch.log_start.elapsed().as_secs_f64();
        let waited = loader.waited().as_secs_f64();
        self.event(Event::Step {
            epoch,
            step: self.step,
            steps,
            measures,
            learning_rate,
            images: watch.images,
            seconds,
            images_per_second: watch.images as f64 / seconds,
            waited: waited - watch.waited,
        })?;
        self.epoch_sums += &std::mem::replace(&mut self.since_log, Sums::zero(self.device));
        watch.log_start = Instant::now();
        watch.waited = waited;
        watch.epoch_images += std::mem::take(&mut watch.images);
        Ok(())
    }

    fn end_epoch(
        &mut self,
        epoch: usize,
        learning_rate: f64,
        watch: &Stopwatch,
        loader: &Loader,
    ) -> Result<(), PretrainError> {
        self.epoch = epoch + 1;
        self.step = 0;
        let sums = std::mem::replace(&mut self.epoch_sums, Sums::zero(self.device));
        let Some(measures) = sums.measures() else { return Ok(()) };
        let seconds = watch.epoch_start.elapsed().as_secs_f64();
        self.event(Event::Epoch {
            epoch,
            measures,
            learning_rate,
            images: watch.epoch_images,
            seconds,
        })?;
        self.event(Event::Loader {
            epoch,
            threads: loader.threads(),
            images: watch.epoch_images,
            seconds,
            waited: loader.waited().as_secs_f64(),
        })
    }

    /// Weighted kNN on backbone features, when labelled images were given.
    fn evaluate(&mut self) -> Result<(), PretrainError> {
        let Some(evaluation) = self.evaluation.take() else { return Ok(()) };
        let start = Instant::now();
        let classes = evaluation.train.0.classes().len() as i64;
        let (bank, bank_labels) = self.labelled_features(&evaluation.train)?;
        let (queries, query_labels) = self.labelled_features(&evaluation.test)?;
        let knn = knn_accuracy(
            &Knn::default(),
            (&bank, &bank_labels),
            (&queries, &query_labels),
            classes,
        );
        let knn = knn.into_iter().map(|accuracy| (accuracy.k, accuracy.top1)).collect();
        let chance = evaluation.chance;
        self.evaluation = Some(evaluation);
        let seconds = start.elapsed().as_secs_f64();
        self.event(Event::Evaluation { epoch: self.epoch, knn, chance, seconds })
    }

    fn labelled_features(
        &mut self,
        (dataset, labels): &(Arc<Dataset>, Vec<i64>),
    ) -> Result<(Tensor, Tensor), PretrainError> {
        let total = dataset.len();
        let mut loader = self.evaluation_loader(dataset.clone(), (0..total).collect())?;
        let observer = &mut *self.observer;
        let extracted =
            extract(&self.trainer.pair.encoder, &mut loader, Output::Features, &mut |done| {
                observer(Progress::Task { task: Task::Features, done, total });
            })?;
        let labels: Vec<i64> =
            extracted.images.iter().map(|&image| labels[image as usize]).collect();
        Ok((extracted.rows, Tensor::from_slice(&labels).to_device(self.device)))
    }

    /// Writes a checkpoint of where the run stands.
    fn save(&mut self) -> Result<(), PretrainError> {
        let path = self.folder.checkpoint_path(self.epoch, self.step);
        // The line first: the checkpoint knows how long the file of events was.
        self.event(Event::Checkpoint { epoch: self.epoch, step: self.step, path })?;
        let position = Position {
            epoch: self.epoch,
            step: self.step,
            queue_position: self.trainer.queue.position(),
            unreadable: self.unreadable.values().cloned().collect(),
            epoch_sums: self.epoch_sums.values(),
            events: self.folder.events_length(),
            data_fingerprint: self.fingerprint.clone(),
            encoder: self.config.encoder.clone(),
            views: self.config.views.clone(),
        };
        let (encoder, training) = self.trainer.named_tensors();
        self.folder.save(&position, &encoder, &training, self.config.keep)?;
        Ok(())
    }

    fn event(&mut self, event: Event) -> Result<(), PretrainError> {
        self.folder.record(&event)?;
        (self.observer)(Progress::Event(&event));
        Ok(())
    }

    fn progress(&mut self, task: Task, done: usize, total: usize) {
        (self.observer)(Progress::Task { task, done, total });
    }
}

/// The arithmetic that `config` asks for.
fn precision(config: &Config, device: Device) -> Precision {
    match config.precision {
        PrecisionChoice::Auto => Precision::fastest_on(device),
        PrecisionChoice::Float32 => Precision::Float32,
        PrecisionChoice::Bf16 => Precision::BFloat16,
    }
}

/// The ways of convolving for a run that begins; none chosen where the usual ones are asked for.
fn conv_plan(config: &Config, trainer: &Trainer, observer: &mut Observer) -> ConvPlan {
    let measured = match config.tune {
        Tune::Auto => trainer.pair.encoder.precision() == Precision::BFloat16,
        Tune::On => true,
        Tune::Off => false,
    };
    if !measured || trainer.device() != Device::Cpu {
        return ConvPlan::default();
    }
    let images = (config.batch_size as i64 + config.bn_splits - 1) / config.bn_splits;
    let shapes = trainer.pair.encoder.convolutions(images, config.views.image_size as i64);
    let (conv_plan, remarks) = conv_plan::fastest(
        &shapes,
        &conv_plan::processor(),
        conv_plan::cache_file().as_deref(),
        &mut ConvAlgorithms::measured,
        &mut |done, total| observer(Progress::Task { task: Task::Tuning, done, total }),
    );
    for remark in &remarks {
        observer(Progress::Warning(remark));
    }
    conv_plan
}

/// Refuses what could only fail later.
fn check_sizes(config: &Config, dataset: &Dataset) -> Result<(), PretrainError> {
    let (images, data) = (dataset.len(), dataset.argument().to_owned());
    if images == 1 {
        return Err(PretrainError::OneImage { data });
    }
    if config.batch_size > images {
        return Err(PretrainError::BatchTooLarge { batch: config.batch_size, images, data });
    }
    let most = config.clusters.counts(images).into_iter().max().unwrap_or(0);
    if config.method == Method::Pcl && most > images as i64 {
        return Err(
            PrototypeError::TooManyClusters { clusters: most, images: images as i64 }.into()
        );
    }
    Ok(())
}

/// All of `images` in an order that follows from the seed and the epoch; `bytes` is the size of all
/// together, where it is known.
fn order(config: &Config, images: usize, bytes: Option<u64>, epoch: usize) -> Vec<usize> {
    let key = random_key(config.seed, Purpose::Order, epoch, 0);
    let mut random = ChaCha8Rng::from_seed(key);
    let mut order: Vec<usize> = (0..images).collect();
    match (config.shuffle, bytes) {
        (Shuffle::Local, Some(bytes)) => shuffle_locally(&mut order, bytes, &mut random),
        _ => order.shuffle(&mut random),
    }
    order
}

/// Bytes of a stretch that [`shuffle_locally`] takes as one.
const STRETCH_BYTES: u64 = 32 << 20;

/// Stretches that it mixes.
const STRETCHES: usize = 32;

/// Puts stretches of about 32 MiB in random order and shuffles 32 of them at a time.
///
/// Neighbours in a file then come up within a gigabyte of one another, which the page cache holds,
/// and images of 32 random places are mixed. `bytes` is the size of all images together.
fn shuffle_locally(order: &mut Vec<usize>, bytes: u64, random: &mut ChaCha8Rng) {
    let images = order.len() as u64;
    let stretch = (images * STRETCH_BYTES / bytes.max(1)).clamp(1, images.max(1)) as usize;
    let mut stretches: Vec<&[usize]> = order.chunks(stretch).collect();
    stretches.shuffle(random);
    let mut shuffled = stretches.concat();
    for mixed in shuffled.chunks_mut(stretch * STRETCHES) {
        mixed.shuffle(random);
    }
    *order = shuffled;
}

/// `order` in batches of `size`; the last may be smaller, but a single image left over joins the
/// batch before it, for it would have nothing to be told apart from.
fn into_batches(order: &[usize], size: usize) -> Vec<Vec<usize>> {
    let mut batches: Vec<Vec<usize>> = order.chunks(size).map(<[usize]>::to_vec).collect();
    if batches.len() > 1 && batches.last().is_some_and(|last| last.len() == 1) {
        let left_over = batches.pop().unwrap_or_default();
        if let Some(last) = batches.last_mut() {
            last.extend(left_over);
        }
    }
    batches
}

/// What a random choice is for.
#[derive(Debug, Clone, Copy)]
enum Purpose {
    /// The order of an epoch's images.
    Order,
    /// The negatives of the granularity of this number.
    Negatives(usize),
    /// The order in which keys are normalised in groups.
    KeyOrder,
}

/// The key of a random choice: it depends on the seed and on where in the run the choice is made.
fn random_key(seed: u64, purpose: Purpose, epoch: usize, step: usize) -> [u8; 32] {
    // Views use the numbers 0 and 1 in the last place.
    let purpose = match purpose {
        Purpose::Order => 2,
        Purpose::KeyOrder => 3,
        Purpose::Negatives(granularity) => 4 + granularity as u64,
    };
    let mut key = [0; 32];
    for (place, number) in [seed, epoch as u64, step as u64, purpose].into_iter().enumerate() {
        key[place * 8..][..8].copy_from_slice(&number.to_le_bytes());
    }
    key
}

/// The file of an E-step's prototypes.
fn expectation_name(epoch: usize) -> String {
    format!("epoch-{epoch:04}")
}

fn named_prototypes(granularities: &[Prototypes]) -> NamedTensors {
    let mut tensors = NamedTensors::new();
    for (m, granularity) in granularities.iter().enumerate() {
        tensors.push((format!("assignment.{m}"), granularity.assignment.shallow_clone()));
        tensors.push((format!("prototypes.{m}"), granularity.prototypes.shallow_clone()));
        tensors.push((format!("concentration.{m}"), granularity.concentration.shallow_clone()));
    }
    tensors
}

fn restore_prototypes(tensors: &NamedTensors, device: Device) -> Vec<Prototypes> {
    let find = |name: String| {
        let found = tensors.iter().find(|(known, _)| *known == name);
        found.map(|(_, tensor)| tensor)
    };
    (0..)
        .map_while(|m| {
            Some(Prototypes {
                assignment: find(format!("assignment.{m}"))?.shallow_clone(),
                prototypes: find(format!("prototypes.{m}"))?.to_device(device),
                concentration: find(format!("concentration.{m}"))?.to_device(device),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_has_every_image_once_in_an_order_of_its_own() {
        const IMAGES: usize = 10_007;
        const STRETCH: usize = 50;
        let bytes = Some(IMAGES as u64 * STRETCH_BYTES / STRETCH as u64);
        let config = |shuffle, threads, seed| {
            let preset = Config::resolve([Config::preset("small").unwrap()]).unwrap();
            Config { shuffle, threads, loader_threads: threads, seed, ..preset }
        };
        for shuffle in [Shuffle::Full, Shuffle::Local] {
            let first = order(&config(shuffle, 1, 3), IMAGES, bytes, 0);
            let mut sorted = first.clone();
            sorted.sort_unstable();
            assert!(sorted.into_iter().eq(0..IMAGES));
            assert!(first == order(&config(shuffle, 7, 3), IMAGES, bytes, 0), "threads");
            assert!(first != order(&config(shuffle, 1, 3), IMAGES, bytes, 1), "the next epoch");
            assert!(first != order(&config(shuffle, 1, 4), IMAGES, bytes, 0), "another seed");

            // Images at a time that are mixed, and the stretches of the file that they are from.
            let mixed: Vec<&[usize]> = first.chunks(STRETCH * STRETCHES).collect();
            let stretches = mixed.iter().map(|images| {
                let all: std::collections::BTreeSet<usize> =
                    images.iter().map(|image| image / STRETCH).collect();
                all.len()
            });
            let most = stretches.max().unwrap();
            // The last stretch of the file is shorter, so that one may be cut in two.
            assert_eq!(most <= STRETCHES + 1, shuffle == Shuffle::Local, "{most} stretches");
            let neighbours = first.windows(2).filter(|pair| pair[1] == pair[0] + 1).count();
            assert!(neighbours < IMAGES / 100, "{neighbours} images follow their neighbour");
        }
        // Where the size is not known there is nothing to be local in.
        let full = order(&config(Shuffle::Full, 1, 3), IMAGES, None, 0);
        assert!(order(&config(Shuffle::Local, 1, 3), IMAGES, None, 0) == full);
    }
}
