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

impl Architecture {
    /// Length of a feature.
    pub fn width(self) -> i64 {
        match self {
            Architecture::ResNet18 | Architecture::ResNet34 => 512,
            _ => 2048,
        }
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

protonce_images::settings! {
    /// Everything that decides an encoder's shapes.
    #[derive(Eq)]
    pub struct EncoderConfig {
        ["Encoder"]
        /// Encoder. resnet18 learns fastest on small images; the paper uses resnet50.
        arch: Architecture = Architecture::ResNet50;

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
