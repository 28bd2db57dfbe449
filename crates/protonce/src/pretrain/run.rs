//! A run in progress: what E-step and M-step share, and how it is opened, logged and saved.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use protonce_images::data::Dataset;
use protonce_images::views::{Crops, Loader, LoaderOptions, Unreadable};
use protonce_run::{
    CheckpointState, Config, Event, Interval, Measures, Observer, Opened, Position, Progress,
    RunFolder, Task, order,
};
use tch::{Device, Tensor};

use super::Request;
use super::batches::Batches;
use super::error::PretrainError;
use super::groups::Groups;
use super::loss_sums::LossSums;
use super::maximization::Trainer;
use super::setup::{Setup, Start, check_sizes, choose_conv_plan};
use super::stored_prototypes::{from_file, from_tensors, to_file, to_tensors};
use super::validation::Validation;
use crate::prototypes::Prototypes;
use crate::tensors::{TensorError, Writable, read_all, values};
use crate::weights::Weights;
use protonce_encoder::convolution::ConvPlan;

/// A run in progress.
pub(super) struct Run<'a, 'b> {
    pub(super) config: &'a Config,
    pub(super) device: Device,
    pub(super) dataset: Arc<Dataset>,
    /// Where what happens is written; in the first process only.
    pub(super) folder: Option<RunFolder>,
    pub(super) trainer: Trainer,
    pub(super) observer: &'a mut Observer<'b>,
    /// Epochs completed.
    pub(super) epoch: usize,
    /// Steps of the next epoch completed.
    pub(super) step: usize,
    /// Those of the newest E-step.
    pub(super) prototypes: CurrentPrototypes,
    /// Why each unreadable image is so.
    pub(super) unreadable: BTreeMap<usize, Unreadable>,
    /// Of the steps since the last log line.
    pub(super) since_log: LossSums,
    /// Of the steps of the epoch that were logged.
    epoch_sums: LossSums,
    /// What went by in the epoch before it was resumed, and the part of it that was logged.
    resumed: (Interval, Interval),
    /// When the last checkpoint was made, or the run was opened.
    saved: Instant,
    /// Where the run stood then: epochs and steps of the next one. None before the first.
    saved_at: Option<(usize, usize)>,
    /// Time spent on messages to other processes when a line was last written.
    communicated: Duration,
    /// What the images are called, as one number.
    fingerprint: String,
    validation: Option<Validation>,
}

/// The prototypes that training uses, and the E-step that they are from.
pub(super) struct CurrentPrototypes {
    /// The epoch that the E-step began; none before the first.
    epoch: Option<usize>,
    granularities: Vec<Prototypes>,
}

impl CurrentPrototypes {
    /// Before the first E-step.
    fn none() -> CurrentPrototypes {
        CurrentPrototypes { epoch: None, granularities: Vec::new() }
    }

    /// Those of the E-step that began `epoch`.
    pub(super) fn of(epoch: usize, granularities: Vec<Prototypes>) -> CurrentPrototypes {
        CurrentPrototypes { epoch: Some(epoch), granularities }
    }

    /// The prototypes of each granularity; none before the first E-step.
    pub(super) fn granularities(&self) -> &[Prototypes] {
        &self.granularities
    }

    /// Which prototypes `images` are assigned to, for each granularity: [images], −1 where unknown.
    pub(super) fn assignments_of(&self, images: &[i64]) -> Result<Vec<Vec<i64>>, TensorError> {
        let rows = Tensor::from_slice(images);
        let assignment =
            |granularity: &Prototypes| values(&granularity.assignment.index_select(0, &rows));
        self.granularities.iter().map(assignment).collect()
    }
}

impl<'a, 'b> Run<'a, 'b> {
    /// Begins or continues the run that `setup` describes.
    pub(super) fn open(
        setup: Setup<'a>,
        observer: &'a mut Observer<'b>,
    ) -> Result<Self, PretrainError> {
        let Setup { config, dataset, out, start, device, world } = setup;
        check_sizes(config, &dataset)?;
        let validation = Validation::open(config)?;
        for remark in validation.iter().flat_map(Validation::remarks) {
            observer(Progress::Warning(remark));
        }
        let fingerprint = dataset.fingerprint();
        let mut trainer = Trainer::new(config, dataset.len(), device, world.clone());
        let mut opened = None;
        let conv_plan =
            world.first_says("convolutions", || -> Result<ConvPlan, PretrainError> {
                if start == Start::Resume {
                    let found = opened.insert(RunFolder::resume(out)?);
                    return Ok(found.folder.conv_plan()?);
                }
                RunFolder::vacant(out)?;
                if !config.init.is_empty() {
                    trainer.start_from(&Weights::read(Path::new(&config.init))?)?;
                }
                let plan = choose_conv_plan(config, &trainer.pair.encoder, device, observer);
                opened = Some(RunFolder::create(out, config, &plan)?);
                Ok(plan)
            })?;
        let (mut folder, mut checkpoint) = (None, None);
        if let Some(Opened { folder: found, checkpoint: last, remarks }) = opened {
            for remark in &remarks {
                observer(Progress::Warning(remark));
            }
            (folder, checkpoint) = (Some(found), last);
        }
        trainer.set_conv_plan(conv_plan);
        let state = world.first_says("checkpoint", || {
            Ok::<_, PretrainError>(checkpoint.as_ref().map(|found| found.state.clone()))
        })?;
        world.agree(&[
            ("version of protonce", env!("CARGO_PKG_VERSION").to_owned()),
            ("set of images (names or labels)", fingerprint.clone()),
            ("number of parameters", trainer.pair.encoder.parameters().theta().numel().to_string()),
            ("precision", format!("{:?}", trainer.pair.encoder.precision())),
        ])?;
        if start == Start::Fresh && !config.init.is_empty() {
            let own = trainer.pair.encoder.parameters().named_tensors();
            trainer.begin_with(&world.tensors_of_first(Some(own))?)?;
        }
        let mut run = Run {
            trainer,
            config,
            device,
            dataset,
            folder,
            observer,
            epoch: 0,
            step: 0,
            prototypes: CurrentPrototypes::none(),
            unreadable: BTreeMap::new(),
            since_log: LossSums::zero(device),
            epoch_sums: LossSums::zero(device),
            resumed: Default::default(),
            saved: Instant::now(),
            saved_at: None,
            communicated: Duration::ZERO,
            fingerprint,
            validation,
        };
        if let Some(state) = state {
            let (mut encoder, mut training) = (None, None);
            if let Some(checkpoint) = checkpoint {
                encoder = Some(read_all(&mut checkpoint.encoder()?)?);
                training = Some(read_all(&mut checkpoint.training()?)?);
            }
            let encoder = world.tensors_of_first(encoder)?;
            let training = world.tensors_of_first(training)?;
            if state.data_fingerprint != run.fingerprint {
                let data = run.dataset.argument().to_owned();
                return Err(PretrainError::OtherData { data });
            }
            run.trainer.load(&encoder, training, state.queue_position)?;
            run.saved_at = Some((state.epoch, state.step));
            run.epoch = state.epoch;
            run.step = state.step;
            run.epoch_sums = LossSums::restore(&state.epoch_sums, device);
            run.since_log = LossSums::restore(&state.unlogged_sums, device);
            run.resumed = (state.epoch_so_far, state.epoch_logged);
            run.unreadable = state.unreadable.into_iter().map(|bad| (bad.index, bad)).collect();
            run.prototypes = run.stored_prototypes()?;
        }
        if let Some(folder) = run.folder.as_ref().filter(|_| start == Start::Resume) {
            folder.write_settings(config)?;
        }
        if world.size() > 1 {
            run.event(Event::World {
                processes: world.size(),
                groups: config.bn_splits as usize,
                threads: usize::try_from(tch::get_num_threads()).unwrap_or(0),
                backend: world.backend().to_owned(),
            })?;
        }
        Ok(run)
    }

    /// Whether `epoch` begins with an E-step that has not been done: the prototypes at hand are not
    /// those that the epoch is to be trained with.
    pub(super) fn expectation_is_due(&self, epoch: usize) -> bool {
        let wanted = self.config.expectation_before(epoch);
        wanted.is_some() && wanted != self.prototypes.epoch
    }

    /// The batches of `epoch` from the step on at which the run stands, without the images that are
    /// known to be unreadable.
    pub(super) fn batches(&mut self, epoch: usize) -> Result<Batches, PretrainError> {
        let order = order(self.config, self.dataset.len(), self.dataset.bytes(), epoch);
        let batches = protonce_images::batches(&order, self.config.batch_size);
        let (rank, size) = (self.trainer.world.rank(), self.trainer.world.size());
        let own = |batch: &Vec<usize>| {
            let kept = batch.iter().filter(|index| !self.unreadable.contains_key(index));
            let kept: Vec<usize> = kept.copied().collect();
            // Of several processes, each loads the images of its groups.
            kept[Groups::of(kept.len(), self.config.bn_splits, size).images_of(rank)].to_vec()
        };
        let config = self.config.views_of(epoch);
        let views = config.pretraining_views();
        let options = LoaderOptions {
            views: config,
            batches: batches[self.step..].iter().map(own).collect(),
            crops: Crops::Random { seed: self.config.seed, epoch: epoch as u64, views },
            threads: self.config.view_threads(self.device.is_cuda()),
        };
        let loader = Loader::new(self.dataset.clone(), options)?;
        self.communicated = self.trainer.world.communicated().unwrap_or_default();
        let (before, logged) = std::mem::take(&mut self.resumed);
        Ok(Batches::new(loader, batches.len(), before, logged))
    }

    /// Names images that turned out unreadable, and stops the run when they are too many.
    pub(super) fn note_unreadable(&mut self, found: &[Unreadable]) -> Result<(), PretrainError> {
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

    /// Writes a `step` event of what has gathered since the last, the step at `position` included.
    ///
    /// Reading the sums waits for the device, so this is also where a diverged loss is noticed.
    pub(super) fn log(
        &mut self,
        position: Position,
        batches: &mut Batches,
    ) -> Result<(), PretrainError> {
        let (epoch, learning_rate) = (position.epoch, self.config.learning_rate(position));
        let Some(measures) = self.since_log.measures() else { return Ok(()) };
        self.check_finite(&measures)?;
        let interval = batches.since_log();
        let communicated = self.trainer.world.communicated().map(|all| {
            let before = std::mem::replace(&mut self.communicated, all);
            (all - before).as_secs_f64()
        });
        self.event(Event::Step {
            epoch,
            step: self.step,
            steps: batches.steps(),
            measures,
            learning_rate,
            images: interval.images,
            seconds: interval.seconds,
            images_per_second: interval.images as f64 / interval.seconds,
            waited: interval.waited,
            communicated,
        })?;
        self.epoch_sums += &std::mem::replace(&mut self.since_log, LossSums::zero(self.device));
        Ok(())
    }

    /// Notices a diverged loss.
    fn check_finite(&self, measures: &Measures) -> Result<(), PretrainError> {
        match measures.loss.is_finite() {
            true => Ok(()),
            false => {
                let (epoch, step, last) =
                    (self.epoch, self.step, self.folder.as_ref().and_then(RunFolder::last));
                Err(PretrainError::NotFinite { epoch, step, last })
            }
        }
    }

    /// Moves on to the next epoch, and writes what the one that ended came to.
    pub(super) fn end_epoch(
        &mut self,
        epoch: usize,
        batches: &Batches,
    ) -> Result<(), PretrainError> {
        let steps = batches.steps();
        let last = Position { epoch, step: steps.saturating_sub(1), steps };
        let learning_rate = self.config.learning_rate(last);
        self.epoch = epoch + 1;
        self.step = 0;
        let sums = std::mem::replace(&mut self.epoch_sums, LossSums::zero(self.device));
        let Some(measures) = sums.measures() else { return Ok(()) };
        let interval = batches.so_far();
        self.event(Event::Epoch {
            epoch,
            measures,
            learning_rate,
            images: interval.images,
            seconds: interval.seconds,
        })?;
        self.event(Event::Loader {
            epoch,
            threads: batches.threads(),
            images: interval.images,
            seconds: interval.seconds,
            waited: interval.waited,
        })
    }

    /// Measures what the representation is to be compared with, when labelled images were given and
    /// nothing has been trained.
    pub(super) fn measure_floors(&mut self) -> Result<(), PretrainError> {
        let Some(validation) = &self.validation else { return Ok(()) };
        if (self.epoch, self.step) != (0, 0) {
            return Ok(());
        }
        let (encoder, world) = (&self.trainer.pair.encoder, &self.trainer.world);
        let floors = validation.floors(encoder, self.device, self.config, world, self.observer)?;
        let chance = validation.chance;
        match floors {
            Some(floors) => self.event(Event::Floors { floors, chance }),
            None => Ok(()),
        }
    }

    /// Weighted kNN on backbone features, when labelled images were given.
    pub(super) fn validate(&mut self) -> Result<(), PretrainError> {
        let Some(validation) = &self.validation else { return Ok(()) };
        let start = Instant::now();
        let (encoder, world) = (&self.trainer.pair.encoder, &self.trainer.world);
        let knn = validation.knn(encoder, self.device, self.config, world, self.observer)?;
        let chance = validation.chance;
        let seconds = start.elapsed().as_secs_f64();
        match knn {
            Some(knn) => self.event(Event::Evaluation { epoch: self.epoch, knn, chance, seconds }),
            None => Ok(()),
        }
    }

    /// What any process was asked for, where they were asked for different things the most.
    pub(super) fn agreed(&self, request: Request) -> Result<Request, PretrainError> {
        let world = &self.trainer.world;
        let asked = world.gather_known(&[request as u8], &vec![1; world.size()])?;
        let by_weight = [Request::Stop, Request::Save];
        let most = by_weight.into_iter().find(|&one| asked.contains(&(one as u8)));
        Ok(most.unwrap_or(Request::GoOn))
    }

    /// Whether the last checkpoint is so old that another one is due, wherever the run stands.
    pub(super) fn save_is_due(&self) -> bool {
        let minutes = self.config.save_minutes;
        let writes = self.folder.is_some();
        writes && minutes > 0.0 && self.saved.elapsed().as_secs_f64() >= 60.0 * minutes
    }

    /// Writes a checkpoint of where the run stands: at the end of an epoch, or in the middle of one after
    /// a step of its `batches`. The next checkpoint replaces it if it is only `passing`.
    pub(super) fn save(
        &mut self,
        batches: Option<&Batches>,
        passing: bool,
    ) -> Result<(), PretrainError> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let path = folder.checkpoint_path(self.epoch, self.step);
        // A diverged run is none to go on from, and what is not logged is not known to be finite.
        if let Some(measures) = self.since_log.measures() {
            self.check_finite(&measures)?;
        }
        // The line first: the checkpoint knows how long the file of events was.
        self.event(Event::Checkpoint { epoch: self.epoch, step: self.step, path })?;
        // Before another E-step they only serve for comparison with its own, unless that begins with them.
        let needed =
            batches.is_some() || self.config.warm_start || !self.expectation_is_due(self.epoch);
        let prototypes = self.prototypes.epoch.filter(|_| needed);
        let Some(folder) = &mut self.folder else { return Ok(()) };
        let state = CheckpointState {
            epoch: self.epoch,
            step: self.step,
            queue_position: self.trainer.queue.position(),
            unreadable: self.unreadable.values().cloned().collect(),
            passing,
            epoch_sums: self.epoch_sums.values(),
            unlogged_sums: self.since_log.values(),
            epoch_so_far: batches.map(Batches::so_far).unwrap_or_default(),
            epoch_logged: batches.map(Batches::logged).unwrap_or_default(),
            events: folder.events_length(),
            data_fingerprint: self.fingerprint.clone(),
            encoder: self.config.encoder.clone(),
            views: self.config.views.clone(),
        };
        let (encoder, training) = self.trainer.named_tensors();
        let (encoder, training) = (Writable::all(&encoder)?, Writable::all(&training)?);
        folder.save(&state, &encoder, &training, prototypes, self.config.keep)?;
        self.saved = Instant::now();
        self.saved_at = Some((self.epoch, self.step));
        Ok(())
    }

    /// Writes a passing checkpoint of the end of an epoch, unless the last one is just that.
    pub(super) fn save_once(&mut self) -> Result<(), PretrainError> {
        match self.saved_at == Some((self.epoch, self.step)) {
            true => Ok(()),
            false => self.save(None, true),
        }
    }

    /// Writes the prototypes of the E-step that begins `epoch`.
    pub(super) fn save_prototypes(
        &self,
        epoch: usize,
        granularities: &[Prototypes],
    ) -> Result<(), PretrainError> {
        match &self.folder {
            Some(folder) => Ok(folder.save_prototypes(epoch, &to_file(granularities)?)?),
            None => Ok(()),
        }
    }

    /// The prototypes of the newest E-step that was done before where the run stands.
    fn stored_prototypes(&self) -> Result<CurrentPrototypes, PretrainError> {
        let wanted = self.config.expectation_before(self.epoch);
        // At the start of an epoch its own E-step is still to come.
        let newest = match self.step {
            0 => self.epoch.checked_sub(1).and_then(|last| self.config.expectation_before(last)),
            _ => wanted,
        };
        let Some(newest) = newest else { return Ok(CurrentPrototypes::none()) };
        let read = self.folder.as_ref().map(|folder| folder.read_prototypes(newest));
        let stored = match read.transpose() {
            Err(error) if wanted == Some(newest) && self.epoch < self.config.epochs => {
                return Err(error.into());
            }
            Ok(stored) => stored.map(|stored| to_tensors(&from_file(&stored, self.device))),
            // No step needs them: they would only serve for comparison with the next E-step's.
            Err(error) if self.config.warm_start => return Err(error.into()),
            Err(_) => None,
        };
        match from_tensors(self.trainer.world.tensors_of_first(stored)?, self.device) {
            granularities if granularities.is_empty() => Ok(CurrentPrototypes::none()),
            granularities => Ok(CurrentPrototypes::of(newest, granularities)),
        }
    }

    /// Writes down and tells what has happened; of several processes, the first one does.
    pub(super) fn event(&mut self, event: Event) -> Result<(), PretrainError> {
        let Some(folder) = &mut self.folder else { return Ok(()) };
        folder.record(&event)?;
        (self.observer)(Progress::Event(&event));
        Ok(())
    }

    pub(super) fn progress(&mut self, task: Task, done: usize, total: usize) {
        (self.observer)(Progress::Task { task, done, total });
    }
}
