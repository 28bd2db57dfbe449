//! The arithmetic of an encoder, and which one a device computes fastest.

use tch::{Device, Kind};

/// The arithmetic of convolutions and activations. Everything else is float32 in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// float32 throughout.
    Float32,
    /// Activations and convolution weights in bf16; statistics, heads, losses in float32.
    BFloat16,
}

impl Precision {
    /// bf16 where `device` multiplies it in hardware, float32 elsewhere.
    pub fn fastest_on(device: Device) -> Precision {
        match device {
            Device::Cuda(_) => Precision::BFloat16,
            Device::Cpu if cpu_multiplies_bf16() => Precision::BFloat16,
            _ => Precision::Float32,
        }
    }

    /// libtorch's name for the numbers that activations and convolution weights are held in.
    pub(crate) fn kind(self) -> Kind {
        match self {
            Precision::Float32 => Kind::Float,
            Precision::BFloat16 => Kind::BFloat16,
        }
    }
}

/// Whether the processor has AMX tiles or AVX-512 dot products for bf16.
#[cfg(target_arch = "x86_64")]
fn cpu_multiplies_bf16() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    if !std::arch::is_x86_feature_detected!("avx512f") || __cpuid(0).eax < 7 {
        return false;
    }
    // Intel SDM vol. 2, CPUID leaf 7: AMX-BF16 is EDX bit 22 of subleaf 0, AVX512_BF16 is EAX
    // bit 5 of subleaf 1.
    let amx = __cpuid_count(7, 0).edx & (1 << 22) != 0;
    let avx512 = __cpuid_count(7, 1).eax & (1 << 5) != 0;
    amx || avx512
}

/// Whether the processor has bf16 instructions.
#[cfg(target_arch = "aarch64")]
fn cpu_multiplies_bf16() -> bool {
    std::arch::is_aarch64_feature_detected!("bf16")
}

/// No bf16 instructions of this processor are known.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn cpu_multiplies_bf16() -> bool {
    false
}
