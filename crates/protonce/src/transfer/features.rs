//! Features of a frozen encoder, computed once for each set of images.
//!
//! Every evaluation starts with the same features, and computing them takes longer than what follows.
//! So they are kept on disk under a key of everything they depend on: the weights, the arithmetic, the
//! evaluation view and the images. Change one, and the key is another.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use sha2::{Digest, Sha256};
use tch::{Device, Kind, Tensor};

use super::TransferError;
use crate::encoder::{Encoder, EncoderError, Extracted, Output, Precision, extract};
use crate::weights::Weights;
use protonce_disk as disk;
use protonce_images::data::Dataset;
use protonce_images::views::{Loader, Unreadable, ViewConfig};
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
    ) -> Result<FrozenEncoder, EncoderError> {
        let encoder = weights.load(precision, device)?;
        Ok(FrozenEncoder::new(encoder, &weights.views, precision))
    }

    /// An encoder whose parameters are drawn afresh: what an evaluation gives before anything was
    /// learnt.
    pub fn untrained(
        config: &EncoderConfig,
        views: &ViewConfig,
        precision: Precision,
        device: Device,
        seed: u64,
    ) -> FrozenEncoder {
        FrozenEncoder::new(Encoder::new(config, precision, device, seed), views, precision)
    }

    fn new(encoder: Encoder, views: &ViewConfig, precision: Precision) -> FrozenEncoder {
        let mut digest = Sha256::new();
        // The version, because another may compute other features from the same weights.
        digest.update(concat!(env!("CARGO_PKG_VERSION"), "\0"));
        digest.update(format!("{:?} {precision:?}\0", encoder.config()));
        for (name, tensor) in encoder.parameters().named_tensors() {
            digest.update(name);
            digest.update(bytes_of(&tensor));
        }
        FrozenEncoder { encoder, views: views.clone(), precision, digest }
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
    /// `progress` is told how many images are done; it is not called for what is in the cache. A
    /// cache that cannot be written is told to `warn` and nothing else: the features are there.
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
        let file = cache.map(|cache| cache.file(&self.key(images, output)));
        if let Some(found) = file.as_deref().and_then(|file| read(file, device)) {
            return Ok(found);
        }
        let indices: Vec<usize> = (0..images.len()).collect();
        let plan = indices.chunks(batch_size.max(1)).map(<[usize]>::to_vec).collect();
        let mut loader = Loader::evaluation(Arc::new(images.clone()), self.views.clone(), plan, 0)?;
        let extracted = extract(&self.encoder, &mut loader, output, progress)?;
        if extracted.images.is_empty() {
            return Err(TransferError::NoFeatures { name: name() });
        }
        if extracted.rows.isfinite().all().int64_value(&[]) == 0 {
            return Err(TransferError::NotFinite { name: name() });
        }
        if let Some(file) = file
            && let Err(reason) = write(&file, &extracted)
        {
            warn(format!("cannot keep features in {}: {reason}", file.display()));
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

/// A folder of features, one file for each encoder and set of images.
#[derive(Debug, Clone)]
pub struct FeatureCache {
    folder: PathBuf,
}

impl FeatureCache {
    /// Features in `folder`, which need not exist yet.
    pub fn new(folder: PathBuf) -> FeatureCache {
        FeatureCache { folder }
    }

    fn file(&self, key: &str) -> PathBuf {
        self.folder.join(format!("{key}.safetensors"))
    }
}

/// The features in `file`; none where there are none, or where the file is not one of ours.
fn read(file: &Path, device: Device) -> Option<Extracted> {
    let bytes = std::fs::read(file).ok()?;
    let (_, header) = SafeTensors::read_metadata(&bytes).ok()?;
    let unreadable = header.metadata().as_ref()?.get("unreadable")?;
    let unreadable: Vec<Unreadable> = serde_json::from_str(unreadable).ok()?;
    let tensors = SafeTensors::deserialize(&bytes).ok()?;
    let tensor = |name: &str, dtype, kind| {
        let view = tensors.tensor(name).ok().filter(|view| view.dtype() == dtype)?;
        let shape: Vec<i64> = view.shape().iter().map(|&side| side as i64).collect();
        Some(Tensor::from_data_size(view.data(), &shape, kind))
    };
    let rows = tensor("rows", Dtype::F32, Kind::Float)?;
    let images = Vec::<i64>::try_from(tensor("images", Dtype::I64, Kind::Int64)?).ok()?;
    (rows.dim() == 2 && rows.size()[0] == images.len() as i64).then(|| Extracted {
        images,
        rows: rows.to_device(device),
        unreadable,
    })
}

fn write(file: &Path, extracted: &Extracted) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let unreadable = serde_json::to_string(&extracted.unreadable).map_err(|error| text(&error))?;
    let metadata = HashMap::from([("unreadable".to_owned(), unreadable)]);
    let (rows, images) =
        (bytes_of(&extracted.rows), bytes_of(&Tensor::from_slice(&extracted.images)));
    let shape = extracted.rows.size().iter().map(|&side| side as usize).collect();
    let views = [
        ("rows", TensorView::new(Dtype::F32, shape, &rows)),
        ("images", TensorView::new(Dtype::I64, vec![extracted.images.len()], &images)),
    ];
    let mut tensors = Vec::new();
    for (name, view) in views {
        tensors.push((name, view.map_err(|error| text(&error))?));
    }
    let bytes = safetensors::serialize(tensors, Some(metadata)).map_err(|error| text(&error))?;
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder).map_err(|error| text(&error))?;
    }
    disk::replace(file, |scratch| std::fs::write(scratch, bytes)).map_err(|error| text(&error))
}

/// The numbers of a tensor as they lie in memory, row by row.
fn bytes_of(tensor: &Tensor) -> Vec<u8> {
    let tensor = tensor.detach().to_device(Device::Cpu).contiguous();
    let size = match tensor.kind() {
        Kind::Int64 | Kind::Double => 8,
        _ => 4,
    };
    let mut bytes = vec![0; tensor.numel() * size];
    tensor.copy_data_u8(&mut bytes, tensor.numel());
    bytes
}
