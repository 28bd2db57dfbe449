//! Where tensors live and arithmetic happens: the name of a device in, the device out, if this machine
//! has it.

use tch::{Cuda, Device};

/// Why a device that was asked for cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// No device has this name.
    #[error("unknown device \"{0}\": expected auto, cpu, cuda, cuda:N or mps")]
    Unknown(String),
    /// A device that this machine or this libtorch does not have.
    #[error("device \"{name}\" is not there: {reason}; use --device cpu, or auto")]
    Missing {
        /// What was asked for.
        name: String,
        /// Why it is not there.
        reason: String,
    },
}

/// The device called `name`: `auto` (the first GPU, else the CPU), `cpu`, `cuda`, `cuda:N` or
/// `mps`.
///
/// # Errors
/// When there is no such device.
pub fn device(name: &str) -> Result<Device, DeviceError> {
    let missing = |reason: String| DeviceError::Missing { name: name.to_owned(), reason };
    let cuda = |number: usize| match Cuda::device_count() {
        _ if !Cuda::is_available() => {
            Err(missing("no NVIDIA GPU, or libtorch was set up without CUDA".to_owned()))
        }
        count if number as i64 >= count => Err(missing(format!("there are {count} GPUs"))),
        _ => Ok(Device::Cuda(number)),
    };
    match name {
        "auto" if Cuda::is_available() => Ok(Device::Cuda(0)),
        "auto" if tch::utils::has_mps() => Ok(Device::Mps),
        "auto" | "cpu" => Ok(Device::Cpu),
        "cuda" => cuda(0),
        "mps" if tch::utils::has_mps() => Ok(Device::Mps),
        "mps" => Err(missing("libtorch offers Metal on Apple hardware only".to_owned())),
        _ => match name.strip_prefix("cuda:").and_then(|number| number.parse().ok()) {
            Some(number) => cuda(number),
            None => Err(DeviceError::Unknown(name.to_owned())),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_names_are_refused_with_the_known_ones() {
        for name in ["gpu", "cuda:", "cuda:x", ""] {
            assert!(device(name).unwrap_err().to_string().contains("cuda:N"), "{name}");
        }
        assert_eq!(device("cpu").unwrap(), Device::Cpu);
        assert!(device("cuda:999").unwrap_err().to_string().contains("not there"));
    }
}
