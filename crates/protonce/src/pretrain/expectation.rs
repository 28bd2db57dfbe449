//! The E-step: the momentum encoder and all images in; prototypes of each granularity out (PCL,
//! Algorithm 1, lines 3 to 6).
//!
//! All images are embedded, or the keys of the epoch before are taken for embeddings; k-means groups
//! them once per granularity; centroids become prototypes, each with its concentration. Prototypes and
//! embeddings go to the run folder, so that a run that goes on between two E-steps finds them there.

use std::cell::Cell;
use std::time::Instant;

use protonce_kmeans::{
    Clustering, ConcentrationOptions, KMeans, KMeansError, Metric, Quality, Source, Threads,
    concentration, normalised_mutual_information,
};
use protonce_run::{Event, Hierarchy, Progress, Task};
use tch::{Kind, Tensor};

use super::batches::{evaluation_loader, part};
use super::error::PretrainError;
use super::run::{CurrentPrototypes, Run};
use crate::prototypes::{
    Points, PrototypeError, Prototypes, effective_rank as of_rank, spread as of_spread,
};
use crate::tensors::{Writable, values};
use crate::world::{World, WorldError, floats};
use protonce_encoder::{Output, try_extract};

/// A spread below which embeddings tell images no longer apart.
const COLLAPSED: f64 = 0.1;

/// Steps before which that is no wonder: those of an untrained encoder are nearly the same.
const SETTLED: usize = 500;

/// An embedding per image, and which images have one.
struct Embeddings {
    /// Those of this process: float32 [its images, dim].
    rows: Tensor,
    /// The images of all processes that have one, ascending: process 0 has the first of them.
    images: Vec<i64>,
    /// How many images each process has.
    lengths: Vec<usize>,
    /// How many of all are keys of the epoch before.
    reused: usize,
}

/// Whether any process says `yes`.
fn any(world: &World, yes: bool) -> Result<bool, WorldError> {
    let all = world.gather_known(&[u8::from(yes)], &vec![1; world.size()])?;
    Ok(all.contains(&1))
}

impl Run<'_, '_> {
    /// The E-step that begins `epoch`; after training, what the finished encoder sees. It ends early where
    /// any process is to `stop`, which makes it false; prototypes are then what they were before.
    pub(super) fn expectation(
        &mut self,
        epoch: usize,
        stop: &dyn Fn() -> bool,
    ) -> Result<bool, PretrainError> {
        match self.embed_and_cluster(epoch, stop) {
            Ok(()) => Ok(true),
            Err(
                PretrainError::Stopped
                | PretrainError::Prototypes(PrototypeError::KMeans(KMeansError::Stopped)),
            ) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn embed_and_cluster(
        &mut self,
        epoch: usize,
        stop: &dyn Fn() -> bool,
    ) -> Result<(), PretrainError> {
        let embedding_start = Instant::now();
        // The finished encoder is shown as it is, not as it was.
        let finished = epoch == self.config.epochs;
        let bank = if finished { None } else { self.trainer.bank.as_ref().map(Tensor::copy) };
        let Embeddings { rows, images, lengths, reused } = self.embeddings(bank, epoch, stop)?;
        let embedding_seconds = embedding_start.elapsed().as_secs_f64();

        let clustering_start = Instant::now();
        let options = ConcentrationOptions {
            temperature: self.config.temperature,
            smoothing: self.config.smoothing,
        };
        // The first process measures and writes down what all have.
        let (mut effective_rank, mut spread) = (f64::NAN, f64::NAN);
        if let Some(all) = self.trainer.world.rows_in_first(&rows, &lengths)? {
            (effective_rank, spread) = (of_rank(&all), of_spread(&all));
            self.save_embeddings(&all, &images)?;
        }
        let steps = epoch * self.config.steps_per_epoch(self.dataset.len());
        if spread < COLLAPSED && steps >= SETTLED {
            (self.observer)(Progress::Warning(&format!(
                "the embeddings of all images are nearly the same, their spread is {spread:.3} (collapse): \
                 a lower --lr or --head mlp-bn may help"
            )));
        }
        let first: usize = lengths[..self.trainer.world.rank()].iter().sum();
        let points = Points::from_tensor(&rows, Metric::Euclidean);
        let points = points.map_err(|error| error.counted_from(first))?;
        let before = self.prototypes.assignments_of(&images)?;
        let clusters = self.config.clusters.counts(images.len());
        let clusterings = self.cluster(&points, &clusters, &before, stop)?;
        let (mut prototypes, mut granularities) = (Vec::new(), Vec::new());
        for (m, clustering) in clusterings.iter().enumerate() {
            let agreement = before
                .get(m)
                .map(|before| normalised_mutual_information(before, &clustering.assignment));
            let concentration = concentration(clustering, options);
            granularities.push(Quality::new(
                clustering,
                &concentration,
                agreement,
                Source::Training,
            ));
            let (all, device) = (self.dataset.len(), self.device);
            prototypes.push(Prototypes::new(clustering, &concentration, &images, all, device));
        }
        self.save_prototypes(epoch, &prototypes)?;
        self.event(Event::Expectation {
            epoch,
            images: images.len(),
            reused,
            granularities,
            effective_rank,
            spread,
            embedding_seconds,
            clustering_seconds: clustering_start.elapsed().as_secs_f64(),
        })?;
        self.prototypes = CurrentPrototypes::of(epoch, prototypes);
        Ok(())
    }

    /// The clustering of each granularity of `counts` clusters; `before` are the assignments of the E-step
    /// before, of as many granularities or none.
    fn cluster(
        &mut self,
        points: &Points,
        counts: &[i64],
        before: &[Vec<i64>],
        stop: &dyn Fn() -> bool,
    ) -> Result<Vec<Clustering>, PretrainError> {
        let (config, world) = (self.config, &self.trainer.world);
        let threads = Threads::new(protonce_images::threads(config.threads));
        let threads = threads.map_err(PrototypeError::KMeans)?;
        let lost = Cell::new(None);
        // The finest first, for coarser ones are made of it in a tree.
        let mut order: Vec<usize> = (0..counts.len()).collect();
        if config.hierarchy == Hierarchy::Tree {
            order.sort_by_key(|&m| std::cmp::Reverse(counts[m]));
        }
        let mut clusterings: Vec<Option<Clustering>> = vec![None; counts.len()];
        let mut finer: Option<usize> = None;
        for (done_before, &m) in order.iter().enumerate() {
            let observer = &mut *self.observer;
            let mut progress = |done: usize, total: usize| {
                let (done, total) = (done_before * total + done, counts.len() * total);
                observer(Progress::Task { task: Task::Clustering, done, total });
                match any(world, stop()) {
                    Ok(false) => (),
                    Ok(true) => threads.stop(),
                    Err(error) => {
                        threads.stop();
                        lost.set(Some(error));
                    }
                }
            };
            let options = KMeans { seed: m as u64, ..KMeans::default() };
            let count = usize::try_from(counts[m]).unwrap_or(0);
            let of_finer = finer.and_then(|m| clusterings[m].as_ref());
            let clustering = match of_finer.filter(|_| config.hierarchy == Hierarchy::Tree) {
                Some(finer) => points.merge(&options, finer, count, world, &threads, &mut progress),
                None => {
                    let before = before.get(m).map(Vec::as_slice).filter(|_| config.warm_start);
                    points.fit(&options, count, before, world, &threads, &mut progress)
                }
            };
            if let Some(error) = lost.take() {
                return Err(error.into());
            }
            clusterings[m] = Some(clustering?);
            finer = Some(m);
        }
        Ok(clusterings.into_iter().flatten().collect())
    }

    /// Embeddings of all images, seen in the size that they have in `epoch`, of which each process has a
    /// part; those that `bank` [all images, dim] has are taken from it, and only the images that it lacks
    /// are looked at.
    fn embeddings(
        &mut self,
        bank: Option<Tensor>,
        epoch: usize,
        stop: &dyn Fn() -> bool,
    ) -> Result<Embeddings, PretrainError> {
        let count = self.dataset.len();
        let known: Vec<bool> = match &bank {
            None => vec![false; count],
            Some(bank) => values(&bank.any_dim(1, false))?,
        };
        let missing: Vec<usize> = (0..count)
            .filter(|index| !known[*index] && !self.unreadable.contains_key(index))
            .collect();
        let world = self.trainer.world.clone();
        let own = part(&missing, self.config, &world);
        let dim = self.config.encoder.dim;
        let mut rows = Tensor::zeros([0, dim], (Kind::Float, self.device));
        let (mut found, mut unreadable) = (Vec::new(), Vec::new());
        if !own.is_empty() {
            let total = missing.len();
            let views = self.config.views_of(epoch);
            let mut loader =
                evaluation_loader(&self.dataset, own, views, self.config, self.device)?;
            let observer = &mut *self.observer;
            // As many batches as every process has: after these all can agree.
            let mut common = total.div_ceil(self.config.batch_size) / world.size();
            let embedded = try_extract(
                &self.trainer.pair.momentum_encoder,
                &mut loader,
                Output::Embeddings,
                &mut |done| {
                    // All processes take about as long.
                    let of_all = done * total / own.len();
                    observer(Progress::Task { task: Task::Embedding, done: of_all, total });
                    if common > 0 && any(&world, stop())? {
                        return Err(PretrainError::Stopped);
                    }
                    common = common.saturating_sub(1);
                    Ok(())
                },
            )?;
            (found, unreadable) = (embedded.images, embedded.unreadable);
            if !found.is_empty() {
                rows = embedded.rows;
            }
        }
        if world.size() > 1 {
            unreadable = world.gather_words(&unreadable)?.concat();
        }
        let of_all = world.gather_values(&found)?;
        let lengths: Vec<usize> = of_all.iter().map(Vec::len).collect();
        let found = of_all.concat();
        self.note_unreadable(&unreadable)?;
        let Some(bank) = bank else {
            return Ok(Embeddings { rows, images: found, lengths, reused: 0 });
        };

        // Every process has the bank; what it lacks, each has looked at a part of.
        let mut images: Vec<i64> =
            (0..count as i64).filter(|&index| known[index as usize]).collect();
        let reused = images.len();
        let on_device = |numbers: &[i64]| Tensor::from_slice(numbers).to_device(self.device);
        if !found.is_empty() {
            if world.size() > 1 {
                let widths: Vec<usize> = lengths.iter().map(|rows| rows * dim as usize).collect();
                let all = world.gather_known(&floats(&rows)?, &widths)?;
                rows = Tensor::from_slice(&all).view([-1, dim]).to_device(self.device);
            }
            let bank_rows = bank.index_copy(0, &on_device(&found), &rows);
            images.extend(found);
            images.sort_unstable();
            rows = bank_rows;
        } else {
            rows = bank;
        }
        let bound = |process: usize| images.len() * process / world.size();
        let lengths = (0..world.size()).map(|n| bound(n + 1) - bound(n)).collect();
        let own = bound(world.rank())..bound(world.rank() + 1);
        let rows = rows.index_select(0, &on_device(&images[own]));
        Ok(Embeddings { rows, images, lengths, reused })
    }

    /// Writes the embeddings that the newest prototypes are made of: `rows` are those of `images`, and images
    /// that cannot be read have zeros.
    fn save_embeddings(&self, rows: &Tensor, images: &[i64]) -> Result<(), PretrainError> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let size = [self.dataset.len() as i64, self.config.encoder.dim];
        let all = Tensor::zeros(size, (Kind::Float, rows.device()));
        let all = all.index_copy(0, &Tensor::from_slice(images).to_device(rows.device()), rows);
        Ok(folder.save_embeddings(Writable::new(&all)?)?)
    }
}
