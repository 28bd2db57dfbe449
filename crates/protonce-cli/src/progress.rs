//! What a run shows on stderr: one bar for the work in hand, a line for what is done.

use std::path::Path;
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use protonce::data::Dataset;
use protonce::pretrain::{Clusters, Config, Event, Measures, Method, Notice, Outcome, Work};

/// Shows progress on a terminal, plain lines elsewhere, nothing when quiet.
pub struct Display {
    quiet: bool,
    bar: ProgressBar,
    work: Option<Work>,
    epochs: usize,
    epoch_start: Instant,
    skipped: usize,
}

impl Display {
    pub fn new(quiet: bool) -> Display {
        let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::new(0) };
        Display { quiet, bar, work: None, epochs: 0, epoch_start: Instant::now(), skipped: 0 }
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
                let chosen = if matches!(clusters, Clusters::Auto(_)) { " (auto)" } else { "" };
                let warmup = config.warmup_epochs;
                let counts = counts.collect::<Vec<_>>().join(", ");
                format!("{counts} prototypes{chosen} from epoch {} on", warmup + 1)
            }
        };
        self.line(&format!(
            "{} with {} head at {} px, {} epochs of batch {}, {prototypes}, on {device:?}",
            config.encoder.arch,
            config.encoder.head,
            config.views.image_size,
            config.epochs,
            config.batch_size,
        ));
    }

    pub fn notice(&mut self, notice: &Notice) {
        match notice {
            Notice::Progress { work, done, total } => self.progress(*work, *done, *total),
            Notice::Event(event) => self.event(event),
        }
    }

    /// How the run ended and where it is.
    pub fn end(&mut self, outcome: Outcome, run: &Path) {
        self.bar.finish_and_clear();
        let run = run.display();
        match outcome {
            Outcome::Finished => self.line(&format!("done: {run}")),
            Outcome::Stopped => self.line(&format!(
                "stopped and saved; go on with: protonce pretrain --out {run} --resume"
            )),
        }
    }

    fn progress(&mut self, work: Work, done: usize, total: usize) {
        if self.work != Some(work) {
            self.work = Some(work);
            let (name, unit) = match work {
                Work::Embedding => ("E-step: embedding", "images"),
                Work::Clustering => ("E-step: clustering", "granularities"),
                Work::Training => ("M-step", "steps"),
                Work::Features => ("evaluation: features", "images"),
            };
            let template =
                format!("{name} {{bar:30}} {{pos}}/{{len}} {unit}, {{eta}} left {{msg}}");
            if let Ok(style) = ProgressStyle::with_template(&template) {
                self.bar.set_style(style);
            }
            self.bar.set_message("");
            self.bar.reset();
        }
        self.bar.set_length(total as u64);
        self.bar.set_position(done as u64);
    }

    fn event(&mut self, event: &Event) {
        match event {
            Event::Step { measures, learning_rate, images_per_second, .. } => {
                self.bar.set_message(format!(
                    "· {images_per_second:.0} images/s · {} · lr {learning_rate:.4}",
                    summary(measures)
                ));
            }
            Event::Epoch { epoch, measures, learning_rate, images, seconds, .. } => {
                let left = self.epochs - (epoch + 1);
                let left = self.epoch_start.elapsed() * left as u32;
                self.epoch_start = Instant::now();
                self.line(&format!(
                    "epoch {}/{}: {} · lr {learning_rate:.4} · {:.0} images/s · {}{}",
                    epoch + 1,
                    self.epochs,
                    summary(measures),
                    *images as f64 / seconds,
                    short(Duration::from_secs_f64(*seconds)),
                    if left.is_zero() {
                        String::new()
                    } else {
                        format!(" · {} left", short(left))
                    },
                ));
            }
            Event::Loader { waited, seconds, .. } if *waited > 0.05 * seconds => self.line(&format!(
                "training waited for images {:.0} % of the time: pack them (protonce data pack) or \
                 give more --loader-threads",
                100.0 * waited / seconds
            )),
            Event::Loader { .. } => {}
            Event::Expectation {
                images,
                granularities,
                embedding_seconds,
                clustering_seconds,
                ..
            } => {
                let counts = granularities.iter().map(|g| g.clusters.to_string());
                self.line(&format!(
                    "E-step: {images} images → {} prototypes in {embedding_seconds:.1} s + {clustering_seconds:.1} s",
                    counts.collect::<Vec<_>>().join(", "),
                ));
            }
            Event::Evaluation { epoch, knn, chance, .. } => {
                let accuracies = knn.iter().map(|(k, top1)| format!("k {k} {top1:.1} %"));
                self.line(&format!(
                    "kNN after epoch {epoch}: {} (chance {chance:.1} %)",
                    accuracies.collect::<Vec<_>>().join(", "),
                ));
            }
            Event::Skipped { name, reason, .. } => {
                self.skipped += 1;
                // The rest is in events.jsonl; a thousand lines help nobody.
                match self.skipped {
                    1..=10 => self.warn(&format!("skipped {name}: {reason}")),
                    11 => self.warn("skipped more images; events.jsonl names them all"),
                    _ => {}
                }
            }
            Event::Checkpoint { .. } => {}
        }
    }

    fn line(&self, text: &str) {
        if !self.quiet {
            self.bar.suspend(|| eprintln!("{text}"));
        }
    }

    fn warn(&self, text: &str) {
        self.bar.suspend(|| eprintln!("warning: {text}"));
    }
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
