//! `protonce data`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use indicatif::ProgressBar;
use protonce_images::data::{DataError, Dataset};
use protonce_images::views::{
    Broken, DataReport, Encoding, PackOptions, PackReport, Sizes, check, pack, view_grid,
};
use protonce_report::save_png;
use protonce_run::Config;

use crate::flags::{ViewFlags, preset_names};
use crate::output::{print, print_line};
use crate::signals::{Answers, Signals};

/// What is typed after `protonce data`.
#[derive(Subcommand)]
pub enum Command {
    /// List what is there: counts, classes, sizes, broken files.
    Check(CheckArguments),
    /// Put all images into one file that is read fast; it can be used wherever DATA is asked for.
    ///
    /// When packing is interrupted, the same command goes on where it stopped.
    Pack(PackArguments),
    /// Draw images beside their random views, to see what a setting does before training with it.
    Views(Box<ViewsArguments>),
}

/// What is typed after `protonce data check`.
#[derive(Args)]
pub struct CheckArguments {
    /// Images: a folder, a .tar, .zip or .parquet, several of these (`shard-{000..127}.tar`,
    /// `data/*.parquet`), a text list or a packed file, with `#SUBFOLDER` for a part of it; or
    /// the address of such files: s3://BUCKET/KEY, gs://, az:// or https://.
    data: String,
    /// Threads that decode; 0: one per core.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Print one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

/// What is typed after `protonce data pack`.
#[derive(Args)]
pub struct PackArguments {
    /// Images: a folder, a .tar, .zip or .parquet, several of these (`shard-{000..127}.tar`,
    /// `data/*.parquet`), a text list or a packed file, with `#SUBFOLDER` for a part of it; or
    /// the address of such files: s3://BUCKET/KEY, gs://, az:// or https://.
    data: String,
    /// The packed file.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Make larger images smaller, to at most so many pixels on the longer side. 256 doubles the
    /// speed of 224-px views of photographs; crops then have that much less detail.
    #[arg(long, value_name = "PIXELS")]
    max_side: Option<usize>,
    /// `jpeg` keeps files as they are and makes JPEGs of what gets smaller; `raw` stores pixels, which
    /// need no decoding: best up to 64 px, where they are hardly larger.
    #[arg(long, value_enum, default_value_t = EncodingName::Jpeg)]
    encoding: EncodingName,
    /// Threads; 0: one per core.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Print one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum EncodingName {
    Jpeg,
    Raw,
}

/// What is typed after `protonce data views`.
#[derive(Args)]
pub struct ViewsArguments {
    /// Images: a folder, a .tar, .zip or .parquet, several of these (`shard-{000..127}.tar`,
    /// `data/*.parquet`), a text list or a packed file, with `#SUBFOLDER` for a part of it; or
    /// the address of such files: s3://BUCKET/KEY, gs://, az:// or https://.
    data: String,
    /// The picture.
    #[arg(long, value_name = "FILE.png")]
    out: PathBuf,
    /// Images, spread over the data.
    #[arg(long, value_name = "N", default_value_t = 8)]
    images: usize,
    /// Pairs of views of each.
    #[arg(long, value_name = "N", default_value_t = 4)]
    pairs: usize,
    /// What the random choices follow from.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Settings to start from.
    #[arg(long, value_parser = preset_names(), default_value = "v2")]
    preset: String,
    #[command(flatten)]
    settings: ViewFlags,
}

/// Runs the command.
///
/// # Errors
/// When images cannot be read or a result cannot be written.
pub fn run(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Check(arguments) => run_check(arguments),
        Command::Pack(arguments) => run_pack(arguments),
        Command::Views(arguments) => run_views(arguments),
    }
}

/// Opens images, and tells what was passed over.
pub fn open(argument: &str) -> Result<Dataset, DataError> {
    let dataset = Dataset::open(argument)?;
    tell_remarks(&dataset);
    Ok(dataset)
}

/// Tells what was passed over, skipped or left out when images were opened.
pub fn tell_remarks(dataset: &Dataset) {
    for remark in dataset.remarks() {
        say!("warning: {remark}");
    }
}

fn run_check(arguments: &CheckArguments) -> anyhow::Result<()> {
    // Remarks are part of the report.
    let dataset = Dataset::open(&arguments.data)?;
    let bar = ProgressBar::new(dataset.len() as u64);
    let report = check(&dataset, arguments.threads, |done| bar.set_position(done as u64))?;
    bar.finish_and_clear();
    if arguments.json {
        print_line(serde_json::to_string(&report)?)?;
    } else {
        print(in_words(&report))?;
    }
    Ok(())
}

fn run_pack(arguments: &PackArguments) -> anyhow::Result<()> {
    let dataset = open(&arguments.data)?;
    let options = PackOptions {
        max_side: arguments.max_side,
        encoding: match arguments.encoding {
            EncodingName::Jpeg => Encoding::Jpeg,
            EncodingName::Raw => Encoding::Raw,
        },
        threads: arguments.threads,
    };
    let stop = "stopping; the same command goes on from here";
    let signals = Signals::listen(Answers { stop, save: None })?;
    let bar = ProgressBar::new(dataset.len() as u64);
    let report = pack(&dataset, &arguments.out, options, |done| {
        bar.set_position(done as u64);
        !signals.stop()
    })?;
    bar.finish_and_clear();
    let Some(report) = report else {
        anyhow::bail!("packing was interrupted; the same command goes on where it stopped");
    };
    if arguments.json {
        print_line(serde_json::to_string(&report)?)?;
        return Ok(());
    }
    let PackReport { images, resumed, bytes, broken } = &report;
    let out = arguments.out.display();
    say!("{images} images in {out}, {:.1} MB of them new", *bytes as f64 / 1e6);
    if *resumed > 0 {
        say!("{resumed} of them had been packed before the interruption");
    }
    say!("{}", broken_in_words(broken));
    Ok(())
}

fn run_views(arguments: &ViewsArguments) -> anyhow::Result<()> {
    let flags = &arguments.settings.0;
    let mut config = Config::resolve([Config::preset(&arguments.preset)?, flags.clone()])?;
    let dataset = open(&arguments.data)?;
    config.settle(&dataset)?;
    let ViewsArguments { images, pairs, seed, out, .. } = arguments;
    save_png(out, &view_grid(&dataset, &config.views, *images, *pairs, *seed))?;
    say!("images and {pairs} pairs of their views: {}", out.display());
    Ok(())
}

/// What was found, in lines.
fn in_words(report: &DataReport) -> String {
    let mut lines = vec![format!(
        "{} images, {} readable, {:.1} MB",
        report.images,
        report.readable,
        report.bytes as f64 / 1e6
    )];
    let counts = |entries: Vec<String>| entries.join(", ");
    let formats = report.formats.iter().map(|(format, count)| format!("{count} {format}"));
    lines.push(format!("formats: {}", counts(formats.collect())));
    if let Some(Sizes { width, height }) = &report.sizes {
        lines.push(format!(
            "sizes (smallest, median, largest): width {}, {}, {} px; height {}, {}, {} px",
            width.min, width.median, width.max, height.min, height.median, height.max
        ));
    }
    lines.push(format!("grey images: {}", report.grey));
    match report.classes.len() {
        0 => lines.push("no labels: images are not sorted into folders".to_owned()),
        classes => {
            let named =
                report.classes.iter().map(|class| format!("{} {}", class.images, class.name));
            lines.push(format!("{classes} classes: {}", counts(named.collect())));
            if report.unlabelled > 0 {
                lines.push(format!("{} images without a label", report.unlabelled));
            }
        }
    }
    lines.extend(report.remarks.iter().cloned());
    lines.push(broken_in_words(&report.broken));
    lines.join("\n") + "\n"
}

/// How many images are broken, and which.
fn broken_in_words(broken: &[Broken]) -> String {
    let mut text = format!("broken images: {}", broken.len());
    for broken in broken {
        text += &format!("\n  {}: {}", broken.name, broken.reason);
    }
    text
}
