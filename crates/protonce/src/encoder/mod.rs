//! Encoders: normalised images in, features and L2-normalised embeddings out.
//!
//! An [`Encoder`] is a ResNet with a projection head. Its parameters carry torchvision's names and
//! initialisation, and live in one flat vector θ, so that the moving average of the momentum
//! encoder, the optimiser and a gradient exchange are each one operation over θ.
//!
//! Images are float32 [batch, 3, height, width] in channels-last memory, as `views` makes them.

mod autograd;
pub mod convolution;
mod extract;
mod im2col;
mod layers;
mod memory;
mod normalise;
mod parameters;
mod resnet;
mod sgd;
mod winograd;

use std::sync::Arc;

use protonce_run::EncoderConfig;
use tch::{Device, Kind, Tensor};

use autograd::repeatable_convolutions;
pub(crate) use autograd::{parallel_for, pinned};
use convolution::{ConvPlan, ConvShape};
pub use extract::{Extracted, Output, extract, extract_batches, image_tensor};
pub use layers::BatchStats;
use layers::ForwardContext;
pub use normalise::{Activation, Again, BatchNorm, Normalised, normalise};
pub use parameters::Parameters;
pub(crate) use resnet::Plan;
use resnet::ResNet;
pub use sgd::Sgd;

/// What can be wrong with an encoder or its weights.
#[derive(Debug, thiserror::Error)]
pub enum EncoderError {
    /// Weights lack a tensor that the architecture has.
    #[error("the weights lack \"{name}\" {expected:?}: they belong to another architecture")]
    MissingTensor {
        /// The tensor's name.
        name: String,
        /// The shape it should have.
        expected: Vec<i64>,
    },
    /// A tensor has another shape than the architecture's.
    #[error(
        "\"{name}\" has shape {found:?}, expected {expected:?}: the weights belong to another architecture"
    )]
    WrongShape {
        /// The tensor's name.
        name: String,
        /// The shape it should have.
        expected: Vec<i64>,
        /// The shape it has.
        found: Vec<i64>,
    },
}

/// The arithmetic of convolutions and activations. Everything else is float32 in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// float32 throughout.
    Float32,
    /// Activations and convolution weights in bf16; statistics, heads, losses in float32.
    BFloat16,
}

impl Precision {
    /// bf16 where `device` multiplies it in hardware, float32 elsewhere.
    pub fn fastest_on(device: Device) -> Precision {
        match device {
            Device::Cuda(_) => Precision::BFloat16,
            Device::Cpu if cpu_multiplies_bf16() => Precision::BFloat16,
            _ => Precision::Float32,
        }
    }

    fn kind(self) -> Kind {
        match self {
            Precision::Float32 => Kind::Float,
            Precision::BFloat16 => Kind::BFloat16,
        }
    }
}

/// Whether the processor has AMX tiles or AVX-512 dot products for bf16.
#[cfg(target_arch = "x86_64")]
fn cpu_multiplies_bf16() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    if !std::arch::is_x86_feature_detected!("avx512f") || __cpuid(0).eax < 7 {
        return false;
    }
    // Intel SDM vol. 2, CPUID leaf 7: AMX-BF16 is EDX bit 22 of subleaf 0, AVX512_BF16 is EAX
    // bit 5 of subleaf 1.
    let amx = __cpuid_count(7, 0).edx & (1 << 22) != 0;
    let avx512 = __cpuid_count(7, 1).eax & (1 << 5) != 0;
    amx || avx512
}

/// Whether the processor has bf16 instructions.
#[cfg(target_arch = "aarch64")]
fn cpu_multiplies_bf16() -> bool {
    std::arch::is_aarch64_feature_detected!("bf16")
}

/// No bf16 instructions are known of on this processor.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn cpu_multiplies_bf16() -> bool {
    false
}

/// A residual network and its projection head.
pub struct Encoder {
    config: EncoderConfig,
    precision: Precision,
    parameters: Parameters,
    network: ResNet,
    conv_plan: Arc<ConvPlan>,
    checkpoint_blocks: bool,
}

impl Encoder {
    /// A freshly initialised encoder: the same weights for the same `seed` on every machine.
    pub fn new(config: &EncoderConfig, precision: Precision, device: Device, seed: u64) -> Encoder {
        if let Device::Cuda(_) = device {
            repeatable_convolutions();
        }
        let mut parameters = Parameters::new(seed);
        let network = ResNet::declare(&mut parameters, config);
        let parameters = parameters.place(device);
        Encoder {
            config: config.clone(),
            precision,
            parameters,
            network,
            conv_plan: Arc::default(),
            checkpoint_blocks: false,
        }
    }

    /// Computes convolutions in the ways of `conv_plan` from now on.
    pub fn set_conv_plan(&mut self, conv_plan: Arc<ConvPlan>) {
        self.conv_plan = conv_plan;
    }

    /// Whether only the inputs of residual blocks are kept for the way back, and all within them is
    /// computed again: much less memory for another forward pass. The numbers are the same bits.
    pub fn set_checkpoint_blocks(&mut self, checkpoint_blocks: bool) {
        self.checkpoint_blocks = checkpoint_blocks;
    }

    /// The shapes of its convolutions on so many square images of `side` pixels, each once.
    pub fn convolutions(&self, images: i64, side: i64) -> Vec<ConvShape> {
        self.network.convolutions(&self.parameters, self.precision.kind(), images, side)
    }

    /// The shapes this encoder was made with.
    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }

    /// The arithmetic of its convolutions.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// θ, its names and the batch-norm statistics.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// θ, to be changed in place.
    pub fn parameters_mut(&mut self) -> &mut Parameters {
        &mut self.parameters
    }

    /// Pooled features: images [batch, 3, height, width] → float32 [batch, width of the network].
    pub fn features(&self, images: &Tensor, stats: BatchStats) -> Tensor {
        let context = ForwardContext {
            parameters: &self.parameters,
            conv_plan: &self.conv_plan,
            stats,
            checkpoint_blocks: self.checkpoint_blocks,
        };
        self.network.features(&context, &images.to_kind(self.precision.kind()))
    }

    /// L2-normalised embeddings of features: [batch, width] → float32 [batch, dim].
    pub fn project(&self, features: &Tensor) -> Tensor {
        normalise_rows(&self.network.project(&self.parameters, features))
    }

    /// What the head gives before normalisation; with a linear head of one output a class, the
    /// scores of a classifier: [batch, 3, height, width] → float32 [batch, dim].
    pub fn scores(&self, images: &Tensor, stats: BatchStats) -> Tensor {
        self.network.project(&self.parameters, &self.features(images, stats))
    }

    /// L2-normalised embeddings of images: [batch, 3, height, width] → float32 [batch, dim].
    pub fn embed(&self, images: &Tensor, stats: BatchStats) -> Tensor {
        self.project(&self.features(images, stats))
    }

    /// Embeddings with batch statistics taken over `splits` groups of the batch separately, as
    /// `splits` GPUs would. Groups differ in size by at most one image, and there are fewer of them
    /// where a group would be of one image, which has no variance.
    pub fn embed_split(&self, images: &Tensor, splits: i64) -> Tensor {
        let splits = splits.min(images.size()[0] / 2);
        if splits <= 1 {
            return self.embed(images, BatchStats::Batch);
        }
        let groups = images.tensor_split(splits, 0);
        let embedded: Vec<Tensor> =
            groups.iter().map(|x| self.embed(x, BatchStats::Batch)).collect();
        Tensor::cat(&embedded, 0)
    }
}

/// Rows divided by their L2 length: [rows, dim] → [rows, dim]. Rows of zeros stay zeros.
pub fn normalise_rows(rows: &Tensor) -> Tensor {
    // The floor is torch.nn.functional.normalize's.
    let length = rows.norm_scalaropt_dim(2, [-1].as_slice(), true).clamp_min(1e-12);
    rows / length
}

/// The query encoder f_θ and the momentum encoder f_θ' that follows it (PCL §3.1, MoCo §3.2).
pub struct MomentumPair {
    /// f_θ, trained by gradients.
    pub encoder: Encoder,
    /// f_θ', the exponential moving average of f_θ; never sees a gradient.
    pub momentum_encoder: Encoder,
}

impl MomentumPair {
    /// Two encoders that start with the same parameters.
    pub fn new(
        config: &EncoderConfig,
        precision: Precision,
        device: Device,
        seed: u64,
    ) -> MomentumPair {
        let mut encoder = Encoder::new(config, precision, device, seed);
        let momentum_encoder = Encoder::new(config, precision, device, seed);
        encoder.parameters.track_gradients();
        MomentumPair { encoder, momentum_encoder }
    }

    /// θ' ← mθ' + (1 − m)θ. Parameters only: the momentum encoder's batch-norm statistics move by
    /// its own forward pass.
    pub fn update_momentum(&mut self, momentum: f64) {
        self.momentum_encoder.parameters.ema_update(&self.encoder.parameters, momentum);
    }

    /// Keys of the key views, without gradient: [batch, 3, height, width] → [batch, dim].
    ///
    /// With `splits` > 1 the batch is shuffled by `order` (a permutation of the batch, int64
    /// [batch]) before it is split, so that a query and its key never share batch statistics, and
    /// the keys come back in the batch's own order (MoCo §3.3, "shuffling BN").
    pub fn keys(&self, images: &Tensor, splits: i64, order: &Tensor) -> Tensor {
        let _guard = tch::no_grad_guard();
        if splits <= 1 {
            return self.momentum_encoder.embed(images, BatchStats::Batch);
        }
        // Row selection would lose the channels-last layout on an NCHW view, so it works on NHWC.
        let shuffled = images.permute([0, 2, 3, 1]).index_select(0, order).permute([0, 3, 1, 2]);
        let keys = self.momentum_encoder.embed_split(&shuffled, splits);
        keys.index_select(0, &order.argsort(0, false))
    }
}
