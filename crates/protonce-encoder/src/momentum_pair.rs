//! The two encoders of contrastive learning with a momentum encoder: two views of a batch in, queries
//! and keys out.
//!
//! The pixels of a view come as the loader made them and are uploaded here, so that a training step
//! reads like the paper's.

use protonce_run::EncoderConfig;
use tch::{Device, Tensor};

use super::model::Encoder;
use super::normalise::BatchStats;
use super::precision::Precision;
use super::upload::{image_tensor, upload};
use crate::profile::{self, Part};

/// The query encoder f_θ and the momentum encoder f_θ' that follows it (PCL §3.1, MoCo §3.2).
pub struct MomentumPair {
    /// f_θ, trained by gradients.
    pub encoder: Encoder,
    /// f_θ', the exponential moving average of f_θ; never sees a gradient.
    pub momentum_encoder: Encoder,
}

impl MomentumPair {
    /// Two encoders that start with the same parameters.
    pub fn new(
        config: &EncoderConfig,
        precision: Precision,
        device: Device,
        seed: u64,
    ) -> MomentumPair {
        let mut encoder = Encoder::new(config, precision, device, seed);
        let mut momentum_encoder = Encoder::zeroed(config, precision, device);
        momentum_encoder.parameters_mut().copy_from(encoder.parameters());
        encoder.parameters_mut().track_gradients();
        MomentumPair { encoder, momentum_encoder }
    }

    /// θ' ← mθ' + (1 − m)θ. Parameters only: the momentum encoder's batch-norm statistics move by
    /// its own forward pass.
    pub fn ema_update(&mut self, momentum: f64) {
        let theta = self.encoder.parameters();
        self.momentum_encoder.parameters_mut().ema_update(theta, momentum);
    }

    /// Queries of a batch's query views, with gradient: pixels [batch, size, size, 3] → [batch, dim].
    ///
    /// With `splits` > 1 batch statistics are those of that many groups of the batch; see
    /// [`Encoder::embed_split`].
    pub fn queries(&self, views: &[f32], size: usize, splits: i64) -> Tensor {
        let images = image_tensor(views, size, self.encoder.device());
        let _part = profile::part(Part::Queries);
        self.encoder.embed_split(&images, splits)
    }

    /// Queries of some groups of a batch, with gradient, and their batch statistics one group after the
    /// other: pixels [images, size, size, 3] → [images of the group, dim] for each of `lengths`, which are the
    /// images of each group. The running statistics do not move.
    pub fn query_groups(
        &self,
        views: &[f32],
        size: usize,
        lengths: &[i64],
    ) -> (Vec<Tensor>, Vec<f64>) {
        let _part = profile::part(Part::Queries);
        embed_groups(&self.encoder, views, size, lengths)
    }

    /// The same for keys, without gradient.
    pub fn key_groups(
        &self,
        views: &[f32],
        size: usize,
        lengths: &[i64],
    ) -> (Vec<Tensor>, Vec<f64>) {
        let _guard = tch::no_grad_guard();
        let _part = profile::part(Part::Keys);
        embed_groups(&self.momentum_encoder, views, size, lengths)
    }

    /// Keys of a batch's key views, without gradient: pixels [batch, size, size, 3] → [batch, dim].
    ///
    /// With `splits` > 1 the batch is shuffled by `order` (a permutation of the batch) before it is
    /// split, so that a query and its key never share batch statistics, and the keys come back in the
    /// batch's own order (MoCo §3.3, "shuffling BN").
    pub fn keys(&self, views: &[f32], size: usize, splits: i64, order: &[i64]) -> Tensor {
        let _guard = tch::no_grad_guard();
        let device = self.momentum_encoder.device();
        let images = image_tensor(views, size, device);
        let order = (splits > 1).then(|| upload(order, device));
        let _part = profile::part(Part::Keys);
        let Some(order) = order else {
            return self.momentum_encoder.embed(&images, BatchStats::Batch);
        };
        // Row selection would lose the channels-last layout on an NCHW view, so it works on NHWC.
        let shuffled = images.permute([0, 2, 3, 1]).index_select(0, &order).permute([0, 3, 1, 2]);
        let keys = self.momentum_encoder.embed_split(&shuffled, splits);
        keys.index_select(0, &order.argsort(0, false))
    }
}

/// [`Encoder::embed_recorded`] of groups of `lengths` images.
fn embed_groups(
    encoder: &Encoder,
    views: &[f32],
    size: usize,
    lengths: &[i64],
) -> (Vec<Tensor>, Vec<f64>) {
    if lengths.is_empty() {
        return (Vec::new(), Vec::new());
    }
    let images = image_tensor(views, size, encoder.device());
    let (mut embeddings, mut statistics, mut start) = (Vec::new(), Vec::new(), 0);
    for &length in lengths {
        let (embedded, recorded) = encoder.embed_recorded(&images.narrow(0, start, length));
        embeddings.push(embedded);
        statistics.extend(recorded);
        start += length;
    }
    (embeddings, statistics)
}
