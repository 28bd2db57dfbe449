//! The shape of a convolution: everything that its speed depends on, and its three passes.

use tch::{Kind, Tensor};

/// Everything that the speed of a convolution without bias and dilation depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvShape {
    /// Precision of images, weight and result.
    pub kind: Kind,
    /// Images.
    pub images: i64,
    /// Channels of an image.
    pub inputs: i64,
    /// Height of an image.
    pub height: i64,
    /// Width of an image.
    pub width: i64,
    /// Channels of the result.
    pub outputs: i64,
    /// Taps along a side.
    pub size: i64,
    /// Pixels from one tap position to the next.
    pub stride: i64,
    /// Zeros around an image.
    pub padding: i64,
    /// Groups of channels that are convolved separately.
    pub groups: i64,
}

impl ConvShape {
    /// The shape of the convolution of `x` [n, in, h, w] with `weight` [out, in / groups, size, size].
    pub fn of(x: &Tensor, weight: &Tensor, [stride, padding, groups]: [i64; 3]) -> ConvShape {
        let (x_size, weight_size) = (x.size(), weight.size());
        ConvShape {
            kind: x.kind(),
            images: x_size[0],
            inputs: x_size[1],
            height: x_size[2],
            width: x_size[3],
            outputs: weight_size[0],
            size: weight_size[2],
            stride,
            padding,
            groups,
        }
    }

    /// Stride, padding and groups.
    pub(super) fn geometry(&self) -> [i64; 3] {
        [self.stride, self.padding, self.groups]
    }

    /// Height and width of the result.
    pub fn result(&self) -> [i64; 2] {
        [self.height, self.width]
            .map(|side| (side + 2 * self.padding - self.size) / self.stride + 1)
    }

    /// Additions and multiplications of a pass by the direct method.
    pub fn operations(&self) -> f64 {
        let [height, width] = self.result();
        let taps = self.size * self.size * self.inputs / self.groups;
        2.0 * (self.images * height * width) as f64 * (self.outputs * taps) as f64
    }

    /// Whether each pixel of the result depends on one pixel alone.
    pub(super) fn is_pointwise(&self) -> bool {
        [self.size, self.stride, self.padding] == [1, 1, 0]
    }
}

/// Without the number of images, which is the batch's rather than the layer's.
impl std::fmt::Display for ConvShape {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ConvShape { kind, inputs, height, width, outputs, size, stride, groups, .. } = self;
        let kind = if *kind == Kind::BFloat16 { "bf16" } else { "float32" };
        write!(
            formatter,
            "{inputs}@{height}x{width} to {outputs}, {size}x{size} / {stride}, groups {groups}, {kind}"
        )
    }
}

/// What is computed of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// The result.
    Forward,
    /// From the result's gradient to that of the images.
    InputGradient,
    /// From images and the result's gradient to that of the weight.
    WeightGradient,
}

impl Pass {
    /// Every pass.
    pub const ALL: [Pass; 3] = [Pass::Forward, Pass::InputGradient, Pass::WeightGradient];
}
