//! Coefficients of a block → its 8 × 8 samples: the inverse cosine transform.
//!
//! Source: Loeffler, Ligtenberg, Moschytz, "Practical Fast 1-D DCT Algorithms with 11
//! Multiplications" (1989), in the fixed point of libjpeg's slow integer transform.

use std::num::Wrapping;

/// Where the coefficients lie in a block, row by row, in the order in which they are coded.
pub(super) const NATURAL_ORDER: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20,
    13, 6, 7, 14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59,
    52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// Fractional bits of the constants, and of what the first pass leaves for the second.
const CONSTANT: u32 = 13;
const BETWEEN: u32 = 2;

/// Transforms a block whose last coefficient is at zigzag position `last`, and leaves it zeroed.
///
/// `output` begins at the block's first sample; its rows are `stride` apart.
pub(super) fn inverse_transform(
    block: &mut [i16; 64],
    last: usize,
    output: &mut [u8],
    stride: usize,
) {
    if last == 0 {
        // All samples are the mean. The two passes round it as one.
        let mean = (i32::from(block[0]) * (1 << BETWEEN) + (1 << (BETWEEN + 2))) >> (BETWEEN + 3);
        let sample = (mean + 128).clamp(0, 255) as u8;
        for row in output.chunks_mut(stride).take(8) {
            row[..8].fill(sample);
        }
        block[0] = 0;
        return;
    }
    transform(block, output, stride);
    block.fill(0);
}

/// Eight numbers that are computed side by side.
type Lanes = [i32; 8];

fn transform(block: &[i16; 64], output: &mut [u8], stride: usize) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the function asks for nothing but the feature just found.
        return unsafe { avx2::transform(block, output, stride) };
    }
    let turned = transpose(&columns(block));
    let samples = transpose(&one_dimension(&turned, CONSTANT + BETWEEN + 3));
    for (row, lanes) in output.chunks_mut(stride).zip(samples) {
        for (sample, lane) in row.iter_mut().zip(lanes) {
            *sample = (lane + 128).clamp(0, 255) as u8;
        }
    }
}

/// The first pass: all eight columns side by side.
#[inline(always)]
fn columns(block: &[i16; 64]) -> [Lanes; 8] {
    let rows: [Lanes; 8] =
        std::array::from_fn(|y| std::array::from_fn(|x| block[y * 8 + x].into()));
    one_dimension(&rows, CONSTANT - BETWEEN)
}

fn transpose(rows: &[Lanes; 8]) -> [Lanes; 8] {
    std::array::from_fn(|y| std::array::from_fn(|x| rows[x][y]))
}

/// The same arithmetic with transpositions written by hand, for which compilers find no shuffles.
#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::{BETWEEN, CONSTANT, Lanes, columns, one_dimension};

    #[target_feature(enable = "avx2")]
    pub(super) fn transform(block: &[i16; 64], output: &mut [u8], stride: usize) {
        let turned = transpose(&columns(block));
        let samples = one_dimension(&turned, CONSTANT + BETWEEN + 3);
        // Eight vectors of columns, their lanes the rows.
        let [a, b, c, d, e, f, g, h] = samples.each_ref().map(|lanes| load(lanes));
        let half = |a, b, c, d| {
            let words = (_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
            let centre = _mm256_set1_epi16(128);
            let words = (_mm256_adds_epi16(words.0, centre), _mm256_adds_epi16(words.1, centre));
            // In each half four bytes of each of four columns; turned into four of each row.
            let bytes = _mm256_packus_epi16(words.0, words.1);
            let rows = _mm256_setr_epi8(
                0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15, 0, 4, 8, 12, 1, 5, 9, 13, 2,
                6, 10, 14, 3, 7, 11, 15,
            );
            _mm256_shuffle_epi8(bytes, rows)
        };
        let (left, right) = (half(a, b, c, d), half(e, f, g, h));
        let upper = _mm256_unpacklo_epi32(left, right);
        let lower = _mm256_unpackhi_epi32(left, right);
        let order = [
            _mm256_extract_epi64::<0>(upper),
            _mm256_extract_epi64::<1>(upper),
            _mm256_extract_epi64::<0>(lower),
            _mm256_extract_epi64::<1>(lower),
            _mm256_extract_epi64::<2>(upper),
            _mm256_extract_epi64::<3>(upper),
            _mm256_extract_epi64::<2>(lower),
            _mm256_extract_epi64::<3>(lower),
        ];
        for (row, samples) in output.chunks_mut(stride).zip(order) {
            row[..8].copy_from_slice(&samples.to_le_bytes());
        }
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn load(lanes: &Lanes) -> __m256i {
        // SAFETY: a reference to 32 bytes; the instruction asks for no alignment.
        unsafe { _mm256_loadu_si256(lanes.as_ptr().cast()) }
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn transpose(rows: &[Lanes; 8]) -> [Lanes; 8] {
        let [a, b, c, d, e, f, g, h] = rows.each_ref().map(|lanes| load(lanes));
        let pairs = [(a, b), (c, d), (e, f), (g, h)];
        let [ab, cd, ef, gh] =
            pairs.map(|(x, y)| (_mm256_unpacklo_epi32(x, y), _mm256_unpackhi_epi32(x, y)));
        let quads = |x: (__m256i, __m256i), y: (__m256i, __m256i)| {
            [
                _mm256_unpacklo_epi64(x.0, y.0),
                _mm256_unpackhi_epi64(x.0, y.0),
                _mm256_unpacklo_epi64(x.1, y.1),
                _mm256_unpackhi_epi64(x.1, y.1),
            ]
        };
        let (upper, lower) = (quads(ab, cd), quads(ef, gh));
        let mut turned = [[0; 8]; 8];
        for row in 0..4 {
            let first = _mm256_permute2x128_si256::<0x20>(upper[row], lower[row]);
            let second = _mm256_permute2x128_si256::<0x31>(upper[row], lower[row]);
            // SAFETY: as for loading.
            unsafe {
                _mm256_storeu_si256(turned[row].as_mut_ptr().cast(), first);
                _mm256_storeu_si256(turned[row + 4].as_mut_ptr().cast(), second);
            }
        }
        turned
    }
}

/// The transform of eight vectors, lane by lane, less `shift` bits.
///
/// Coefficients that no encoder writes wrap around: of a damaged file any samples will do.
#[inline(always)]
fn one_dimension(input: &[Lanes; 8], shift: u32) -> [Lanes; 8] {
    let mut output = [[0; 8]; 8];
    for lane in 0..8 {
        let [in0, in1, in2, in3, in4, in5, in6, in7] =
            std::array::from_fn(|i| Wrapping(input[i][lane]));
        // Even part.
        let z1 = (in2 + in6) * Wrapping(4433);
        let tmp2 = z1 - in6 * Wrapping(15137);
        let tmp3 = z1 + in2 * Wrapping(6270);
        let tmp0 = (in0 + in4) << CONSTANT as usize;
        let tmp1 = (in0 - in4) << CONSTANT as usize;
        let half = Wrapping(1 << (shift - 1));
        let (tmp10, tmp13) = (tmp0 + tmp3 + half, tmp0 - tmp3 + half);
        let (tmp11, tmp12) = (tmp1 + tmp2 + half, tmp1 - tmp2 + half);
        // Odd part.
        let (z1, z2, z3, z4) = (in7 + in1, in5 + in3, in7 + in3, in5 + in1);
        let z5 = (z3 + z4) * Wrapping(9633);
        let (z1, z2) = (z1 * Wrapping(-7373), z2 * Wrapping(-20995));
        let (z3, z4) = (z3 * Wrapping(-16069) + z5, z4 * Wrapping(-3196) + z5);
        let tmp0 = in7 * Wrapping(2446) + z1 + z3;
        let tmp1 = in5 * Wrapping(16819) + z2 + z4;
        let tmp2 = in3 * Wrapping(25172) + z2 + z3;
        let tmp3 = in1 * Wrapping(12299) + z1 + z4;
        let sums = [
            tmp10 + tmp3,
            tmp11 + tmp2,
            tmp12 + tmp1,
            tmp13 + tmp0,
            tmp13 - tmp0,
            tmp12 - tmp1,
            tmp11 - tmp2,
            tmp10 - tmp3,
        ];
        for (output, sum) in output.iter_mut().zip(sums) {
            output[lane] = sum.0 >> shift;
        }
    }
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coefficients_that_no_encoder_writes_become_some_samples() {
        for value in [i16::MIN, -8192, 8192, i16::MAX] {
            let mut samples = [0; 64];
            let mut block = [value; 64];
            inverse_transform(&mut block, 63, &mut samples, 8);
            assert_eq!(block, [0; 64]);
            let alternating =
                std::array::from_fn(|i| if i % 2 == 0 { value } else { -(value / 2) });
            inverse_transform(&mut { alternating }, 63, &mut samples, 8);
        }
    }
}
