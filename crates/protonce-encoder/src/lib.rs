//! ResNet encoders that learn: forward and backward passes, momentum encoder and optimiser, on libtorch.
//!
//! *Enters*: normalised images. *Leaves*: features and L2-normalised embeddings, and gradients of a loss
//! of them. *Why it exists*: training spends nearly all its time here, in kernels of our own where
//! libtorch's are slow; they are checked against libtorch's and know nothing of the method above.
//!
//! ```
//! use protonce_encoder::{BatchStats, MomentumPair, Precision, Sgd};
//! use protonce_run::{Architecture, EncoderConfig, Head, Stem};
//! use tch::{Device, Kind, Tensor};
//!
//! let (arch, stem, head) = (Architecture::ResNet18, Stem::Small, Head::Mlp);
//! let config = EncoderConfig { arch, stem, head, dim: 128, ..Default::default() };
//! let mut encoder = MomentumPair::new(&config, Precision::Float32, Device::Cpu, 0).encoder;
//! let images = Tensor::randn([4, 3, 32, 32], (Kind::Float, Device::Cpu));
//! let embeddings = encoder.embed(&images, BatchStats::Batch); // [4, 128]
//! let loss = embeddings.mm(&embeddings.tr()).sum(Kind::Float); // how alike they are
//! let (gradient, velocity) = (encoder.parameters().gradient(&loss), encoder.parameters().theta().zeros_like());
//! let sgd = Sgd { learning_rate: 0.1, momentum: 0.9, weight_decay: 1e-4 };
//! encoder.parameters_mut().sgd_step(.., &velocity, &gradient, sgd);
//! ```
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
pub mod message;
mod model;
mod momentum_pair;
mod normalise;
mod parallel;
mod parameters;
mod precision;
pub mod profile;
mod recompute;
mod resnet;
mod updates;
mod upload;

pub use architecture::{BlockKind, ResNetSpec};
pub use error::EncoderError;
pub use extract::{Extracted, Output, extract, extract_batches, try_extract};
pub use head::NORMALISED_WIDTH;
pub use layers::normalise_rows;
pub use model::Encoder;
pub use momentum_pair::MomentumPair;
pub use normalise::{Activation, BatchNorm, BatchStats, Normalised, normalise};
pub use parameters::Parameters;
pub use precision::Precision;
pub use recompute::Recompute;
pub use updates::Sgd;
pub use upload::{image_tensor, upload};
