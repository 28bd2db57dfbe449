//! What an evaluation shows on stderr while it goes on.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use protonce::transfer::SupervisedProgress;
use protonce_cli::say;
use protonce_images::views::Unreadable;

/// Names an image that cannot be read.
pub fn skipped(bad: &Unreadable) {
    say!("warning: skipped {}: {}", bad.name, bad.reason);
}

/// Advice where gradient descent ended at a cross-entropy no better than guessing gives.
pub fn warn_of_guessing(loss: Option<f64>, classes: usize, rate: &str) {
    let guessing = (classes as f64).ln();
    if let Some(loss) = loss.filter(|loss| *loss >= guessing) {
        say!(
            "warning: the loss ended at {loss:.2}, and guessing gives {guessing:.2}: a learning rate for \
             other features than these; use a tenth of {rate}"
        );
    }
}

/// A bar of images on stderr.
pub fn progress_bar(what: &str, images: usize) -> anyhow::Result<ProgressBar> {
    let template = format!("{what} {{bar:30}} {{pos}}/{{len}} images, {{eta}} left {{msg}}");
    Ok(ProgressBar::new(images as u64).with_style(ProgressStyle::with_template(&template)?))
}

/// Shows a spinner on stderr during `work` of unknown length.
pub fn with_spinner<T>(what: &str, work: impl FnOnce() -> T) -> anyhow::Result<T> {
    let style = ProgressStyle::with_template("{spinner} {msg}, {elapsed}")?;
    let bar = ProgressBar::new_spinner().with_style(style).with_message(what.to_owned());
    bar.enable_steady_tick(Duration::from_millis(200));
    let result = work();
    bar.finish_and_clear();
    Ok(result)
}

/// Shows training or testing on `bar`: images, unreadable ones, and each of `epochs` with its loss,
/// which is kept in `losses`.
pub fn show_on<'a>(
    bar: &'a ProgressBar,
    epochs: usize,
    losses: &'a mut Vec<f64>,
) -> impl FnMut(SupervisedProgress) + 'a {
    move |progress| match progress {
        SupervisedProgress::Images(done) => bar.set_position(done as u64),
        SupervisedProgress::Skipped(bad) => bar.suspend(|| skipped(&bad)),
        SupervisedProgress::Epoch(epoch, loss) => {
            losses.push(loss);
            bar.suspend(|| say!("epoch {epoch}/{epochs}: loss {loss:.4}"));
        }
    }
}
