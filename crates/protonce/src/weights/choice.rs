//! Where in a file of weights encoders begin, and which of several is meant.
//!
//! Names lead to an encoder by what comes before `conv1.weight`, or before `0.weight` where the ResNet's
//! layers were put into a `torch.nn.Sequential` and lost their names.

use std::collections::HashSet;

/// An encoder among named tensors.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Found<'a> {
    /// What its tensors' names begin with.
    pub(super) prefix: &'a str,
    /// For one in a `Sequential`, the number of its first stage: 4 behind a convolution, a batch norm, a
    /// ReLU and a pooling; fewer where these were left out.
    first_stage: Option<usize>,
}

impl Found<'_> {
    /// Torchvision's name for a tensor of this encoder; none for anything else.
    pub(super) fn torchvision_name(&self, name: &str) -> Option<String> {
        let own = name.strip_prefix(self.prefix)?;
        let own = match self.first_stage {
            None => own.to_owned(),
            Some(first) => {
                let (number, rest) = own.split_once('.')?;
                match number.parse::<usize>().ok()? {
                    0 => format!("conv1.{rest}"),
                    1 => format!("bn1.{rest}"),
                    stage if (first..first + 4).contains(&stage) => {
                        format!("layer{}.{rest}", stage - first + 1)
                    }
                    _ => return None,
                }
            }
        };
        // The name that the ResNets written for CIFAR have for it.
        Some(own.replace(".shortcut.", ".downsample."))
    }
}

/// Every encoder in `tensors`, each once, in the order of their first convolutions.
pub(super) fn encoders(tensors: &[(String, Vec<i64>)]) -> Vec<Found<'_>> {
    let names: HashSet<&str> = tensors.iter().map(|(name, _)| &name[..]).collect();
    let has = |name: &str| names.contains(name);
    let mut found: Vec<Found> = Vec::new();
    for (name, _) in tensors.iter().filter(|(_, shape)| matches!(shape[..], [_, 3, _, _])) {
        let begins = |ending: &str| {
            let prefix = name.strip_suffix(ending)?;
            (prefix.is_empty() || prefix.ends_with('.')).then_some(prefix)
        };
        let named = begins("conv1.weight")
            .filter(|prefix| has(&format!("{prefix}layer1.0.conv1.weight")))
            .map(|prefix| Found { prefix, first_stage: None });
        let numbered = || {
            let prefix = begins("0.weight")?;
            let stage = |number: &usize| has(&format!("{prefix}{number}.0.conv1.weight"));
            let first_stage = Some((2..=4).find(stage)?);
            Some(Found { prefix, first_stage })
        };
        let encoder = named.or_else(numbered);
        found.extend(encoder.filter(|encoder| !found.contains(encoder)));
    }
    found
}

/// Words in the names of encoders that are trained only to compare with.
const SECONDARY: [&str; 7] =
    ["encoder_k", "momentum", "moco_encoder", "teacher", "target", "key", "ema_state_dict"];

/// Which of several encoders is meant, and a sentence about that if there was a choice.
///
/// # Errors
/// A sentence that asks for a choice.
pub(super) fn choose<'a, 'b>(
    all: &'b [Found<'a>],
    tensors: &[(String, Vec<i64>)],
) -> Result<(&'b Found<'a>, Option<String>), String> {
    let mut left: Vec<&Found> = all.iter().collect();
    let mut reason = "";
    // Keeps those of which `which` is true, if it is true of some and not of all.
    let mut keep = |which: &dyn Fn(&Found) -> bool, because: &'static str| {
        let kept: Vec<&Found> = left.iter().copied().filter(|found| which(found)).collect();
        if !kept.is_empty() && kept.len() < left.len() {
            left = kept;
            reason = because;
        }
    };
    keep(&|found| is_average(found.prefix), "the moving average of the weights");
    keep(
        &|found| found.prefix.contains("teacher") && has_equal_student(found, all, tensors),
        "the teacher, as in DINO's evaluations",
    );
    keep(
        &|found| !SECONDARY.iter().any(|word| found.prefix.contains(word)),
        "the one that is trained by gradient",
    );
    let list = |found: &[&Found]| {
        let names: Vec<String> =
            found.iter().map(|found| format!("\"{}\"", found.prefix)).collect();
        names.join(", ")
    };
    match left[..] {
        [only] if all.len() == 1 => Ok((only, None)),
        [only] => {
            let others: Vec<&Found> = all.iter().filter(|found| *found != only).collect();
            let note = format!(
                "it holds {} encoders: taken is \"{}\", {reason}; `protonce weights import --prefix` takes \
                 another, of {}",
                all.len(),
                only.prefix,
                list(&others)
            );
            Ok((only, Some(note)))
        }
        _ => Err(format!(
            "it holds {} encoders; choose one with --prefix, of {}",
            all.len(),
            list(&all.iter().collect::<Vec<_>>())
        )),
    }
}

/// Whether the name says that the weights are a moving average, made to be used. OpenMMLab's
/// `ema_state_dict` is none: it keeps the weights that the average took the place of.
fn is_average(prefix: &str) -> bool {
    !prefix.contains("ema_state_dict") && prefix.split(['.', '_']).any(|word| word == "ema")
}

/// Whether there is a student with the teacher's shapes. Where they differ, a small network learns from a
/// large one, and is what the training was for.
fn has_equal_student(teacher: &Found, all: &[Found], tensors: &[(String, Vec<i64>)]) -> bool {
    let backbone = |found: &Found| {
        let own = |(name, shape): &(String, Vec<i64>)| {
            let name = found.torchvision_name(name)?;
            (name.starts_with("conv1.") || name.starts_with("layer")).then(|| (name, shape.clone()))
        };
        let mut own: Vec<(String, Vec<i64>)> = tensors.iter().filter_map(own).collect();
        own.sort_unstable();
        own
    };
    let shapes = backbone(teacher);
    all.iter().any(|found| found.prefix.contains("student") && backbone(found) == shapes)
}
