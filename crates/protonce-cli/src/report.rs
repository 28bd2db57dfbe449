//! `protonce report`.

use std::path::PathBuf;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use protonce_report::{ReportOptions, ReportTask, write_report};

use crate::output::print_line;

/// A page without network: summary, curves, prototypes from coarse to fine, a map, labels,
/// images that stand out.
#[derive(Args)]
pub struct Arguments {
    /// A run folder, finished or not.
    run: PathBuf,
    /// The run's images, if they have moved since.
    #[arg(long, value_name = "DATA")]
    data: Option<String>,
    /// Where the page goes; report.html in the run folder unless said.
    #[arg(long, value_name = "FILE.html")]
    out: Option<PathBuf>,
    /// Images in the map, at most. More show finer structure and take longer: 50 000 take about
    /// half a minute on two cores.
    #[arg(long, value_name = "N", default_value_t = 50_000)]
    map: usize,
    /// Print one JSON object on stdout.
    #[arg(long)]
    json: bool,
    /// No progress, only warnings and errors.
    #[arg(long, short)]
    quiet: bool,
}

/// Writes the page.
///
/// # Errors
/// When there is no run, or the page cannot be written.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let options = ReportOptions { data: arguments.data.clone(), map: arguments.map };
    let out = arguments.out.clone().unwrap_or_else(|| arguments.run.join("report.html"));
    let bar = if arguments.quiet { ProgressBar::hidden() } else { ProgressBar::new(0) };
    let mut current = None;
    let summary = write_report(&arguments.run, &options, &out, &mut |task, done, total| {
        if current.replace(task) != Some(task) {
            let name = match task {
                ReportTask::Map => "map {bar:30} {pos} %",
                ReportTask::Agreements => "changes {bar:30} {pos}/{len} expectation steps",
                ReportTask::Thumbnails => "thumbnails {bar:30} {pos}/{len}",
            };
            if let Ok(style) = ProgressStyle::with_template(name) {
                bar.set_style(style);
            }
        }
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    })?;
    bar.finish_and_clear();
    if let Some(reason) = &summary.without_images {
        say!("warning: no pictures and no labels: {reason}; name the images with --data");
    }
    if !arguments.quiet {
        let megabytes = summary.bytes as f64 / 1e6;
        say!("{} ({megabytes:.1} MB): open it in a browser", summary.path.display());
    }
    if arguments.json {
        print_line(serde_json::to_string(&summary)?)?;
    }
    Ok(())
}
