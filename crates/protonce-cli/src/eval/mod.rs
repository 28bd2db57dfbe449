//! `protonce eval`: what an encoder is worth.
//!
//! Every evaluation is an [`EvalCommand`]: [`EvalArgs`], which say whose features and which labels, and
//! options of its own. It measures on what the arguments [`Prepared`], and gives an [`EvalResult`]:
//! figures for a table, and JSON.

mod all;
mod args;
mod cluster;
mod knn;
mod linear;
mod output_choice;
mod prepared;
mod progress;
mod result;
mod semi;
mod split;
mod svm;

use clap::{Args, Subcommand};

use args::EvalArgs;
pub use output_choice::OutputChoice;
use prepared::Prepared;
use result::{EvalResult, Figure};

/// An evaluation on the command line.
#[derive(Args)]
pub struct EvalCommand<Options: Args> {
    #[command(flatten)]
    args: EvalArgs,
    #[command(flatten)]
    options: Options,
}

impl<Options: Args> EvalCommand<Options> {
    /// Measures and shows the result.
    fn run(
        &self,
        measure: impl FnOnce(&Prepared, &Options) -> anyhow::Result<EvalResult>,
    ) -> anyhow::Result<()> {
        let prepared = self.args.prepare()?;
        Ok(measure(&prepared, &self.options)?.show(&prepared)?)
    }
}

#[derive(Subcommand)]
pub enum Command {
    /// Classify test images by their nearest training images (weighted kNN, no training).
    Knn(EvalCommand<knn::Options>),
    /// Train a linear classifier on frozen features.
    Linear(EvalCommand<linear::Options>),
    /// Train linear support vector machines on frozen features, on all images or a few of each class.
    Svm(EvalCommand<svm::Options>),
    /// Fine-tune the whole network on a share of the labels.
    Semi(EvalCommand<semi::Options>),
    /// Cluster the test images and compare the clusters with the labels.
    Cluster(EvalCommand<cluster::Options>),
    /// Do all of it, in one table to put beside a paper's.
    All(EvalCommand<all::Options>),
}

pub fn run(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Knn(command) => command.run(knn::measure),
        Command::Linear(command) => command.run(linear::measure),
        Command::Svm(command) => command.run(svm::measure),
        Command::Semi(command) => command.run(semi::measure),
        Command::Cluster(command) => command.run(cluster::measure),
        Command::All(command) => all::run(command),
    }
}
