//! Features kept on disk, one file for each encoder and set of images.
//!
//! A key and features go in, the features come out under the same key. A file that is missing, damaged or
//! of another program is no error: the features are computed again.

use std::collections::HashMap;
use std::path::PathBuf;

use protonce_run::{TensorFile, write_tensors};
use tch::{Device, Kind, Tensor};

use super::TransferError;
use crate::tensors::{self, TensorError, Writable};
use protonce_encoder::Extracted;
use protonce_images::views::Unreadable;

/// A folder of features.
#[derive(Debug, Clone)]
pub struct FeatureCache {
    folder: PathBuf,
}

impl FeatureCache {
    /// Features in `folder`, which need not exist yet.
    pub fn new(folder: PathBuf) -> FeatureCache {
        FeatureCache { folder }
    }

    /// The file of a key.
    pub(super) fn file(&self, key: &str) -> PathBuf {
        self.folder.join(format!("{key}.safetensors"))
    }

    /// The features under `key`, on `device`; none where there are none.
    pub(super) fn read(&self, key: &str, device: Device) -> Option<Extracted> {
        let mut file = TensorFile::open(&self.file(key)).ok()?;
        let unreadable = file.metadata()?.get("unreadable")?;
        let unreadable: Vec<Unreadable> = serde_json::from_str(unreadable).ok()?;
        let images = file.i64s("images", &[None]).ok()?;
        let rows = tensors::read(&mut file, "rows").ok()?;
        let fits =
            rows.kind() == Kind::Float && rows.dim() == 2 && rows.size()[0] == images.len() as i64;
        fits.then(|| Extracted { images, rows: rows.to_device(device), unreadable })
    }

    /// Keeps the features under `key`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn write(&self, key: &str, features: &Extracted) -> Result<(), TransferError> {
        let file = self.file(key);
        let unreadable = serde_json::to_string(&features.unreadable);
        let failed = |reason: std::io::Error| TransferError::Cache { path: file.clone(), reason };
        std::fs::create_dir_all(&self.folder).map_err(failed)?;
        let unreadable = unreadable.map_err(|error| failed(error.into()))?;
        let images = Writable::new(&Tensor::from_slice(&features.images))?;
        let rows = Writable::new(&features.rows)?;
        let metadata = HashMap::from([("unreadable".to_owned(), unreadable)]);
        write_tensors(&file, &[("rows", rows), ("images", images)], Some(metadata))
            .map_err(TensorError::from)?;
        Ok(())
    }
}
