//! Compiles a loop twice and runs the version the processor is best at.
//!
//! Programs are built for the oldest processors of their kind, whose vector units lack the integer
//! multiplication that resampling and blurring live on. The loops themselves stay plain Rust, and
//! both versions compute the same bits: there is no fused multiplication in either.

/// Defines a function whose body is also compiled for AVX2 and picks at run time.
macro_rules! widest {
    ($(#[$attribute:meta])* $visibility:vis fn $name:ident($($argument:ident: $type:ty),* $(,)?) $body:block) => {
        $(#[$attribute])*
        $visibility fn $name($($argument: $type),*) {
            #[inline(always)]
            fn plain($($argument: $type),*) $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2")]
                fn avx2($($argument: $type),*) {
                    plain($($argument),*);
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

pub(super) use widest;
