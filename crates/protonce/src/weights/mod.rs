//! Encoders in everybody's files: the published checkpoints come in, ours go out.
//!
//! Enters: a run folder, a safetensors file, or a `.pth` of PyTorch, torchvision, timm, detectron2, PCL
//! or MoCo. [`Weights::read`] finds out which and leaves [`Weights`]: shapes, the views the encoder
//! wants, tensors under torchvision's names, and a [`Card`] that says where they come from.
//! Leaves: the same encoder in the format of a [`Target`], by [`export`].
//!
//! No pickle is ever executed: `protonce_pth` parses them.

mod card;
mod checksum;
mod choice;
mod compare;
mod detectron2;
mod error;
mod export;
mod metadata;
mod notes;
mod onnx;
mod pth;
mod read;
mod recognise;
mod run;
mod safetensors;
mod target;
mod training_state;

use tch::Device;

pub use card::{Card, DataSummary};
pub use checksum::checksum;
pub use compare::{Difference, TensorChange, diff};
pub use error::WeightsError;
pub use export::{Export, Exported, export};
pub use read::Hints;
pub use recognise::{Recognised, recognise};
pub use target::Target;
pub use training_state::training_state;

use crate::tensors::NamedTensors;
use protonce_encoder::{Encoder, EncoderError, Precision};
use protonce_images::views::ViewConfig;
use protonce_run::EncoderConfig;

/// An encoder as a file holds it.
#[derive(Debug)]
pub struct Weights {
    /// Its shapes.
    pub encoder: EncoderConfig,
    /// Size and normalisation of the images it wants.
    pub views: ViewConfig,
    /// Parameters and buffers under torchvision's names, on the CPU.
    pub tensors: NamedTensors,
    /// Where they come from.
    pub card: Card,
    /// Tensors of the file that are no part of the encoder, such as a queue or a momentum encoder.
    pub left_out: Vec<String>,
    /// What was chosen in the file, and what of it is not used: a sentence each.
    pub notes: Vec<String>,
}

impl Weights {
    /// The encoder, on `device`.
    ///
    /// # Errors
    /// When the tensors do not fit the shapes that the weights claim.
    pub fn load(&self, precision: Precision, device: Device) -> Result<Encoder, EncoderError> {
        let mut encoder = Encoder::zeroed(&self.encoder, precision, device);
        encoder.parameters_mut().load(&self.tensors)?;
        Ok(encoder)
    }
}

/// How many parameters there are among `tensors`: weights and biases, but no statistics.
pub fn parameter_count(tensors: &NamedTensors) -> usize {
    let parameters = |name: &str| name.ends_with(".weight") || name.ends_with(".bias");
    tensors.iter().filter(|(name, _)| parameters(name)).map(|(_, tensor)| tensor.numel()).sum()
}
