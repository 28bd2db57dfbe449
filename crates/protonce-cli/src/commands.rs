//! What is typed: one definition of the commands for both programs.

use clap::{Args, Parser, Subcommand};

use crate::objects::CacheFlags;
use crate::{data, report};

/// What the commands take that need tensors, or know all flags: to `protonce` words that it hands on, to
/// the engine their definitions.
pub trait Engine {
    /// After `protonce pretrain`.
    type Pretrain: Args;
    /// After `protonce eval`.
    type Eval: Args;
    /// After `protonce embed`.
    type Embed: Args;
    /// After `protonce weights`.
    type Weights: Args;
    /// After `protonce cluster`.
    type Cluster: Args;
    /// After `protonce bench`.
    type Bench: Args;
    /// After `protonce completions`.
    type Completions: Args;
    /// After `protonce man`.
    type Man: Args;
}

/// Learns image representations without labels, by prototypical contrastive learning (PCL).
#[derive(Parser)]
#[command(name = "protonce", version, max_term_width = 100)]
pub struct Arguments<E: Engine> {
    /// What to do.
    #[command(subcommand)]
    pub command: Command<E>,
    /// Where objects of stores are kept.
    #[command(flatten)]
    pub objects: CacheFlags,
}

/// A command and what it takes.
#[derive(Subcommand)]
pub enum Command<E: Engine> {
    /// Pretrain an encoder on a pile of images.
    Pretrain(Box<E::Pretrain>),
    /// Measure what a pretrained encoder is worth.
    Eval(Box<E::Eval>),
    /// Write the features or embeddings of images to a file, and find the nearest ones.
    Embed(Box<E::Embed>),
    /// Take weights over from other tools and hand them on.
    Weights(Box<E::Weights>),
    /// Group any embeddings by k-means, and compare the groups with labels.
    Cluster(Box<E::Cluster>),
    /// Write a page that shows what a run discovered and how it went.
    Report(report::Arguments),
    /// Show the same page live while runs go on.
    #[cfg(feature = "serve")]
    Serve(crate::serve::Arguments),
    /// Measure this machine.
    Bench(Box<E::Bench>),
    /// Look at a pile of images, or pack it into one fast file.
    #[command(subcommand)]
    Data(data::Command),
    /// Print what makes a shell complete this program's commands, flags and values.
    Completions(Box<E::Completions>),
    /// Write the manual pages: one of each command.
    Man(Box<E::Man>),
}
