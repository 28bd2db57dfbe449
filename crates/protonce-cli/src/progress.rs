//! What a run shows on stderr: a dashboard on a terminal, plain lines elsewhere.
//!
//! The dashboard is a few lines that stay in place: how far the run is, the task in hand, losses and
//! accuracies with the way they came. Colours go with `NO_COLOR`. Elsewhere (a log file, a pipe)
//! every epoch, E-step and evaluation is one line.

use std::collections::{BTreeMap, VecDeque};
use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

use console::style;
use indicatif::{HumanDuration, MultiProgress, ProgressBar, ProgressStyle};
use protonce::pretrain::Outcome;
use protonce_images::data::Dataset;
use toml::Table;

use crate::plan::Plan;
use protonce_cli::say;
use protonce_run::{Clusters, Config, Event, Floor, Measures, Method, Progress, Task};

/// Epochs that a sparkline looks back.
const SPARKS: usize = 24;

/// Shows progress on a terminal, plain lines elsewhere, nothing when quiet.
pub struct Display {
    quiet: bool,
    dashboard: Option<Dashboard>,
    epochs: usize,
    /// Epochs done and training time of them, since this process began.
    timed: (usize, f64),
    skipped: usize,
    /// Whether it was said that training waits for views.
    waiting: bool,
    /// What accuracies have to be above.
    floors: Vec<Floor>,
    /// The newest accuracies by number of neighbours.
    accuracies: BTreeMap<i64, f64>,
}

/// The lines that stay in place.
struct Dashboard {
    lines: MultiProgress,
    /// Epochs of the run.
    run: ProgressBar,
    task: ProgressBar,
    loss: ProgressBar,
    evaluation: ProgressBar,
    current: Option<Task>,
    losses: Sparkline,
    accuracies: Sparkline,
}

impl Display {
    pub fn new(quiet: bool) -> Display {
        let dashboard = (!quiet && std::io::stderr().is_terminal()).then(Dashboard::new);
        Display {
            quiet,
            dashboard,
            epochs: 0,
            timed: (0, 0.0),
            skipped: 0,
            waiting: false,
            floors: Vec::new(),
            accuracies: BTreeMap::new(),
        }
    }

    /// What was chosen where nothing was said.
    pub fn plan(&mut self, plan: &Plan, given: &Table, dataset: &Dataset) {
        let lines = plan.lines(given);
        if lines.is_empty() {
            return;
        }
        self.line(&format!("chosen for {}:", dataset.argument()));
        for line in lines {
            self.line(&line);
        }
        if let Some(time) = plan.time {
            self.line(&format!("this will take about {}", HumanDuration(time)));
        }
    }

    /// How to make the run again.
    pub fn command(&mut self, command: &str) {
        self.line(&format!("the same again: {command}"));
    }

    /// What is about to happen.
    pub fn headline(&mut self, config: &Config, dataset: &Dataset, device: tch::Device) {
        self.epochs = config.epochs;
        let images = dataset.len();
        let classes = match dataset.classes().len() {
            0 => "no labels".to_owned(),
            count => format!("{count} classes, not used for training"),
        };
        self.line(&format!("{images} images in {} ({classes})", dataset.argument()));
        let prototypes = match (config.method, &config.clusters) {
            (Method::Moco, _) => "no prototypes".to_owned(),
            (Method::Pcl, clusters) => {
                let counts = clusters.counts(images).into_iter().map(|count| count.to_string());
                let chosen = if matches!(clusters, Clusters::Auto) { " (auto)" } else { "" };
                let warmup = config.warmup_epochs;
                let counts = counts.collect::<Vec<_>>().join(", ");
                format!("{counts} prototypes{chosen} from epoch {} on", warmup + 1)
            }
        };
        self.line(&format!(
            "{} with {} head at {} px, {} epochs of batch {}, {prototypes}, on {device:?}",
            config.encoder.network(),
            config.encoder.head,
            config.views.image_size,
            config.epochs,
            config.batch_size,
        ));
        if let Some(dashboard) = &mut self.dashboard {
            dashboard.run.set_length(config.epochs as u64);
        }
    }

    pub fn notice(&mut self, notice: &Progress) {
        match notice {
            Progress::Task { task, done, total } => {
                if let Some(dashboard) = &mut self.dashboard {
                    dashboard.progress(*task, *done, *total);
                }
            }
            Progress::Warning(remark) => self.warn(remark),
            Progress::Event(event) => {
                match event {
                    Event::Skipped { name, reason, .. } => self.skipped(name, reason),
                    Event::Loader { waited, seconds, .. } => self.waited(waited / seconds),
                    Event::Floors { floors, .. } => self.floors.clone_from(floors),
                    Event::Evaluation { knn, .. } => self.accuracies.clone_from(knn),
                    _ => {}
                }
                let left = self.time_left(event);
                match &mut self.dashboard {
                    Some(dashboard) => dashboard.event(event, left),
                    None => {
                        if let Some(line) = in_words(event, self.epochs, left) {
                            self.line(&line);
                        }
                    }
                }
            }
        }
    }

    /// How the run ended and where it is.
    pub fn end(&mut self, outcome: Outcome, run: &Path) {
        if let Some(dashboard) = &self.dashboard {
            dashboard.task.finish_and_clear();
            for line in [&dashboard.run, &dashboard.loss, &dashboard.evaluation] {
                line.abandon();
            }
        }
        for floor in &self.floors {
            let above =
                |(k, top1): (&i64, &f64)| self.accuracies.get(k).is_none_or(|now| now > top1);
            if !floor.knn.iter().all(above) && !self.accuracies.is_empty() {
                self.line(&format!(
                    "these features are no better than the floor \"{}\" (kNN {}, against {}): \
                     training has been too short, or its settings do not suit the images",
                    floor.name,
                    accuracies(&self.accuracies),
                    accuracies(&floor.knn),
                ));
                break;
            }
        }
        let run = run.display();
        match outcome {
            Outcome::Finished => self
                .line(&format!("done: {run}; see what it discovered with: protonce report {run}")),
            Outcome::Stopped => self.line(&format!(
                "stopped and saved; go on with: protonce pretrain --out {run} --resume"
            )),
        }
    }

    /// The time that the epochs to come will take, as those of this process did.
    fn time_left(&mut self, event: &Event) -> Option<Duration> {
        let (done, seconds) = &mut self.timed;
        match event {
            Event::Epoch { epoch, seconds: more, .. } => {
                *done += 1;
                *seconds += more;
                let left = (self.epochs - (epoch + 1)) as f64 * *seconds / *done as f64;
                (left > 0.0).then(|| Duration::from_secs_f64(left))
            }
            Event::Expectation { embedding_seconds, clustering_seconds, .. } => {
                *seconds += embedding_seconds + clustering_seconds;
                None
            }
            Event::Evaluation { seconds: more, .. } => {
                *seconds += more;
                None
            }
            _ => None,
        }
    }

    fn skipped(&mut self, name: &str, reason: &str) {
        self.skipped += 1;
        // The rest is in events.jsonl; a thousand lines help nobody.
        match self.skipped {
            1..=10 => self.warn(&format!("skipped {name}: {reason}")),
            11 => self.warn("skipped more images; events.jsonl names them all"),
            _ => {}
        }
    }

    /// Gives advice, once, when much of an epoch went by without views to train on.
    fn waited(&mut self, share: f64) {
        if share > 0.05 && !std::mem::replace(&mut self.waiting, true) {
            self.line(&format!(
                "training waited for images {:.0} % of the time: pack them (protonce data pack) or \
                 give more --loader-threads",
                100.0 * share
            ));
        }
    }

    fn line(&self, text: &str) {
        if !self.quiet {
            self.print(text);
        }
    }

    /// Tells what must be told even when quiet.
    pub fn warn(&self, text: &str) {
        self.print(&format!("{} {text}", style("warning:").for_stderr().yellow()));
    }

    fn print(&self, text: &str) {
        match &self.dashboard {
            // Above the lines that stay.
            Some(dashboard) => dashboard.lines.suspend(|| say!("{text}")),
            None => say!("{text}"),
        }
    }
}

impl Dashboard {
    fn new() -> Dashboard {
        let lines = MultiProgress::new();
        let line = |template: &str| {
            let line = lines.add(ProgressBar::new(1));
            if let Ok(style) = ProgressStyle::with_template(template) {
                line.set_style(style.progress_chars("━╸─"));
            }
            line
        };
        let dashboard = Dashboard {
            run: line("{prefix:.bold} {bar:28.green/black.bright} epoch {pos}/{len}{msg}"),
            task: line("{prefix:.bold} {bar:28.cyan/black.bright} {pos}/{len} {msg}"),
            loss: line("{prefix:.bold} {msg}"),
            evaluation: line("{prefix:.bold} {msg}"),
            lines,
            current: None,
            losses: Sparkline::default(),
            accuracies: Sparkline::default(),
        };
        let named = [
            (&dashboard.run, "run   "),
            (&dashboard.task, "      "),
            (&dashboard.loss, "loss  "),
            (&dashboard.evaluation, "kNN   "),
        ];
        for (line, name) in named {
            line.set_prefix(name);
        }
        dashboard.loss.set_message("no step yet");
        dashboard.evaluation.set_message("not measured");
        dashboard.run.enable_steady_tick(Duration::from_secs(1));
        dashboard
    }

    fn progress(&mut self, task: Task, done: usize, total: usize) {
        if self.current != Some(task) {
            self.current = Some(task);
            let (name, unit) = match task {
                Task::Embedding => ("E-step", "images embedded"),
                Task::Clustering => ("E-step", "granularities clustered"),
                Task::Training => ("M-step", "steps"),
                Task::Features => ("kNN   ", "images' features"),
                Task::Tuning => ("tuning", "convolutions measured, once for this processor"),
            };
            self.task.set_prefix(name);
            self.task.set_message(unit);
            self.task.reset();
        }
        self.task.set_length(total as u64);
        self.task.set_position(done as u64);
    }

    fn event(&mut self, event: &Event, left: Option<Duration>) {
        match event {
            Event::Step {
                measures,
                learning_rate,
                images_per_second,
                waited,
                communicated,
                seconds,
                ..
            } => {
                let waited = 100.0 * waited / seconds;
                let communicating = communicated.map_or(String::new(), |communicated| {
                    format!(" · {:.0} % communicating", 100.0 * communicated / seconds)
                });
                self.task.set_message(format!(
                    "steps · {images_per_second:.0} images/s · {waited:.0} % waiting{communicating} · lr {learning_rate:.4}",
                ));
                self.loss.set_message(format!("{}{}", self.losses, summary(measures)));
            }
            Event::Epoch { epoch, measures, .. } => {
                self.losses.push(measures.loss);
                self.loss.set_message(format!("{}{}", self.losses, summary(measures)));
                self.run.set_position(*epoch as u64 + 1);
                self.run.set_message(match left {
                    Some(left) => format!(" · {} left", short(left)),
                    None => String::new(),
                });
            }
            Event::Evaluation { epoch, knn, chance, .. } => {
                if let Some(best) = knn.values().copied().reduce(f64::max) {
                    self.accuracies.push(best);
                }
                self.evaluation.set_message(format!(
                    "{}{} after epoch {epoch} (chance {chance:.1} %)",
                    self.accuracies,
                    accuracies(knn)
                ));
            }
            Event::Floors { floors, .. } => {
                self.evaluation
                    .set_message(format!("before training: {}", floors_in_words(floors)));
            }
            Event::World { .. } => {
                if let Some(line) = in_words(event, 0, None) {
                    // Stays above the lines that change.
                    let _ = self.lines.println(line);
                }
            }
            Event::Loader { .. }
            | Event::Expectation { .. }
            | Event::Skipped { .. }
            | Event::Checkpoint { .. } => {}
        }
    }
}

/// The newest values as a row of small bars.
#[derive(Default)]
struct Sparkline(VecDeque<f64>);

impl Sparkline {
    fn push(&mut self, value: f64) {
        if self.0.len() == SPARKS {
            self.0.pop_front();
        }
        self.0.push_back(value);
    }
}

impl std::fmt::Display for Sparkline {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        // One value has no way that it came.
        if self.0.len() < 2 {
            return Ok(());
        }
        let low = self.0.iter().copied().fold(f64::INFINITY, f64::min);
        let high = self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let bar = |value: &f64| {
            let part = (value - low) / (high - low).max(f64::MIN_POSITIVE);
            BARS[((part * 8.0) as usize).min(7)]
        };
        let bars: String = self.0.iter().map(bar).collect();
        write!(formatter, "{}  ", style(bars).for_stderr().cyan())
    }
}

/// One line for an event, where there is something to say.
fn in_words(event: &Event, epochs: usize, left: Option<Duration>) -> Option<String> {
    match event {
        Event::Epoch { epoch, measures, learning_rate, images, seconds, .. } => Some(format!(
            "epoch {}/{epochs}: {} · lr {learning_rate:.4} · {:.0} images/s · {}{}",
            epoch + 1,
            summary(measures),
            *images as f64 / seconds,
            short(Duration::from_secs_f64(*seconds)),
            left.map_or(String::new(), |left| format!(" · {} left", short(left))),
        )),
        Event::Expectation {
            images,
            granularities,
            effective_rank,
            embedding_seconds,
            clustering_seconds,
            ..
        } => {
            let counts = granularities.iter().map(|g| g.clusters.to_string());
            Some(format!(
                "E-step: {images} images → {} prototypes in {embedding_seconds:.1} s + {clustering_seconds:.1} s, effective rank {effective_rank:.1}",
                counts.collect::<Vec<_>>().join(", "),
            ))
        }
        Event::Evaluation { epoch, knn, chance, .. } => {
            let accuracies = accuracies(knn);
            Some(format!("kNN after epoch {epoch}: {accuracies} (chance {chance:.1} %)"))
        }
        Event::Floors { floors, chance } => {
            Some(format!("kNN before training: {} (chance {chance:.1} %)", floors_in_words(floors)))
        }
        Event::World { processes, groups, threads, backend } => Some(format!(
            "{processes} processes of {threads} threads share {groups} groups of batch norm, by {backend}"
        )),
        Event::Step { .. }
        | Event::Loader { .. }
        | Event::Skipped { .. }
        | Event::Checkpoint { .. } => None,
    }
}

fn floors_in_words(floors: &[Floor]) -> String {
    let words = floors.iter().map(|floor| format!("{} {}", floor.name, accuracies(&floor.knn)));
    words.collect::<Vec<_>>().join("; ")
}

/// Accuracies by number of neighbours.
fn accuracies(knn: &BTreeMap<i64, f64>) -> String {
    let words = knn.iter().map(|(k, top1)| format!("k {k} {top1:.1} %"));
    words.collect::<Vec<_>>().join(", ")
}

fn summary(measures: &Measures) -> String {
    let Measures { loss, instance_loss, instance_accuracy, .. } = measures;
    let instance = format!("instance {instance_loss:.3} ({instance_accuracy:.0} % right)");
    match (measures.prototype_loss, measures.prototype_accuracy) {
        (Some(prototype), Some(accuracy)) => {
            format!(
                "loss {loss:.3}: {instance} + prototypes {prototype:.3} ({accuracy:.0} % right)"
            )
        }
        _ => format!("loss {loss:.3}: {instance}"),
    }
}

fn short(duration: Duration) -> String {
    match duration.as_secs() {
        0..120 => format!("{:.0} s", duration.as_secs_f64()),
        _ => HumanDuration(duration).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sparkline_shows_the_newest_values() {
        let mut line = Sparkline::default();
        line.push(5.0);
        assert_eq!(line.to_string(), "");
        (0..100).for_each(|value| line.push(f64::from(value)));
        let bars = console::strip_ansi_codes(&line.to_string()).trim().to_owned();
        assert_eq!(bars.chars().count(), SPARKS);
        assert!(bars.starts_with('▁') && bars.ends_with('█'));
    }
}
