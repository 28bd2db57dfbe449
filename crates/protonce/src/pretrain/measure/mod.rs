//! Where the time of a training step goes on this machine: settings and images in, seconds of each
//! part out.
//!
//! What is measured is `Trainer::step` and the [`Loader`], the very ones that training uses, with
//! random prototypes, whose values change nothing about the work. First views are made by themselves,
//! then steps are taken on one batch by themselves, then both at once, as in training.

mod images;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use tch::{Device, Kind, Tensor};

pub use images::write_images;

use super::conv_plan;
use super::error::PretrainError;
use super::maximization::Trainer;
use super::setup::choose_conv_plan;
use crate::prototypes::Prototypes;
use crate::world::World;
use protonce_encoder::convolution::ConvPlan;
use protonce_encoder::profile::{self, Kernel, Part, PartTime};
use protonce_encoder::{Precision, normalise_rows};
use protonce_images::data::Dataset;
use protonce_images::views::{Batch, Crops, Loader, LoaderOptions};
use protonce_run::{Config, Method, Observer, Position, Progress, Task};

/// What was measured of a training step. Times are seconds of wall time.
#[derive(Debug, Clone, Serialize)]
pub struct StepTimes {
    /// Images of a step.
    pub images: usize,
    /// The arithmetic of convolutions.
    pub precision: &'static str,
    /// Processor and threads.
    pub processor: String,
    /// A step by itself: the median.
    pub step: f64,
    /// The parts of that step.
    pub parts: BTreeMap<Part, PartTime>,
    /// A step with views made meanwhile, as in training: the mean, waiting included.
    pub training: f64,
    /// Of which training waited for views.
    pub waited: f64,
    /// A batch's views made by themselves, from encoded bytes.
    pub views: f64,
    /// Additions and multiplications a second of a large matrix product in the precision of
    /// convolutions: what the machine reaches at most, measured.
    pub peak: f64,
    /// The ways of convolving that were chosen.
    pub convolutions: ConvPlan,
    #[serde(skip)]
    device: Device,
}

/// Steps that are taken.
#[derive(Debug, Clone, Copy)]
pub struct Steps {
    /// Before time is taken.
    pub warmup: usize,
    /// That are timed, both by themselves and with views.
    pub timed: usize,
}

/// Measures a training step of `config` on the images of `dataset`.
///
/// # Errors
/// As [`super::pretrain`], as far as it concerns views.
///
/// # Panics
/// When libtorch fails, for example for lack of memory.
pub fn measure_step(
    config: &Config,
    dataset: &Arc<Dataset>,
    device: Device,
    steps: Steps,
    observer: &mut Observer,
) -> Result<StepTimes, PretrainError> {
    let Steps { warmup, timed } = Steps { timed: steps.timed.max(1), ..steps };
    let mut trainer = Trainer::new(config, dataset.len(), device, World::alone());
    let convolutions = choose_conv_plan(config, &trainer.pair.encoder, device, observer);
    trainer.set_conv_plan(convolutions.clone());
    let prototypes = random_prototypes(config, dataset.len(), device);
    let total = 2 * (warmup + timed);
    let mut number = 0;
    let mut step = |trainer: &mut Trainer, batch: &Batch| -> Result<(), PretrainError> {
        let position = Position { epoch: 0, step: number, steps: total };
        let sums = trainer.step(batch, &trainer.share(batch)?, &prototypes, position)?;
        // Waits for the device.
        let _ = sums.values();
        number += 1;
        observer(Progress::Task { task: Task::Training, done: number, total });
        Ok(())
    };

    let (views, batch) = views_alone(config, dataset, device, warmup + timed)?;
    for _ in 0..warmup {
        step(&mut trainer, &batch)?;
    }
    let mut alone: Vec<(f64, BTreeMap<Part, PartTime>)> = Vec::new();
    for _ in 0..timed {
        let start = Instant::now();
        let (done, parts) = profile::record(device, || step(&mut trainer, &batch));
        done?;
        alone.push((start.elapsed().as_secs_f64(), parts));
    }
    alone.sort_by(|one, other| one.0.total_cmp(&other.0));
    let (step_alone, parts) = alone.swap_remove(alone.len() / 2);

    let mut loader = loader(config, dataset, device, warmup + timed)?;
    let (mut start, mut waited_before) = (Instant::now(), 0.0);
    for number in 0..warmup + timed {
        if number == warmup {
            (start, waited_before) = (Instant::now(), loader.waited().as_secs_f64());
        }
        let Some(batch) = loader.next() else { break };
        let batch = batch?;
        step(&mut trainer, &batch)?;
        loader.recycle(batch);
    }
    let training = start.elapsed().as_secs_f64() / timed as f64;
    let waited = (loader.waited().as_secs_f64() - waited_before) / timed as f64;
    let precision = trainer.pair.encoder.precision();
    Ok(StepTimes {
        images: batch.indices.len(),
        precision: match precision {
            Precision::Float32 => "float32",
            Precision::BFloat16 => "bf16",
        },
        processor: conv_plan::processor(),
        step: step_alone,
        parts,
        training,
        waited,
        views,
        peak: peak(precision, device),
        convolutions,
        device,
    })
}

impl StepTimes {
    /// What one may do about it, one sentence each; empty when nothing is known to help.
    pub fn advice(&self) -> Vec<String> {
        let mut advice = Vec::new();
        let share = 100.0 * self.waited / self.training;
        if share > 2.0 {
            advice.push(format!(
                "training waits for views {share:.0} % of the time: give more --loader-threads, or \
                 store the images smaller"
            ));
        }
        let slower = 100.0 * (self.training - self.waited - self.step) / self.step;
        if self.device == Device::Cpu && slower > 10.0 {
            advice.push(format!(
                "making views on the same processors slows a step down by {slower:.0} %: images \
                 stored at about the size of a view decode faster"
            ));
        }
        let best = Precision::fastest_on(self.device);
        if best == Precision::BFloat16 && self.precision == "float32" {
            advice.push("this device multiplies bf16 in hardware: try --precision bf16".to_owned());
        }
        if best == Precision::Float32 && self.precision == "bf16" {
            advice.push(
                "this device does not multiply bf16 in hardware: --precision float32 is faster"
                    .to_owned(),
            );
        }
        let (rate, tuned) = (self.convolution_rate(), !self.convolutions.0.is_empty());
        if self.device == Device::Cpu && !tuned && rate < 0.6 * self.peak {
            advice.push(
                "convolutions stay far below what the processor can do: see whether --tune on \
                 finds faster algorithms"
                    .to_owned(),
            );
        }
        advice
    }

    /// Operations a second of all convolutions together.
    pub fn convolution_rate(&self) -> f64 {
        let times = || self.parts.values().flat_map(|part| part.kernels.iter());
        let convolutions = || times().filter(|(_, time)| time.operations > 0.0);
        let operations: f64 = convolutions().map(|(_, time)| time.operations).sum();
        operations / convolutions().map(|(_, time)| time.seconds).sum::<f64>().max(f64::EPSILON)
    }

    /// Seconds of a step in one kernel, in whichever part.
    pub fn kernel(&self, kernel: Kernel) -> f64 {
        self.parts.values().filter_map(|part| part.kernels.get(&kernel)).map(|k| k.seconds).sum()
    }

    /// Seconds of a step by itself that no part accounts for.
    pub fn rest(&self) -> f64 {
        (self.step - self.parts.values().map(|part| part.seconds).sum::<f64>()).max(0.0)
    }
}

/// Views of as many batches as are asked for, of all images in turn.
pub(super) fn loader(
    config: &Config,
    dataset: &Arc<Dataset>,
    device: Device,
    batches: usize,
) -> Result<Loader, PretrainError> {
    let images: Vec<usize> = (0..dataset.len()).cycle().take(batches * config.batch_size).collect();
    let views = config.views.pretraining_views();
    let options = LoaderOptions {
        views: config.views.clone(),
        batches: images.chunks(config.batch_size).map(<[usize]>::to_vec).collect(),
        crops: Crops::Random { seed: config.seed, epoch: 0, views },
        threads: config.view_threads(device.is_cuda()),
    };
    Ok(Loader::new(dataset.clone(), options)?)
}

/// Seconds to make a batch's views while nothing else runs, and the last batch.
fn views_alone(
    config: &Config,
    dataset: &Arc<Dataset>,
    device: Device,
    batches: usize,
) -> Result<(f64, Batch), PretrainError> {
    let mut loader = loader(config, dataset, device, batches)?;
    let start = Instant::now();
    let mut last = None;
    let mut count = 0;
    while let Some(batch) = loader.next() {
        if let Some(before) = last.replace(batch?) {
            loader.recycle(before);
        }
        count += 1;
    }
    let seconds = start.elapsed().as_secs_f64() / f64::from(count.max(1));
    match last {
        Some(batch) if batch.indices.len() > 1 => Ok((seconds, batch)),
        _ => Err(PretrainError::OneImage { data: dataset.argument().to_owned() }),
    }
}

/// Prototypes of `images` images that mean nothing; none without an E-step.
pub(super) fn random_prototypes(config: &Config, images: usize, device: Device) -> Vec<Prototypes> {
    if config.method == Method::Moco {
        return Vec::new();
    }
    let options = (Kind::Float, device);
    let granularity = |clusters: i64| Prototypes {
        assignment: Tensor::randint(clusters, [images as i64], (Kind::Int64, Device::Cpu)),
        prototypes: normalise_rows(&Tensor::randn([clusters, config.encoder.dim], options)),
        concentration: Tensor::full([clusters], config.temperature, options),
    };
    config.clusters.counts(images).into_iter().map(granularity).collect()
}

/// The best rate of a few large matrix products, operations a second.
fn peak(precision: Precision, device: Device) -> f64 {
    let side: i64 = if device == Device::Cpu { 2048 } else { 8192 };
    let _guard = tch::no_grad_guard();
    let [a, b] = [0, 1].map(|_| {
        let kind = match precision {
            Precision::Float32 => Kind::Float,
            Precision::BFloat16 => Kind::BFloat16,
        };
        Tensor::randn([side, side], (Kind::Float, device)).to_kind(kind)
    });
    let seconds = (0..6).map(|_| {
        let start = Instant::now();
        // Reading a number waits for the device.
        let _ = a.mm(&b).double_value(&[0, 0]);
        start.elapsed().as_secs_f64()
    });
    2.0 * (side as f64).powi(3) / seconds.fold(f64::MAX, f64::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_step_add_up_and_advice_fits_what_was_measured() {
        let folder = tempfile::tempdir().unwrap();
        write_images(folder.path(), 8, 32).unwrap();
        let dataset = Arc::new(Dataset::open(folder.path().to_str().unwrap()).unwrap());
        assert_eq!(dataset.len(), 8);
        let mut config = Config::preset("small").unwrap();
        config.insert("batch-size".to_owned(), 8.into());
        config.insert("queue".to_owned(), 64.into());
        config.insert("tune".to_owned(), "off".into());
        let config = Config::resolve([config]).unwrap();
        let steps = Steps { warmup: 0, timed: 1 };
        let mut times = measure_step(&config, &dataset, Device::Cpu, steps, &mut |_| ()).unwrap();
        let kernels = |part| times.parts[&part].kernels.keys().copied().collect::<Vec<_>>();
        assert_eq!(times.images, 8);
        assert_eq!(times.parts.len(), 6);
        assert_eq!(kernels(Part::Keys), [Kernel::Convolution, Kernel::Normalisation]);
        assert_eq!(kernels(Part::Queries), kernels(Part::Keys));
        // What convolutions read within a block is made again.
        let backward = [
            Kernel::InputGradient,
            Kernel::WeightGradient,
            Kernel::Normalisation,
            Kernel::NormalisationGradient,
        ];
        assert_eq!(kernels(Part::Backward), backward);
        for part in times.parts.values() {
            let kernels: f64 = part.kernels.values().map(|kernel| kernel.seconds).sum();
            assert!(part.seconds > 0.0 && kernels <= part.seconds);
        }
        assert!(times.parts.values().map(|part| part.seconds).sum::<f64>() <= times.step);
        // ResNet-18 at 32 px with the small stem: 0.556 G multiplications an image.
        let convolutions = times.parts[&Part::Keys].kernels[&Kernel::Convolution];
        assert!((convolutions.operations / 8.0 / 2.0 / 0.556e9 - 1.0).abs() < 0.01);
        assert!(times.peak > 1e8 && times.views > 0.0 && times.training > 0.0);

        (times.training, times.waited, times.step) = (1.0, 0.01, 0.99);
        assert!(!times.advice().iter().any(|advice| advice.contains("views")));
        times.waited = 0.1;
        assert!(times.advice()[0].contains("10 % of the time"), "{:?}", times.advice());
    }
}
