//! A view while it is being made: one plane of samples per channel.

use super::Image;

/// 8-bit samples, one plane per channel, row by row from the top left.
///
/// Operations on a view work on planes, where neighbours in memory are neighbours in the picture.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Planes {
    /// Samples per row.
    pub width: usize,
    /// Rows of a plane.
    pub height: usize,
    /// The red, the green and the blue plane of `height` × `width` bytes each.
    pub samples: Vec<u8>,
}

impl Planes {
    /// The red, green and blue plane.
    pub fn channels(&self) -> [&[u8]; 3] {
        let (red, rest) = self.samples.split_at(self.width * self.height);
        let (green, blue) = rest.split_at(self.width * self.height);
        [red, green, blue]
    }

    /// The red, green and blue plane.
    pub fn channels_mut(&mut self) -> [&mut [u8]; 3] {
        let (red, rest) = self.samples.split_at_mut(self.width * self.height);
        let (green, blue) = rest.split_at_mut(self.width * self.height);
        [red, green, blue]
    }

    /// The same pixels interleaved.
    pub fn to_image(&self) -> Image {
        let [red, green, blue] = self.channels();
        let pixels =
            red.iter().zip(green).zip(blue).flat_map(|((&red, &green), &blue)| [red, green, blue]);
        Image { width: self.width, height: self.height, pixels: pixels.collect() }
    }
}

impl From<&Image> for Planes {
    fn from(image: &Image) -> Planes {
        let channel = |channel| image.pixels.iter().skip(channel).step_by(3).copied();
        let samples = (0..3).flat_map(channel).collect();
        Planes { width: image.width, height: image.height, samples }
    }
}
