//! An encoder: normalised images in, features and L2-normalised embeddings out.

use std::sync::Arc;

use protonce_run::EncoderConfig;
use tch::{Device, Tensor};

use super::context::ForwardContext;
use super::convolution::{ConvPlan, ConvShape, deterministic_cudnn};
use super::head::ProjectionHead;
use super::layers::normalise_rows;
use super::normalise::BatchStats;
use super::parameters::{Parameters, ParametersBuilder};
use super::precision::Precision;
use super::resnet::ResNet;

/// A residual network with its projection head, its weights and how it computes.
pub struct Encoder {
    config: EncoderConfig,
    precision: Precision,
    parameters: Parameters,
    network: ResNet,
    head: ProjectionHead,
    conv_plan: Arc<ConvPlan>,
    checkpoint_blocks: bool,
}

impl Encoder {
    /// A freshly initialised encoder: the same weights for the same `seed` on every machine.
    pub fn new(config: &EncoderConfig, precision: Precision, device: Device, seed: u64) -> Encoder {
        Encoder::declare(config, precision, device, Some(seed))
    }

    /// An encoder whose parameters are all 0, to be loaded.
    pub fn zeroed(config: &EncoderConfig, precision: Precision, device: Device) -> Encoder {
        Encoder::declare(config, precision, device, None)
    }

    fn declare(
        config: &EncoderConfig,
        precision: Precision,
        device: Device,
        seed: Option<u64>,
    ) -> Encoder {
        if let Device::Cuda(_) = device {
            deterministic_cudnn();
        }
        let mut builder = ParametersBuilder::new(seed);
        let network = ResNet::declare(&mut builder, config);
        let head = ProjectionHead::declare(&mut builder, config, network.width());
        Encoder {
            config: config.clone(),
            precision,
            parameters: builder.build(device),
            network,
            head,
            conv_plan: Arc::default(),
            checkpoint_blocks: false,
        }
    }

    /// Computes convolutions by the algorithms of `conv_plan` from now on.
    pub fn set_conv_plan(&mut self, conv_plan: Arc<ConvPlan>) {
        self.conv_plan = conv_plan;
    }

    /// Whether only the inputs of residual blocks are kept for the backward pass, which recomputes what
    /// lies within them: much less memory for another forward pass. The numbers are the same bits.
    pub fn set_checkpoint_blocks(&mut self, checkpoint_blocks: bool) {
        self.checkpoint_blocks = checkpoint_blocks;
    }

    /// The shapes of its convolutions on `images` square images of `side` pixels, each once.
    pub fn convolutions(&self, images: i64, side: i64) -> Vec<ConvShape> {
        self.network.convolutions(&self.parameters, self.precision.kind(), images, side)
    }

    /// Architecture, stem, head and dimension that this encoder was made with.
    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }

    /// The arithmetic of its convolutions.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Where its weights are and its arithmetic happens.
    pub fn device(&self) -> Device {
        self.parameters.theta().device()
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
        self.network.forward(&self.context(stats), &images.to_kind(self.precision.kind()))
    }

    /// L2-normalised embeddings of features: [batch, width] → float32 [batch, dim].
    pub fn project(&self, features: &Tensor, stats: BatchStats) -> Tensor {
        normalise_rows(&self.head.forward(&self.context(stats), features))
    }

    /// What the head gives before normalisation; with a linear head of one output per class, the
    /// scores of a classifier: [batch, 3, height, width] → float32 [batch, dim].
    pub fn scores(&self, images: &Tensor, stats: BatchStats) -> Tensor {
        self.head.forward(&self.context(stats), &self.features(images, stats))
    }

    /// L2-normalised embeddings of images: [batch, 3, height, width] → float32 [batch, dim].
    pub fn embed(&self, images: &Tensor, stats: BatchStats) -> Tensor {
        self.project(&self.features(images, stats), stats)
    }

    fn context(&self, stats: BatchStats) -> ForwardContext<'_> {
        ForwardContext {
            parameters: &self.parameters,
            conv_plan: &self.conv_plan,
            stats,
            checkpoint_blocks: self.checkpoint_blocks,
        }
    }

    /// As [`Encoder::embed`] with the statistics of the batch, towards which the running ones do not move:
    /// they come back, for [`Parameters::move_statistics`].
    pub fn embed_recorded(&self, images: &Tensor) -> (Tensor, Vec<f64>) {
        let recording = self.parameters.recording();
        let context =
            ForwardContext { parameters: &recording, ..self.context(BatchStats::Recorded) };
        let features = self.network.forward(&context, &images.to_kind(self.precision.kind()));
        let embeddings = normalise_rows(&self.head.forward(&context, &features));
        (embeddings, recording.statistics())
    }

    /// How many groups a batch of so many images has where `splits` are asked for: fewer where a group would
    /// be of one image, which has no variance.
    pub fn groups(images: usize, splits: i64) -> usize {
        (splits as usize).min(images / 2).max(1)
    }

    /// Embeddings with batch statistics over `splits` groups of the batch separately, as on `splits`
    /// GPUs. Groups differ in size by at most one image; [`Encoder::groups`] are made.
    pub fn embed_split(&self, images: &Tensor, splits: i64) -> Tensor {
        let splits = Encoder::groups(images.size()[0] as usize, splits) as i64;
        if splits == 1 {
            return self.embed(images, BatchStats::Batch);
        }
        let groups = images.tensor_split(splits, 0);
        let embedded: Vec<Tensor> =
            groups.iter().map(|x| self.embed(x, BatchStats::Batch)).collect();
        Tensor::cat(&embedded, 0)
    }
}
