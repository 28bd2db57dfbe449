//! Which ResNet a state dict holds, recognised by the names and shapes of its tensors.

use protonce_encoder::{BlockKind, NORMALISED_WIDTH, ResNetSpec};
use protonce_run::{Architecture, EncoderConfig, Head, Stem};

/// An encoder found among named tensors.
#[derive(Debug, Clone, PartialEq)]
pub struct Recognised {
    /// Its shapes.
    pub encoder: EncoderConfig,
    /// The name of each of its tensors in the file, and torchvision's.
    pub names: Vec<(String, String)>,
    /// Tensors that are no part of it.
    pub left_out: Vec<String>,
}

/// In the order in which one of several encoders in a file is chosen, words that mark the others.
const SECONDARY: [&str; 6] = ["encoder_k", "momentum", "teacher", "ema", "target", "key"];

/// Finds the encoder in `tensors` (names and shapes): behind `prefix` if one is given, else behind
/// whatever prefix a ResNet's first convolution has. A momentum encoder beside it is passed over.
///
/// # Errors
/// A sentence that says what was expected and what is there.
pub fn recognise(
    tensors: &[(String, Vec<i64>)],
    prefix: Option<&str>,
) -> Result<Recognised, String> {
    let prefix = match prefix {
        Some(prefix) if find(tensors, prefix, "conv1.weight").is_some() => prefix,
        Some(prefix) => {
            return Err(format!(
                "there is no \"{prefix}conv1.weight\"; found {}",
                some_names(tensors)
            ));
        }
        None => only_encoder(tensors)?,
    };
    let shape = |name: &str| find(tensors, prefix, name);
    let encoder = EncoderConfig {
        arch: architecture(&shape)?,
        stem: stem(&shape)?,
        head: Head::None,
        dim: 0,
    };
    let (head, dim) = head(&shape, encoder.arch);
    let encoder = EncoderConfig { head, dim, ..encoder };

    let (mut names, mut left_out) = (Vec::new(), Vec::new());
    for (name, _) in tensors {
        match name.strip_prefix(prefix) {
            Some(own) if belongs(own, &encoder) => names.push((name.clone(), own.to_owned())),
            Some(own) if own.starts_with("layer") || own.starts_with("conv1.") => {
                return Err(format!("it has \"{name}\", which no plain ResNet has"));
            }
            _ => left_out.push(name.clone()),
        }
    }
    Ok(Recognised { encoder, names, left_out })
}

fn find<'a>(tensors: &'a [(String, Vec<i64>)], prefix: &str, name: &str) -> Option<&'a [i64]> {
    let found = tensors.iter().find(|(known, _)| known.strip_prefix(prefix) == Some(name));
    found.map(|(_, shape)| &shape[..])
}

fn some_names(tensors: &[(String, Vec<i64>)]) -> String {
    if tensors.is_empty() {
        return "no named tensors at all".to_owned();
    }
    let names: Vec<String> = tensors
        .iter()
        .take(4)
        .map(|(name, _)| format!("\"{}\"", name.escape_debug().take(80).collect::<String>()))
        .collect();
    let more =
        if tensors.len() > 4 { format!(" and {} more", tensors.len() - 4) } else { "".into() };
    format!("{}{more}", names.join(", "))
}

/// The prefix of the one encoder there is, or of the one that is not a momentum encoder.
fn only_encoder(tensors: &[(String, Vec<i64>)]) -> Result<&str, String> {
    let mut prefixes: Vec<&str> = tensors
        .iter()
        .filter(|(_, shape)| matches!(shape[..], [64, 3, ..]))
        .filter_map(|(name, _)| name.strip_suffix("conv1.weight"))
        .filter(|prefix| prefix.is_empty() || prefix.ends_with('.'))
        .filter(|prefix| find(tensors, prefix, "layer1.0.conv1.weight").is_some())
        .collect();
    prefixes.dedup();
    let primary: Vec<&str> = prefixes
        .iter()
        .copied()
        .filter(|prefix| !SECONDARY.iter().any(|word| prefix.contains(word)))
        .collect();
    match (&prefixes[..], &primary[..]) {
        ([], _) => Err(format!(
            "expected conv1.weight [64, 3, …] and layer1.0.conv1.weight, behind any prefix; found {}",
            some_names(tensors)
        )),
        (&[only], _) | (_, &[only]) => Ok(only),
        (all, _) => Err(format!(
            "it holds {} encoders; choose one with --prefix, of \"{}\"",
            all.len(),
            all.join("\", \"")
        )),
    }
}

fn architecture<'a>(shape: &impl Fn(&str) -> Option<&'a [i64]>) -> Result<Architecture, String> {
    let depths = [1, 2, 3, 4].map(|stage| {
        (0..).take_while(|n| shape(&format!("layer{stage}.{n}.conv1.weight")).is_some()).count()
    });
    let block = match shape("layer1.0.conv3.weight") {
        Some(_) => BlockKind::Bottleneck,
        None => BlockKind::Basic,
    };
    let middle = shape("layer1.0.conv2.weight").unwrap_or_default();
    let known = Architecture::ALL.into_iter().find(|&arch| {
        let spec = ResNetSpec::of(arch);
        let inner = spec.group_width * spec.groups;
        spec.depths == depths && spec.block == block && middle == [inner, inner / spec.groups, 3, 3]
    });
    known.ok_or_else(|| {
        let kind = match block {
            BlockKind::Basic => "basic blocks",
            BlockKind::Bottleneck => "bottlenecks",
        };
        let names = Architecture::ALL.map(|arch| arch.to_string()).join(", ");
        format!(
            "it has {depths:?} {kind} with a first 3×3 convolution of shape {middle:?}, as none of {names}"
        )
    })
}

fn stem<'a>(shape: &impl Fn(&str) -> Option<&'a [i64]>) -> Result<Stem, String> {
    match shape("conv1.weight").unwrap_or_default() {
        [64, 3, 7, 7] => Ok(Stem::ImageNet),
        [64, 3, 3, 3] => Ok(Stem::Small),
        other => Err(format!(
            "conv1.weight has shape {other:?}, expected [64, 3, 7, 7] or [64, 3, 3, 3]"
        )),
    }
}

fn head<'a>(shape: &impl Fn(&str) -> Option<&'a [i64]>, arch: Architecture) -> (Head, i64) {
    let names = ["fc.weight", "fc.0.weight", "fc.1.weight", "fc.2.weight", "fc.3.weight"];
    match names.map(shape) {
        [Some(&[dim, _]), ..] => (Head::Linear, dim),
        [_, Some(_), None, Some(&[dim, _]), _] => (Head::Mlp, dim),
        [_, Some(&[NORMALISED_WIDTH, _]), Some(_), None, Some(&[dim, _])] => (Head::MlpBn, dim),
        _ => (Head::None, arch.width()),
    }
}

/// Whether torchvision's ResNet with this head has a tensor of this name.
fn belongs(name: &str, encoder: &EncoderConfig) -> bool {
    let spec = ResNetSpec::of(encoder.arch);
    let normalisation = |rest: &str| {
        matches!(rest, "weight" | "bias" | "running_mean" | "running_var" | "num_batches_tracked")
    };
    if let Some(rest) = name.strip_prefix("fc.") {
        return match encoder.head {
            Head::Linear => matches!(rest, "weight" | "bias"),
            Head::Mlp => matches!(rest, "0.weight" | "0.bias" | "2.weight" | "2.bias"),
            Head::MlpBn => {
                matches!(rest, "0.weight" | "0.bias" | "3.weight" | "3.bias")
                    || rest.strip_prefix("1.").is_some_and(normalisation)
            }
            Head::None => false,
        };
    }
    if let Some(rest) = name.strip_prefix("bn1.") {
        return normalisation(rest);
    }
    let block = || {
        let (stage, rest) = name.strip_prefix("layer")?.split_once('.')?;
        let (number, rest) = rest.split_once('.')?;
        let stage = stage.parse::<usize>().ok()?.checked_sub(1)?;
        let exists = number.parse::<usize>().ok()? < *spec.depths.get(stage)?;
        let (layer, rest) = rest.split_at_checked(rest.rfind('.')?)?;
        let rest = &rest[1..];
        let units = match spec.block {
            BlockKind::Basic => 2,
            BlockKind::Bottleneck => 3,
        };
        let unit = |prefix: &str| {
            let number = layer.strip_prefix(prefix)?.parse::<usize>().ok()?;
            Some((1..=units).contains(&number))
        };
        let known = match layer {
            "downsample.0" => rest == "weight",
            "downsample.1" => normalisation(rest),
            _ => {
                unit("conv") == Some(true) && rest == "weight"
                    || unit("bn") == Some(true) && normalisation(rest)
            }
        };
        Some(exists && known)
    };
    name == "conv1.weight" || block() == Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use protonce_encoder::{Encoder, Precision};
    use tch::Device;

    fn shapes(arch: Architecture, stem: Stem, head: Head, prefix: &str) -> Vec<(String, Vec<i64>)> {
        let dim = if head == Head::None { arch.width() } else { 16 };
        let config = EncoderConfig { arch, stem, head, dim };
        let encoder = Encoder::new(&config, Precision::Float32, Device::Cpu, 0);
        let tensors = encoder.parameters().named_tensors().into_iter();
        tensors.map(|(name, tensor)| (format!("{prefix}{name}"), tensor.size())).collect()
    }

    #[test]
    fn every_architecture_stem_and_head_is_recognised() {
        for arch in Architecture::ALL {
            for (stem, head, prefix) in [
                (Stem::ImageNet, Head::Mlp, "module.encoder_q."),
                (Stem::Small, Head::Linear, ""),
                (Stem::Small, Head::MlpBn, "module."),
                (Stem::ImageNet, Head::None, "module."),
            ] {
                // The largest ones are drawn once only, for drawing takes most of the time.
                if arch == Architecture::ResNet152 && head != Head::Mlp {
                    continue;
                }
                let tensors = shapes(arch, stem, head, prefix);
                let found = recognise(&tensors, None).unwrap();
                assert_eq!((found.encoder.arch, found.encoder.stem), (arch, stem));
                assert_eq!(found.encoder.head, head);
                assert_eq!(found.names.len(), tensors.len());
                assert!(found.left_out.is_empty());
            }
        }
    }

    #[test]
    fn the_query_encoder_is_chosen_and_the_rest_left_out() {
        let mut tensors =
            shapes(Architecture::ResNet18, Stem::ImageNet, Head::Mlp, "module.encoder_k.");
        tensors.extend(shapes(
            Architecture::ResNet18,
            Stem::ImageNet,
            Head::Mlp,
            "module.encoder_q.",
        ));
        tensors.push(("module.queue".to_owned(), vec![128, 64]));
        let found = recognise(&tensors, None).unwrap();
        assert!(found.names.iter().all(|(name, _)| name.starts_with("module.encoder_q.")));
        assert_eq!(found.left_out.len(), tensors.len() - found.names.len());
        let found = recognise(&tensors, Some("module.encoder_k.")).unwrap();
        assert!(found.names.iter().all(|(name, _)| name.starts_with("module.encoder_k.")));

        let two: Vec<_> = tensors
            .iter()
            .map(|(name, shape)| {
                (name.replace("encoder_k", "a").replace("encoder_q", "b"), shape.clone())
            })
            .collect();
        let reason = recognise(&two, None).unwrap_err();
        assert!(reason.contains("--prefix") && reason.contains("module.a."), "{reason}");
    }

    #[test]
    fn what_is_no_plain_resnet_is_refused_by_name() {
        let plain = shapes(Architecture::ResNet18, Stem::ImageNet, Head::Linear, "");
        let with = |name: &str, shape: &[i64]| {
            let mut tensors = plain.clone();
            tensors.retain(|(known, _)| known != name);
            tensors.push((name.to_owned(), shape.to_vec()));
            recognise(&tensors, None).unwrap_err()
        };
        assert!(with("layer1.0.se.conv_reduce.weight", &[4, 64, 1, 1]).contains("se.conv_reduce"));
        assert!(with("conv1.weight", &[64, 3, 5, 5]).contains("5, 5"));
        assert!(with("layer1.2.conv1.weight", &[64, 64, 3, 3]).contains("[3, 2, 2, 2] basic"));
        let vit = [("blocks.0.attn.qkv.weight".to_owned(), vec![3, 3])];
        assert!(recognise(&vit, None).unwrap_err().contains("blocks.0.attn"));
        assert!(recognise(&[], None).unwrap_err().contains("no named tensors"));
    }
}
