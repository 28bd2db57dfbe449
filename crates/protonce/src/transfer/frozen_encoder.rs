//! An encoder whose weights no longer change: images in, features out.
//!
//! Every evaluation starts with the same features, and computing them takes longer than what follows.
//! So they can be kept in a [`FeatureCache`] under a key of everything they depend on: the weights, the
//! arithmetic, the evaluation view and the images. Change one, and the key is another.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use tch::Device;

use super::{FeatureCache, TransferError};
use crate::tensors;
use crate::weights::Weights;
use protonce_encoder::{Encoder, Extracted, Output, Precision, extract};
use protonce_images::data::Dataset;
use protonce_images::views::{Crops, Loader, LoaderOptions, ViewConfig};
use protonce_run::EncoderConfig;

/// An encoder whose weights no longer change, with the size and normalisation of the images it wants.
pub struct FrozenEncoder {
    encoder: Encoder,
    views: ViewConfig,
    precision: Precision,
    /// Hash of the weights, shapes and arithmetic.
    digest: Sha256,
}

impl FrozenEncoder {
    /// The encoder of `weights`, on `device`.
    ///
    /// # Errors
    /// When the tensors do not fit the shapes that the weights claim.
    pub fn load(
        weights: &Weights,
        precision: Precision,
        device: Device,
    ) -> Result<FrozenEncoder, TransferError> {
        let encoder = weights.load(precision, device)?;
        FrozenEncoder::new(encoder, &weights.views, precision)
    }

    /// An encoder with new random parameters: the floor that training has to beat.
    ///
    /// # Errors
    /// When libtorch cannot bring the parameters into memory.
    pub fn untrained(
        config: &EncoderConfig,
        views: &ViewConfig,
        precision: Precision,
        device: Device,
        seed: u64,
    ) -> Result<FrozenEncoder, TransferError> {
        FrozenEncoder::new(Encoder::new(config, precision, device, seed), views, precision)
    }

    fn new(
        encoder: Encoder,
        views: &ViewConfig,
        precision: Precision,
    ) -> Result<FrozenEncoder, TransferError> {
        let mut digest = Sha256::new();
        // The version, because another may compute other features from the same weights.
        digest.update(concat!(env!("CARGO_PKG_VERSION"), "\0"));
        digest.update(format!("{:?} {precision:?}\0", encoder.config()));
        for (name, tensor) in encoder.parameters().named_tensors() {
            digest.update(name);
            digest.update(tensors::bytes(&tensor)?);
        }
        Ok(FrozenEncoder { encoder, views: views.clone(), precision, digest })
    }

    /// The encoder.
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// The images it wants.
    pub fn views(&self) -> &ViewConfig {
        &self.views
    }

    /// Its arithmetic.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Features or embeddings of the centre crops of `images`, out of `cache` or computed
    /// `batch_size` images at a time and put there.
    ///
    /// `progress` gets the number of images done; it is not called for what is in the cache. A
    /// cache that cannot be written is reported to `warn` and is no error: the features are there.
    ///
    /// # Errors
    /// When images cannot be loaded, not one can be read, or the features are not finite.
    pub fn extract(
        &self,
        images: &Dataset,
        output: Output,
        batch_size: usize,
        cache: Option<&FeatureCache>,
        progress: &mut dyn FnMut(usize),
        warn: &mut dyn FnMut(String),
    ) -> Result<Extracted, TransferError> {
        let name = || images.argument().to_owned();
        let device = self.encoder.parameters().theta().device();
        let key = cache.map(|cache| (cache, self.key(images, output)));
        if let Some(found) = key.as_ref().and_then(|(cache, key)| cache.read(key, device)) {
            return Ok(found);
        }
        let indices: Vec<usize> = (0..images.len()).collect();
        let batches = indices.chunks(batch_size.max(1)).map(<[usize]>::to_vec).collect();
        let views = self.views.clone();
        let options = LoaderOptions { views, batches, crops: Crops::Centre, threads: 0 };
        let mut loader = Loader::new(Arc::new(images.clone()), options)?;
        let extracted = extract(&self.encoder, &mut loader, output, progress)?;
        if extracted.images.is_empty() {
            return Err(TransferError::NoFeatures { name: name() });
        }
        if extracted.rows.isfinite().all().int64_value(&[]) == 0 {
            return Err(TransferError::NotFinite { name: name() });
        }
        if let Some((cache, key)) = key
            && let Err(reason) = cache.write(&key, &extracted)
        {
            warn(reason.to_string());
        }
        Ok(extracted)
    }

    fn key(&self, images: &Dataset, output: Output) -> String {
        let ViewConfig { image_size, eval_resize, mean, std, .. } = &self.views;
        let mut digest = self.digest.clone();
        digest.update(format!("{output:?} {image_size} {eval_resize} {mean:?} {std:?}\0"));
        images.describe(&mut |part| digest.update(part));
        let digest = digest.finalize();
        digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }
}
