//! The distance between two vectors: what "nearest" means, to the bit.

/// Partial sums of [`squared_distance`].
const SUMS: usize = 16;

/// ‖a − b‖² in float32: what "nearest" means. Sixteen partial sums, each in order, added in pairs;
/// without fused multiplications, so that every processor computes the same bits.
#[inline(always)]
pub fn squared_distance(a: &[f32], b: &[f32]) -> f32 {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { squared_distance_avx2(a, b) };
    }
    squared_distance_plain(a, b)
}

fn squared_distance_plain(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0f32; SUMS];
    for (a, b) in a.chunks(SUMS).zip(b.chunks(SUMS)) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            let offset = a - b;
            *sum += offset * offset;
        }
    }
    let eight: [f32; 8] = std::array::from_fn(|lane| sums[lane] + sums[lane + 8]);
    let four: [f32; 4] = std::array::from_fn(|lane| eight[lane] + eight[lane + 4]);
    (four[0] + four[2]) + (four[1] + four[3])
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
#[inline]
fn squared_distance_avx2(a: &[f32], b: &[f32]) -> f32 {
    use std::arch::x86_64::*;
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<SUMS>(), b.as_chunks::<SUMS>());
    let mut low = _mm256_setzero_ps();
    let mut high = _mm256_setzero_ps();
    let mut add = |a: &[f32; SUMS], b: &[f32; SUMS]| {
        // SAFETY: 16 values each.
        let [offset_low, offset_high] = [0, 8].map(|first| unsafe {
            let a = _mm256_loadu_ps(a.as_ptr().add(first));
            _mm256_sub_ps(a, _mm256_loadu_ps(b.as_ptr().add(first)))
        });
        low = _mm256_add_ps(low, _mm256_mul_ps(offset_low, offset_low));
        high = _mm256_add_ps(high, _mm256_mul_ps(offset_high, offset_high));
    };
    for (a, b) in a.iter().zip(b) {
        add(a, b);
    }
    if !a_rest.is_empty() {
        // Zeros add zeros, which changes no sum of squares.
        let [a, b] = [a_rest, b_rest].map(|rest| {
            let mut padded = [0f32; SUMS];
            padded[..rest.len()].copy_from_slice(rest);
            padded
        });
        add(&a, &b);
    }
    let eight = _mm256_add_ps(low, high);
    let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
}

/// Has a row brought nearer that will be read soon.
#[inline(always)]
pub fn prefetch(row: &[f32]) {
    #[cfg(target_arch = "x86_64")]
    for line in row.chunks(16) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: every x86-64 has the instruction, and it only looks at the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
}

/// A bound on the relative error of [`squared_distance`] in `dim` dimensions: one rounding each for
/// difference (which counts twice), square, and every sum that a term goes through.
pub fn distance_error(dim: usize) -> f64 {
    (dim as f64 / 16.0 + 9.0) * f64::from(f32::EPSILON)
}

/// The Euclidean length of a vector.
pub fn length(vector: &[f32]) -> f64 {
    vector.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt()
}

/// Gives a vector the length 1; zeros stay zeros.
pub fn normalise(vector: &mut [f32]) {
    let length = length(vector);
    if length > 0.0 {
        vector.iter_mut().for_each(|value| *value = (f64::from(*value) / length) as f32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};

    #[test]
    fn distances_are_as_exact_as_promised() {
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(2);
        for dim in [1, 3, 16, 17, 100, 128, 1000] {
            let mut vector =
                || -> Vec<f32> { (0..dim).map(|_| random.random_range(-1.0..1.0)).collect() };
            let (a, b) = (vector(), vector());
            let exact: f64 =
                a.iter().zip(&b).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum();
            assert_eq!(squared_distance(&a, &b), squared_distance_plain(&a, &b), "{dim}");
            let found = f64::from(squared_distance(&a, &b));
            assert!((found - exact).abs() <= distance_error(dim) * exact, "{dim}: {found} {exact}");
        }
    }
}
