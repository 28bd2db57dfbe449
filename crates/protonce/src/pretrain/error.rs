//! What can stop a run.

use std::path::PathBuf;

use protonce_images::views::LoaderError;
use protonce_run::{ConfigError, RunError};

use crate::prototypes::PrototypeError;
use crate::tensors::TensorError;
use crate::transfer::TransferError;
use crate::weights::WeightsError;
use crate::world::WorldError;
use protonce_encoder::EncoderError;

/// What can stop a run.
#[derive(Debug, thiserror::Error)]
pub enum PretrainError {
    /// The run folder.
    #[error(transparent)]
    Run(#[from] RunError),
    /// Tensors of the run folder.
    #[error(transparent)]
    Tensors(#[from] TensorError),
    /// Settings.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The views.
    #[error(transparent)]
    Loader(#[from] LoaderError),
    /// The clustering.
    #[error(transparent)]
    Prototypes(#[from] PrototypeError),
    /// The weights of a checkpoint.
    #[error(transparent)]
    Encoder(#[from] EncoderError),
    /// The weights to start from.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// Weights of another network than the one to be trained.
    #[error(
        "{init} holds a {found}, and the run is to train a {expected}: give the --arch and --stem of the weights"
    )]
    OtherShape {
        /// The weights to start from.
        init: String,
        /// Their shape.
        found: String,
        /// The shape of the encoder.
        expected: String,
    },
    /// The evaluation.
    #[error(transparent)]
    Transfer(#[from] TransferError),
    /// The processes that train together.
    #[error(transparent)]
    World(#[from] WorldError),
    /// Nothing to tell apart.
    #[error("{data} has one image: contrastive learning tells images apart and needs at least two")]
    OneImage {
        /// The data argument.
        data: String,
    },
    /// A batch that the images cannot fill.
    #[error(
        "a batch of {batch} cannot be filled from the {images} images of {data}: use --batch-size {images} or less, or no --preset, which chooses what suits them"
    )]
    BatchTooLarge {
        /// The batch size.
        batch: usize,
        /// Images there are.
        images: usize,
        /// The data argument.
        data: String,
    },
    /// Other images than those the run began with.
    #[error(
        "{data} is not what this run began with (names or labels differ): continue with the same images"
    )]
    OtherData {
        /// The data argument.
        data: String,
    },
    /// Too many images that cannot be read.
    #[error("{bad} of {images} images cannot be read, more than --max-bad {max_bad} allows; the first: {}", names.join("; "))]
    TooManyBad {
        /// Images that cannot be read.
        bad: usize,
        /// Images there are.
        images: usize,
        /// The share that is allowed.
        max_bad: f64,
        /// The first ten, with reasons.
        names: Vec<String>,
    },
    /// It was asked to stop, within an E-step.
    #[error("the E-step was stopped before its end")]
    Stopped,
    /// Training has diverged.
    #[error("the loss is no longer finite in epoch {epoch}, step {step}: lower --lr; {}", match last { Some(path) => format!("the last good checkpoint is {}", path.display()), None => "there is no checkpoint yet".to_owned() })]
    NotFinite {
        /// The epoch.
        epoch: usize,
        /// The step.
        step: usize,
        /// The last checkpoint.
        last: Option<PathBuf>,
    },
}
