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
//! for each instruction set. What it calls otherwise is not, closures passed to iterators included:
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
            #[inline(always)]
            fn plain $(<$generic: $bound>)? ($($argument: $type),*) $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
                fn avx512 $(<$generic: $bound>)? ($($argument: $type),*) {
                    plain($($argument),*);
                }
                #[target_feature(enable = "avx2")]
                fn avx2 $(<$generic: $bound>)? ($($argument: $type),*) {
                    plain($($argument),*);
                }
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
}
