//! `protonce pretrain`.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::Context;
use clap::Args;
use protonce::device::device;
use protonce::pretrain::{Outcome, Setup, Start, pretrain};
use protonce::world::World;
use protonce_images::data::Dataset;
use protonce_report::TensorBoard;
use protonce_run::{Config, ConfigError, Event, Progress, RunError, RunFolder, Task};
use serde::Serialize;

use crate::flags::{RunFlags, layers, preset_names};
use crate::progress::Display;
use crate::threads::use_tensor_threads;

/// What is typed after `protonce pretrain`. Of a flag given twice the last counts, so that a script
/// can be followed by exceptions to it.
#[derive(Args)]
#[command(args_override_self = true)]
pub struct Arguments {
    /// Folder for everything the run leaves: settings, events, checkpoints, prototypes.
    #[arg(long, value_name = "RUN")]
    out: PathBuf,

    /// Go on from the last checkpoint in --out. Settings are those of the run; only those that do
    /// not change what was learned so far may differ.
    #[arg(long)]
    resume: bool,

    /// Settings to start from: `v1` and `v2` are the paper's (ImageNet, ResNet-50, 224 px, 200
    /// epochs), `small` suits images up to 64 px.
    #[arg(long, value_parser = preset_names(), default_value = "v2")]
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
    settings: RunFlags,
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
    use_tensor_threads(config.threads)?;
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
    let file = arguments.config.as_deref();
    let mut config = Config::resolve(layers(base.clone(), file, &arguments.settings)?)?;
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
