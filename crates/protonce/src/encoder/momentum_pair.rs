//! The two encoders of contrastive learning with a momentum encoder: two views of a batch in, queries
//! and keys out.

use protonce_run::EncoderConfig;
use tch::{Device, Tensor};

use super::model::Encoder;
use super::normalise::BatchStats;
use super::precision::Precision;

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
        let momentum_encoder = Encoder::new(config, precision, device, seed);
        encoder.parameters_mut().track_gradients();
        MomentumPair { encoder, momentum_encoder }
    }

    /// θ' ← mθ' + (1 − m)θ. Parameters only: the momentum encoder's batch-norm statistics move by
    /// its own forward pass.
    pub fn ema_update(&mut self, momentum: f64) {
        let theta = self.encoder.parameters();
        self.momentum_encoder.parameters_mut().ema_update(theta, momentum);
    }

    /// Keys of the key views, without gradient: [batch, 3, height, width] → [batch, dim].
    ///
    /// With `splits` > 1 the batch is shuffled by `order` (a permutation of the batch, int64
    /// [batch]) before it is split, so that a query and its key never share batch statistics, and
    /// the keys come back in the batch's own order (MoCo §3.3, "shuffling BN").
    pub fn keys(&self, images: &Tensor, splits: i64, order: &Tensor) -> Tensor {
        let _guard = tch::no_grad_guard();
        if splits <= 1 {
            return self.momentum_encoder.embed(images, BatchStats::Batch);
        }
        // Row selection would lose the channels-last layout on an NCHW view, so it works on NHWC.
        let shuffled = images.permute([0, 2, 3, 1]).index_select(0, order).permute([0, 3, 1, 2]);
        let keys = self.momentum_encoder.embed_split(&shuffled, splits);
        keys.index_select(0, &order.argsort(0, false))
    }
}
