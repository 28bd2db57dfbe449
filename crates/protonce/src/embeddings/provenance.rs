//! Where the rows of a file come from: `OUT.json` beside it.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use protonce_images::views::{Unreadable, ViewConfig};

/// Everything that decides the rows, and nothing else.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// Checksum of the weights.
    pub weights: String,
    /// What the images were turned into.
    pub views: ViewConfig,
    /// Fingerprint of the images.
    pub data: String,
    /// How many images there are.
    pub images: usize,
    /// `features` or `embeddings`.
    pub output: String,
    /// Numbers per row.
    pub width: usize,
    /// The arithmetic.
    pub precision: String,
    /// Images per forward pass: another number may round differently.
    pub batch_size: usize,
}

/// What `OUT.json` says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Where the rows come from.
    #[serde(rename = "source")]
    pub provenance: Provenance,
    /// Rows of the file: images that could be read, in their order.
    pub rows: usize,
    /// The other images.
    pub unreadable: Vec<Unreadable>,
}

impl Summary {
    /// That of the file `out`, if it is there and of the same provenance.
    pub(super) fn of(out: &Path, provenance: &Provenance) -> Option<Summary> {
        if !out.is_file() {
            return None;
        }
        let text = fs::read(beside(out, ".json")).ok()?;
        let summary: Summary = serde_json::from_slice(&text).ok()?;
        (summary.provenance == *provenance).then_some(summary)
    }

    /// The image of each row.
    pub fn indices(&self) -> Vec<usize> {
        let missing = |index: &usize| {
            self.unreadable.binary_search_by_key(index, |unreadable| unreadable.index).is_ok()
        };
        (0..self.provenance.images).filter(|index| !missing(index)).collect()
    }
}

/// The file that has the name of `path` and `ending` after it.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(ending);
    path.with_file_name(name)
}
