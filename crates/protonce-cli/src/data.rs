//! `protonce data`.

use clap::{Args, Subcommand};
use indicatif::ProgressBar;
use protonce::data::Dataset;
use protonce::views::{DataReport, Sizes, check};

#[derive(Subcommand)]
pub enum Command {
    /// List what is there: counts, classes, sizes, broken files.
    Check(CheckArguments),
}

#[derive(Args)]
pub struct CheckArguments {
    /// Images: a folder, a .tar or a text list, with `#SUBFOLDER` for a part of it.
    data: String,
    /// Threads that decode; 0: one a core.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Print one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

pub fn run(command: &Command) -> anyhow::Result<()> {
    let Command::Check(arguments) = command;
    let dataset = Dataset::open(&arguments.data)?;
    let bar = ProgressBar::new(dataset.len() as u64);
    let report = check(&dataset, arguments.threads, |done| bar.set_position(done as u64));
    bar.finish_and_clear();
    if arguments.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        show(&report);
    }
    Ok(())
}

fn show(report: &DataReport) {
    eprintln!(
        "{} images, {} readable, {:.1} MB",
        report.images,
        report.readable,
        report.bytes as f64 / 1e6
    );
    let counts = |entries: Vec<String>| entries.join(", ");
    let formats = report.formats.iter().map(|(format, count)| format!("{count} {format}"));
    eprintln!("formats: {}", counts(formats.collect()));
    if let Some(Sizes { width, height }) = &report.sizes {
        eprintln!(
            "sizes (smallest, median, largest): width {}, {}, {} px; height {}, {}, {} px",
            width.min, width.median, width.max, height.min, height.median, height.max
        );
    }
    eprintln!("grey images: {}", report.grey);
    match report.classes.len() {
        0 => eprintln!("no labels: images are not sorted into folders"),
        classes => {
            let named =
                report.classes.iter().map(|class| format!("{} {}", class.images, class.name));
            eprintln!("{classes} classes: {}", counts(named.collect()));
            if report.unlabelled > 0 {
                eprintln!("{} images without a label", report.unlabelled);
            }
        }
    }
    eprintln!("broken images: {}", report.broken.len());
    for broken in &report.broken {
        eprintln!("  {}: {}", broken.name, broken.reason);
    }
}
