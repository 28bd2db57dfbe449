//! `protonce eval`: what an encoder is worth.
//!
//! Every evaluation takes a [`EncoderArgs`] (whose features) and [`DataArgs`] (which labels), measures, and
//! gives an [`EvalResult`]: rows of a table, and JSON.

mod all;
mod cluster;
mod data_args;
mod encoder_args;
mod knn;
mod linear;
mod result;
mod semi;
mod svm;

use clap::Subcommand;

use data_args::DataArgs;
pub use encoder_args::OutputChoice;
use encoder_args::{EncoderArgs, Prepared};
use result::{EvalResult, Row};

#[derive(Subcommand)]
pub enum Command {
    /// Classify test images by their nearest training images (weighted kNN, no training).
    Knn(knn::Arguments),
    /// Train a linear classifier on frozen features.
    Linear(linear::Arguments),
    /// Train linear support vector machines on frozen features, on all images or a few of each class.
    Svm(svm::Arguments),
    /// Fine-tune the whole network on a share of the labels.
    Semi(semi::Arguments),
    /// Cluster the test images and compare the clusters with the labels.
    Cluster(cluster::Arguments),
    /// Do all of it, in one table to put beside a paper's.
    All(all::Arguments),
}

pub fn run(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Knn(arguments) => knn::run(arguments),
        Command::Linear(arguments) => linear::run(arguments),
        Command::Svm(arguments) => svm::run(arguments),
        Command::Semi(arguments) => semi::run(arguments),
        Command::Cluster(arguments) => cluster::run(arguments),
        Command::All(arguments) => all::run(arguments),
    }
}
