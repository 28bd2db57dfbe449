//! Why weights cannot be read or written.

use std::io;
use std::path::PathBuf;

use protonce_pth::PthError;
use protonce_run::RunError;

use super::Target;
use crate::tensors::TensorError;
use protonce_encoder::EncoderError;

/// Why weights cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsError {
    /// A run folder.
    #[error(transparent)]
    Run(#[from] RunError),
    /// Neither a run nor a file of weights.
    #[error(
        "{0} holds no weights: expected a run folder with a checkpoint, a checkpoint folder, a \
         safetensors file or a .pth of PyTorch"
    )]
    NoWeights(PathBuf),
    /// A file that the system cannot read.
    #[error("cannot read {path}: {reason}; pass a run folder or a file of weights")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: io::Error,
    },
    /// A checkpoint of PyTorch that cannot be read.
    #[error("cannot read {path}: {reason}")]
    Pth {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: PthError,
    },
    /// A damaged safetensors file.
    #[error("cannot read {path}: it is no whole safetensors file ({reason}); fetch it again")]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// Tensors that are no ResNet.
    #[error("{path} holds no ResNet that is known here: {reason}")]
    NotAnEncoder {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// Tensors that do not fit the architecture.
    #[error("{path}: {reason}")]
    Shapes {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        reason: EncoderError,
    },
    /// Numbers that are none.
    #[error(
        "{path}: its tensor {name} has numbers that are NaN or infinite, so nothing can be computed with \
         it; take a checkpoint from before its training diverged"
    )]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The first such tensor, by torchvision's name.
        name: String,
    },
    /// A file that the system cannot write.
    #[error("cannot write {path}: {reason}; choose a writable --out with free space")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: io::Error,
    },
    /// A tensor that cannot be brought into memory or out of it.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// A target that cannot hold this encoder.
    #[error("{target} cannot hold {what}: {advice}")]
    Unrepresentable {
        /// The target.
        target: Target,
        /// What it cannot hold.
        what: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// A target name that is none.
    #[error(
        "unknown target \"{0}\": expected torchvision, timm, detectron2, pcl, safetensors or onnx"
    )]
    UnknownTarget(String),
}
