//! The loop in which most of the time goes: scores of a tile of rows against a group of centroids, from
//! 8-bit codes.
//!
//! A code product costs an eighth of a float32 product: 32 multiplications per instruction on AVX2
//! (`vpmaddubsw`), summed in 16-bit lanes. Those sums wrap round, on purpose: rows' codes carry an
//! offset of 128 to be unsigned, and the codes of a row and of a centroid are short enough
//! ([`ROW_LENGTH`], [`CENTROID_LENGTH`]) for the sum without the offset to fit in 16 bits, so that
//! taking the offset off again, modulo 2¹⁶, leaves the exact sum.

/// Centroids that are scored together.
pub const GROUP: usize = 64;
/// Rows that are scored together.
pub const TILE: usize = 4;
/// Values of a code that one lane of 32 bits holds.
pub const QUAD: usize = 4;
/// Centroids whose codes alternate within a group: two vectors of AVX2.
const ALTERNATING: usize = 16;

/// Largest magnitude of one value of a row's code; with the offset it fits in 8 bits unsigned.
pub const ROW_LARGEST: f32 = 127.0;
/// Largest magnitude of one value of a centroid's code: a pair of products, 2 · 255 · 63, still fits
/// in 16 bits, where `vpmaddubsw` would saturate.
pub const CENTROID_LARGEST: f32 = 63.0;
/// Largest Euclidean length of either half of a row's code (see [`halves`]); with
/// [`CENTROID_LENGTH`] it bounds every sum by 256 · 127 < 2¹⁵ (Cauchy and Schwarz).
pub const ROW_LENGTH: f32 = 256.0;
/// Largest Euclidean length of either half of a centroid's code.
pub const CENTROID_LENGTH: f32 = 127.0;

/// What is added to the values of a row's code.
const OFFSET: i32 = 128;

/// Squared lengths of the two halves of a code that are summed apart: of every four values the first
/// two, and the last two.
#[inline(always)]
pub fn halves(code: &[f32]) -> [f32; 2] {
    let mut squares = [0f32; QUAD];
    for quad in code.as_chunks::<QUAD>().0 {
        for lane in 0..QUAD {
            squares[lane] += quad[lane] * quad[lane];
        }
    }
    [squares[0] + squares[1], squares[2] + squares[3]]
}

/// The value of a row's code as it is stored.
pub fn row_byte(value: f32) -> u8 {
    (value as i32 + OFFSET) as u8
}

/// The codes of one group of centroids, and what turns products into scores.
pub struct Group {
    /// Codes as the kernel reads them: [4, values / 4, 16 centroids, 4 values].
    codes: Vec<i8>,
    /// What takes the rows' offset off again: [64, 2 halves].
    offsets: Vec<i16>,
    /// What is subtracted from a centroid's product; infinity where a group is not full.
    pub half_squares: [f32; GROUP],
    /// Length of what lies outside the coded dimensions.
    pub tails: [f32; GROUP],
}

impl Group {
    /// A group of the centroids whose codes (of equal length, a multiple of four) are given.
    pub fn new(codes: &[&[i8]], length: usize) -> Group {
        let quads = length / QUAD;
        let mut group = Group {
            codes: vec![0; length * GROUP],
            offsets: vec![0; GROUP * 2],
            half_squares: [f32::INFINITY; GROUP],
            tails: [0.0; GROUP],
        };
        for (lane, code) in codes.iter().enumerate() {
            let (panel, column) = (lane / ALTERNATING, lane % ALTERNATING);
            let places = group.codes[(panel * quads * ALTERNATING + column) * QUAD..]
                .chunks_mut(ALTERNATING * QUAD);
            let mut sums = [0i16; QUAD];
            for (values, place) in code[..length].as_chunks::<QUAD>().0.iter().zip(places) {
                place[..QUAD].copy_from_slice(values);
                for (sum, &value) in sums.iter_mut().zip(values) {
                    *sum = sum.wrapping_add(i16::from(value));
                }
            }
            for (half, sums) in sums.as_chunks::<2>().0.iter().enumerate() {
                let sum = sums[0].wrapping_add(sums[1]);
                group.offsets[lane * 2 + half] = sum.wrapping_mul(-OFFSET as i16);
            }
        }
        group
    }

    /// The scores of [`TILE`] rows against the group: product of codes + tail · tail − half square;
    /// and the largest of each row.
    pub fn scores(
        &self,
        rows: [&[u8]; TILE],
        tails: [f32; TILE],
        scores: &mut [[f32; GROUP]; TILE],
    ) -> [f32; TILE] {
        let quads = self.codes.len() / (GROUP * QUAD);
        assert!(rows.iter().all(|row| row.len() == quads * QUAD));
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has AVX2; every row has `quads` · 4 values, `codes` 256 times
            // `quads` and `offsets` 128, as `new` makes them.
            return unsafe { self.scores_avx2(quads, rows, tails, scores) };
        }
        self.scores_plain(quads, rows, tails, scores)
    }

    fn scores_plain(
        &self,
        quads: usize,
        rows: [&[u8]; TILE],
        tails: [f32; TILE],
        scores: &mut [[f32; GROUP]; TILE],
    ) -> [f32; TILE] {
        std::array::from_fn(|r| {
            for panel in 0..GROUP / ALTERNATING {
                let mut sums = [0i32; ALTERNATING];
                let codes = &self.codes[panel * quads * ALTERNATING * QUAD..];
                for (quad, codes) in codes.chunks_exact(ALTERNATING * QUAD).take(quads).enumerate()
                {
                    for (sum, code) in sums.iter_mut().zip(codes.as_chunks::<QUAD>().0) {
                        for within in 0..QUAD {
                            let value = i32::from(rows[r][quad * QUAD + within]) - OFFSET;
                            *sum += value * i32::from(code[within]);
                        }
                    }
                }
                for (column, sum) in sums.into_iter().enumerate() {
                    let lane = panel * ALTERNATING + column;
                    scores[r][lane] =
                        sum as f32 - self.half_squares[lane] + tails[r] * self.tails[lane];
                }
            }
            scores[r].iter().fold(f32::NEG_INFINITY, |most, &score| most.max(score))
        })
    }

    /// # Safety
    /// The processor has AVX2; every row has `quads` · 4 values, the group was made for as many.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    unsafe fn scores_avx2(
        &self,
        quads: usize,
        rows: [&[u8]; TILE],
        tails: [f32; TILE],
        scores: &mut [[f32; GROUP]; TILE],
    ) -> [f32; TILE] {
        use std::arch::x86_64::*;
        let rows = rows.map(<[u8]>::as_ptr);
        let mut most = [_mm256_set1_ps(f32::NEG_INFINITY); TILE];
        for panel in 0..GROUP / ALTERNATING {
            // SAFETY: 16 centroids of 2 halves a panel.
            let offsets: [__m256i; 2] = std::array::from_fn(|half| unsafe {
                _mm256_loadu_si256(self.offsets.as_ptr().add(panel * 32 + half * 16).cast())
            });
            let mut sums = [offsets; TILE];
            // SAFETY: `quads` times 64 bytes a panel.
            let mut codes = unsafe { self.codes.as_ptr().add(panel * quads * ALTERNATING * QUAD) };
            for quad in 0..quads {
                // SAFETY: as above; rows have 4 bytes a quad, wherever they lie.
                unsafe {
                    let near = _mm256_loadu_si256(codes.cast());
                    let far = _mm256_loadu_si256(codes.add(32).cast());
                    codes = codes.add(64);
                    for r in 0..TILE {
                        let row = rows[r].add(quad * QUAD).cast::<i32>().read_unaligned();
                        let row = _mm256_set1_epi32(row);
                        sums[r][0] = _mm256_add_epi16(sums[r][0], _mm256_maddubs_epi16(row, near));
                        sums[r][1] = _mm256_add_epi16(sums[r][1], _mm256_maddubs_epi16(row, far));
                    }
                }
            }
            let ones = _mm256_set1_epi16(1);
            for half in 0..2 {
                let lane = panel * ALTERNATING + half * 8;
                // SAFETY: 8 of the group's 64 lanes from `lane` on.
                unsafe {
                    let squares = _mm256_loadu_ps(self.half_squares.as_ptr().add(lane));
                    let lengths = _mm256_loadu_ps(self.tails.as_ptr().add(lane));
                    for r in 0..TILE {
                        let product = _mm256_cvtepi32_ps(_mm256_madd_epi16(sums[r][half], ones));
                        let tail = _mm256_mul_ps(_mm256_set1_ps(tails[r]), lengths);
                        let score = _mm256_add_ps(_mm256_sub_ps(product, squares), tail);
                        _mm256_storeu_ps(scores[r].as_mut_ptr().add(lane), score);
                        most[r] = _mm256_max_ps(most[r], score);
                    }
                }
            }
        }
        most.map(|most| {
            let mut lanes = [0f32; 8];
            // SAFETY: 8 lanes.
            unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), most) };
            lanes.into_iter().fold(f32::NEG_INFINITY, f32::max)
        })
    }
}

/// The largest of a group's scores.
#[inline]
pub fn largest(scores: &[f32; GROUP]) -> f32 {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { largest_avx2(scores) };
    }
    scores.iter().fold(f32::NEG_INFINITY, |most, &score| most.max(score))
}

/// The lanes of a group whose score is not below `cut`, one bit each; with a cut that is not a number,
/// all of them.
#[inline]
pub fn not_below(scores: &[f32; GROUP], cut: f32) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { not_below_avx2(scores, cut) };
    }
    let bit = |lane: usize| u64::from(!(scores[lane] < cut)) << lane;
    (0..GROUP).fold(0, |bits, lane| bits | bit(lane))
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
#[inline]
fn largest_avx2(scores: &[f32; GROUP]) -> f32 {
    use std::arch::x86_64::*;
    let mut most = _mm256_set1_ps(f32::NEG_INFINITY);
    for scores in scores.as_chunks::<8>().0 {
        // SAFETY: 8 values.
        most = _mm256_max_ps(most, unsafe { _mm256_loadu_ps(scores.as_ptr()) });
    }
    let most = _mm_max_ps(_mm256_castps256_ps128(most), _mm256_extractf128_ps::<1>(most));
    let most = _mm_max_ps(most, _mm_movehl_ps(most, most));
    _mm_cvtss_f32(_mm_max_ss(most, _mm_movehdup_ps(most)))
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
#[inline]
fn not_below_avx2(scores: &[f32; GROUP], cut: f32) -> u64 {
    use std::arch::x86_64::*;
    let cut = _mm256_set1_ps(cut);
    let mut bits = 0;
    for (place, scores) in scores.as_chunks::<8>().0.iter().enumerate() {
        // SAFETY: 8 values.
        let scores = unsafe { _mm256_loadu_ps(scores.as_ptr()) };
        let lanes = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_NLT_UQ>(scores, cut));
        bits |= u64::from(lanes as u8) << (8 * place);
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};

    #[test]
    fn products_of_the_longest_codes_do_not_wrap() {
        // Some values as large as they may be; in the same direction, and then opposite.
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        for sign in [1.0f32, -1.0] {
            let length = 64;
            let mut code: Vec<f32> =
                (0..length).map(|_| random.random_range(-9.0f32..9.0).round()).collect();
            code[..4].fill(127.0);
            let shrink = |code: &mut Vec<f32>, longest: f32, largest: f32| {
                while halves(code).iter().any(|&square| square > longest * longest)
                    || code.iter().any(|v| v.abs() > largest)
                {
                    code.iter_mut().for_each(|value| *value = (*value * 0.95).trunc());
                }
            };
            let mut centroid: Vec<f32> = code.iter().map(|value| value * sign).collect();
            shrink(&mut code, ROW_LENGTH, ROW_LARGEST);
            shrink(&mut centroid, CENTROID_LENGTH, CENTROID_LARGEST);
            let product: f32 = code.iter().zip(&centroid).map(|(a, b)| a * b).sum();
            let centroid: Vec<i8> = centroid.iter().map(|&value| value as i8).collect();
            let mut group = Group::new(&[centroid.as_slice(); GROUP], length);
            group.half_squares = std::array::from_fn(|lane| lane as f32);
            group.tails = [0.5; GROUP];
            let bytes: Vec<u8> = code.iter().map(|&value| row_byte(value)).collect();
            let mut scores = [[0.0; GROUP]; TILE];
            let most = group.scores([&bytes; TILE], [0.0, 2.0, 4.0, 6.0], &mut scores);
            let mut plain = [[0.0; GROUP]; TILE];
            let quads = length / QUAD;
            let most_plain =
                group.scores_plain(quads, [&bytes; TILE], [0.0, 2.0, 4.0, 6.0], &mut plain);
            for r in 0..TILE {
                for lane in 0..GROUP {
                    assert_eq!(scores[r][lane], product - lane as f32 + r as f32);
                }
                assert_eq!(most[r], product + r as f32);
            }
            assert_eq!((scores, most), (plain, most_plain));
        }
    }
}
