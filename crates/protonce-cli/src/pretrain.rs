//! `protonce pretrain`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::Context;
use clap::Args;
use protonce::device::device;
use protonce::pretrain::{Outcome, RunError, RunFolder, Setup, Start, pretrain};
use protonce::report::TensorBoard;
use protonce::world::World;
use protonce_images::data::Dataset;
use protonce_run::{Auto, Clusters, Config, ConfigError, Event, Progress, Task};
use serde::Serialize;

use crate::progress::Display;

/// What is typed after `protonce pretrain`. Of a flag given twice the last counts, so that a script
/// can be followed by exceptions to it.
#[derive(Args)]
#[command(args_override_self = true)]
pub struct Arguments {
    /// Images: a folder, a .tar, a text list (`path<tab>label` a line) or a packed file, with
    /// `#SUBFOLDER` for a part of it. Not needed with --resume.
    #[arg(value_name = "DATA")]
    data: Option<String>,

    /// Folder for everything the run leaves: settings, events, checkpoints, prototypes.
    #[arg(long, value_name = "RUN")]
    out: PathBuf,

    /// Go on from the last checkpoint in --out. Settings are those of the run; only those that do
    /// not change what was learned so far may differ.
    #[arg(long)]
    resume: bool,

    /// Settings to start from: `v1` and `v2` are the paper's (ImageNet, ResNet-50, 224 px, 200
    /// epochs), `small` suits images up to 64 px.
    #[arg(long, value_parser = ["v1", "v2", "small"], default_value = "v2")]
    preset: String,

    /// TOML file of settings, named as the flags; flags win over it, it wins over the preset.
    #[arg(long, value_name = "FILE.toml")]
    config: Option<PathBuf>,

    /// Stop after so many steps, saving as Ctrl-C does; 0 for never.
    #[arg(long, value_name = "N", default_value_t = 0)]
    max_steps: usize,

    /// Print one JSON object on stdout at the end.
    #[arg(long)]
    json: bool,

    /// No progress, only warnings and errors.
    #[arg(long, short)]
    quiet: bool,

    #[command(flatten)]
    settings: Settings,
}

/// What a view looks like, as flags.
#[derive(Args, Serialize)]
#[serde(rename_all = "kebab-case")]
#[command(next_help_heading = "Views")]
pub struct ViewSettings {
    /// Random views: `v2` adds blur to `v1` and jitters four times out of five.
    #[arg(long, value_parser = ["v1", "v2"])]
    views: Option<String>,

    /// Side of a view in pixels.
    #[arg(long, value_name = "PIXELS")]
    image_size: Option<i64>,

    /// Short side of the image before the centre crop of the E-step and evaluations; unless said,
    /// the image size up to 64 px, where images are shown whole, and 8/7 of it above.
    #[arg(long, value_name = "PIXELS")]
    eval_resize: Option<i64>,

    /// Area of a random crop; a higher minimum keeps small objects recognisable.
    #[arg(long, value_name = "MIN,MAX", value_delimiter = ',', num_args = 1)]
    crop_scale: Option<Vec<f64>>,

    /// Width over height of a random crop.
    #[arg(long, value_name = "MIN,MAX", value_delimiter = ',', num_args = 1)]
    crop_ratio: Option<Vec<f64>>,

    /// Strengths of brightness, contrast, saturation and hue jitter. Lower them where colour tells
    /// things apart.
    #[arg(long, value_name = "B,C,S,H", value_delimiter = ',', num_args = 1)]
    jitter: Option<Vec<f64>>,

    /// How often a view is jittered.
    #[arg(long, value_name = "P")]
    jitter_probability: Option<f64>,

    /// How often a view turns grey.
    #[arg(long, value_name = "P")]
    grey_probability: Option<f64>,

    /// How often a view is blurred; 0 is better at 32 px.
    #[arg(long, value_name = "P")]
    blur_probability: Option<f64>,

    /// Deviation of the blur in pixels.
    #[arg(long, value_name = "MIN,MAX", value_delimiter = ',', num_args = 1)]
    blur_sigma: Option<Vec<f64>>,

    /// How often the bright parts of a view are inverted (BYOL: 0.2 for one of two views).
    #[arg(long, value_name = "P")]
    solarise_probability: Option<f64>,

    /// The least value, of 0 to 255, that solarising inverts.
    #[arg(long, value_name = "LEVEL")]
    solarise_threshold: Option<i64>,

    /// How often a view is mirrored; 0 where left and right matter (text, signs).
    #[arg(long, value_name = "P")]
    flip_probability: Option<f64>,

    /// Small views an image besides the two full ones (multi-crop). The losses do not use them yet.
    #[arg(long, value_name = "N")]
    local_views: Option<i64>,

    /// Side of a small view in pixels; 96 for 224, 16 for 32.
    #[arg(long, value_name = "PIXELS")]
    local_size: Option<i64>,

    /// Area of a small view's crop.
    #[arg(long, value_name = "MIN,MAX", value_delimiter = ',', num_args = 1)]
    local_crop_scale: Option<Vec<f64>>,

    /// `given`: --mean and --std, those of ImageNet unless said; `auto`: measured on the images,
    /// which is better where they are no photographs.
    #[arg(long, value_parser = ["given", "auto"])]
    stats: Option<String>,

    /// Subtracted from red, green and blue after scaling to 0–1.
    #[arg(long, value_name = "R,G,B", value_delimiter = ',', num_args = 1)]
    mean: Option<Vec<f64>>,

    /// Divides red, green and blue afterwards.
    #[arg(long, value_name = "R,G,B", value_delimiter = ',', num_args = 1)]
    std: Option<Vec<f64>>,
}

/// Every setting of a run as a flag. What is not given is not written, so that lower layers show.
#[derive(Args, Serialize)]
#[serde(rename_all = "kebab-case")]
#[command(next_help_heading = "Settings")]
pub struct Settings {
    /// `pcl`, or `moco` for the ablation without prototypes.
    #[arg(long, value_parser = ["pcl", "moco"])]
    method: Option<String>,

    /// Use only the first N images of each class, by name (0: all): for quick trials.
    #[arg(long, value_name = "N")]
    per_class: Option<i64>,

    /// Share of images that may be unreadable before the run stops.
    #[arg(long, value_name = "SHARE")]
    max_bad: Option<f64>,

    /// Encoder. resnet18 learns fastest on small images; the paper uses resnet50.
    #[arg(long, value_parser = ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "wide_resnet50_2", "resnext50_32x4d"])]
    arch: Option<String>,

    /// First layers: `small` (3×3, no pooling) keeps small images' detail and is chosen up to
    /// 64 px; `imagenet` costs a sixteenth.
    #[arg(long, value_parser = ["imagenet", "small"])]
    stem: Option<String>,

    /// Projection head; `mlp` gives better features (PCL v2).
    #[arg(long, value_parser = ["linear", "mlp"])]
    head: Option<String>,

    /// Length of an embedding.
    #[arg(long, value_name = "N")]
    dim: Option<i64>,

    #[command(flatten)]
    #[serde(flatten)]
    views: ViewSettings,

    /// Passes over the images. Contrastive learning rewards patience: 200 and more.
    #[arg(long, value_name = "N")]
    epochs: Option<i64>,

    /// Images a step.
    #[arg(long, value_name = "N")]
    batch_size: Option<i64>,

    /// Learning rate of the first epoch; scale it with the batch size.
    #[arg(long, value_name = "RATE")]
    lr: Option<f64>,

    /// How the learning rate falls: half a cosine to 0, or a tenth at each milestone.
    #[arg(long, value_parser = ["cosine", "step"])]
    schedule: Option<String>,

    /// Epochs at which schedule `step` divides the learning rate by ten.
    #[arg(long, value_name = "N,N", value_delimiter = ',', num_args = 1)]
    milestones: Option<Vec<i64>>,

    /// L2 penalty on all parameters; 5e-4 for small data.
    #[arg(long, value_name = "RATE")]
    weight_decay: Option<f64>,

    /// Momentum of gradient descent.
    #[arg(long, value_name = "M")]
    sgd_momentum: Option<f64>,

    /// Inertia m of the momentum encoder: 0.999 for long runs, 0.99 when there are few steps.
    #[arg(long, value_name = "M")]
    encoder_momentum: Option<f64>,

    /// Temperature τ; lower ones push harder against the nearest negatives.
    #[arg(long, value_name = "T")]
    temperature: Option<f64>,

    /// Smoothing α of the concentration: keeps small clusters from looking too sure.
    #[arg(long, value_name = "A")]
    smoothing: Option<f64>,

    /// Past keys that serve as negatives; no more than there are images, or an image meets itself.
    #[arg(long, value_name = "N")]
    queue: Option<i64>,

    /// Prototypes r that serve as negatives besides the batch's own; all there are, if fewer.
    #[arg(long, value_name = "R")]
    negatives: Option<i64>,

    /// Two images of one prototype in a batch: `keep` them as each other's negatives (published),
    /// or `mask` these false negatives.
    #[arg(long, value_parser = ["keep", "mask"])]
    duplicates: Option<String>,

    /// Prototypes of each granularity, or `auto`: n/50, n/25, n/12.5.
    #[arg(long, value_name = "K,K,…", value_parser = clusters)]
    clusters: Option<Clusters>,

    /// Epochs before the first E-step: prototypes of an untrained encoder mean little.
    #[arg(long, value_name = "N")]
    warmup_epochs: Option<i64>,

    /// Embeddings for the E-step: `full` is a pass of the momentum encoder over all images (published);
    /// `bank` reuses the keys of the last epoch, which saves that pass but clusters older embeddings of
    /// random views.
    #[arg(long, value_parser = ["full", "bank"])]
    expectation: Option<String>,

    /// Epochs between two E-steps; more than 1 saves time where prototypes change slowly.
    #[arg(long, value_name = "N")]
    expectation_every: Option<i64>,

    /// Begin each clustering with the clusters of the E-step before, once, in place of five random
    /// starts.
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    warm_start: bool,

    /// Normalise the batch in N groups, keys shuffled across them, as N GPUs would.
    #[arg(long, value_name = "N")]
    bn_splits: Option<i64>,

    /// What all random choices follow from.
    #[arg(long, value_name = "N")]
    seed: Option<i64>,

    /// Arithmetic of the convolutions; `auto` is bf16 where the device multiplies it in hardware.
    #[arg(long, value_parser = ["auto", "float32", "bf16"])]
    precision: Option<String>,

    /// Which way each convolution is computed on a CPU: `on` measures once for a processor and
    /// remembers it in the cache folder, `off` follows a rule, with the same bits wherever there is the
    /// same processor; `auto` is `on` in bf16, where it pays most, and `off` in float32.
    #[arg(long, value_parser = ["auto", "on", "off"])]
    tune: Option<String>,

    /// Compute residual blocks again on the way back instead of keeping what is in them: much less
    /// memory for large images or batches, a longer step, the same result.
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    checkpoint_blocks: bool,

    /// `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,

    /// Threads of tensor arithmetic; 0: one a core.
    #[arg(long, value_name = "N")]
    threads: Option<i64>,

    /// Order of the images. `local` reads an archive or packed file in stretches, for data larger than
    /// memory on a disk that is slow at random reads; `auto` is `full` unless it is needed.
    #[arg(long, value_parser = ["auto", "full", "local"])]
    shuffle: Option<String>,

    /// Threads that decode images and make views; 0: one a core.
    #[arg(long, value_name = "N")]
    loader_threads: Option<i64>,

    /// Steps between two lines of events.jsonl.
    #[arg(long, value_name = "STEPS")]
    log_every: Option<i64>,

    /// Epochs between two checkpoints.
    #[arg(long, value_name = "EPOCHS")]
    save_every: Option<i64>,

    /// Newest checkpoints to keep; 0: all.
    #[arg(long, value_name = "N")]
    keep: Option<i64>,

    /// Labelled images whose nearest neighbours vote: measures the representation while it grows.
    #[arg(long, value_name = "DATA")]
    eval_train: Option<String>,

    /// Labelled images that are classified by --eval-train.
    #[arg(long, value_name = "DATA")]
    eval_test: Option<String>,

    /// Epochs between two such measurements.
    #[arg(long, value_name = "EPOCHS")]
    eval_every: Option<i64>,
}

pub fn clusters(text: &str) -> Result<Clusters, String> {
    if text == "auto" {
        return Ok(Clusters::Auto(Auto::Auto));
    }
    let counts: Result<Vec<i64>, _> = text.split(',').map(|count| count.trim().parse()).collect();
    counts.map(Clusters::Counts).map_err(|_| {
        "expected \"auto\" or numbers separated by commas, for example 250,500,1000".to_owned()
    })
}

/// What `--json` prints.
#[derive(Serialize)]
struct Summary {
    run: PathBuf,
    outcome: &'static str,
    images: usize,
    last_epoch: Option<Event>,
    evaluation: Option<Event>,
    seconds: f64,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut config = resolve(arguments)?;
    if config.data.is_empty() {
        return Err(ConfigError::Invalid(
            "no DATA was given: expected a folder, a .tar, a list of images or a packed file"
                .to_owned(),
        )
        .into());
    }
    let device = device(&config.device)?;
    if config.threads > 0 {
        tch::set_num_threads(i32::try_from(config.threads).context("--threads is too large")?);
    }
    let dataset = Dataset::open(&config.data)?;
    let dataset = match config.per_class {
        0 => dataset,
        count => dataset.per_class(count),
    };
    config.settle(&dataset);
    let images = dataset.len();
    let display = &mut Display::new(arguments.quiet);
    display.headline(&config, &dataset, device);

    let steps_per_epoch = config.steps_per_epoch(images);
    let mut tensorboard = Some(TensorBoard::new(&arguments.out, &dataset, steps_per_epoch));
    let stop =
        interrupt_flag("stopping after this step; press Ctrl-C again to stop without saving")?;
    let steps = AtomicUsize::new(0);
    let start = std::time::Instant::now();
    let (mut last_epoch, mut evaluation) = (None, None);
    let setup = Setup {
        config: &config,
        dataset: Arc::new(dataset),
        out: &arguments.out,
        start: if arguments.resume { Start::Resume } else { Start::Fresh },
        device,
        world: World::alone(),
    };
    let outcome = pretrain(
        setup,
        &mut |notice| {
            match notice {
                Progress::Event(event @ Event::Epoch { .. }) => last_epoch = Some(event.clone()),
                Progress::Event(event @ Event::Evaluation { .. }) => {
                    evaluation = Some(event.clone())
                }
                Progress::Task { task: Task::Training, .. } => {
                    steps.fetch_add(1, Ordering::Relaxed);
                }
                _ => {}
            }
            display.notice(&notice);
            if let Progress::Event(event) = notice
                && let Some(written) = tensorboard.as_mut().map(|writer| writer.record(event))
                && let Err(error) = written
            {
                // Training is worth more than its pictures.
                display.warn(&format!("no more TensorBoard files of this run: {error}"));
                tensorboard = None;
            }
        },
        &|| {
            let enough =
                arguments.max_steps > 0 && steps.load(Ordering::Relaxed) >= arguments.max_steps;
            enough || stop.load(Ordering::Relaxed)
        },
    )?;
    display.end(outcome, &arguments.out);
    if arguments.json {
        let outcome = match outcome {
            Outcome::Finished => "finished",
            Outcome::Stopped => "stopped",
        };
        let run = arguments.out.clone();
        let seconds = start.elapsed().as_secs_f64();
        let summary = Summary { run, outcome, images, last_epoch, evaluation, seconds };
        println!("{}", serde_json::to_string(&summary)?);
    }
    Ok(())
}

/// Preset ← file ← flags; for a resumed run, its own settings instead of the preset.
fn resolve(arguments: &Arguments) -> anyhow::Result<Config> {
    let base = match arguments.resume {
        true => RunFolder::settings(&arguments.out)?,
        false => Config::preset(&arguments.preset)?,
    };
    let (file, data) = (arguments.config.as_deref(), arguments.data.as_deref());
    let mut config = Config::resolve(layers(base.clone(), file, data, &arguments.settings)?)?;
    if arguments.resume {
        let before = Config::resolve([base])?;
        config.keep_settled(&before);
        if let Some((name, old, new)) = before.conflict(&config)? {
            return Err(
                RunError::Conflict { name, old: old.to_string(), new: new.to_string() }.into()
            );
        }
    }
    Ok(config)
}

/// `base` ← file ← flags.
pub fn layers(
    base: toml::Table,
    file: Option<&Path>,
    data: Option<&str>,
    settings: &Settings,
) -> anyhow::Result<[toml::Table; 3]> {
    let file = match file {
        None => toml::Table::new(),
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read settings from {}", path.display()))?;
            text.parse().map_err(|error| {
                ConfigError::Invalid(format!("{} is not TOML: {error}", path.display()))
            })?
        }
    };
    let mut flags = toml::Table::try_from(settings)?;
    if let Some(data) = data {
        flags.insert("data".to_owned(), data.into());
    }
    Ok([base, file, flags])
}

/// Set by the first Ctrl-C, which says what happens next; the second ends at once.
pub fn interrupt_flag(message: &'static str) -> anyhow::Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let shared = flag.clone();
    ctrlc::set_handler(move || {
        if shared.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("\n{message}");
    })
    .context("cannot listen for Ctrl-C")?;
    Ok(flag)
}
