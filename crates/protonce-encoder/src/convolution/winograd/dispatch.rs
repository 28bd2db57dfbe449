//! Functions compiled for AVX2 with fused multiplication as well as for any processor.
//!
//! [`protonce_simd::multiversion`] never fuses a multiplication with an addition, so that all its
//! versions compute the same bits. The products here are written with `mul_add`, which is fused
//! everywhere: one instruction where the processor has it, a slow library call to the same bits where
//! it has not.

/// Defines a function that is also compiled for AVX2 with fused multiplication, and picks at run
/// time. What it calls must be `#[inline(always)]` to be compiled with it.
macro_rules! fused {
    ($(#[$attribute:meta])* fn $name:ident($($argument:ident: $type:ty),* $(,)?) $body:block) => {
        $(#[$attribute])*
        fn $name($($argument: $type),*) {
            #[inline(always)]
            fn plain($($argument: $type),*) $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($argument: $type),*) {
                    plain($($argument),*);
                }
                if $crate::convolution::winograd::dispatch::processor_suits() {
                    // SAFETY: `avx2` asks for nothing but the features just found.
                    return unsafe { avx2($($argument),*) };
                }
            }
            plain($($argument),*);
        }
    };
}

/// Whether the processor has what this was written for. Elsewhere it computes the same, slowly.
pub(super) fn processor_suits() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

pub(super) use fused;
