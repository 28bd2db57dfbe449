//! detectron2's names of a ResNet's tensors, and torchvision's.

/// torchvision's name for detectron2's `stem.conv1.norm.weight`, `res2.0.shortcut.weight` and so on;
/// any other name as it is.
pub(super) fn torchvision_name(name: &str) -> String {
    let (prefix, own) = match name.strip_prefix("backbone.bottom_up.") {
        Some(own) => ("", own),
        None => ("", name),
    };
    let own = if let Some(own) = own.strip_prefix("stem.conv1.") {
        format!("conv1.{own}")
    } else if let Some((stage, rest)) =
        own.strip_prefix("res").and_then(|rest| rest.split_once('.'))
        && let Ok(stage @ 2..=5) = stage.parse::<usize>()
    {
        format!("layer{}.{rest}", stage - 1)
    } else {
        return name.to_owned();
    };
    let own = own.replace("shortcut.norm.", "downsample.1.").replace("shortcut.", "downsample.0.");
    let own = (1..=3).fold(own, |own, number| {
        own.replace(&format!("conv{number}.norm."), &format!("bn{number}."))
    });
    format!("{prefix}{own}")
}

/// detectron2's name for a tensor of torchvision's backbone; none for the head.
pub(super) fn detectron2_name(name: &str) -> Option<String> {
    if name.starts_with("fc.") {
        return None;
    }
    let own = match name.strip_prefix("layer") {
        Some(rest) => {
            let (stage, rest) = rest.split_once('.')?;
            format!("res{}.{rest}", stage.parse::<usize>().ok()? + 1)
        }
        None => format!("stem.{name}"),
    };
    let own = own.replace("downsample.0.", "shortcut.").replace("downsample.1.", "shortcut.norm.");
    Some((1..=3).fold(own, |own, number| {
        own.replace(&format!("bn{number}."), &format!("conv{number}.norm."))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use protonce_encoder::{Encoder, Precision};
    use protonce_run::{Architecture, EncoderConfig, Head, Stem};
    use tch::Device;

    #[test]
    fn detectron2s_names_lead_back_to_torchvisions() {
        let (arch, stem, head) = (Architecture::ResNet50, Stem::ImageNet, Head::Mlp);
        let config = EncoderConfig { arch, stem, head, dim: 16, ..Default::default() };
        let encoder = Encoder::new(&config, Precision::Float32, Device::Cpu, 0);
        for (name, _) in encoder.parameters().named_tensors() {
            match detectron2_name(&name) {
                Some(renamed) => {
                    assert_eq!(torchvision_name(&renamed), name);
                    assert!(renamed.starts_with("res") || renamed.starts_with("stem."));
                }
                None => assert!(name.starts_with("fc.")),
            }
        }
        assert_eq!(
            detectron2_name("layer1.0.downsample.1.bias").unwrap(),
            "res2.0.shortcut.norm.bias"
        );
    }
}
