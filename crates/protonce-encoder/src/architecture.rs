//! What tells the architectures apart: the columns of ResNet's table of architectures, and the two
//! numbers by which wide networks and ResNeXt differ from it.

use protonce_run::Architecture;

/// The building block of a network (He et al. 2016, figure 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockKind {
    /// 3×3 → 3×3.
    Basic,
    /// 1×1 → 3×3 → 1×1, of which the last gives four times the channels.
    Bottleneck,
}

/// An architecture as the table gives it.
#[derive(Debug, Clone, Copy)]
pub struct ResNetSpec {
    /// Blocks in each of the four stages (conv2_x to conv5_x; torchvision's layer1 to layer4).
    pub depths: [usize; 4],
    /// What they are built of.
    pub block: BlockKind,
    /// Groups of channels that a bottleneck's 3×3 convolution convolves separately.
    pub groups: i64,
    /// A bottleneck's inner channels per group in the first stage; torchvision's `width_per_group`.
    pub group_width: i64,
}

impl ResNetSpec {
    /// The row of `arch`.
    pub fn of(arch: Architecture) -> ResNetSpec {
        use BlockKind::{Basic, Bottleneck};
        let (depths, block, groups, group_width) = match arch {
            Architecture::ResNet18 => ([2, 2, 2, 2], Basic, 1, 64),
            Architecture::ResNet34 => ([3, 4, 6, 3], Basic, 1, 64),
            Architecture::ResNet50 => ([3, 4, 6, 3], Bottleneck, 1, 64),
            Architecture::ResNet101 => ([3, 4, 23, 3], Bottleneck, 1, 64),
            Architecture::ResNet152 => ([3, 8, 36, 3], Bottleneck, 1, 64),
            Architecture::WideResNet50x2 => ([3, 4, 6, 3], Bottleneck, 1, 128),
            Architecture::ResNeXt50x32x4d => ([3, 4, 6, 3], Bottleneck, 32, 4),
        };
        ResNetSpec { depths, block, groups, group_width }
    }

    /// Channels within and behind a block of `stage`, which is 0 to 3.
    pub fn channels(&self, stage: usize) -> [i64; 2] {
        let base = 64 << stage;
        match self.block {
            BlockKind::Basic => [base, base],
            BlockKind::Bottleneck => [(self.group_width * base / 64) * self.groups, 4 * base],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_stage_gives_features_of_the_width_that_settings_promise() {
        for arch in Architecture::ALL {
            assert_eq!(ResNetSpec::of(arch).channels(3)[1], arch.width(), "{arch}");
        }
    }
}
