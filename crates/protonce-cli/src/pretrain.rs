//! `protonce pretrain`.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use clap::Args;
use clap::builder::PossibleValuesParser;
use protonce::pretrain::{Outcome, Request, Setup, Start, pretrain};
use protonce_images::data::Dataset;
use protonce_report::TensorBoard;
use protonce_run::{Config, ConfigError, Event, Preset, Progress, RunError, RunFolder, Task};
use serde::Serialize;
use toml::Table;

use crate::plan::{AUTO, Budget, Wishes, start};
use crate::processes::{ProcessFlags, Processes};
use crate::progress::Display;
use crate::threads::use_tensor_threads;
use protonce_cli::flags::{RunFlags, given};
use protonce_cli::output::print_line;
use protonce_cli::signals::{Answers, Signals};

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

    /// Go on from the last checkpoint in --out if there is a run, and begin one if there is none: for
    /// launchers that repeat their command, such as `torchrun --max-restarts`.
    #[arg(long, conflicts_with_all = ["resume", "budget"])]
    resume_or_begin: bool,

    /// Settings to start from: `auto` chooses them to suit the images and the machine, and says
    /// what and why; `v1` and `v2` are the paper's (ImageNet, ResNet-50, 224 px, 200 epochs); `small`
    /// is `v2` for images up to 64 px.
    #[arg(long, value_parser = presets(), default_value = AUTO)]
    preset: String,

    /// Time that the run may take, such as 30m, 2h or 3d: sets the epochs by measuring a few steps.
    /// With `--preset auto`, an hour at most unless said.
    #[arg(long, value_name = "TIME", conflicts_with_all = ["epochs", "resume"])]
    budget: Option<Budget>,

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
    processes: ProcessFlags,

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
    arguments.processes.join()?.together(|processes| train(arguments, processes))
}

/// Settings that may differ from process to process: where the images are, and what each machine has.
const OF_THE_MACHINE: [&str; 6] =
    ["data", "eval-train", "eval-test", "device", "threads", "loader-threads"];

fn train(arguments: &Arguments, processes: &mut Processes) -> anyhow::Result<()> {
    let world = processes.world.clone();
    let display = &mut Display::new(arguments.quiet || !world.is_first());
    let mut given = given(arguments.config.as_deref(), &arguments.settings)?;
    let mut said = given.clone();
    OF_THE_MACHINE.iter().for_each(|&name| drop(said.remove(name)));
    world.agree(&[
        ("version of protonce", env!("CARGO_PKG_VERSION").to_owned()),
        ("preset", arguments.preset.clone()),
        ("set of settings", said.to_string().trim().replace('\n', ", ")),
    ])?;
    let resume = world.first_says("whether a run goes on", || -> anyhow::Result<bool> {
        let found = arguments.resume_or_begin && RunFolder::vacant(&arguments.out).is_err();
        Ok(arguments.resume || found)
    })?;
    if world.size() > 1 && !resume {
        // A group per process, unless said.
        given.entry("bn-splits").or_insert((world.size() as i64).into());
    }

    // The first process decides, and the others follow, each with its own copy of the images.
    let mut opened = None;
    let settings = world.first_says("settings", || {
        let (config, dataset) = decide(arguments, &given, resume, processes, display)?;
        opened = Some(dataset);
        Ok::<_, anyhow::Error>(config.table()?.to_string())
    })?;
    let own = OF_THE_MACHINE.iter().filter(|_| !world.is_first());
    let own: Table =
        own.filter_map(|&name| Some((name.to_owned(), given.get(name)?.clone()))).collect();
    let config = Config::resolve([settings.parse()?, own])?;
    world.check_groups(config.bn_splits)?;
    let device = processes.device(&config.device)?;
    use_tensor_threads(config.threads)?;
    drop(world);
    processes.sum_on(device)?;
    let world = processes.world.clone();
    let dataset = match opened {
        Some(dataset) => dataset,
        None => config.chosen(Dataset::open(&config.data)?),
    };
    let images = dataset.len();
    display.headline(&config, &dataset, device);

    let steps_per_epoch = config.steps_per_epoch(images);
    let first = world.is_first();
    let mut tensorboard =
        first.then(|| TensorBoard::new(&arguments.out, &dataset, steps_per_epoch));
    let said = |answer| if first { answer } else { "" };
    let signals = Signals::listen(Answers {
        stop: said("stopping after this step; press Ctrl-C again to stop without saving"),
        save: Some(said("saving after this step")),
    })?;
    let steps = AtomicUsize::new(0);
    let within_expectation = AtomicBool::new(false);
    let start = std::time::Instant::now();
    let (mut last_epoch, mut evaluation) = (None, None);
    let setup = Setup {
        config: &config,
        dataset: Arc::new(dataset),
        out: &arguments.out,
        start: if resume { Start::Resume } else { Start::Fresh },
        device,
        world,
    };
    let outcome = pretrain(
        setup,
        &mut |notice| {
            match notice {
                Progress::Event(event @ Event::Epoch { .. }) => last_epoch = Some(event.clone()),
                Progress::Event(event @ Event::Evaluation { .. }) => {
                    evaluation = Some(event.clone())
                }
                Progress::Task { task, .. } => {
                    let expects = matches!(task, Task::Embedding | Task::Clustering);
                    within_expectation.store(expects, Ordering::Relaxed);
                    steps.fetch_add(usize::from(task == Task::Training), Ordering::Relaxed);
                }
                _ => {}
            }
            // What all processes are told, the first one shows.
            if first {
                display.notice(&notice);
            }
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
            // Steps are counted between steps; signals end an E-step too.
            let enough = !within_expectation.load(Ordering::Relaxed)
                && arguments.max_steps > 0
                && steps.load(Ordering::Relaxed) >= arguments.max_steps;
            match (enough || signals.stop(), signals.take_save()) {
                (true, _) => Request::Stop,
                (false, true) => Request::Save,
                (false, false) => Request::GoOn,
            }
        },
    )?;
    display.end(outcome, &arguments.out);
    if arguments.json && first {
        let outcome = match outcome {
            Outcome::Finished => "finished",
            Outcome::Stopped => "stopped",
        };
        let run = arguments.out.clone();
        let seconds = start.elapsed().as_secs_f64();
        let summary = Summary { run, outcome, images, last_epoch, evaluation, seconds };
        print_line(serde_json::to_string(&summary)?)?;
    }
    Ok(())
}

/// The settings of the run, which follow from those `given`, and its images.
fn decide(
    arguments: &Arguments,
    given: &Table,
    resume: bool,
    processes: &Processes,
    display: &mut Display,
) -> anyhow::Result<(Config, Dataset)> {
    let wishes = Wishes {
        preset: &arguments.preset,
        given,
        start: if resume { None } else { start(given)? },
        budget: arguments.budget,
        processes: processes.world.size(),
    };
    let mut config = match resume {
        true => continued(arguments, given)?,
        false => wishes.without_images()?,
    };
    if config.data.is_empty() {
        return Err(ConfigError::Invalid(
            "no DATA was given: expected a folder, a .tar, .zip or .parquet, a list of images, a \
             packed file or the address of such a file"
                .to_owned(),
        )
        .into());
    }
    let device = processes.device(&config.device)?;
    use_tensor_threads(config.threads)?;
    let mut dataset = config.chosen(Dataset::open(&config.data)?);
    dataset.remarks().iter().for_each(|remark| display.warn(remark));
    if !resume {
        RunFolder::vacant(&arguments.out)?;
        let whole = Arc::new(dataset);
        let plan = wishes.plan(&whole, device, &mut |notice| display.notice(&notice))?;
        display.plan(&plan, given, &whole);
        config = plan.config;
        dataset = config.chosen((*whole).clone());
    }
    config.settle(&dataset)?;
    if !resume && arguments.preset == AUTO {
        display.command(&config.command(&arguments.out.to_string_lossy())?);
    }
    Ok((config, dataset))
}

/// The settings of the run that goes on, with those that were given for the rest of it.
fn continued(arguments: &Arguments, given: &Table) -> anyhow::Result<Config> {
    let base = RunFolder::settings(&arguments.out).map_err(|error| match error {
        RunError::NotARun(_) => anyhow::anyhow!("{error}; start one without --resume"),
        other => other.into(),
    })?;
    let mut config = Config::resolve([base.clone(), given.clone()])?;
    let before = Config::resolve([base])?;
    config.keep_settled(&before);
    if let Some((name, old, new)) = before.conflict(&config)? {
        return Err(RunError::Conflict { name, old: old.to_string(), new: new.to_string() }.into());
    }
    Ok(config)
}

/// The names that `--preset` takes.
fn presets() -> PossibleValuesParser {
    let named = Preset::ALL.iter().map(|preset| preset.name());
    PossibleValuesParser::new([AUTO].into_iter().chain(named))
}
