//! What decides an encoder's shapes, by the names that people know it by.

use serde::{Deserialize, Serialize};

/// A name that is none of the known ones.
#[derive(Debug, thiserror::Error)]
#[error("unknown {what} \"{name}\": expected one of {expected}")]
pub struct UnknownName {
    /// What was being named.
    pub what: &'static str,
    /// What was typed.
    pub name: String,
    /// The names that exist.
    pub expected: String,
}

/// The residual networks of torchvision that the paper and its readers use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Architecture {
    /// Basic blocks, 2-2-2-2.
    ResNet18,
    /// Basic blocks, 3-4-6-3.
    ResNet34,
    /// Bottlenecks, 3-4-6-3: the paper's encoder.
    ResNet50,
    /// Bottlenecks, 3-4-23-3.
    ResNet101,
    /// Bottlenecks, 3-8-36-3.
    ResNet152,
    /// ResNet-50 with inner layers twice as wide.
    WideResNet50x2,
    /// ResNet-50 with 32 groups of 4 channels.
    ResNeXt50x32x4d,
}

impl Architecture {
    const NAMES: [(&'static str, Architecture); 7] = [
        ("resnet18", Architecture::ResNet18),
        ("resnet34", Architecture::ResNet34),
        ("resnet50", Architecture::ResNet50),
        ("resnet101", Architecture::ResNet101),
        ("resnet152", Architecture::ResNet152),
        ("wide_resnet50_2", Architecture::WideResNet50x2),
        ("resnext50_32x4d", Architecture::ResNeXt50x32x4d),
    ];

    /// Every architecture.
    pub const ALL: [Architecture; 7] = [
        Architecture::ResNet18,
        Architecture::ResNet34,
        Architecture::ResNet50,
        Architecture::ResNet101,
        Architecture::ResNet152,
        Architecture::WideResNet50x2,
        Architecture::ResNeXt50x32x4d,
    ];

    /// Length of a feature.
    pub fn width(self) -> i64 {
        match self {
            Architecture::ResNet18 | Architecture::ResNet34 => 512,
            _ => 2048,
        }
    }
}

/// What happens to the image before the first residual block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Stem {
    /// 7×7 convolution of stride 2, then max-pool: for images of about 100 px and more.
    ImageNet,
    /// 3×3 convolution of stride 1, no max-pool: for small images.
    Small,
}

impl Stem {
    const NAMES: [(&'static str, Stem); 2] = [("imagenet", Stem::ImageNet), ("small", Stem::Small)];

    /// The stem that suits images of `image_size` pixels a side.
    pub fn for_image_size(image_size: usize) -> Stem {
        if image_size <= 64 { Stem::Small } else { Stem::ImageNet }
    }
}

/// The projection from features to embeddings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Head {
    /// One linear layer (PCL v1).
    Linear,
    /// Linear, ReLU, linear (PCL v2).
    Mlp,
    /// None: an embedding is the normalised feature. For weights that came without a head; nothing is
    /// trained so.
    None,
}

impl Head {
    const NAMES: [(&'static str, Head); 3] =
        [("linear", Head::Linear), ("mlp", Head::Mlp), ("none", Head::None)];
}

/// Gives an enum whose variants have names the string conversions that the command line, TOML
/// and JSON share.
macro_rules! named {
    ($type:ident, $what:literal) => {
        impl std::str::FromStr for $type {
            type Err = UnknownName;
            fn from_str(name: &str) -> Result<Self, UnknownName> {
                match Self::NAMES.iter().find(|(known, _)| *known == name) {
                    Some((_, value)) => Ok(*value),
                    None => Err(UnknownName {
                        what: $what,
                        name: name.to_owned(),
                        expected: Self::NAMES.map(|(known, _)| known).join(", "),
                    }),
                }
            }
        }
        impl TryFrom<String> for $type {
            type Error = UnknownName;
            fn try_from(name: String) -> Result<Self, UnknownName> {
                name.parse()
            }
        }
        impl From<$type> for String {
            fn from(value: $type) -> String {
                value.to_string()
            }
        }
        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let name = Self::NAMES.iter().find(|(_, value)| value == self);
                f.write_str(name.map_or("", |(name, _)| name))
            }
        }
    };
}
named!(Architecture, "architecture");
named!(Stem, "stem");
named!(Head, "head");

/// Everything that decides an encoder's shapes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EncoderConfig {
    /// The residual network.
    pub arch: Architecture,
    /// Its first layers.
    pub stem: Stem,
    /// The projection head.
    pub head: Head,
    /// Length of an embedding.
    pub dim: i64,
}
