//! Crop and resize: Pillow's antialiased bilinear resampling, in its fixed point.
//!
//! Rows are resampled first, then columns, as in every Pillow up to 12, with which the published
//! representations were trained. Pillow 13 reverses the order where the height shrinks more than
//! the width; its pixels then differ from these by one level at most.

use super::{Image, Planes};
use protonce_simd::multiversion;

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

    /// The smallest box that holds two.
    pub fn around(self, other: CropBox) -> CropBox {
        let (left, top) = (self.left.min(other.left), self.top.min(other.top));
        let right = (self.left + self.width).max(other.left + other.width);
        let bottom = (self.top + self.height).max(other.top + other.height);
        CropBox { left, top, width: right - left, height: bottom - top }
    }
}

/// Resizes parts of images; keeps its working memory between calls.
#[derive(Debug, Default)]
pub struct Resizer {
    horizontal: Taps,
    vertical: Taps,
    /// The needed rows of the box after the horizontal pass: the red samples of a row, then its
    /// green and its blue ones.
    rows: Vec<u8>,
    /// A row of the box, where reading a little past its end would leave the image.
    padded: [Vec<u8>; 2],
    /// A row of samples after the vertical pass.
    row: Vec<u8>,
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
        output: &mut Planes,
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
        output: &mut Planes,
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
        output: &mut Planes,
    ) {
        self.horizontal.compute(crop.width, width, window.left, window.width);
        self.horizontal.split();
        self.vertical.compute(crop.height, height, window.top, window.height);
        output.width = window.width;
        output.height = window.height;
        let row_bytes = window.width * 3;
        output.samples.resize(row_bytes * window.height, 0);

        // Rows the vertical pass will look at; the horizontal pass makes no others.
        let first = self.vertical.starts.first().copied().unwrap_or(0);
        let end = self.vertical.starts.last().map_or(0, |start| start + self.vertical.longest);
        let end = end.min(crop.height);
        self.rows.resize(row_bytes * (end - first), 0);
        let mut y = first;
        for rows in self.rows.chunks_mut(2 * row_bytes) {
            // Two rows at a time; a last one alone is its own partner.
            let sources = [y, (y + 1).min(end - 1)];
            let [upper, lower] = &mut self.padded;
            let upper = reachable(image, crop, sources[0], self.horizontal.reach, upper);
            let lower = reachable(image, crop, sources[1], self.horizontal.reach, lower);
            along_rows(&self.horizontal, [upper, lower], rows);
            y += 2;
        }

        self.row.resize(row_bytes, 0);
        let plane = window.width * window.height;
        for y in 0..window.height {
            let start = self.vertical.starts[y] - first;
            let weights = self.vertical.weights_of(y);
            along_columns(&self.rows[start * row_bytes..], row_bytes, weights, &mut self.row);
            for (channel, samples) in self.row.chunks_exact(window.width).enumerate() {
                let to = channel * plane + y * window.width;
                output.samples[to..to + window.width].copy_from_slice(samples);
            }
        }
    }
}

/// Row `y` of a crop and at least `reach` bytes in all, of which those beyond the crop mean nothing.
fn reachable<'a>(
    image: &'a Image,
    crop: CropBox,
    y: usize,
    reach: usize,
    padded: &'a mut Vec<u8>,
) -> &'a [u8] {
    let start = ((crop.top + y) * image.width + crop.left) * 3;
    if let Some(row) = image.pixels.get(start..start + reach.max(crop.width * 3)) {
        return row;
    }
    padded.clear();
    padded.extend_from_slice(&image.pixels[start..start + crop.width * 3]);
    padded.resize(reach.max(crop.width * 3), 0);
    padded
}

/// The horizontal pass on two rows of interleaved pixels, to one or two rows of planes.
fn along_rows(taps: &Taps, sources: [&[u8]; 2], rows: &mut [u8]) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the function asks for nothing but the feature just found.
        let done = unsafe { avx2::along_rows(taps, sources, rows) };
        return along_rows_from(done, taps, sources, rows);
    }
    along_rows_from(0, taps, sources, rows);

    fn along_rows_from(first: usize, taps: &Taps, sources: [&[u8]; 2], rows: &mut [u8]) {
        let width = taps.starts.len();
        for (row, source) in rows.chunks_exact_mut(3 * width).zip(sources) {
            for position in first..width {
                let mut sums = [HALF; 3];
                let pixels = source[taps.starts[position] * 3..].chunks_exact(3);
                for (pixel, &weight) in pixels.zip(taps.weights_of(position)) {
                    for (sum, &value) in sums.iter_mut().zip(pixel) {
                        *sum += i32::from(value) * weight;
                    }
                }
                for (channel, sum) in sums.into_iter().enumerate() {
                    row[channel * width + position] = to_byte(sum);
                }
            }
        }
    }
}

/// Two rows side by side, two taps at a time.
///
/// Weights have more bits than the multiplication of pairs takes, so that each is cut in two and the
/// sums are added at the end.
#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::{HALF, LOW_BITS, PRECISION, Taps};

    /// Output elements made together.
    const BLOCK: usize = 4;

    /// Makes all elements but the few that fill no block; returns how many.
    #[target_feature(enable = "avx2")]
    pub(super) fn along_rows(taps: &Taps, sources: [&[u8]; 2], rows: &mut [u8]) -> usize {
        match taps.pairs {
            1 => along::<1>(taps, sources, rows),
            2 => along::<2>(taps, sources, rows),
            3 => along::<3>(taps, sources, rows),
            _ => along::<0>(taps, sources, rows),
        }
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn along<const PAIRS: usize>(taps: &Taps, sources: [&[u8]; 2], rows: &mut [u8]) -> usize {
        let pairs = if PAIRS == 0 { taps.pairs } else { PAIRS };
        let width = taps.starts.len();
        // Of eight bytes, three channels of two pixels, each a pair of 16-bit numbers.
        let pixels = _mm256_setr_epi8(
            0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1, 0, -1, 3, -1, 1, -1, 4, -1,
            2, -1, 5, -1, -1, -1, -1, -1,
        );
        // Of four pixels of four bytes, four bytes of each channel.
        let channels = _mm256_setr_epi8(
            0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15, 0, 4, 8, 12, 1, 5, 9, 13, 2, 6,
            10, 14, 3, 7, 11, 15,
        );
        let blocks = taps.starts.chunks_exact(BLOCK);
        let weights = taps.split.chunks_exact(BLOCK * pairs);
        for (block, (starts, weights)) in blocks.zip(weights).enumerate() {
            let mut sums = [_mm256_setzero_si256(); BLOCK];
            for (element, sum) in sums.iter_mut().enumerate() {
                let (mut high, mut low) = (_mm256_setzero_si256(), _mm256_set1_epi32(HALF));
                for pair in 0..pairs {
                    let from = (starts[element] + 2 * pair) * 3;
                    let [upper, lower] = sources.map(|source| {
                        let bytes = source[from..].first_chunk::<8>();
                        i64::from_le_bytes(*bytes.unwrap_or(&[0; 8]))
                    });
                    let both = _mm256_setr_epi64x(upper, 0, lower, 0);
                    let both = _mm256_shuffle_epi8(both, pixels);
                    let [weight_high, weight_low] = weights[element * pairs + pair];
                    high = _mm256_add_epi32(
                        high,
                        _mm256_madd_epi16(both, _mm256_set1_epi32(weight_high)),
                    );
                    low = _mm256_add_epi32(
                        low,
                        _mm256_madd_epi16(both, _mm256_set1_epi32(weight_low)),
                    );
                }
                let whole = _mm256_add_epi32(_mm256_slli_epi32::<{ LOW_BITS as i32 }>(high), low);
                *sum = _mm256_srai_epi32::<{ PRECISION as i32 }>(whole);
            }
            let words =
                (_mm256_packs_epi32(sums[0], sums[1]), _mm256_packs_epi32(sums[2], sums[3]));
            let bytes = _mm256_packus_epi16(words.0, words.1);
            let bytes = _mm256_shuffle_epi8(bytes, channels);
            let halves = [_mm256_castsi256_si128(bytes), _mm256_extracti128_si256::<1>(bytes)];
            for (row, half) in rows.chunks_exact_mut(3 * width).zip(halves) {
                let quads = [
                    _mm_extract_epi32::<0>(half),
                    _mm_extract_epi32::<1>(half),
                    _mm_extract_epi32::<2>(half),
                ];
                for (channel, quad) in quads.into_iter().enumerate() {
                    let to = channel * width + block * BLOCK;
                    row[to..to + BLOCK].copy_from_slice(&quad.to_le_bytes());
                }
            }
        }
        width - width % BLOCK
    }
}

multiversion! {
    /// One row of the vertical pass: the weighted sum of the first rows in `rows`.
    fn along_columns(rows: &[u8], row_bytes: usize, weights: &[i32], row: &mut [u8]) {
        // As many sums as fit in registers, over all rows.
        const BLOCK: usize = 32;
        let mut blocks = row.chunks_exact_mut(BLOCK);
        let mut from = 0;
        for block in &mut blocks {
            let mut sums = [HALF; BLOCK];
            for (tap, &weight) in weights.iter().enumerate() {
                let source = &rows[tap * row_bytes + from..][..BLOCK];
                for x in 0..BLOCK {
                    sums[x] += i32::from(source[x]) * weight;
                }
            }
            for x in 0..BLOCK {
                block[x] = to_byte(sums[x]);
            }
            from += BLOCK;
        }
        for value in blocks.into_remainder() {
            let samples = rows[from..].iter().step_by(row_bytes);
            let sum: i32 = samples.zip(weights).map(|(&v, &weight)| i32::from(v) * weight).sum();
            *value = to_byte(HALF + sum);
            from += 1;
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
    /// The same weights in pairs, as many for every element, each in two 16-bit halves of two
    /// numbers: the upper bits of both, then the [`LOW_BITS`] lowest of both.
    split: Vec<[i32; 2]>,
    pairs: usize,
    /// Bytes of a row of pixels that are read eight at a time, two pixels per step.
    reach: usize,
}

/// Bits of a weight's lower part.
const LOW_BITS: u32 = 11;

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

    /// Prepares for [`along_rows`].
    fn split(&mut self) {
        self.split.clear();
        self.pairs = self.lengths.iter().max().map_or(0, |longest| longest.div_ceil(2));
        for weights in self.weights.chunks_exact(self.longest) {
            for pair in 0..self.pairs {
                let weight = |tap: usize| weights.get(tap).copied().unwrap_or(0);
                let (even, odd) = (weight(2 * pair), weight(2 * pair + 1));
                let low = |weight: i32| weight & ((1 << LOW_BITS) - 1);
                let high = |weight: i32| weight >> LOW_BITS;
                self.split.push([high(even) | high(odd) << 16, low(even) | low(odd) << 16]);
            }
        }
        let last = self.starts.iter().max().copied().unwrap_or(0);
        self.reach = (last + 2 * self.pairs) * 3 + 2;
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
        let (mut inside, mut alone) = (Planes::default(), Planes::default());
        for size in [(5, 3), (21, 16), (64, 48)] {
            Resizer::default().resize(&image, crop, size, &mut inside);
            Resizer::default().resize(&cut, CropBox::whole(&cut), size, &mut alone);
            assert_eq!(inside, alone, "{size:?}");
        }
    }

    #[test]
    fn resizing_to_the_same_size_changes_nothing() {
        let image = textured(13, 17);
        let mut output = Planes::default();
        Resizer::default().resize(&image, CropBox::whole(&image), (13, 17), &mut output);
        assert_eq!(output.to_image(), image);
    }

    #[test]
    fn memory_kept_between_images_leaves_no_trace() {
        let (large, small) = (textured(90, 70), textured(6, 5));
        let mut used = Resizer::default();
        let (mut output, mut fresh) = (Planes::default(), Planes::default());
        used.resize(&large, CropBox::whole(&large), (48, 48), &mut output);
        used.resize(&small, CropBox::whole(&small), (9, 8), &mut output);
        Resizer::default().resize(&small, CropBox::whole(&small), (9, 8), &mut fresh);
        assert_eq!(output, fresh);
    }

    #[test]
    fn the_centre_of_a_sliver_is_found_without_resizing_all_of_it() {
        for (width, height) in [(1, 1), (1, 20_000), (20_000, 1), (3, 2)] {
            let image = Image { width, height, pixels: vec![200; width * height * 3] };
            let mut output = Planes::default();
            Resizer::default().resize_and_center_crop(&image, 73, 64, &mut output);
            assert_eq!((output.width, output.height), (64, 64));
            assert!(output.samples.iter().all(|&value| value == 200));
        }
    }
}
