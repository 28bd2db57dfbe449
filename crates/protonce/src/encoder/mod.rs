//! Encoders: normalised images in, features and L2-normalised embeddings out.
//!
//! An [`Encoder`] is a ResNet with a projection head. Its parameters carry torchvision's names and
//! initialisation, and live in one flat vector θ, so that the moving average of the momentum
//! encoder, the optimiser and a gradient exchange are each one operation over θ.
//!
//! Images are float32 [batch, 3, height, width] in channels-last memory, as `views` makes them.
//!
//! From the operations up: `convolution` and `normalise` (with `autograd`, `parallel` and `memory`
//! below them, `recompute` between them) → `layers` → `block` → `resnet` and `head` → `model` →
//! `momentum_pair` and `extract`.

mod architecture;
mod autograd;
mod block;
mod context;
pub mod convolution;
mod error;
mod extract;
mod head;
mod layers;
mod memory;
mod message;
mod model;
mod momentum_pair;
mod normalise;
mod parallel;
mod parameters;
mod precision;
mod recompute;
mod resnet;
mod updates;
mod upload;

pub(crate) use architecture::{BlockKind, ResNetSpec};
pub use error::EncoderError;
pub use extract::{Extracted, Output, extract, extract_batches};
pub(crate) use head::NORMALISED_WIDTH;
pub use layers::normalise_rows;
pub use model::Encoder;
pub use momentum_pair::MomentumPair;
pub use normalise::{Activation, BatchNorm, BatchStats, Normalised, normalise};
pub use parameters::Parameters;
pub use precision::Precision;
pub use recompute::Recompute;
pub use updates::Sgd;
pub use upload::image_tensor;
pub(crate) use upload::upload;
