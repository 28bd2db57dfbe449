//! What decides an encoder's shapes, by the names that people know it by.

protonce_images::names! {
    /// The residual networks of torchvision that the paper and its readers use.
    pub enum Architecture: "architecture" {
        /// Basic blocks, 2-2-2-2.
        ResNet18 = "resnet18",
        /// Basic blocks, 3-4-6-3.
        ResNet34 = "resnet34",
        /// Bottlenecks, 3-4-6-3: the paper's encoder.
        ResNet50 = "resnet50",
        /// Bottlenecks, 3-4-23-3.
        ResNet101 = "resnet101",
        /// Bottlenecks, 3-8-36-3.
        ResNet152 = "resnet152",
        /// ResNet-50 with inner layers twice as wide.
        WideResNet50x2 = "wide_resnet50_2",
        /// ResNet-50 with 32 groups of 4 channels.
        ResNeXt50x32x4d = "resnext50_32x4d",
    }
}

protonce_images::names! {
    /// What happens to the image before the first residual block.
    pub enum Stem: "stem" {
        /// 7×7 convolution of stride 2, then max-pool: for images of about 100 px and more.
        ImageNet = "imagenet",
        /// 3×3 convolution of stride 1, no max-pool: for small images.
        Small = "small",
    }
}

impl Stem {
    /// The stem that suits images of `image_size` pixels a side.
    pub fn for_image_size(image_size: usize) -> Stem {
        if image_size <= 64 { Stem::Small } else { Stem::ImageNet }
    }
}

protonce_images::names! {
    /// The projection from features to embeddings.
    pub enum Head: "head" {
        /// One linear layer (PCL v1).
        Linear = "linear",
        /// Linear, ReLU, linear (PCL v2).
        Mlp = "mlp",
        /// Linear to 2048, batch norm, ReLU, linear (as in SimCLR and MoCo v3).
        MlpBn = "mlp-bn",
        /// None: an embedding is the normalised feature. For weights that came without a head;
        /// nothing is trained like this.
        None = "none",
    }
}

/// Base channels of the published networks.
const PUBLISHED: i64 = 64;

fn published() -> i64 {
    PUBLISHED
}

protonce_images::settings! {
    /// Everything that decides an encoder's shapes.
    #[derive(Eq)]
    pub struct EncoderConfig {
        ["Encoder"]
        /// Encoder. resnet18 learns fastest on small images; the paper uses resnet50.
        arch: Architecture = Architecture::ResNet50;

        /// Channels after the first layer, to which all others are in proportion. 64 is the networks as
        /// published; 32 has a quarter of their weights and work, 128 is SimCLR's "2×".
        #[serde(default = "published")]
        base_channels: i64 = PUBLISHED, shown_as("N"),
            expect("a multiple of 16, from 16 to 1024", |&n| n % 16 == 0 && (16..=1024).contains(&n));

        /// First layers: `small` (3×3, no pooling) keeps small images' detail and is chosen up to
        /// 64 px; `imagenet` costs a sixteenth.
        stem: Stem = Stem::ImageNet;

        /// Projection head; `mlp` gives better features (PCL v2).
        head: Head = Head::Mlp,
            expect("linear, mlp or mlp-bn, to be trained", |&head| head != Head::None);

        /// Length of an embedding.
        dim: i64 = 128, shown_as("N"), positive();
    }
}

impl EncoderConfig {
    /// Length of a feature.
    pub fn width(&self) -> i64 {
        let last = match self.arch {
            Architecture::ResNet18 | Architecture::ResNet34 => 8,
            _ => 32,
        };
        last * self.base_channels
    }

    /// The network in words: its architecture, and its channels where they are not the published ones.
    pub fn network(&self) -> String {
        match self.base_channels {
            PUBLISHED => self.arch.to_string(),
            channels => format!("{} of {channels} base channels", self.arch),
        }
    }
}
