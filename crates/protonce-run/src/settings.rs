//! Every setting of a run, defined once, under one name in the program, in TOML and on the command
//! line.
//!
//! Settings are layered: a preset, then a file, then flags. Each layer is a table that names only
//! what it sets; [`Config::resolve`] lays them over one another and fills in what follows from the
//! rest (the stem from the image size, for example). [`Config::settings`] lists the definitions, which
//! flags, help and `docs/settings.md` are made of.

use std::str::FromStr;

use protonce_images::data::{Dataset, StoreError, without_secrets};
use protonce_images::settings::{Kind, OutOfRange, SettingValue, UnknownName};
use protonce_images::threads;
use protonce_images::views::{ViewConfig, measure_stats};
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::encoder_config::{Architecture, EncoderConfig, Head, Stem};

/// What can be wrong with settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No preset of that name.
    #[error(transparent)]
    UnknownPreset(#[from] UnknownName),
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
    #[error(transparent)]
    OutOfRange(#[from] OutOfRange),
}

protonce_images::names! {
    /// Settings to start from.
    pub enum Preset: "preset" {
        /// The paper's first version, for photographs.
        V1 = "v1",
        /// The paper's second version, for photographs.
        V2 = "v2",
        /// For images of up to 64 px.
        Small = "small",
    }
}

protonce_images::names! {
    /// What a query is contrasted with.
    pub enum Method: "method" {
        /// Keys and prototypes: PCL.
        Pcl = "pcl",
        /// Keys alone: MoCo, the ablation.
        Moco = "moco",
    }
}

protonce_images::names! {
    /// Where the mean and the standard deviation that pixels are normalised with come from.
    #[derive(Default)]
    pub enum Stats: "source of mean and std" {
        /// `mean` and `std` are settings.
        #[default]
        Given = "given",
        /// Measured on the images when the run begins; the run keeps them as given.
        Auto = "auto",
    }
}

protonce_images::names! {
    /// How the images of an epoch are put in order.
    #[derive(Default)]
    pub enum Shuffle: "shuffle" {
        /// `local` for an archive or packed file larger than most of the memory, `full` otherwise.
        Auto = "auto",
        /// Every order is as likely as any other.
        #[default]
        Full = "full",
        /// Random stretches of the file in random order, shuffled about a gigabyte at a time, so
        /// that nearly all reading is from the page cache.
        Local = "local",
    }
}

protonce_images::names! {
    /// How the learning rate falls over the epochs.
    pub enum Schedule: "schedule" {
        /// Half a cosine wave from `lr` to 0.
        Cosine = "cosine",
        /// A tenth at each of `milestones`.
        Step = "step",
        /// Half a cosine wave from `lr` to 0 that falls with every step.
        CosineByStep = "cosine-by-step",
    }
}

protonce_images::names! {
    /// How the inertia of the momentum encoder grows.
    #[derive(Default)]
    pub enum MomentumSchedule: "momentum schedule" {
        /// It is always the same.
        #[default]
        Constant = "constant",
        /// Half a cosine wave up to 1 (BYOL).
        Cosine = "cosine",
    }
}

protonce_images::names! {
    /// Which keys of the queue are negatives of a query.
    #[derive(Default)]
    pub enum QueueNegatives: "queue negatives" {
        /// All, as published.
        #[default]
        All = "all",
        /// Those of other images than the query's own.
        OtherImages = "other-images",
        /// Those of other images, each the less the more it belongs to a prototype of the query.
        OtherPrototypes = "other-prototypes",
    }
}

protonce_images::names! {
    /// What to do when several images of a batch belong to one prototype.
    pub enum Duplicates: "treatment of duplicates" {
        /// Each is a negative of the others, as in the published code.
        Keep = "keep",
        /// They are left out of each other's negatives.
        Mask = "mask",
    }
}

protonce_images::names! {
    /// Where the E-step takes the embeddings from.
    #[derive(Default)]
    pub enum Expectation: "expectation" {
        /// The momentum encoder sees all images, as published.
        #[default]
        Full = "full",
        /// The keys of the epoch before: no pass over the images, but of random views, and of an
        /// encoder that has changed since.
        Bank = "bank",
    }
}

protonce_images::names! {
    /// How the granularities of the prototypes are to one another.
    #[derive(Default)]
    pub enum Hierarchy: "hierarchy" {
        /// Each is a clustering of all images of its own, as published.
        #[default]
        Separate = "separate",
        /// The finest is one of all images, each coarser one is of the prototypes of the next finer.
        Tree = "tree",
    }
}

protonce_images::names! {
    /// The arithmetic that was asked for.
    pub enum PrecisionChoice: "precision" {
        /// bf16 where the device multiplies it in hardware.
        Auto = "auto",
        /// float32.
        Float32 = "float32",
        /// bf16.
        Bf16 = "bf16",
    }
}

protonce_images::names! {
    /// How the algorithm of each convolution is chosen.
    #[derive(Default)]
    pub enum Tune: "tuning" {
        /// By measurement in bf16, where algorithms differ most; by a rule in float32.
        Auto = "auto",
        /// By a short measurement, once per processor.
        On = "on",
        /// By a rule.
        #[default]
        Off = "off",
    }
}

/// How many prototypes each granularity has: `auto`, or numbers, as text separated by commas.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "WrittenClusters", into = "WrittenClusters")]
pub enum Clusters {
    /// n/50, n/25 and n/12.5, the paper's ratios.
    Auto,
    /// One number per granularity.
    Counts(Vec<i64>),
}

/// [`Clusters`] in a file.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum WrittenClusters {
    Word(String),
    Counts(Vec<i64>),
}

/// Something else than numbers of clusters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected \"auto\" or numbers separated by commas, for example 250,500,1000")]
pub struct NotClusters;

impl FromStr for Clusters {
    type Err = NotClusters;

    fn from_str(text: &str) -> Result<Clusters, NotClusters> {
        if text == "auto" {
            return Ok(Clusters::Auto);
        }
        let counts: Result<_, _> = text.split(',').map(|count| count.trim().parse()).collect();
        counts.map(Clusters::Counts).map_err(|_| NotClusters)
    }
}

impl TryFrom<WrittenClusters> for Clusters {
    type Error = String;

    fn try_from(written: WrittenClusters) -> Result<Clusters, String> {
        match written {
            WrittenClusters::Counts(counts) => Ok(Clusters::Counts(counts)),
            WrittenClusters::Word(word) if word == "auto" => Ok(Clusters::Auto),
            WrittenClusters::Word(word) => {
                Err(format!("clusters is \"{word}\": expected \"auto\" or a list of numbers"))
            }
        }
    }
}

impl From<Clusters> for WrittenClusters {
    fn from(clusters: Clusters) -> WrittenClusters {
        match clusters {
            Clusters::Auto => WrittenClusters::Word("auto".to_owned()),
            Clusters::Counts(counts) => WrittenClusters::Counts(counts),
        }
    }
}

impl SettingValue for Clusters {
    const KIND: Kind = Kind::AutoOrIntegers;

    fn shown(&self) -> String {
        match self {
            Clusters::Auto => "auto".to_owned(),
            Clusters::Counts(counts) => format!("{counts:?}"),
        }
    }
}

impl Clusters {
    /// The number of clusters of each granularity for `images` images; automatic ones never exceed
    /// half of the images.
    pub fn counts(&self, images: usize) -> Vec<i64> {
        match self {
            Clusters::Counts(counts) => counts.clone(),
            Clusters::Auto => [50.0, 25.0, 12.5]
                .map(|ratio| (images as f64 / ratio) as i64)
                .map(|count| count.clamp(1, (images as i64 / 2).max(1)))
                .to_vec(),
        }
    }

    /// `auto`, or at least one granularity of at least one prototype.
    fn are_possible(&self) -> bool {
        match self {
            Clusters::Auto => true,
            Clusters::Counts(counts) => !counts.is_empty() && counts.iter().all(|&count| count > 0),
        }
    }
}

protonce_images::settings! {
    /// All settings of a run. The default is the preset `v2`.
    ///
    /// Settings that came later have a `serde(default)`, which is what runs did before there was a
    /// choice, so that older runs can still be read and continued.
    pub struct Config {
        ["Images"]
        /// Images: a folder, a .tar, .zip or .parquet, several of these (`shard-{000..127}.tar`,
        /// `data/*.parquet`), a text list (`path<tab>label` per line) or a packed file, with
        /// `#SUBFOLDER` for a part of it; or the address of such files, as s3://BUCKET/KEY, gs://, az:// or
        /// https://. Not needed with --resume.
        data: String = String::new(), shown_as("DATA"), positional(), changeable();

        /// Use only the first N images of each class, by name (0: all): for quick trials.
        per_class: usize = 0, shown_as("N");

        /// Use only N images drawn at random (0: all): where there are more than the time allows to
        /// look at a few times.
        #[serde(default)]
        sample: usize = 0, shown_as("N");

        /// Share of images that may be unreadable before the run stops.
        max_bad: f64 = 0.01, shown_as("SHARE"), share(), changeable();

        ["Contrast"]
        /// `pcl`, or `moco` for the ablation without prototypes.
        method: Method = Method::Pcl;

        flatten encoder: EncoderConfig;

        ["Encoder"]
        /// Weights to start from instead of random ones: a run, or a file as `weights import` takes it.
        /// Without a head that fits, the head starts anew.
        #[serde(default)]
        init: String = String::new(), shown_as("WEIGHTS");

        /// Keep the first layers and the first N of the four stages as they are (0: train all): for few
        /// images that are like those of --init.
        #[serde(default)]
        freeze_stages: usize = 0, shown_as("N"), expect("0 to 4", |&stages| stages <= 4);

        flatten views: ViewConfig;

        ["Views"]
        /// `given`: --mean and --std, those of ImageNet unless said; `auto`: measured on the images,
        /// which is better where they are no photographs.
        #[serde(default)]
        stats: Stats = Stats::Given;

        ["Images"]
        /// Order of the images. `local` reads an archive or packed file in stretches, for data larger
        /// than memory on a disk that is slow at random reads; `auto` is `full` unless it is needed.
        #[serde(default)]
        shuffle: Shuffle = Shuffle::Auto;

        ["Training"]
        /// Passes over the images. Contrastive learning rewards patience: 200 and more.
        epochs: usize = 200, shown_as("N"), positive(), changeable();

        /// Images per step.
        batch_size: usize = 256, shown_as("N"), expect("2 or more", |&images| images >= 2);

        /// Learning rate of the first epoch; scale it with the batch size.
        lr: f64 = 0.03, shown_as("RATE"), not_negative(), changeable();

        /// How the learning rate falls: half a cosine to 0 by epochs (published) or by steps, or a
        /// tenth at each milestone.
        schedule: Schedule = Schedule::Cosine;

        /// Share of all steps over which the learning rate rises to `lr`.
        #[serde(default)]
        lr_warmup: f64 = 0.0, shown_as("SHARE"), share();

        /// Epochs at which schedule `step` divides the learning rate by ten.
        milestones: Vec<usize> = vec![120, 160], shown_as("N,N");

        /// L2 penalty on all parameters; 5e-4 for small data.
        weight_decay: f64 = 1e-4, shown_as("RATE"), not_negative();

        /// Momentum of gradient descent.
        sgd_momentum: f64 = 0.9, shown_as("M"), share();

        ["Contrast"]
        /// Inertia m of the momentum encoder: 0.999 for long runs, 0.99 when there are few steps.
        encoder_momentum: f64 = 0.999, shown_as("M"), share();

        /// Whether the inertia stays the same or grows to 1 over the run, so that the momentum encoder
        /// comes to rest.
        #[serde(default)]
        momentum_schedule: MomentumSchedule = MomentumSchedule::Constant;

        /// Temperature τ; lower ones push harder against the nearest negatives.
        ///
        /// That of InfoNCE, and the mean of the concentrations.
        temperature: f64 = 0.2, shown_as("T"), positive();

        /// Smoothing α of the concentration: keeps small clusters from looking too sure.
        smoothing: f64 = 10.0, shown_as("A"), positive();

        /// Past keys that serve as negatives; no more than there are images, or an image meets itself.
        queue: i64 = 16384, shown_as("N"), positive();

        /// Keys of the queue that are negatives of a query: `all` (published), those of `other-images`
        /// than its own, or of `other-prototypes`, where keys weigh the less the more they belong to
        /// a prototype of the query's.
        #[serde(default)]
        queue_negatives: QueueNegatives = QueueNegatives::All;

        /// Weight λ of the prototypes in the loss.
        #[serde(default = "one")]
        prototype_weight: f64 = one(), shown_as("L"), not_negative();

        /// Epochs over which the weight of the prototypes rises to λ from their first E-step on: early
        /// prototypes mean less than later ones.
        #[serde(default)]
        prototype_ramp: usize = 0, shown_as("N");

        /// Weight of a penalty on the correlations between the dimensions of a batch's queries (as
        /// VICReg has it); 0 for none.
        #[serde(default)]
        decorrelation: f64 = 0.0, shown_as("W"), not_negative();

        /// Prototypes r that serve as negatives besides the batch's own; all there are, if fewer.
        negatives: usize = 16384, shown_as("R");

        /// Two images of one prototype in a batch: `keep` them as each other's negatives
        /// (published), or `mask` these false negatives.
        duplicates: Duplicates = Duplicates::Keep;

        ["Prototypes"]
        /// Prototypes of each granularity, or `auto`: n/50, n/25, n/12.5.
        clusters: Clusters = Clusters::Counts(vec![25_000, 50_000, 100_000]), shown_as("K,K,…"),
            expect("\"auto\" or numbers above 0", Clusters::are_possible);

        /// Granularities are clusterings of their own (`separate`, published), or levels of a `tree`:
        /// images are clustered once, at the finest, then its prototypes into coarser ones, which takes
        /// less time.
        #[serde(default)]
        hierarchy: Hierarchy = Hierarchy::Separate;

        /// Epochs before the first E-step: prototypes of an untrained encoder mean little. Those of a
        /// preset become a tenth of a run that has fewer epochs.
        warmup_epochs: usize = 20, shown_as("N");

        /// Embeddings for the E-step: `full` is a pass of the momentum encoder over all images
        /// (published); `bank` reuses the keys of the last epoch, which saves that pass but clusters
        /// older embeddings of random views.
        #[serde(default)]
        expectation: Expectation = Expectation::Full;

        /// Epochs between two E-steps; more than 1 saves time where prototypes change slowly.
        #[serde(default = "every_epoch")]
        expectation_every: usize = every_epoch(), shown_as("N"), positive();

        /// Begin each clustering with the clusters of the E-step before, once, in place of five
        /// random starts.
        #[serde(default)]
        warm_start: bool = false;

        ["Training"]
        /// Side of a view in the first epoch, in pixels; it grows to `image-size` over the first three
        /// quarters of the run. Small images cost little while little has been learned. 0: constant.
        #[serde(default)]
        initial_size: usize = 0, shown_as("PIXELS");

        /// Normalise the batch in N groups, keys shuffled across them, as N GPUs would.
        bn_splits: i64 = 1, shown_as("N"), positive();

        /// What all random choices follow from.
        seed: u64 = 0, shown_as("N");

        ["Machine"]
        /// Arithmetic of the convolutions; `auto` is bf16 where the device multiplies it in hardware.
        precision: PrecisionChoice = PrecisionChoice::Auto;

        /// How each convolution is computed on a CPU: `on` measures once per processor and remembers
        /// it in the cache folder, `off` follows a rule, with the same bits wherever there is the same
        /// processor; `auto` is `on` in bf16, where it pays most, and `off` in float32.
        ///
        /// A run goes on with the choices that it began with.
        #[serde(default)]
        tune: Tune = Tune::Auto, changeable();

        /// Recompute residual blocks in the backward pass instead of keeping what is in them: much
        /// less memory for large images or batches, a longer step, the same result.
        #[serde(default)]
        checkpoint_blocks: bool = false, changeable();

        /// `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        device: String = "auto".to_owned(), shown_as("DEVICE"), changeable();

        /// Threads of tensor arithmetic; 0: one per core.
        threads: usize = 0, shown_as("N"), changeable();

        /// Threads that decode images and make views; 0: one per core.
        loader_threads: usize = 0, shown_as("N"), changeable();

        ["Records"]
        /// Steps between two lines of events.jsonl.
        log_every: usize = 10, shown_as("STEPS"), positive(), changeable();

        /// Epochs between two checkpoints.
        save_every: usize = 1, shown_as("EPOCHS"), positive(), changeable();

        /// Minutes after which a checkpoint is made between two of these, in the middle of an epoch too; the
        /// next one replaces it. 0: never.
        #[serde(default = "ten")]
        save_minutes: f64 = ten(), shown_as("MINUTES"), not_negative(), changeable();

        /// Newest checkpoints to keep, beside one by time; 0: all.
        keep: usize = 3, shown_as("N"), changeable();

        ["Evaluation"]
        /// Labelled images whose nearest neighbours vote: measures the representation while it grows.
        eval_train: String = String::new(), shown_as("DATA"), changeable();

        /// Labelled images that are classified by --eval-train.
        eval_test: String = String::new(), shown_as("DATA"), changeable();

        /// Epochs between two such measurements.
        eval_every: usize = 1, shown_as("EPOCHS"), positive(), changeable();
    }
}

fn every_epoch() -> usize {
    1
}

fn one() -> f64 {
    1.0
}

fn ten() -> f64 {
    10.0
}

/// Settings that follow from the image size where no layer sets them.
const FROM_IMAGE_SIZE: [&str; 2] = ["stem", "eval-resize"];

impl Config {
    /// The settings of a named [`Preset`], as a layer.
    ///
    /// # Errors
    /// When there is no preset of that name.
    pub fn preset(name: &str) -> Result<Table, ConfigError> {
        let v2 = Config::default();
        let preset = match name.parse()? {
            Preset::V1 => Config {
                encoder: EncoderConfig { head: Head::Linear, ..v2.encoder },
                views: ViewConfig::v1(224),
                temperature: 0.1,
                schedule: Schedule::Step,
                ..v2
            },
            Preset::V2 => v2,
            Preset::Small => Config {
                encoder: EncoderConfig { arch: Architecture::ResNet18, ..v2.encoder },
                views: ViewConfig { blur_probability: 0.0, ..ViewConfig::v2(32) },
                lr: 0.06,
                weight_decay: 5e-4,
                encoder_momentum: 0.99,
                queue: 4096,
                clusters: Clusters::Auto,
                warmup_epochs: 5,
                ..v2
            },
        };
        let mut layer = preset.table()?;
        for name in FROM_IMAGE_SIZE {
            layer.remove(name);
        }
        Ok(layer)
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
        let eval_resize = ViewConfig::v2(image_size).eval_resize as i64;
        let values = [Value::String(stem), Value::Integer(eval_resize)];
        for (name, value) in FROM_IMAGE_SIZE.into_iter().zip(values) {
            settings.entry(name).or_insert(value);
        }
        let mut known: Vec<String> = Config::settings().into_iter().map(|one| one.name).collect();
        let unknown = settings.keys().find(|&name| !known.contains(name)).cloned();
        let config = Config::deserialize(settings).map_err(invalid)?;
        if let Some(name) = unknown {
            known.sort();
            return Err(ConfigError::UnknownSetting { name, known: known.join(", ") });
        }
        config.validate()?;
        Ok(config)
    }

    /// The images of `dataset` that the run uses: all, unless `per-class` or `sample` limit them.
    pub fn chosen(&self, dataset: Dataset) -> Dataset {
        let dataset = match self.per_class {
            0 => dataset,
            count => dataset.per_class(count),
        };
        match self.sample {
            0 => dataset,
            count => dataset.sample(count, self.seed),
        }
    }

    /// Settles what depends on the images: measures mean and standard deviation, and chooses how to
    /// shuffle, where these are `auto`. The run stores the result, so that it goes on the same.
    ///
    /// # Errors
    /// When the object store that the images lie in fails.
    pub fn settle(&mut self, dataset: &Dataset) -> Result<(), StoreError> {
        if self.stats == Stats::Auto {
            // Images that say nothing about their spread are normalised as photographs are.
            if let Some((mean, std)) = measure_stats(dataset, self.loader_threads)? {
                (self.views.mean, self.views.std) = (mean, std);
            }
            self.stats = Stats::Given;
        }
        if self.shuffle == Shuffle::Auto {
            let room = memory().map(|memory| memory / 4 * 3);
            // What is fetched is read from the cache in any order, as long as all of it is there.
            let room = room.into_iter().chain(dataset.cache_limit()).min();
            let fits = dataset.bytes().zip(room).is_none_or(|(bytes, room)| bytes <= room);
            self.shuffle = if fits { Shuffle::Full } else { Shuffle::Local };
        }
        Ok(())
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
    pub fn view_threads(&self, on_gpu: bool) -> usize {
        match self.loader_threads {
            0 if on_gpu => (threads(0) - 1).max(1),
            requested => threads(requested),
        }
    }

    /// The same with data arguments as they may be written down: see
    /// [`without_secrets`](protonce_images::data::without_secrets).
    pub fn without_secrets(&self) -> Config {
        let mut config = self.clone();
        for argument in [&mut config.data, &mut config.eval_train, &mut config.eval_test] {
            *argument = without_secrets(argument).into_owned();
        }
        config
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
        let (mut before, mut after) = (self.table()?, resumed.table()?);
        let fixed = Config::settings().into_iter().filter(|setting| !setting.changeable);
        Ok(fixed.map(|setting| setting.name).find_map(|name| {
            let (old, new) = before.remove(&name).zip(after.remove(&name))?;
            (new != old).then_some((name, old, new))
        }))
    }

    /// Steps of an epoch over `images` images, one per batch (see [`protonce_images::batches`]).
    pub fn steps_per_epoch(&self, images: usize) -> usize {
        protonce_images::batch_count(images, self.batch_size)
    }

    /// The learning rate at `position`.
    pub fn learning_rate(&self, position: Position) -> f64 {
        let Position { epoch, steps, .. } = position;
        let progress = position.progress(self.epochs);
        let rate = match self.schedule {
            // Written as published, to the last bit.
            Schedule::Cosine => self.lr * falling_wave(epoch as f64 / self.epochs as f64),
            Schedule::CosineByStep => self.lr * falling_wave(progress),
            Schedule::Step => self
                .milestones
                .iter()
                .filter(|&&milestone| epoch >= milestone)
                .fold(self.lr, |lr, _| lr * 0.1),
        };
        let all = (self.epochs * steps) as f64;
        let rising = (self.lr_warmup * all).round();
        let done = progress * all + 1.0;
        if done < rising { rate * done / rising } else { rate }
    }

    /// The inertia m of the momentum encoder at `position`.
    pub fn momentum(&self, position: Position) -> f64 {
        match self.momentum_schedule {
            MomentumSchedule::Constant => self.encoder_momentum,
            MomentumSchedule::Cosine => {
                1.0 - (1.0 - self.encoder_momentum) * falling_wave(position.progress(self.epochs))
            }
        }
    }

    /// The weight of the prototypes in the loss at `position`.
    pub fn weight_of_prototypes(&self, position: Position) -> f64 {
        let Position { epoch, step, steps } = position;
        let since = (epoch.saturating_sub(self.warmup_epochs) * steps + step + 1) as f64;
        let rising = (self.prototype_ramp * steps) as f64;
        if since < rising { self.prototype_weight * since / rising } else { self.prototype_weight }
    }

    /// The views of `epoch`, whose size may grow over the epochs.
    pub fn views_of(&self, epoch: usize) -> ViewConfig {
        let full = self.views.image_size;
        if self.initial_size == 0 || self.initial_size >= full {
            return self.views.clone();
        }
        const GROWING: f64 = 0.75;
        let progress = (epoch as f64 / (GROWING * self.epochs as f64)).min(1.0);
        let exact = self.initial_size as f64 + progress * (full - self.initial_size) as f64;
        // Multiples of a thirty-second of the full size, so that there are few sizes.
        let unit = (full / 8).max(1);
        let size = ((exact / unit as f64).floor() as usize * unit).clamp(self.initial_size, full);
        let scaled = |side: usize| (side * size).div_ceil(full);
        ViewConfig {
            image_size: size,
            eval_resize: scaled(self.views.eval_resize),
            local_size: scaled(self.views.local_size),
            ..self.views.clone()
        }
    }

    /// The epoch that began with the E-step whose prototypes `epoch` is trained with; none while there
    /// are none.
    pub fn expectation_before(&self, epoch: usize) -> Option<usize> {
        let since = epoch.checked_sub(self.warmup_epochs)?;
        (self.method == Method::Pcl).then(|| epoch - since % self.expectation_every)
    }

    /// Checks every setting by its own rule, then what settings ask of one another.
    fn validate(&self) -> Result<(), OutOfRange> {
        self.check_each()?;
        self.views.validate()?;
        if self.eval_train.is_empty() != self.eval_test.is_empty() {
            return Err(OutOfRange {
                name: "eval-train".to_owned(),
                found: format!("\"{}\" with eval-test \"{}\"", self.eval_train, self.eval_test),
                expected: "both eval-train and eval-test, or neither",
            });
        }
        Ok(())
    }
}

/// Where in a run a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Epochs completed.
    pub epoch: usize,
    /// Steps of this epoch completed.
    pub step: usize,
    /// Steps of an epoch.
    pub steps: usize,
}

impl Position {
    /// How much of a training of so many `epochs` is done: 0 to 1.
    fn progress(self, epochs: usize) -> f64 {
        (self.epoch * self.steps + self.step) as f64 / (epochs * self.steps).max(1) as f64
    }
}

/// Half a cosine wave from 1 at the beginning to 0 at the end of `progress`, 0 to 1.
fn falling_wave(progress: f64) -> f64 {
    0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
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
