//! `protonce eval`.

mod knn;
mod linear;

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use protonce::data::Dataset;
use protonce::device::device;
use protonce::encoder::{Output, Precision};
use protonce::pretrain::read_weights;
use protonce::transfer::{FeatureCache, FrozenEncoder, common_labels};
use tch::Tensor;

#[derive(Subcommand)]
pub enum Command {
    /// Classify test images by their nearest training images (weighted kNN, no training).
    Knn(knn::Arguments),
    /// Train a linear classifier on frozen features.
    Linear(linear::Arguments),
}

pub fn run(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Knn(arguments) => knn::run(arguments),
        Command::Linear(arguments) => linear::run(arguments),
    }
}

/// Whose features are evaluated, and how they are computed.
#[derive(Args)]
struct Subject {
    /// A run folder, or one of its checkpoints.
    #[arg(long, value_name = "W")]
    weights: PathBuf,
    /// Forget what was learnt: the same architecture with weights drawn afresh. The floor that a
    /// trained encoder has to beat.
    #[arg(long)]
    untrained: bool,
    /// Seed of whatever is drawn at random here.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Images a forward pass.
    #[arg(long, value_name = "N", default_value_t = 256)]
    batch_size: usize,
    /// `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
    #[arg(long, default_value = "auto")]
    device: String,
    /// Threads of tensor arithmetic; 0: one a core.
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,
    /// Where features are kept for the next evaluation of the same weights and images (50 000
    /// images × 512 features: 100 MB). Default: `protonce/features` in your cache folder.
    #[arg(long, value_name = "DIR", conflicts_with = "no_cache")]
    cache: Option<PathBuf>,
    /// Keep no features, and use none that were kept.
    #[arg(long)]
    no_cache: bool,
    /// Print one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

impl Subject {
    fn encoder(&self) -> anyhow::Result<FrozenEncoder> {
        let device = device(&self.device)?;
        if self.threads > 0 {
            tch::set_num_threads(i32::try_from(self.threads).context("--threads is too large")?);
        }
        let weights = read_weights(&self.weights)?;
        let precision = Precision::fastest_on(device);
        if self.untrained {
            return Ok(FrozenEncoder::untrained(&weights, precision, device, self.seed));
        }
        Ok(FrozenEncoder::load(&weights, precision, device)?)
    }

    fn cache(&self) -> Option<FeatureCache> {
        if self.no_cache {
            return None;
        }
        let folder = self.cache.clone().or_else(|| {
            let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
            let set = std::env::var_os("XDG_CACHE_HOME").filter(|folder| !folder.is_empty());
            Some(set.map(PathBuf::from).or_else(home)?.join("protonce/features"))
        });
        folder.map(FeatureCache::new)
    }

    /// Features of the images that can be read; the others are named on stderr.
    fn extract(
        &self,
        encoder: &FrozenEncoder,
        what: &str,
        images: &Dataset,
        output: Output,
    ) -> anyhow::Result<(Vec<i64>, Tensor)> {
        let template = format!("{what}: features {{bar:30}} {{pos}}/{{len}} images, {{eta}} left");
        let bar = ProgressBar::new(images.len() as u64)
            .with_style(ProgressStyle::with_template(&template)?);
        let extracted = encoder.extract(
            images,
            output,
            self.batch_size,
            self.cache().as_ref(),
            &mut |done| bar.set_position(done as u64),
            &mut |warning| bar.suspend(|| eprintln!("warning: {warning}")),
        )?;
        bar.finish_and_clear();
        for bad in &extracted.unreadable {
            eprintln!("warning: skipped {}: {}", bad.name, bad.reason);
        }
        Ok((extracted.images, extracted.rows))
    }
}

/// The labelled images of an evaluation.
#[derive(Args)]
struct Images {
    /// Labelled images to learn from.
    #[arg(long, value_name = "DATA")]
    train: String,
    /// Labelled images to be tested on.
    #[arg(long, value_name = "DATA")]
    test: String,
    /// Use only the first N training images of each class, by name (0: all).
    #[arg(long, value_name = "N", default_value_t = 0)]
    per_class: usize,
}

/// Training and test images, and their labels in one numbering.
struct Split {
    train: Dataset,
    train_labels: Vec<i64>,
    test: Dataset,
    test_labels: Vec<i64>,
}

impl Images {
    fn open(&self) -> anyhow::Result<Split> {
        let train = Dataset::open(&self.train)?;
        let train = match self.per_class {
            0 => train,
            count => train.per_class(count),
        };
        let test = Dataset::open(&self.test)?;
        let (train_labels, test_labels) = common_labels(&train, &test)?;
        Ok(Split { train, train_labels, test, test_labels })
    }
}

/// Features and labels of training and test images, on the encoder's device.
struct Features {
    train: Tensor,
    train_labels: Tensor,
    test: Tensor,
    test_labels: Tensor,
    classes: i64,
}

impl Features {
    fn of(subject: &Subject, images: &Images, output: Output) -> anyhow::Result<Features> {
        let encoder = subject.encoder()?;
        let split = images.open()?;
        let labelled = |what: &str, images: &Dataset, labels: &[i64]| {
            let (indices, rows) = subject.extract(&encoder, what, images, output)?;
            let labels: Vec<i64> = indices.iter().map(|&index| labels[index as usize]).collect();
            let labels = Tensor::from_slice(&labels).to_device(rows.device());
            anyhow::Ok((rows, labels))
        };
        let (train, train_labels) = labelled("training images", &split.train, &split.train_labels)?;
        let (test, test_labels) = labelled("test images", &split.test, &split.test_labels)?;
        let classes = split.train.classes().len() as i64;
        Ok(Features { train, train_labels, test, test_labels, classes })
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum OutputChoice {
    Features,
    Embeddings,
}

impl OutputChoice {
    fn output(self) -> Output {
        match self {
            OutputChoice::Features => Output::Features,
            OutputChoice::Embeddings => Output::Embeddings,
        }
    }
}
