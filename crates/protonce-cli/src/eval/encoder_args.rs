//! Whose features are evaluated, and how they are computed.

use std::cell::{Cell, OnceCell};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use protonce::device::device;
use protonce::encoder::{Output, Precision};
use protonce::transfer::{FeatureCache, FrozenEncoder};
use protonce::weights::Weights;
use protonce_images::data::Dataset;
use protonce_images::views::Unreadable;
use tch::Tensor;

use super::data_args::{DataArgs, Split};
use crate::threads::use_tensor_threads;

/// The encoder, and what it runs on.
#[derive(Args)]
pub struct EncoderArgs {
    /// A run folder, one of its checkpoints, a safetensors file or a .pth of PyTorch.
    #[arg(long, value_name = "W")]
    weights: PathBuf,
    /// Forget what was learnt: the same architecture with weights drawn afresh. The floor that a
    /// trained encoder has to beat.
    #[arg(long)]
    untrained: bool,
    /// Seed of whatever is drawn at random here.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Images a forward pass, and a step of gradient descent.
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
}

impl EncoderArgs {
    /// Its name in a table.
    pub fn name(&self) -> String {
        let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
        match self.untrained {
            true => "untrained".to_owned(),
            false => name(&self.weights).unwrap_or_else(|| self.weights.display().to_string()),
        }
    }

    /// The encoder and the images, opened.
    pub fn prepare(&self, images: &DataArgs) -> anyhow::Result<Prepared<'_>> {
        let device = device(&self.device)?;
        use_tensor_threads(self.threads)?;
        let weights = Weights::read(&self.weights)?;
        let precision = Precision::fastest_on(device);
        let encoder = match self.untrained {
            true => {
                let (config, views) = (&weights.encoder, &weights.views);
                FrozenEncoder::untrained(config, views, precision, device, self.seed)
            }
            false => FrozenEncoder::load(&weights, precision, device)?,
        };
        let split = images.open()?;
        let (features, embeddings) = Default::default();
        let computed = Cell::default();
        Ok(Prepared { subject: self, encoder, split, features, embeddings, computed })
    }

    fn cache(&self) -> Option<FeatureCache> {
        if self.no_cache {
            return None;
        }
        let folder = self.cache.clone().or_else(|| protonce_disk::cache_folder("features"));
        folder.map(FeatureCache::new)
    }
}

/// What an evaluation starts from.
pub struct Prepared<'a> {
    pub subject: &'a EncoderArgs,
    pub encoder: FrozenEncoder,
    pub split: Split,
    features: OnceCell<Features>,
    embeddings: OnceCell<Features>,
    /// Images whose features were computed, not found in the cache, and the time that took.
    pub computed: Cell<(usize, Duration)>,
}

/// Features of training and test images, on the encoder's device, and which image each row is of.
pub struct Features {
    pub train: Tensor,
    pub train_images: Vec<i64>,
    pub test: Tensor,
    pub test_images: Vec<i64>,
}

/// Features with one label an image.
pub struct LabelledFeatures {
    pub train: Tensor,
    pub train_labels: Tensor,
    pub test: Tensor,
    pub test_labels: Tensor,
    pub classes: i64,
}

impl Prepared<'_> {
    /// Features or embeddings of all images that can be read; computed once.
    pub fn features(&self, output: Output) -> anyhow::Result<&Features> {
        let cell = match output {
            Output::Features => &self.features,
            Output::Embeddings => &self.embeddings,
        };
        if let Some(features) = cell.get() {
            return Ok(features);
        }
        let (train_images, train) = self.extract("training images", &self.split.train, output)?;
        let (test_images, test) = self.extract("test images", &self.split.test, output)?;
        Ok(cell.get_or_init(|| Features { train, train_images, test, test_images }))
    }

    /// The same with one label an image.
    pub fn labelled(&self, output: Output) -> anyhow::Result<LabelledFeatures> {
        let (train_labels, test_labels) = self.split.single_labels()?;
        let features = self.features(output)?;
        let of = |images: &[i64], labels: &[i64]| {
            let labels: Vec<i64> = images.iter().map(|&image| labels[image as usize]).collect();
            Tensor::from_slice(&labels).to_device(features.train.device())
        };
        Ok(LabelledFeatures {
            train: features.train.shallow_clone(),
            train_labels: of(&features.train_images, train_labels),
            test: features.test.shallow_clone(),
            test_labels: of(&features.test_images, test_labels),
            classes: self.split.classes.len() as i64,
        })
    }

    fn extract(
        &self,
        what: &str,
        images: &Dataset,
        output: Output,
    ) -> anyhow::Result<(Vec<i64>, Tensor)> {
        let bar = progress_bar(&format!("{what}: features"), images.len(), "images")?;
        let (begin, mut last) = (Instant::now(), 0);
        let extracted = self.encoder.extract(
            images,
            output,
            self.subject.batch_size,
            self.subject.cache().as_ref(),
            &mut |done| {
                last = done;
                bar.set_position(done as u64);
            },
            &mut |warning| bar.suspend(|| eprintln!("warning: {warning}")),
        )?;
        bar.finish_and_clear();
        if last > 0 {
            let (images, time) = self.computed.get();
            self.computed.set((images + last, time + begin.elapsed()));
        }
        extracted.unreadable.iter().for_each(skipped);
        Ok((extracted.images, extracted.rows))
    }
}

/// Names an image that cannot be read.
pub fn skipped(bad: &Unreadable) {
    eprintln!("warning: skipped {}: {}", bad.name, bad.reason);
}

/// Advice where gradient descent ended at a cross-entropy no better than guessing gives.
pub fn warn_of_guessing(loss: Option<f64>, classes: usize, rate: &str) {
    let guessing = (classes as f64).ln();
    if let Some(loss) = loss.filter(|loss| *loss >= guessing) {
        eprintln!(
            "warning: the loss ended at {loss:.2}, and guessing gives {guessing:.2}: a learning rate for \
             other features than these; use a tenth of {rate}"
        );
    }
}

/// A bar on stderr.
pub fn progress_bar(what: &str, length: usize, unit: &str) -> anyhow::Result<ProgressBar> {
    let template = format!("{what} {{bar:30}} {{pos}}/{{len}} {unit}, {{eta}} left {{msg}}");
    Ok(ProgressBar::new(length as u64).with_style(ProgressStyle::with_template(&template)?))
}

/// Turns on stderr while `work` goes on whose length nobody knows.
pub fn while_turning<T>(what: &str, work: impl FnOnce() -> T) -> anyhow::Result<T> {
    let style = ProgressStyle::with_template("{spinner} {msg}, {elapsed}")?;
    let bar = ProgressBar::new_spinner().with_style(style).with_message(what.to_owned());
    bar.enable_steady_tick(Duration::from_millis(200));
    let result = work();
    bar.finish_and_clear();
    Ok(result)
}

#[derive(Clone, Copy, ValueEnum)]
pub enum OutputChoice {
    Features,
    Embeddings,
}

impl OutputChoice {
    pub fn output(self) -> Output {
        match self {
            OutputChoice::Features => Output::Features,
            OutputChoice::Embeddings => Output::Embeddings,
        }
    }
}
