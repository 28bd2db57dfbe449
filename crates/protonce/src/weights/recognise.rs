//! Which ResNet a state dict holds, recognised by the names and shapes of its tensors.

use super::choice::{choose, encoders};
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
    /// What was chosen, and what of it is not used: a sentence each.
    pub notes: Vec<String>,
}

/// Finds the encoder in `tensors` (names and shapes): behind `prefix` if one is given, else behind
/// whatever prefix a ResNet's first convolution has. Of several the one is taken that the users of such
/// files evaluate: a moving average of weights where there is one, DINO's teacher, and the query encoder
/// rather than the momentum encoder of contrastive methods. A projection head that is none of [`Head`]'s
/// is left out.
///
/// # Errors
/// A sentence that says what was expected and what is there.
pub fn recognise(
    tensors: &[(String, Vec<i64>)],
    prefix: Option<&str>,
) -> Result<Recognised, String> {
    let all = encoders(tensors);
    let mut notes = Vec::new();
    let chosen = match prefix {
        Some(prefix) => {
            let dotted = prefix.strip_suffix('.').unwrap_or(prefix);
            let own = |prefix: &str| prefix.strip_suffix('.').unwrap_or(prefix) == dotted;
            all.iter().find(|found| own(found.prefix)).ok_or_else(|| {
                let wanted = if dotted.is_empty() { String::new() } else { format!("{dotted}.") };
                let there: Vec<&str> = all.iter().map(|found| found.prefix).collect();
                let there = match &there[..] {
                    [] => format!("found {}", some_names(tensors)),
                    some => format!("encoders are behind \"{}\"", some.join("\", \"")),
                };
                format!("there is no \"{wanted}conv1.weight\" [64, 3, …] of an encoder; {there}")
            })?
        }
        None if all.is_empty() => {
            return Err(format!(
                "expected conv1.weight [64, 3, …] and layer1.0.conv1.weight, behind any prefix; found {}",
                some_names(tensors)
            ));
        }
        None => {
            let (chosen, note) = choose(&all, tensors)?;
            notes.extend(note);
            chosen
        }
    };
    // Torchvision's name of each tensor that has one.
    let own: Vec<Option<String>> =
        tensors.iter().map(|(name, _)| chosen.torchvision_name(name)).collect();
    let shape = |name: &str| {
        let at = own.iter().position(|own| own.as_deref() == Some(name))?;
        Some(&tensors[at].1[..])
    };
    let (stem, base_channels) = stem(&shape)?;
    let arch = architecture(&shape, base_channels)?;
    let encoder = EncoderConfig { arch, base_channels, stem, head: Head::None, dim: 0 };
    let of_head = |own: &Option<String>| own.as_deref().is_some_and(|own| own.starts_with("fc."));
    let of_head: Vec<&str> =
        own.iter().filter(|own| of_head(own)).filter_map(Option::as_deref).collect();
    let (head, dim) = head(&of_head, &shape, encoder.width());
    let encoder = EncoderConfig { head, dim, ..encoder };
    if head == Head::None && !of_head.is_empty() {
        let shapes = |name: &&str| format!("{name} {:?}", shape(name).unwrap_or_default());
        let shapes: Vec<String> =
            of_head.iter().filter(|name| name.ends_with("weight")).map(shapes).collect();
        notes.push(format!(
            "its head ({}) is none of those that are known here and is left out: what is taken is the \
             backbone, with {dim} features",
            shapes.join(", ")
        ));
    }

    let (mut names, mut left_out) = (Vec::new(), Vec::new());
    for ((name, _), own) in tensors.iter().zip(own) {
        match own {
            Some(own) if belongs(&own, &encoder) => names.push((name.clone(), own)),
            Some(own) if of_backbone(&own) => {
                return Err(format!("it has \"{name}\", which no plain ResNet has"));
            }
            _ => left_out.push(name.clone()),
        }
    }
    Ok(Recognised { encoder, names, left_out, notes })
}

/// Whether what has this name would be computed with in a backbone, if there were such a thing in it.
fn of_backbone(name: &str) -> bool {
    let stage = name.strip_prefix("layer").and_then(|rest| rest.split_once('.'));
    stage.is_some_and(|(stage, _)| matches!(stage, "1" | "2" | "3" | "4"))
        || name.starts_with("conv1.")
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

fn architecture<'a>(
    shape: &impl Fn(&str) -> Option<&'a [i64]>,
    base_channels: i64,
) -> Result<Architecture, String> {
    let depths = [1, 2, 3, 4].map(|stage| {
        (0..).take_while(|n| shape(&format!("layer{stage}.{n}.conv1.weight")).is_some()).count()
    });
    let block = match shape("layer1.0.conv3.weight") {
        Some(_) => BlockKind::Bottleneck,
        None => BlockKind::Basic,
    };
    let middle = shape("layer1.0.conv2.weight").unwrap_or_default();
    let known = Architecture::ALL.into_iter().find(|&arch| {
        let spec = ResNetSpec::of(&EncoderConfig { arch, base_channels, ..Default::default() });
        let [inner, _] = spec.channels(0);
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

/// The stem and its channels.
fn stem<'a>(shape: &impl Fn(&str) -> Option<&'a [i64]>) -> Result<(Stem, i64), String> {
    let found = shape("conv1.weight").unwrap_or_default();
    let stem = match found {
        [_, 3, 7, 7] => Some(Stem::ImageNet),
        [_, 3, 3, 3] => Some(Stem::Small),
        _ => None,
    };
    let channels = found.first().copied().unwrap_or(0);
    let known =
        EncoderConfig { base_channels: channels, ..Default::default() }.check_each().is_ok();
    stem.filter(|_| known).map(|stem| (stem, channels)).ok_or_else(|| {
        format!(
            "conv1.weight has shape {found:?}, expected [64, 3, 7, 7] or [64, 3, 3, 3], or another \
             multiple of 16 in place of 64"
        )
    })
}

/// Which head on features of `width` the tensors `of_head` are, and its dimensions: one of them to the last tensor, or none.
fn head<'a>(
    of_head: &[&str],
    shape: &impl Fn(&str) -> Option<&'a [i64]>,
    width: i64,
) -> (Head, i64) {
    let has = |name: &str, expected: &[i64]| shape(name) == Some(expected);
    let linear = |name: &str, dim: i64, from: i64| {
        has(&format!("{name}.weight"), &[dim, from]) && has(&format!("{name}.bias"), &[dim])
    };
    let last = |name: &str| shape(name).and_then(|shape| shape.first()).copied().unwrap_or(0);
    let hidden = NORMALISED_WIDTH;
    let norm = || {
        ["weight", "bias", "running_mean", "running_var"]
            .iter()
            .all(|name| has(&format!("fc.1.{name}"), &[hidden]))
    };
    let count = |head: Head| of_head.iter().filter(|name| belongs_to_head(name, head)).count();
    let (one, two, three) = (last("fc.weight"), last("fc.2.weight"), last("fc.3.weight"));
    let fits = [
        (Head::Linear, one, linear("fc", one, width)),
        (Head::Mlp, two, linear("fc.0", width, width) && linear("fc.2", two, width)),
        (
            Head::MlpBn,
            three,
            linear("fc.0", hidden, width) && norm() && linear("fc.3", three, hidden),
        ),
    ];
    let found =
        fits.into_iter().find(|&(head, dim, fits)| fits && dim > 0 && count(head) == of_head.len());
    found.map_or((Head::None, width), |(head, dim, _)| (head, dim))
}

/// Whether a head of this kind has a tensor of this name.
fn belongs_to_head(name: &str, head: Head) -> bool {
    let Some(rest) = name.strip_prefix("fc.") else { return false };
    match head {
        Head::Linear => matches!(rest, "weight" | "bias"),
        Head::Mlp => matches!(rest, "0.weight" | "0.bias" | "2.weight" | "2.bias"),
        Head::MlpBn => {
            matches!(rest, "0.weight" | "0.bias" | "3.weight" | "3.bias")
                || rest.strip_prefix("1.").is_some_and(normalisation)
        }
        Head::None => false,
    }
}

/// Whether a batch norm has a tensor of this name.
fn normalisation(name: &str) -> bool {
    matches!(name, "weight" | "bias" | "running_mean" | "running_var" | "num_batches_tracked")
}

/// Whether torchvision's ResNet with this head has a tensor of this name.
fn belongs(name: &str, encoder: &EncoderConfig) -> bool {
    let spec = ResNetSpec::of(encoder);
    if name.starts_with("fc.") {
        return belongs_to_head(name, encoder.head);
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
        shapes_of(&EncoderConfig { arch, stem, head, dim: 16, ..Default::default() }, prefix)
    }

    fn shapes_of(config: &EncoderConfig, prefix: &str) -> Vec<(String, Vec<i64>)> {
        let encoder = Encoder::new(config, Precision::Float32, Device::Cpu, 0);
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
    fn narrow_and_wide_networks_are_recognised() {
        for (arch, base_channels) in [
            (Architecture::ResNet18, 16),
            (Architecture::ResNet50, 32),
            (Architecture::ResNet18, 128),
            (Architecture::WideResNet50x2, 32),
            (Architecture::ResNeXt50x32x4d, 16),
        ] {
            let head = Head::Mlp;
            let config = EncoderConfig { arch, base_channels, head, dim: 16, ..Default::default() };
            assert_eq!(recognise(&shapes_of(&config, ""), None).unwrap().encoder, config);
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
    fn checkpoints_of_other_trainers_hold_what_their_users_evaluate() {
        let cases = include_str!("../../tests/fixtures/checkpoints.json");
        let cases: serde_json::Value = serde_json::from_str(cases).unwrap();
        for case in cases.as_array().unwrap() {
            let dicts = case["dicts"].as_object().unwrap();
            let holds = |dict: &&serde_json::Value| dict.as_object().unwrap().len() > 100;
            let several = dicts.values().filter(holds).count() > 1;
            let begin = |key: &str| if several { format!("{key}.") } else { String::new() };
            let mut tensors: Vec<(String, Vec<i64>)> = Vec::new();
            for (key, dict) in dicts.iter().filter(|(_, dict)| holds(dict)) {
                for (name, shape) in dict.as_object().unwrap() {
                    let shape = shape.as_array().unwrap().iter();
                    let shape = shape.map(|side| side.as_i64().unwrap()).collect();
                    tensors.push((format!("{}{name}", begin(key)), shape));
                }
            }
            let found = recognise(&tensors, None).unwrap();
            let file = case["file"].as_str().unwrap();
            assert_eq!(found.encoder.arch, Architecture::ResNet18, "{file}");
            let small = ["lightly_small.ckpt", "solo_mocov2.ckpt"].contains(&file);
            let stem = if small { Stem::Small } else { Stem::ImageNet };
            assert_eq!(found.encoder.stem, stem, "{file}");
            let prefix = case["prefix"].as_str().unwrap();
            let prefix = format!("{}{prefix}", begin(case["chosen"].as_str().unwrap()));
            assert!(found.names.iter().all(|(name, _)| name.starts_with(&prefix)), "{file}");
            // Every parameter, statistic and count of the backbone, and of the head where it is a known one.
            let head = found.names.iter().filter(|(_, own)| own.starts_with("fc.")).count();
            assert_eq!(found.names.len() - head, 120, "{file}");
            assert_eq!(found.names.len() + found.left_out.len(), tensors.len(), "{file}");
            // Each of these holds a second encoder, and that one was taken is said.
            assert!(
                found.notes[0].contains(&format!("taken is \"{prefix}\"")),
                "{:?}",
                found.notes
            );
        }
    }

    #[test]
    fn a_head_of_any_shape_is_left_out_and_named() {
        let backbone = shapes(Architecture::ResNet18, Stem::ImageNet, Head::None, "encoder.");
        let heads: [&[(&str, &[i64])]; 8] = [
            &[("0.weight", &[64, 512]), ("2.weight", &[64, 64]), ("4.weight", &[64, 64])],
            &[("weight", &[64, 512])],
            &[("weight", &[64, 512, 1, 1]), ("bias", &[64])],
            &[("1.weight", &[64, 512]), ("1.bias", &[64])],
            &[
                ("0.weight", &[64, 512]),
                ("0.bias", &[64]),
                ("2.weight", &[9, 64]),
                ("2.bias", &[9]),
            ],
            &[("layers.0.weight", &[64, 512])],
            &[("0.weight", &[2048, 512]), ("1.running_var", &[2048]), ("3.weight", &[9, 2048])],
            &[("weight", &[64, 512]), ("bias", &[64]), ("scale", &[1])],
        ];
        for head in heads {
            let mut tensors = backbone.clone();
            tensors.extend(
                head.iter().map(|(name, shape)| (format!("encoder.fc.{name}"), shape.to_vec())),
            );
            tensors.push(("encoder.layernorm.weight".to_owned(), vec![512]));
            let found = recognise(&tensors, None).unwrap();
            assert_eq!((found.encoder.head, found.encoder.dim), (Head::None, 512));
            assert_eq!(found.names.len(), backbone.len());
            assert_eq!(found.left_out.len(), head.len() + 1);
            let (name, shape) = head.iter().find(|(name, _)| name.ends_with("weight")).unwrap();
            assert!(found.notes[0].contains(&format!("fc.{name} {shape:?}")), "{:?}", found.notes);
        }
    }

    #[test]
    fn layers_that_a_sequential_numbered_are_found_behind_any_stem() {
        let plain = shapes(Architecture::ResNet50, Stem::Small, Head::None, "");
        // torchvision's children, the same without pooling, and ResNets that apply ReLU as a function.
        for (first, prefix) in [(4, "backbone."), (3, ""), (2, "net.0.")] {
            let numbered = |name: &str| match name.split_once('.').unwrap() {
                ("conv1", rest) => format!("{prefix}0.{rest}"),
                ("bn1", rest) => format!("{prefix}1.{rest}"),
                (stage, rest) => {
                    let stage: usize = stage.strip_prefix("layer").unwrap().parse().unwrap();
                    let rest = rest.replace("downsample", "shortcut");
                    format!("{prefix}{}.{rest}", first + stage - 1)
                }
            };
            let mut tensors: Vec<_> =
                plain.iter().map(|(name, shape)| (numbered(name), shape.clone())).collect();
            tensors.push((format!("{prefix}{}.weight", first + 5), vec![10, 2048]));
            let found = recognise(&tensors, None).unwrap();
            assert_eq!(found.encoder.arch, Architecture::ResNet50);
            for ((name, own), (known, _)) in found.names.iter().zip(&plain) {
                assert_eq!((name, own), (&numbered(known), known));
            }
            assert_eq!(found.left_out.len(), 1);
        }
    }

    #[test]
    fn of_several_encoders_the_one_that_is_evaluated_is_taken() {
        let plain = shapes(Architecture::ResNet18, Stem::Small, Head::None, "");
        let tensors = |prefix: &str| -> Vec<(String, Vec<i64>)> {
            plain.iter().map(|(name, shape)| (format!("{prefix}{name}"), shape.clone())).collect()
        };
        for (taken, other) in [
            ("teacher.backbone.", "student.module.backbone."),
            ("state_dict_ema.", "state_dict."),
            ("ema.module.", "model.module."),
            ("model_ema.", "model."),
            ("online_encoder.net.", "target_encoder.encoder.net."),
            ("state_dict.", "ema_state_dict.module."),
            ("backbone.", "momentum_backbone."),
        ] {
            for (a, b) in [(taken, other), (other, taken)] {
                let tensors = [tensors(a), tensors(b)].concat();
                let found = recognise(&tensors, None).unwrap();
                assert!(found.names.iter().all(|(name, _)| name.starts_with(taken)), "{taken}");
                assert!(found.notes[0].contains(taken) && found.notes[0].contains(other));
                let wanted = other.strip_suffix('.').unwrap();
                for prefix in [other, wanted] {
                    let found = recognise(&tensors, Some(prefix)).unwrap();
                    assert!(found.names.iter().all(|(name, _)| name.starts_with(other)));
                    assert!(found.notes.is_empty());
                }
            }
        }
        // A large teacher that a small student learns from is no average of it.
        let student = tensors("student.");
        let teacher = shapes(Architecture::ResNet34, Stem::Small, Head::None, "teacher.");
        let found = recognise(&[teacher, student].concat(), None).unwrap();
        assert_eq!(found.encoder.arch, Architecture::ResNet18);
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
