//! What tells the architectures apart: the columns of ResNet's table of architectures, and the two
//! numbers by which wide networks and ResNeXt differ from it.

use protonce_run::{Architecture, EncoderConfig};

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
    /// Channels of the stem, and of the first stage before any bottleneck widens them.
    pub base_channels: i64,
}

impl ResNetSpec {
    /// The row of `config.arch`, with as many channels as it asks for.
    pub fn of(config: &EncoderConfig) -> ResNetSpec {
        use BlockKind::{Basic, Bottleneck};
        let (depths, block, groups, group_width) = match config.arch {
            Architecture::ResNet18 => ([2, 2, 2, 2], Basic, 1, 64),
            Architecture::ResNet34 => ([3, 4, 6, 3], Basic, 1, 64),
            Architecture::ResNet50 => ([3, 4, 6, 3], Bottleneck, 1, 64),
            Architecture::ResNet101 => ([3, 4, 23, 3], Bottleneck, 1, 64),
            Architecture::ResNet152 => ([3, 8, 36, 3], Bottleneck, 1, 64),
            Architecture::WideResNet50x2 => ([3, 4, 6, 3], Bottleneck, 1, 128),
            Architecture::ResNeXt50x32x4d => ([3, 4, 6, 3], Bottleneck, 32, 4),
        };
        ResNetSpec { depths, block, groups, group_width, base_channels: config.base_channels }
    }

    /// Channels within and behind a block of `stage`, which is 0 to 3.
    pub fn channels(&self, stage: usize) -> [i64; 2] {
        let base = self.base_channels << stage;
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
            for base_channels in [16, 64, 80] {
                let config = EncoderConfig { arch, base_channels, ..Default::default() };
                let spec = ResNetSpec::of(&config);
                assert_eq!(spec.channels(3)[1], config.width(), "{arch}");
                let [inner, _] = spec.channels(0);
                assert!(inner > 0 && inner % spec.groups == 0, "{arch}");
            }
        }
    }
}
