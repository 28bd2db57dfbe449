//! The E-step: the momentum encoder and all images in; prototypes of each granularity out (PCL,
//! Algorithm 1, lines 3 to 6).
//!
//! All images are embedded, or the keys of the epoch before are taken for embeddings; k-means groups
//! them once per granularity; centroids become prototypes, each with its concentration. Prototypes and
//! embeddings go to the run folder, so that a run that goes on between two E-steps finds them there.

use std::time::Instant;

use protonce_kmeans::{
    Clustering, ConcentrationOptions, KMeans, Metric, Quality, Source, concentration,
    normalised_mutual_information,
};
use protonce_run::{Event, Hierarchy, Progress, Task};
use tch::{Kind, Tensor};

use super::batches::evaluation_loader;
use super::error::PretrainError;
use super::run::{CurrentPrototypes, Run};
use crate::prototypes::{Points, Prototypes, effective_rank, spread};
use crate::tensors::{Writable, values};
use protonce_encoder::{Output, extract};

/// A spread below which embeddings tell images no longer apart.
const COLLAPSED: f64 = 0.1;

/// Steps before which that is no wonder: those of an untrained encoder are nearly the same.
const SETTLED: usize = 500;

/// An embedding per image, and which images have one.
struct Embeddings {
    /// float32 [all images, dim], zeros where an image cannot be read.
    rows: Tensor,
    /// The images that have one, ascending.
    images: Vec<i64>,
    /// How many of these are keys of the epoch before.
    reused: usize,
}

impl Run<'_, '_> {
    /// The E-step that begins `epoch`; after training, what the finished encoder sees.
    pub(super) fn expectation(&mut self, epoch: usize) -> Result<(), PretrainError> {
        let embedding_start = Instant::now();
        // The finished encoder is shown as it is, not as it was.
        let finished = epoch == self.config.epochs;
        let bank = if finished { None } else { self.trainer.bank.as_ref().map(Tensor::copy) };
        let Embeddings { rows, images, reused } = self.embeddings(bank, epoch)?;
        let embedding_seconds = embedding_start.elapsed().as_secs_f64();

        let clustering_start = Instant::now();
        let options = ConcentrationOptions {
            temperature: self.config.temperature,
            smoothing: self.config.smoothing,
        };
        let readable = Tensor::from_slice(&images).to_device(self.device);
        let embeddings = rows.index_select(0, &readable);
        let (effective_rank, spread) = (effective_rank(&embeddings), spread(&embeddings));
        let steps = epoch * self.config.steps_per_epoch(self.dataset.len());
        if spread < COLLAPSED && steps >= SETTLED {
            (self.observer)(Progress::Warning(&format!(
                "the embeddings of all images are nearly the same, their spread is {spread:.3} (collapse): \
                 a lower --lr or --head mlp-bn may help"
            )));
        }
        let points = Points::from_tensor(&embeddings, Metric::Euclidean)?;
        let before = self.prototypes.assignments_of(&images)?;
        let clusters = self.config.clusters.counts(images.len());
        let clusterings = self.cluster(&points, &clusters, &before)?;
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
        self.folder.save_embeddings(Writable::new(&rows)?)?;
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
    ) -> Result<Vec<Clustering>, PretrainError> {
        let (config, world) = (self.config, &self.trainer.world);
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
            };
            let options = KMeans { seed: m as u64, threads: config.threads, ..KMeans::default() };
            let count = usize::try_from(counts[m]).unwrap_or(0);
            let of_finer = finer.and_then(|m| clusterings[m].as_ref());
            let clustering = match of_finer.filter(|_| config.hierarchy == Hierarchy::Tree) {
                Some(finer) => points.merge(&options, finer, count, world, &mut progress)?,
                None => {
                    let before = before.get(m).map(Vec::as_slice).filter(|_| config.warm_start);
                    points.fit(&options, count, before, world, &mut progress)?
                }
            };
            clusterings[m] = Some(clustering);
            finer = Some(m);
        }
        Ok(clusterings.into_iter().flatten().collect())
    }

    /// Embeddings of all images, seen in the size that they have in `epoch`; those that `bank` [all images, dim] has are taken from it, and only
    /// the images that it lacks are looked at.
    fn embeddings(
        &mut self,
        bank: Option<Tensor>,
        epoch: usize,
    ) -> Result<Embeddings, PretrainError> {
        let count = self.dataset.len();
        let known: Vec<bool> = match &bank {
            None => vec![false; count],
            Some(bank) => values(&bank.any_dim(1, false))?,
        };
        let missing: Vec<usize> = (0..count)
            .filter(|index| !known[*index] && !self.unreadable.contains_key(index))
            .collect();
        let size = [count as i64, self.config.encoder.dim];
        let mut rows = bank.unwrap_or_else(|| Tensor::zeros(size, (Kind::Float, self.device)));
        let mut images: Vec<i64> =
            (0..count as i64).filter(|&index| known[index as usize]).collect();
        let reused = images.len();
        if !missing.is_empty() {
            let total = missing.len();
            let views = self.config.views_of(epoch);
            let mut loader =
                evaluation_loader(&self.dataset, &missing, views, self.config, self.device)?;
            let observer = &mut *self.observer;
            let embedded = extract(
                &self.trainer.pair.momentum_encoder,
                &mut loader,
                Output::Embeddings,
                &mut |done| observer(Progress::Task { task: Task::Embedding, done, total }),
            )?;
            self.note_unreadable(&embedded.unreadable)?;
            let found = Tensor::from_slice(&embedded.images).to_device(self.device);
            rows = rows.index_copy(0, &found, &embedded.rows);
            images.extend(embedded.images);
            images.sort_unstable();
        }
        Ok(Embeddings { rows, images, reused })
    }
}
