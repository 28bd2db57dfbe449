//! The tools that weights are exported for.

use super::WeightsError;

/// A tool that reads what is exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// A state dict for `torchvision.models`.
    Torchvision,
    /// A state dict for `timm.create_model`.
    Timm,
    /// A pickle of numpy arrays under detectron2's names, for `MODEL.WEIGHTS`.
    Detectron2,
    /// The layout of the published PCL and MoCo scripts.
    Pcl,
    /// safetensors under torchvision's names; `Weights::read` gets everything back from it.
    Safetensors,
    /// ONNX, opset 17: images in, features and embedding out.
    Onnx,
}

impl Target {
    /// Every target and its name.
    pub const NAMES: [(&'static str, Target); 6] = [
        ("torchvision", Target::Torchvision),
        ("timm", Target::Timm),
        ("detectron2", Target::Detectron2),
        ("pcl", Target::Pcl),
        ("safetensors", Target::Safetensors),
        ("onnx", Target::Onnx),
    ];
}

impl std::str::FromStr for Target {
    type Err = WeightsError;

    fn from_str(name: &str) -> Result<Target, WeightsError> {
        let found = Target::NAMES.iter().find(|(known, _)| *known == name);
        found.map(|&(_, target)| target).ok_or_else(|| WeightsError::UnknownTarget(name.to_owned()))
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = Target::NAMES.iter().find(|(_, target)| target == self);
        f.write_str(name.map_or("", |(name, _)| name))
    }
}
