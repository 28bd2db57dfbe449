//! Function multiversioning: compiles a plain loop for several vector instruction sets and runs the
//! best version that the processor has.
//!
//! Enters: a function over slices, written as plain Rust. Leaves: the same function, compiled for the
//! build's own target and, on x86-64, for AVX2 and AVX-512 as well; the version is chosen at run time.
//!
//! Programs are built for the oldest processors of their kind, whose vector units are short and lack
//! the integer multiplication that resampling and blurring depend on. The loops themselves stay plain
//! Rust, and all versions compute the same bits: none of them fuses a multiplication with an addition.
//! On aarch64 the one version already has NEON.
//!
//! ```
//! protonce_simd::multiversion! {
//!     /// Adds `other` to `values`, element by element.
//!     fn add(values: &mut [f32], other: &[f32]) {
//!         for (value, other) in values.iter_mut().zip(other) {
//!             *value += other;
//!         }
//!     }
//! }
//!
//! let mut values = [1.0; 100];
//! add(&mut values, &[2.0; 100]);
//! assert_eq!(values, [3.0; 100]);
//! ```
//!
//! The body of the function, and everything marked `#[inline(always)]` that it calls, is compiled once
//! for each instruction set. Other functions that it calls are not, nor are closures passed to iterators:
//! write inner loops as loops. A function may have one type parameter with one bound, and returns
//! nothing.

/// Defines a function whose body is also compiled for AVX2 and AVX-512, and picks at run time.
#[macro_export]
macro_rules! multiversion {
    (
        $(#[$attribute:meta])*
        $visibility:vis fn $name:ident $(<$generic:ident: $bound:ident>)?
        ($($argument:ident: $type:ty),* $(,)?) $body:block
    ) => {
        $(#[$attribute])*
        $visibility fn $name $(<$generic: $bound>)? ($($argument: $type),*) {
            $crate::multiversion! { @versions $(<$generic: $bound>)? ($($argument: $type),*) $body }

            #[cfg(target_arch = "x86_64")]
            {
                if std::arch::is_x86_feature_detected!("avx512f")
                    && std::arch::is_x86_feature_detected!("avx512bw")
                    && std::arch::is_x86_feature_detected!("avx512dq")
                    && std::arch::is_x86_feature_detected!("avx512vl")
                {
                    // SAFETY: `avx512` asks for nothing but the features just found.
                    return unsafe { avx512($($argument),*) };
                }
                if std::arch::is_x86_feature_detected!("avx2") {
                    // SAFETY: `avx2` asks for nothing but the feature just found.
                    return unsafe { avx2($($argument),*) };
                }
            }
            plain($($argument),*);
        }
    };
    // The versions themselves, which the functions above choose from.
    (@versions $(<$generic:ident: $bound:ident>)? ($($argument:ident: $type:ty),*) $body:block) => {
        #[inline(always)]
        fn plain $(<$generic: $bound>)? ($($argument: $type),*) $body

        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
        fn avx512 $(<$generic: $bound>)? ($($argument: $type),*) {
            plain($($argument),*);
        }

        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2")]
        fn avx2 $(<$generic: $bound>)? ($($argument: $type),*) {
            plain($($argument),*);
        }
    };
}

#[cfg(test)]
mod tests {
    /// Defines `$kernel`, and a function that returns its results and those of every version of it
    /// that this processor can run, each for a row of `length` elements.
    macro_rules! kernel_and_versions {
        ($kernel:ident, $versions:ident, ($($argument:ident: $type:ty),*) $body:block) => {
            crate::multiversion! { fn $kernel($($argument: $type),*) $body }

            fn $versions(run: &dyn Fn(fn($($type),*)) -> Vec<u32>) -> Vec<(&'static str, Vec<u32>)> {
                crate::multiversion! { @versions ($($argument: $type),*) $body }
                let mut results = vec![("chosen", run($kernel)), ("plain", run(plain))];
                #[cfg(target_arch = "x86_64")]
                {
                    use std::arch::is_x86_feature_detected as has;
                    if has!("avx2") {
                        // SAFETY: `avx2` asks for nothing but the feature just found.
                        results.push(("avx2", run(|$($argument),*| unsafe { avx2($($argument),*) })));
                    }
                    let found = has!("avx512f") && has!("avx512bw");
                    if found && has!("avx512dq") && has!("avx512vl") {
                        // SAFETY: `avx512` asks for nothing but the features just found.
                        let version = |$($argument: $type),*| unsafe { avx512($($argument),*) };
                        results.push(("avx512", run(version)));
                    }
                }
                results
            }
        };
    }

    // A product and a sum, which a fused instruction would round once instead of twice; a division
    // and a square root; and a sum over the row, whose order decides how it is rounded.
    kernel_and_versions!(floats, versions_of_floats, (values: &mut [f32], other: &[f32]) {
        let mut sum = 0.0;
        for (value, &other) in values.iter_mut().zip(other) {
            *value = *value * other + 0.1 * other;
            *value += (other.abs() / 3.0).sqrt();
            sum += *value;
        }
        if let Some(last) = values.last_mut() {
            *last = sum;
        }
    });

    // Fixed point as in resampling, with sums that wrap around.
    kernel_and_versions!(integers, versions_of_integers, (values: &mut [u32], other: &[u8]) {
        for (value, &other) in values.iter_mut().zip(other) {
            let weighted = value.wrapping_mul(u32::from(other) * 257).wrapping_add(1 << 15) >> 16;
            *value = weighted ^ u32::from(other.saturating_sub(100));
        }
    });

    /// Lengths on both sides of every vector width.
    const LENGTHS: [usize; 9] = [0, 1, 3, 7, 16, 31, 65, 128, 1001];

    fn assert_equal(results: Vec<(&str, Vec<u32>)>) {
        for (version, found) in &results {
            assert!(*found == results[0].1, "{version} differs, row of {}", found.len());
        }
    }

    #[test]
    fn all_versions_of_float_arithmetic_give_the_same_bits() {
        for length in LENGTHS {
            let number = |i: usize| ((i * 2_654_435_761) % 1009) as f32 / 7.0 - 70.0;
            let other: Vec<f32> = (0..length).map(|i| number(i + 17)).collect();
            assert_equal(versions_of_floats(&|version| {
                let mut values: Vec<f32> = (0..length).map(number).collect();
                version(&mut values, &other);
                values.into_iter().map(f32::to_bits).collect()
            }));
        }
    }

    #[test]
    fn all_versions_of_integer_arithmetic_give_the_same_numbers() {
        for length in LENGTHS {
            let number = |i: usize| (i as u32).wrapping_mul(2_654_435_761);
            let other: Vec<u8> = (0..length).map(|i| (number(i + 17) >> 20) as u8).collect();
            assert_equal(versions_of_integers(&|version| {
                let mut values: Vec<u32> = (0..length).map(number).collect();
                version(&mut values, &other);
                values
            }));
        }
    }
}
