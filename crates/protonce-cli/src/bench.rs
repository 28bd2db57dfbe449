//! `protonce bench`.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use clap::{Args, Subcommand};
use protonce::device::device;
use protonce::pretrain::measure::{StepTimes, Steps, measure_step, write_images};
use protonce_encoder::profile::{Kernel, Part};
use protonce_images::data::Dataset;
use protonce_run::{Config, Progress};
use serde_json::json;

use crate::threads::use_tensor_threads;
use protonce_cli::flags::{RunFlags, given, preset_names};
use protonce_cli::output::{print_line, show};
use protonce_cli::say;

const HELP_OF_DATA: &str =
    "Images as for `pretrain`; JPEGs made for the purpose where none are given";

#[derive(Subcommand)]
pub enum Command {
    /// Measure where the time of a training step goes on this machine. Takes the settings of
    /// `pretrain`, so that the line of a run can be measured before it is started.
    Step(Box<Step>),
}

/// What is typed after `protonce bench step`.
#[derive(Args)]
#[command(args_override_self = true)]
#[command(mut_arg("data", |data| data.help(HELP_OF_DATA)))]
pub struct Step {
    /// Settings to start from, as for `pretrain`.
    #[arg(long, value_parser = preset_names(), default_value = "v2")]
    preset: String,

    /// TOML file of settings, as for `pretrain`.
    #[arg(long, value_name = "FILE.toml")]
    config: Option<PathBuf>,

    /// Steps that are timed; more on a machine that other programs use too.
    #[arg(long, value_name = "N", default_value_t = 5)]
    steps: usize,

    /// Steps before time is taken.
    #[arg(long, value_name = "N", default_value_t = 2)]
    warmup_steps: usize,

    /// Print one JSON object on stdout: seconds, and operations a second.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    settings: RunFlags,
}

pub fn run(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Step(arguments) => step(arguments),
    }
}

fn step(arguments: &Step) -> anyhow::Result<()> {
    let base = Config::preset(&arguments.preset)?;
    let file = arguments.config.as_deref();
    let mut config = Config::resolve([base, given(file, &arguments.settings)?])?;
    let device = device(&config.device)?;
    use_tensor_threads(config.threads)?;
    let made = tempfile::tempdir().context("cannot make a folder for images")?;
    if config.data.is_empty() {
        let folder = made.path();
        write_images(folder, config.batch_size, config.views.image_size)
            .with_context(|| format!("cannot make images in {}", folder.display()))?;
        config.data = folder.display().to_string();
    }
    let dataset = Arc::new(config.chosen(Dataset::open(&config.data)?));
    config.settle(&dataset)?;
    let steps = Steps { warmup: arguments.warmup_steps, timed: arguments.steps };
    let bar = indicatif::ProgressBar::new(0);
    let times = measure_step(&config, &dataset, device, steps, &mut |notice| match notice {
        Progress::Task { done, total, .. } => {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
        }
        Progress::Warning(remark) => bar.suspend(|| say!("{remark}")),
        Progress::Event(_) => {}
    })?;
    bar.finish_and_clear();
    let encoder = &config.encoder;
    let mut text = format!(
        "{}, {} px, batch {}, {}, on {}\n",
        encoder.network(),
        config.views.image_size,
        times.images,
        times.precision,
        times.processor
    );
    text += &format!("\n{}\n", table(&times));
    text += &format!(
        "A large matrix product reaches {:.0} GFLOP/s here. Convolutions are counted as the direct method \
         computes them; Winograd's needs fewer operations, so it may exceed that.\n",
        times.peak / 1e9
    );
    for advice in times.advice() {
        text += &format!("{advice}.\n");
    }
    show(text, arguments.json)?;
    if arguments.json {
        let mut object = json!(times);
        object["images_per_second"] = json!(times.images as f64 / times.training);
        object["advice"] = json!(times.advice());
        print_line(&object)?;
    }
    Ok(())
}

/// The times as a Markdown table.
fn table(times: &StepTimes) -> String {
    let mut lines = vec![["", "ms", "share", "GFLOP/s", "of peak"].map(str::to_owned)];
    let mut add = |name: &str, seconds: f64, of: f64, operations: f64| {
        let rate = operations / seconds.max(f64::EPSILON);
        let counted = operations > 0.0;
        lines.push([
            name.to_owned(),
            format!("{:.1}", 1e3 * seconds),
            format!("{:.1} %", 100.0 * seconds / of),
            if counted { format!("{:.0}", rate / 1e9) } else { String::new() },
            if counted { format!("{:.0} %", 100.0 * rate / times.peak) } else { String::new() },
        ]);
    };
    for (part, time) in &times.parts {
        add(part_name(*part), time.seconds, times.step, 0.0);
        for (kernel, of_kernel) in &time.kernels {
            let name = format!("– {}", kernel_name(*part, *kernel));
            add(&name, of_kernel.seconds, times.step, of_kernel.operations);
        }
        if !time.kernels.is_empty() {
            add("– rest", time.rest(), times.step, 0.0);
        }
    }
    add("rest (queue, sums, moving views)", times.rest(), times.step, 0.0);
    let all = times.convolution_rate();
    let operations = times.parts.values().flat_map(|part| part.kernels.values());
    let operations: f64 = operations.map(|kernel| kernel.operations).sum();
    if operations > 0.0 {
        add("all convolutions", operations / all, times.step, operations);
    }
    add("**step by itself**", times.step, times.step, 0.0);
    add("decode and views, by themselves", times.views, times.training, 0.0);
    add("waiting for views", times.waited, times.training, 0.0);
    add("**step in training**", times.training, times.training, 0.0);

    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max();
    let widths: [usize; 5] = std::array::from_fn(|column| width(column).unwrap_or(0));
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        let cells = line.iter().zip(widths).enumerate().map(|(column, (cell, width))| {
            if column == 0 { format!("{cell:width$}") } else { format!("{cell:>width$}") }
        });
        text += &format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "));
        if number == 0 {
            let rules = widths.iter().enumerate().map(|(column, &width)| match column {
                0 => "-".repeat(width),
                _ => format!("{}:", "-".repeat(width - 1)),
            });
            text += &format!("| {} |\n", rules.collect::<Vec<_>>().join(" | "));
        }
    }
    let rate = |seconds: f64| times.images as f64 / seconds;
    text += &format!(
        "\n{:.1} images/s in training, {:.1} by the step itself.",
        rate(times.training),
        rate(times.step)
    );
    text
}

fn part_name(part: Part) -> &'static str {
    match part {
        Part::MovingAverage => "moving average",
        Part::Keys => "momentum encoder: keys",
        Part::Queries => "encoder: queries",
        Part::Losses => "losses",
        Part::Backward => "backward",
        Part::Optimiser => "optimiser",
    }
}

fn kernel_name(part: Part, kernel: Kernel) -> &'static str {
    match (kernel, part) {
        (Kernel::Convolution, Part::Backward) => "convolutions, recomputed",
        (Kernel::Normalisation, Part::Backward) => "normalise, recomputed",
        (Kernel::Convolution, _) => "convolutions",
        (Kernel::InputGradient, _) => "convolutions: gradients of inputs",
        (Kernel::WeightGradient, _) => "convolutions: gradients of weights",
        (Kernel::Normalisation | Kernel::NormalisationGradient, _) => "normalise, residual, ReLU",
    }
}
