//! Every setting of a run, under one name in the program, in TOML and on the command line.
//!
//! Settings are layered: a preset, then a file, then flags. Each layer is a table that names only
//! what it sets; [`Config::resolve`] lays them over one another and fills in what follows from the
//! rest (the stem from the image size, for example).

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::encoder_config::{EncoderConfig, Head, Stem};
use protonce_images::data::Dataset;
use protonce_images::views::{ViewConfig, measure_stats};

/// What can be wrong with settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No preset of that name.
    #[error("unknown preset \"{0}\": expected v1, v2 or small")]
    UnknownPreset(String),
    /// No setting of that name.
    #[error("unknown setting \"{name}\": expected one of {known}")]
    UnknownSetting {
        /// The name.
        name: String,
        /// The settings there are.
        known: String,
    },
    /// A value of the wrong type, or none of those allowed.
    #[error("a setting has a value that it cannot have: {0}")]
    Invalid(String),
    /// A value out of range.
    #[error("\"{name}\" is {found}: expected {expected}")]
    OutOfRange {
        /// The setting.
        name: &'static str,
        /// Its value.
        found: String,
        /// What it should be.
        expected: &'static str,
    },
    /// A view setting out of range.
    #[error(transparent)]
    Views(#[from] protonce_images::views::ConfigError),
}

/// What a query is contrasted with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Keys and prototypes: PCL.
    Pcl,
    /// Keys alone: MoCo, the ablation.
    Moco,
}

/// How the learning rate falls over the epochs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// Half a cosine wave from `lr` to 0.
    Cosine,
    /// A tenth at each of `milestones`.
    Step,
}

/// What to do when several images of a batch belong to one prototype.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Duplicates {
    /// Each is a negative of the others, as in the published code.
    #[default]
    Keep,
    /// They are left out of each other's negatives.
    Mask,
}

/// How many prototypes each granularity has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Clusters {
    /// `"auto"`: n/50, n/25 and n/12.5, the paper's ratios.
    Auto(Auto),
    /// One number a granularity.
    Counts(Vec<i64>),
}

/// The word `auto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Auto {
    /// Chosen by the program.
    Auto,
}

impl Clusters {
    /// The number of clusters of each granularity for `images` images; automatic ones never exceed
    /// half of the images.
    pub fn counts(&self, images: usize) -> Vec<i64> {
        match self {
            Clusters::Counts(counts) => counts.clone(),
            Clusters::Auto(_) => [50.0, 25.0, 12.5]
                .map(|ratio| (images as f64 / ratio) as i64)
                .map(|count| count.clamp(1, (images as i64 / 2).max(1)))
                .to_vec(),
        }
    }
}

/// Where the E-step takes the embeddings from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Expectation {
    /// The momentum encoder sees all images, as published.
    #[default]
    Full,
    /// The keys of the epoch before: no pass over the images, but of random views, and of an encoder
    /// that has changed since.
    Bank,
}

/// The arithmetic that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PrecisionChoice {
    /// bf16 where the device multiplies it in hardware.
    Auto,
    /// float32.
    Float32,
    /// bf16.
    Bf16,
}

/// How the way of each convolution is chosen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tune {
    /// By measurement in bf16, where ways differ most; by a rule in float32.
    Auto,
    /// By a short measurement, once for a processor.
    On,
    /// By a rule.
    #[default]
    Off,
}

/// All settings of a run.
///
/// Settings that came later have a default, which is what runs did before there was a choice, so
/// that these can still be read and continued.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Config {
    /// The images: `PATH[#SUBFOLDER]`.
    pub data: String,
    /// Only the first so many images of each class, by name; 0 for all.
    pub per_class: usize,
    /// The share of images that may be unreadable before the run stops.
    pub max_bad: f64,
    /// PCL or its ablation.
    pub method: Method,
    /// Architecture, stem, head and dimensions.
    #[serde(flatten)]
    pub encoder: EncoderConfig,
    /// What a view looks like.
    #[serde(flatten)]
    pub views: ViewConfig,
    /// Where mean and standard deviation come from.
    #[serde(default)]
    pub stats: Stats,
    /// How thoroughly the images are shuffled.
    #[serde(default)]
    pub shuffle: Shuffle,
    /// Passes over the images.
    pub epochs: usize,
    /// Images a step.
    pub batch_size: usize,
    /// Learning rate of the first epoch.
    pub lr: f64,
    /// How it falls.
    pub schedule: Schedule,
    /// The epochs at which schedule `step` divides it by ten.
    pub milestones: Vec<usize>,
    /// L2 penalty on all of θ.
    pub weight_decay: f64,
    /// Momentum of gradient descent.
    pub sgd_momentum: f64,
    /// m, the momentum encoder's inertia.
    pub encoder_momentum: f64,
    /// τ of InfoNCE, and the mean of the concentrations.
    pub temperature: f64,
    /// α of the concentration.
    pub smoothing: f64,
    /// Keys in the queue.
    pub queue: i64,
    /// r, prototypes a query is told apart from besides the batch's own.
    pub negatives: usize,
    /// Images of one prototype in one batch.
    pub duplicates: Duplicates,
    /// Prototypes of each granularity.
    pub clusters: Clusters,
    /// Epochs without prototypes at the start.
    pub warmup_epochs: usize,
    /// Where the E-step takes the embeddings from.
    #[serde(default)]
    pub expectation: Expectation,
    /// Epochs between two E-steps.
    #[serde(default = "every")]
    pub expectation_every: usize,
    /// Whether an E-step begins with the clusters of the one before, in place of random starts.
    #[serde(default)]
    pub warm_start: bool,
    /// Groups of the batch that are normalised separately.
    pub bn_splits: i64,
    /// What all random choices follow from.
    pub seed: u64,
    /// float32 or bf16.
    pub precision: PrecisionChoice,
    /// How the way of each convolution is chosen when the run begins.
    #[serde(default)]
    pub tune: Tune,
    /// Whether blocks are computed again on the way back rather than kept.
    #[serde(default)]
    pub checkpoint_blocks: bool,
    /// `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
    pub device: String,
    /// Threads of tensor arithmetic; 0 for one a core.
    pub threads: usize,
    /// Threads that make views; 0 for one a core.
    pub loader_threads: usize,
    /// Steps between two `step` events.
    pub log_every: usize,
    /// Epochs between two checkpoints.
    pub save_every: usize,
    /// Newest checkpoints that are kept; 0 for all.
    pub keep: usize,
    /// Labelled images whose neighbours vote in the kNN evaluation; empty for none.
    pub eval_train: String,
    /// Labelled images that the kNN evaluation classifies; empty for none.
    pub eval_test: String,
    /// Epochs between two kNN evaluations.
    pub eval_every: usize,
}

fn every() -> usize {
    1
}

/// Where the mean and the standard deviation that pixels are normalised with come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stats {
    /// `mean` and `std` are settings.
    #[default]
    Given,
    /// Measured on the images when the run begins; the run keeps them as given.
    Auto,
}

/// How the images of an epoch are put in order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shuffle {
    /// `local` for an archive or packed file larger than most of the memory, `full` otherwise.
    Auto,
    /// Every order is as likely as any other.
    #[default]
    Full,
    /// Random stretches of the file in random order, shuffled about a gigabyte at a time, so that
    /// nearly all reading is from the page cache.
    Local,
}

/// Settings that may differ between a run and its continuation: they change how fast it goes or
/// what it writes, or are changed on purpose (`epochs`, and `lr` after a divergence), but never what a
/// finished step was.
const CHANGEABLE: [&str; 15] = [
    "data",
    "epochs",
    "lr",
    "max-bad",
    // A run goes on with the choices that it began with.
    "tune",
    "checkpoint-blocks",
    "device",
    "threads",
    "loader-threads",
    "log-every",
    "save-every",
    "keep",
    "eval-train",
    "eval-test",
    "eval-every",
];

impl Config {
    /// The settings of a named preset, as a layer: `v1` and `v2` are the paper's, `small` suits
    /// images up to 64 px.
    ///
    /// # Errors
    /// When there is no preset of that name.
    pub fn preset(name: &str) -> Result<Table, ConfigError> {
        let views = match name {
            "v1" => ViewConfig::v1(224),
            "v2" => ViewConfig::v2(224),
            "small" => ViewConfig { blur_probability: 0.0, ..ViewConfig::v2(32) },
            _ => return Err(ConfigError::UnknownPreset(name.to_owned())),
        };
        let published = toml::toml! {
            data = ""
            per-class = 0
            max-bad = 0.01
            method = "pcl"
            arch = "resnet50"
            dim = 128
            epochs = 200
            batch-size = 256
            lr = 0.03
            milestones = [120, 160]
            weight-decay = 1e-4
            sgd-momentum = 0.9
            encoder-momentum = 0.999
            smoothing = 10.0
            queue = 16384
            negatives = 16384
            duplicates = "keep"
            stats = "given"
            shuffle = "auto"
            clusters = [25000, 50000, 100000]
            warmup-epochs = 20
            expectation = "full"
            expectation-every = 1
            warm-start = false
            bn-splits = 1
            seed = 0
            precision = "auto"
            tune = "auto"
            checkpoint-blocks = false
            device = "auto"
            threads = 0
            loader-threads = 0
            log-every = 10
            save-every = 1
            keep = 3
            eval-train = ""
            eval-test = ""
            eval-every = 1
        };
        let own = match name {
            "v1" => toml::toml! { head = "linear" temperature = 0.1 schedule = "step" },
            "v2" => toml::toml! { head = "mlp" temperature = 0.2 schedule = "cosine" },
            _ => toml::toml! {
                arch = "resnet18"
                head = "mlp"
                temperature = 0.2
                schedule = "cosine"
                lr = 0.06
                weight-decay = 5e-4
                encoder-momentum = 0.99
                queue = 4096
                clusters = "auto"
                warmup-epochs = 5
            },
        };
        let views = Table::try_from(views).map_err(invalid)?;
        let mut preset = layered([published, views, own]);
        // Follows from the image size, which a later layer may change.
        preset.remove("eval-resize");
        Ok(preset)
    }

    /// Lays `layers` over one another, later ones on top, and fills in what follows from the rest.
    ///
    /// # Errors
    /// When a layer sets something that does not exist or to a value it cannot have.
    pub fn resolve(layers: impl IntoIterator<Item = Table>) -> Result<Config, ConfigError> {
        let mut settings = layered(layers);
        let image_size = settings.get("image-size").and_then(Value::as_integer).unwrap_or(0);
        let image_size = usize::try_from(image_size).unwrap_or(0);
        let stem = Stem::for_image_size(image_size).to_string();
        settings.entry("stem").or_insert(Value::String(stem));
        let eval_resize = ViewConfig::v2(image_size).eval_resize as i64;
        settings.entry("eval-resize").or_insert(Value::Integer(eval_resize));
        let names: Vec<String> = settings.keys().cloned().collect();
        let config = Config::deserialize(settings).map_err(invalid)?;
        let known = config.table()?;
        if let Some(name) = names.into_iter().find(|name| !known.contains_key(name)) {
            let known = known.keys().cloned().collect::<Vec<_>>().join(", ");
            return Err(ConfigError::UnknownSetting { name, known });
        }
        config.validate()?;
        Ok(config)
    }

    /// Settles what depends on the images: measures mean and standard deviation, and chooses how to
    /// shuffle, where these are `auto`. The run stores the result, so that it goes on the same.
    pub fn settle(&mut self, dataset: &Dataset) {
        if self.stats == Stats::Auto {
            // Images that say nothing about their spread are normalised as photographs are.
            if let Some((mean, std)) = measure_stats(dataset, self.loader_threads) {
                (self.views.mean, self.views.std) = (mean, std);
            }
            self.stats = Stats::Given;
        }
        if self.shuffle == Shuffle::Auto {
            let room = memory().map(|memory| memory / 4 * 3);
            let fits = dataset.bytes().zip(room).is_none_or(|(bytes, room)| bytes <= room);
            self.shuffle = if fits { Shuffle::Full } else { Shuffle::Local };
        }
    }

    /// Takes over what `run`, which these settings continue, has settled where they leave it open.
    pub fn keep_settled(&mut self, run: &Config) {
        if self.stats == Stats::Auto {
            self.stats = run.stats;
        }
        if self.shuffle == Shuffle::Auto {
            self.shuffle = run.shuffle;
        }
    }

    /// Threads that make views: as configured, else one per core, of which `on_gpu` leaves one to the
    /// thread that feeds the GPU.
    pub fn threads_of_loader(&self, on_gpu: bool) -> usize {
        let threads = protonce_images::threads(self.loader_threads);
        match self.loader_threads {
            0 if on_gpu => threads.saturating_sub(1).max(1),
            _ => threads,
        }
    }

    /// Every setting as a table.
    ///
    /// # Errors
    /// When a value cannot be written as TOML.
    pub fn table(&self) -> Result<Table, ConfigError> {
        Table::try_from(self).map_err(invalid)
    }

    /// The first setting in which a continuation would no longer be the same run, with both values.
    ///
    /// # Errors
    /// When a value cannot be written as TOML.
    pub fn conflict(
        &self,
        resumed: &Config,
    ) -> Result<Option<(String, Value, Value)>, ConfigError> {
        let (before, mut after) = (self.table()?, resumed.table()?);
        Ok(before.into_iter().find_map(|(name, old)| {
            let new = after.remove(&name)?;
            let differs = new != old && !CHANGEABLE.contains(&name.as_str());
            differs.then_some((name, old, new))
        }))
    }

    /// Steps of an epoch over `images` images, one per batch (see [`protonce_images::batches`]).
    pub fn steps_per_epoch(&self, images: usize) -> usize {
        protonce_images::batch_count(images, self.batch_size)
    }

    /// The learning rate of `epoch`, counted from 0.
    pub fn learning_rate(&self, epoch: usize) -> f64 {
        match self.schedule {
            Schedule::Cosine => {
                let progress = epoch as f64 / self.epochs as f64;
                self.lr * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
            }
            Schedule::Step => self
                .milestones
                .iter()
                .filter(|&&milestone| epoch >= milestone)
                .fold(self.lr, |lr, _| lr * 0.1),
        }
    }

    /// The epoch that began with the E-step whose prototypes `epoch` is trained with; none while there
    /// are none.
    pub fn expectation_before(&self, epoch: usize) -> Option<usize> {
        let since = epoch.checked_sub(self.warmup_epochs)?;
        (self.method == Method::Pcl).then(|| epoch - since % self.expectation_every)
    }

    fn validate(&self) -> Result<(), ConfigError> {
        let check = |holds: bool, name, found: String, expected| {
            if holds { Ok(()) } else { Err(ConfigError::OutOfRange { name, found, expected }) }
        };
        let positive = "more than 0";
        let share = "between 0 and 1";
        for (name, value) in [
            ("epochs", self.epochs as i64),
            ("dim", self.encoder.dim),
            ("queue", self.queue),
            ("bn-splits", self.bn_splits),
            ("log-every", self.log_every as i64),
            ("save-every", self.save_every as i64),
            ("eval-every", self.eval_every as i64),
            ("expectation-every", self.expectation_every as i64),
        ] {
            check(value > 0, name, value.to_string(), positive)?;
        }
        let headless = self.encoder.head == Head::None;
        check(!headless, "head", self.encoder.head.to_string(), "linear or mlp, to be trained")?;
        check(self.batch_size > 1, "batch-size", self.batch_size.to_string(), "2 or more")?;
        for (name, value) in [
            ("max-bad", self.max_bad),
            ("sgd-momentum", self.sgd_momentum),
            ("encoder-momentum", self.encoder_momentum),
        ] {
            check((0.0..=1.0).contains(&value), name, value.to_string(), share)?;
        }
        for (name, value) in [("temperature", self.temperature), ("smoothing", self.smoothing)] {
            check(value > 0.0 && value.is_finite(), name, value.to_string(), positive)?;
        }
        for (name, value) in [("lr", self.lr), ("weight-decay", self.weight_decay)] {
            let holds = value >= 0.0 && value.is_finite();
            check(holds, name, value.to_string(), "0 or more")?;
        }
        if let Clusters::Counts(counts) = &self.clusters {
            let holds = !counts.is_empty() && counts.iter().all(|&count| count > 0);
            check(holds, "clusters", format!("{counts:?}"), "\"auto\" or numbers above 0")?;
        }
        let both = self.eval_train.is_empty() == self.eval_test.is_empty();
        let given = format!("\"{}\" with eval-test \"{}\"", self.eval_train, self.eval_test);
        check(both, "eval-train", given, "both eval-train and eval-test, or neither")?;
        Ok(self.views.validate()?)
    }
}

/// Bytes of memory of this machine, where it tells.
fn memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kilobytes: u64 = total.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

fn layered(layers: impl IntoIterator<Item = Table>) -> Table {
    let mut settings = Table::new();
    for layer in layers {
        settings.extend(layer);
    }
    settings
}

fn invalid(error: impl std::fmt::Display) -> ConfigError {
    ConfigError::Invalid(error.to_string().trim().replace('\n', " "))
}
