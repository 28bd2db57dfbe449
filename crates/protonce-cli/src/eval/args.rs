//! The arguments of every evaluation: which encoder, on which labelled images, computed how.

use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::Args;
use protonce::device::device;
use protonce::transfer::{FeatureCache, FrozenEncoder};
use protonce_encoder::Precision;
use protonce_images::data::{Benchmark, Dataset, Labelled, open_benchmark};

use super::prepared::Prepared;
use super::split::Split;
use crate::threads::use_tensor_threads;
use crate::weights;
use protonce_cli::data::tell_remarks;

/// The encoder, what it runs on, and the labelled images.
#[derive(Args)]
pub struct EvalArgs {
    /// A run folder, one of its checkpoints, a safetensors file or a .pth of PyTorch.
    #[arg(long, value_name = "W")]
    weights: PathBuf,
    /// Forget what was learnt: the same architecture with weights drawn afresh. The floor that a
    /// trained encoder has to beat.
    #[arg(long)]
    untrained: bool,
    /// Seed of everything that is drawn at random here.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Images per forward pass, and per step of gradient descent.
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub batch_size: usize,
    /// `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
    #[arg(long, default_value = "auto")]
    device: String,
    /// Threads of tensor arithmetic; 0: one per core.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub threads: usize,
    /// Where features are kept for the next evaluation of the same weights and images (50 000
    /// images × 512 features: 100 MB). Default: `protonce/features` in your cache folder.
    #[arg(long, value_name = "DIR", conflicts_with = "no_cache")]
    cache: Option<PathBuf>,
    /// Keep no features, and use none that were kept.
    #[arg(long)]
    no_cache: bool,
    /// Print one JSON object on stdout.
    #[arg(long)]
    pub json: bool,
    /// A benchmark as it was unpacked: ImageNet, Places205, VOCdevkit, CIFAR (binary), STL-10 (binary),
    /// Imagenette, or any folder or .tar with train and val (or test) in it.
    #[arg(long, value_name = "PATH", conflicts_with_all = ["train", "test"])]
    data: Option<String>,
    /// Labelled images to learn from.
    #[arg(long, value_name = "DATA", required_unless_present = "data", requires = "test")]
    train: Option<String>,
    /// Labelled images to be tested on.
    #[arg(long, value_name = "DATA", required_unless_present = "data", requires = "train")]
    test: Option<String>,
    /// Use only the first N training images of each class, by name (0: all).
    #[arg(long, value_name = "N", default_value_t = 0)]
    per_class: usize,
}

impl EvalArgs {
    /// The encoder's name in a table.
    pub fn name(&self) -> String {
        let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
        match self.untrained {
            true => "untrained".to_owned(),
            false => name(&self.weights).unwrap_or_else(|| self.weights.display().to_string()),
        }
    }

    /// Opens the encoder and the images.
    pub fn prepare(&self) -> anyhow::Result<Prepared<'_>> {
        let device = device(&self.device)?;
        use_tensor_threads(self.threads)?;
        let weights = weights::read(&self.weights)?;
        let precision = Precision::fastest_on(device);
        let encoder = match self.untrained {
            true => {
                let (config, views) = (&weights.encoder, &weights.views);
                FrozenEncoder::untrained(config, views, precision, device, self.seed)?
            }
            false => FrozenEncoder::load(&weights, precision, device)?,
        };
        Ok(Prepared::new(self, encoder, self.split()?))
    }

    /// Where features are kept; none: nowhere.
    pub fn cache(&self) -> Option<FeatureCache> {
        if self.no_cache {
            return None;
        }
        let folder = self.cache.clone().or_else(|| protonce_disk::cache_folder("features"));
        folder.map(FeatureCache::new)
    }

    /// Training and test images with their labels.
    fn split(&self) -> anyhow::Result<Split> {
        let (benchmark, train, test) = match (&self.data, &self.train, &self.test) {
            (Some(data), ..) => {
                let splits = open_benchmark(data)?;
                (splits.benchmark, splits.train, splits.test)
            }
            (None, Some(train), Some(test)) => {
                let open = |argument: &str| Dataset::open_labelled(argument).map(Labelled::Single);
                (Benchmark::Other, open(train)?, open(test)?)
            }
            _ => bail!("no images: expected --data, or --train and --test"),
        };
        for part in [&train, &test] {
            if let Labelled::Single(dataset) = part {
                tell_remarks(dataset);
            }
        }
        Split::new(benchmark, train, test, self.per_class)
    }
}
