//! Crop and resize: Pillow's antialiased bilinear resampling, in its fixed point.
//!
//! Rows are resampled first, then columns, as in every Pillow up to 12, with which the published
//! representations were trained. Pillow 13 turns the order round where the height shrinks more than
//! the width; its pixels then differ from these by one level at most.

use super::Image;
use crate::widest::widest;

/// A rectangle of an image in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CropBox {
    /// First column.
    pub left: usize,
    /// First row.
    pub top: usize,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

impl CropBox {
    /// The whole of an image.
    pub fn whole(image: &Image) -> CropBox {
        CropBox { left: 0, top: 0, width: image.width, height: image.height }
    }
}

/// Resizes parts of images; keeps its working memory between calls.
#[derive(Debug, Default)]
pub struct Resizer {
    horizontal: Taps,
    vertical: Taps,
    /// The needed rows of the box after the horizontal pass.
    rows: Vec<u8>,
    /// One row of the box and a byte.
    padded: Vec<u8>,
    sums: Vec<i32>,
}

impl Resizer {
    /// Resizes the `crop` of `image` to `width` × `height`, into `output`.
    ///
    /// Pixels outside the crop have no influence, as if it had been cut out first (torchvision's
    /// `resized_crop`).
    ///
    /// # Panics
    /// When the crop is empty or reaches outside the image.
    pub fn resize(
        &mut self,
        image: &Image,
        crop: CropBox,
        (width, height): (usize, usize),
        output: &mut Image,
    ) {
        let window = CropBox { left: 0, top: 0, width, height };
        self.resize_window(image, crop, (width, height), window, output);
    }

    /// Resizes `image` so that its short side is `short_side` long and cuts out the central square
    /// of `size` pixels (torchvision's `Resize` and `CenterCrop`).
    ///
    /// Only the pixels of that square are computed.
    ///
    /// # Panics
    /// When the image is empty or `short_side` is less than `size`.
    pub fn resize_and_center_crop(
        &mut self,
        image: &Image,
        short_side: usize,
        size: usize,
        output: &mut Image,
    ) {
        assert!(short_side >= size, "a square of {size} pixels does not fit in {short_side}");
        let shortest = image.width.min(image.height);
        let scaled = |length: usize| short_side * length / shortest;
        let (width, height) = (scaled(image.width), scaled(image.height));
        let centered = |length: usize| ((length - size) as f64 / 2.0).round_ties_even() as usize;
        let window =
            CropBox { left: centered(width), top: centered(height), width: size, height: size };
        self.resize_window(image, CropBox::whole(image), (width, height), window, output);
    }

    /// Computes the `window` of what resizing the `crop` to `width` × `height` would give.
    fn resize_window(
        &mut self,
        image: &Image,
        crop: CropBox,
        (width, height): (usize, usize),
        window: CropBox,
        output: &mut Image,
    ) {
        self.horizontal.compute(crop.width, width, window.left, window.width);
        self.vertical.compute(crop.height, height, window.top, window.height);
        output.width = window.width;
        output.height = window.height;
        let row_bytes = window.width * 3;
        output.pixels.resize(row_bytes * window.height, 0);

        // Rows the vertical pass will look at; the horizontal pass makes no others.
        let first = self.vertical.starts.first().copied().unwrap_or(0);
        let end = self.vertical.starts.last().map_or(0, |start| start + self.vertical.longest);
        let end = end.min(crop.height);
        self.rows.resize(row_bytes * (end - first), 0);
        for (row, y) in self.rows.chunks_exact_mut(row_bytes).zip(first..end) {
            let start = ((crop.top + y) * image.width + crop.left) * 3;
            self.padded.clear();
            self.padded.extend_from_slice(&image.pixels[start..start + crop.width * 3]);
            self.padded.push(0);
            along_row(&self.horizontal, &self.padded, row);
        }

        self.sums.resize(row_bytes, 0);
        for (y, row) in output.pixels.chunks_exact_mut(row_bytes).enumerate() {
            let start = self.vertical.starts[y] - first;
            let weights = self.vertical.weights_of(y);
            along_columns(&self.rows[start * row_bytes..], weights, &mut self.sums, row);
        }
    }
}

widest! {
    /// The horizontal pass on a row of interleaved RGB that has one byte more than its pixels.
    ///
    /// That byte lets every pixel be read as four, which is one vector instead of three numbers.
    fn along_row(taps: &Taps, padded: &[u8], row: &mut [u8]) {
        for (position, output) in row.chunks_exact_mut(3).enumerate() {
            let mut sums = [HALF; 4];
            let pixels = padded[taps.starts[position] * 3..].windows(4).step_by(3);
            for (pixel, &weight) in pixels.zip(taps.weights_of(position)) {
                for (sum, &value) in sums.iter_mut().zip(pixel) {
                    *sum += i32::from(value) * weight;
                }
            }
            let [red, green, blue, _] = sums.map(to_byte);
            output.copy_from_slice(&[red, green, blue]);
        }
    }
}

widest! {
    /// One row of the vertical pass: the weighted sum of the first rows in `rows`.
    fn along_columns(rows: &[u8], weights: &[i32], sums: &mut [i32], row: &mut [u8]) {
        sums.fill(HALF);
        for (source, &weight) in rows.chunks_exact(row.len()).zip(weights) {
            for (sum, &value) in sums.iter_mut().zip(source) {
                *sum += i32::from(value) * weight;
            }
        }
        for (value, &sum) in row.iter_mut().zip(&*sums) {
            *value = to_byte(sum);
        }
    }
}

/// Fractional bits of a weight: 32 less 8 for the value, less 2 so that sums cannot overflow.
const PRECISION: u32 = 32 - 8 - 2;
const HALF: i32 = 1 << (PRECISION - 1);

#[inline(always)]
fn to_byte(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

/// For every output element, the input elements it is made of and their weights.
#[derive(Debug, Default)]
struct Taps {
    /// First input element.
    starts: Vec<usize>,
    /// Number of input elements.
    lengths: Vec<usize>,
    /// `longest` weights for each output element, zero where it has fewer.
    weights: Vec<i32>,
    longest: usize,
    exact: Vec<f64>,
}

impl Taps {
    /// Taps of the output elements `first..first + count` when `input` elements become `output`.
    fn compute(&mut self, input: usize, output: usize, first: usize, count: usize) {
        let scale = input as f64 / output as f64;
        // Shrinking widens the triangle to cover all inputs: that is the antialiasing.
        let support = scale.max(1.0);
        self.longest = (2 * support.ceil() as usize + 1).min(input);
        self.starts.clear();
        self.lengths.clear();
        self.weights.clear();
        for position in first..first + count {
            let center = (position as f64 + 0.5) * scale;
            let start = (center - support + 0.5).max(0.0) as usize;
            let end = ((center + support + 0.5) as usize).min(input);
            let triangle = |element: usize| {
                let distance = (element as f64 - center + 0.5) * (1.0 / support);
                (1.0 - distance.abs()).max(0.0)
            };
            self.exact.clear();
            self.exact.extend((start..end).map(triangle));
            let total: f64 = self.exact.iter().sum();
            self.starts.push(start);
            self.lengths.push(end - start);
            let filled = self.weights.len();
            let one = f64::from(1 << PRECISION);
            self.weights.extend(self.exact.iter().map(|w| (w / total * one + 0.5) as i32));
            self.weights.resize(filled + self.longest, 0);
        }
    }

    /// Weights of an output element, counted from the first computed.
    #[inline(always)]
    fn weights_of(&self, position: usize) -> &[i32] {
        let first = position * self.longest;
        &self.weights[first..first + self.lengths[position]]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An image in which every pixel differs from its neighbours.
    fn textured(width: usize, height: usize) -> Image {
        let pixels = (0..width * height * 3).map(|i| ((i * 2_654_435_761) >> 7) as u8).collect();
        Image { width, height, pixels }
    }

    #[test]
    fn pixels_outside_the_crop_have_no_influence() {
        let image = textured(40, 30);
        let crop = CropBox { left: 7, top: 5, width: 21, height: 16 };
        let mut cut = Image { width: crop.width, height: crop.height, pixels: Vec::new() };
        for y in 0..crop.height {
            let start = ((crop.top + y) * image.width + crop.left) * 3;
            cut.pixels.extend_from_slice(&image.pixels[start..start + crop.width * 3]);
        }
        let (mut inside, mut alone) = (Image::default(), Image::default());
        for size in [(5, 3), (21, 16), (64, 48)] {
            Resizer::default().resize(&image, crop, size, &mut inside);
            Resizer::default().resize(&cut, CropBox::whole(&cut), size, &mut alone);
            assert_eq!(inside, alone, "{size:?}");
        }
    }

    #[test]
    fn resizing_to_the_same_size_changes_nothing() {
        let image = textured(13, 17);
        let mut output = Image::default();
        Resizer::default().resize(&image, CropBox::whole(&image), (13, 17), &mut output);
        assert_eq!(output, image);
    }

    #[test]
    fn memory_kept_between_images_leaves_no_trace() {
        let (large, small) = (textured(90, 70), textured(6, 5));
        let mut used = Resizer::default();
        let (mut output, mut fresh) = (Image::default(), Image::default());
        used.resize(&large, CropBox::whole(&large), (48, 48), &mut output);
        used.resize(&small, CropBox::whole(&small), (9, 8), &mut output);
        Resizer::default().resize(&small, CropBox::whole(&small), (9, 8), &mut fresh);
        assert_eq!(output, fresh);
    }

    #[test]
    fn the_centre_of_a_sliver_is_found_without_resizing_all_of_it() {
        for (width, height) in [(1, 1), (1, 20_000), (20_000, 1), (3, 2)] {
            let image = Image { width, height, pixels: vec![200; width * height * 3] };
            let mut output = Image::default();
            Resizer::default().resize_and_center_crop(&image, 73, 64, &mut output);
            assert_eq!((output.width, output.height), (64, 64));
            assert!(output.pixels.iter().all(|&value| value == 200));
        }
    }
}
