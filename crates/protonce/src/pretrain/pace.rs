//! How long a run will take: settings, images and the machine in, the seconds of any number of epochs
//! out, and the number that fits into a time.
//!
//! A few steps of training are timed at the smallest and the largest size of views, a few batches are
//! embedded and a few thousand random points clustered, all with what training itself uses. What lies
//! between and beyond is computed: a step costs in proportion to the pixels of a view, an E-step to
//! images and clusters.

use std::sync::Arc;
use std::time::{Duration, Instant};

use protonce_images::data::Dataset;
use protonce_kmeans::{KMeans, Metric, Threads};
use protonce_run::{Config, Hierarchy, Method, Observer, Position};
use tch::{Device, Kind, Tensor};

use super::batches::evaluation_loader;
use super::error::PretrainError;
use super::maximization::Trainer;
use super::measure::{loader, random_prototypes};
use super::setup::{check_sizes, choose_conv_plan};
use crate::prototypes::{Points, PrototypeError};
use crate::transfer::TransferError;
use crate::world::World;
use protonce_encoder::{Output, extract};

/// Images that are embedded, and points that are clustered, to see how long it takes.
const SAMPLE: usize = 2048;

/// What the parts of a run cost, in seconds.
#[derive(Debug, Clone, PartialEq)]
pub struct Pace {
    /// A step at each of one or two sizes of views: (pixels of a side, seconds), the smaller first.
    pub steps: Vec<(usize, f64)>,
    /// To embed an image of the full size.
    pub embedding: f64,
    /// To cluster, per image and cluster.
    pub clustering: f64,
    /// To measure the representation on labelled images, where they are given.
    pub evaluation: f64,
}

impl Pace {
    /// Takes the time of training with `config` on `dataset`, for about `time` in all.
    ///
    /// # Errors
    /// As [`super::pretrain`], as far as it concerns views.
    ///
    /// # Panics
    /// When libtorch fails, for example for lack of memory.
    pub fn measure(
        config: &Config,
        dataset: &Arc<Dataset>,
        device: Device,
        time: Duration,
        observer: &mut Observer,
    ) -> Result<Pace, PretrainError> {
        check_sizes(config, dataset)?;
        let mut trainer = Trainer::new(config, dataset.len(), device, World::alone());
        trainer.set_conv_plan(choose_conv_plan(config, &trainer.pair.encoder, device, observer));
        let prototypes = random_prototypes(config, dataset.len(), device);
        let mut sizes = vec![config.views_of(0), config.views.clone()];
        sizes.dedup();
        let share = time.mul_f64(0.4);
        let mut steps = Vec::new();
        for views in sizes {
            let side = views.image_size;
            let config = Config { views, initial_size: 0, ..config.clone() };
            let mut loader = loader(&config, dataset, device, LONG_ENOUGH)?;
            let (mut ends, start) = (vec![Duration::ZERO], Instant::now());
            while let Some(batch) = loader.next() {
                let batch = batch?;
                let position = Position { epoch: 0, step: 0, steps: 1 };
                if batch.indices.len() > 1 {
                    let share = trainer.share(&batch)?;
                    let _ = trainer.step(&batch, &share, &prototypes, position)?.values();
                }
                loader.recycle(batch);
                ends.push(start.elapsed());
                if ends.len() > LEAST_STEPS && start.elapsed() > share {
                    break;
                }
            }
            steps.push((side, settled(&ends)));
        }
        let embedding = embedding(&trainer, config, dataset, device)?;
        let clustering = match config.method {
            Method::Moco => 0.0,
            Method::Pcl => clustering(&trainer, config, device)?,
        };
        let mut labelled = 0;
        for data in [&config.eval_train, &config.eval_test] {
            if !data.is_empty() {
                labelled += Dataset::open_labelled(data).map_err(TransferError::from)?.len();
            }
        }
        Ok(Pace { steps, embedding, clustering, evaluation: labelled as f64 * embedding })
    }

    /// What the same costs several `processes` that share it.
    pub fn among(self, processes: usize) -> Pace {
        let share = |seconds: f64| seconds / processes as f64;
        Pace {
            steps: self.steps.into_iter().map(|(side, seconds)| (side, share(seconds))).collect(),
            embedding: share(self.embedding),
            clustering: share(self.clustering),
            evaluation: share(self.evaluation),
        }
    }

    /// Seconds of a step with views of `side` pixels.
    fn step(&self, side: usize) -> f64 {
        let [(small, fast), .., (full, slow)] = self.steps[..] else {
            return self.steps.first().map_or(0.0, |step| step.1);
        };
        let area = |side: usize| (side * side) as f64;
        let share = (area(side) - area(small)) / (area(full) - area(small)).max(1.0);
        fast + share * (slow - fast)
    }

    /// Seconds of an E-step on `images` images.
    pub fn expectation(&self, config: &Config, images: usize) -> f64 {
        let counts = config.clusters.counts(images).into_iter();
        let clusters: i64 = match config.hierarchy {
            Hierarchy::Separate => counts.sum(),
            // Coarser levels cluster few centroids.
            Hierarchy::Tree => counts.max().unwrap_or(0),
        };
        images as f64 * (self.embedding + self.clustering * clusters as f64) + WRITING
    }

    /// Seconds of the M-step of an epoch at the full size.
    pub fn maximization(&self, config: &Config, images: usize) -> f64 {
        self.step(config.views.image_size) * config.steps_per_epoch(images) as f64
    }

    /// Seconds of a run on `images` images.
    pub fn run(&self, config: &Config, images: usize) -> f64 {
        let steps = config.steps_per_epoch(images) as f64;
        let (expectation, mut seconds) = (self.expectation(config, images), 0.0);
        for epoch in 0..config.epochs {
            seconds += steps * self.step(config.views_of(epoch).image_size);
            if config.expectation_before(epoch) == Some(epoch) {
                seconds += expectation;
            }
            let ended = |every: usize| (epoch + 1).is_multiple_of(every);
            if ended(config.save_every) {
                seconds += WRITING;
            }
            if ended(config.eval_every) {
                seconds += self.evaluation;
            }
        }
        seconds + if config.method == Method::Pcl { expectation } else { 0.0 }
    }

    /// The most epochs, from 1 to `most`, of which a run with the settings `completed` with them fits
    /// into `budget`.
    ///
    /// # Errors
    /// Those of `completed`.
    pub fn epochs_within<E>(
        &self,
        budget: Duration,
        images: usize,
        most: usize,
        completed: impl Fn(usize) -> Result<Config, E>,
    ) -> Result<usize, E> {
        let fits = |epochs| -> Result<bool, E> {
            Ok(self.run(&completed(epochs)?, images) <= budget.as_secs_f64())
        };
        let (mut least, mut too_many) = (1, 2);
        while too_many <= most.min(MANY) && fits(too_many)? {
            (least, too_many) = (too_many, 2 * too_many);
        }
        too_many = too_many.min(most.saturating_add(1));
        while too_many - least > 1 {
            let middle = usize::midpoint(least, too_many);
            match fits(middle)? {
                true => least = middle,
                false => too_many = middle,
            }
        }
        Ok(least)
    }
}

/// Batches of which time runs out before they do.
const LONG_ENOUGH: usize = 4096;

/// Steps that are taken at least.
const LEAST_STEPS: usize = 5;

/// Seconds of a step out of when each has ended, the beginning first: those of the later half. The first
/// steps reserve memory, wait for the first views and find a processor that has not sped up yet.
fn settled(ends: &[Duration]) -> f64 {
    let later = &ends[(ends.len() - 1) / 2..];
    match later {
        [first, .., last] => (*last - *first).as_secs_f64() / (later.len() - 1) as f64,
        _ => 0.0,
    }
}

/// Seconds to write a checkpoint, or the prototypes of an E-step, and have them on the disk.
const WRITING: f64 = 0.1;

/// More epochs than anyone has time for.
const MANY: usize = 1 << 20;

/// Seconds to embed an image in an E-step.
fn embedding(
    trainer: &Trainer,
    config: &Config,
    dataset: &Arc<Dataset>,
    device: Device,
) -> Result<f64, PretrainError> {
    let images: Vec<usize> = (0..dataset.len().min(SAMPLE).min(4 * config.batch_size)).collect();
    let views = config.views.clone();
    let mut loader = evaluation_loader(dataset, &images, views, config, device)?;
    let start = Instant::now();
    let encoder = &trainer.pair.momentum_encoder;
    let found = extract(encoder, &mut loader, Output::Embeddings, &mut |_| ())?;
    // Waits for the device.
    let _ = found.rows.sum(Kind::Float).double_value(&[]);
    Ok(start.elapsed().as_secs_f64() / images.len() as f64)
}

/// Seconds that k-means takes per point and cluster.
fn clustering(trainer: &Trainer, config: &Config, device: Device) -> Result<f64, PretrainError> {
    // With fewer, what each point costs by itself would count as a cost of each cluster.
    let clusters = SAMPLE / 8;
    let rows = Tensor::randn([SAMPLE as i64, config.encoder.dim], (Kind::Float, device));
    let points = Points::from_tensor(&rows, Metric::Euclidean)?;
    let threads = Threads::new(config.threads).map_err(PrototypeError::KMeans)?;
    let start = Instant::now();
    points.fit(&KMeans::default(), clusters, None, &trainer.world, &threads, &mut |_, _| ())?;
    Ok(start.elapsed().as_secs_f64() / (SAMPLE * clusters) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(more: &str) -> Config {
        let layers = [Config::preset("small").unwrap(), more.parse().unwrap()];
        Config::resolve(layers).unwrap()
    }

    const PACE: Pace =
        Pace { steps: Vec::new(), embedding: 1e-3, clustering: 1e-6, evaluation: 0.0 };

    #[test]
    fn a_step_costs_by_the_pixels_of_its_views() {
        let pace = Pace { steps: vec![(16, 1.0), (32, 4.0)], ..PACE };
        assert_eq!([16, 32].map(|side| pace.step(side)), [1.0, 4.0]);
        // A third of the way from 256 to 1024 pixels is 512.
        assert!((pace.step(24) - (1.0 + 3.0 * (576.0 - 256.0) / 768.0)).abs() < 1e-12);
        assert_eq!(Pace { steps: vec![(32, 2.0)], ..PACE }.step(32), 2.0);
    }

    #[test]
    fn the_first_steps_say_little_about_the_later_ones() {
        let ends = |seconds: &[u64]| -> Vec<Duration> {
            seconds.iter().map(|&seconds| Duration::from_secs(seconds)).collect()
        };
        assert_eq!(settled(&ends(&[0, 9, 15, 17, 19])), 2.0);
        assert_eq!(settled(&ends(&[0, 9, 15, 18, 20, 22])), (22.0 - 15.0) / 3.0);
        assert_eq!(settled(&ends(&[0, 3])), 3.0);
        assert_eq!(settled(&ends(&[0])), 0.0);
    }

    #[test]
    fn a_run_is_its_steps_its_expectation_steps_and_what_it_writes() {
        let pace = Pace { steps: vec![(32, 0.5)], ..PACE };
        let config = config(
            "epochs = 10\nbatch-size = 50\nclusters = [10, 20]\nwarmup-epochs = 4\nexpectation-every = 2",
        );
        let expectation = 200.0 * (1e-3 + 30.0 * 1e-6) + WRITING;
        assert!((pace.expectation(&config, 200) - expectation).abs() < 1e-12);
        // Before epochs 4, 6 and 8, and at the end.
        let seconds = 10.0 * (4.0 * 0.5 + WRITING) + 4.0 * expectation;
        assert!((pace.run(&config, 200) - seconds).abs() < 1e-9);
        let tree = Config { hierarchy: Hierarchy::Tree, ..config };
        let expectation = 200.0 * (1e-3 + 20.0 * 1e-6) + WRITING;
        assert!((pace.expectation(&tree, 200) - expectation).abs() < 1e-12);
    }

    #[test]
    fn epochs_fill_a_budget_and_there_is_at_least_one() {
        let pace = Pace { steps: vec![(32, 0.5)], ..PACE };
        let completed = |epochs| Config { epochs, ..config("batch-size = 50") };
        for seconds in [0u64, 10, 100, 10_000] {
            let budget = Duration::from_secs(seconds);
            let fitting = |most| {
                let settings = |epochs| Ok::<_, ()>(completed(epochs));
                pace.epochs_within(budget, 200, most, settings).unwrap()
            };
            let found = fitting(usize::MAX);
            assert!(pace.run(&completed(found), 200) <= seconds as f64 || found == 1);
            assert!(pace.run(&completed(found + 1), 200) > seconds as f64, "{found} epochs");
            assert_eq!(fitting(7), found.min(7));
        }
    }
}
