//! Which algorithm computes each convolution of a run: shapes in, a [`ConvPlan`] out, measured once and
//! remembered.
//!
//! Measuring takes seconds and its outcome may differ from one time to the next where two algorithms are
//! about as fast. So it is remembered in a file of the user's cache folder, by processor, threads and
//! shape; and a run stores the choices that it began with, because another algorithm rounds differently,
//! and a resumed run must come to the same bits. The file is a cache: what is damaged, from another
//! program or gone is measured again.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use protonce_disk as disk;

use protonce_encoder::convolution::{ConvAlgorithms, ConvPlan, ConvShape};

/// What the file begins with; another version of this program may know other algorithms.
const PROGRAM: &str = concat!("protonce ", env!("CARGO_PKG_VERSION"));

/// The file in the user's cache folder.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Remembered {
    program: String,
    /// By processor and threads, then by images and shape.
    processors: BTreeMap<String, BTreeMap<String, ConvAlgorithms>>,
}

/// The file of remembered choices, where there is a cache folder.
pub(super) fn cache_file() -> Option<std::path::PathBuf> {
    Some(disk::cache_folder("convolutions")?.join("fastest.json"))
}

/// The fastest algorithms of `shapes` on `processor`: those that `file` remembers, and for the others what
/// `measure` finds, which it remembers from then on. `progress` is told how many of how many are
/// measured. Also returns warnings for the user, one sentence each.
pub(super) fn fastest(
    shapes: &[ConvShape],
    processor: &str,
    file: Option<&Path>,
    measure: &mut dyn FnMut(&ConvShape) -> ConvAlgorithms,
    progress: &mut dyn FnMut(usize, usize),
) -> (ConvPlan, Vec<String>) {
    let mut warnings = Vec::new();
    let mut remembered = match file.map(read) {
        Some(Ok(Some(remembered))) => remembered,
        Some(Err(reason)) => {
            warnings.push(format!(
                "{} was not usable ({reason}): convolutions are measured again",
                file.unwrap_or(Path::new("")).display()
            ));
            Remembered::nothing()
        }
        _ => Remembered::nothing(),
    };
    let known = remembered.processors.entry(processor.to_owned()).or_default();
    let name = |shape: &ConvShape| format!("{} images, {shape}", shape.images);
    let missing: Vec<&ConvShape> =
        shapes.iter().filter(|shape| !known.contains_key(&name(shape))).collect();
    for (done, shape) in missing.iter().enumerate() {
        progress(done, missing.len());
        known.insert(name(shape), measure(shape));
    }
    let conv_plan =
        shapes.iter().filter_map(|shape| Some((shape.to_string(), *known.get(&name(shape))?)));
    let conv_plan = ConvPlan(conv_plan.collect());
    if !missing.is_empty() {
        progress(missing.len(), missing.len());
        if let Some(Err(error)) = file.map(|file| write(file, &remembered)) {
            warnings.push(format!("the next run will measure its convolutions again: {error}"));
        }
    }
    (conv_plan, warnings)
}

impl Remembered {
    fn nothing() -> Remembered {
        Remembered { program: PROGRAM.to_owned(), processors: BTreeMap::new() }
    }
}

/// The content of `file`; `None` where there is no file.
fn read(file: &Path) -> Result<Option<Remembered>, String> {
    let text = match std::fs::read(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    match serde_json::from_slice::<Remembered>(&text) {
        Ok(remembered) if remembered.program == PROGRAM => Ok(Some(remembered)),
        Ok(remembered) => Err(format!("it is from {}", remembered.program)),
        Err(_) => Err("it is damaged or from another program".to_owned()),
    }
}

fn write(file: &Path, remembered: &Remembered) -> Result<(), String> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder).map_err(|error| error.to_string())?;
    }
    let text = serde_json::to_vec_pretty(remembered).map_err(|error| error.to_string())?;
    disk::replace(file, |scratch| std::fs::write(scratch, &text)).map_err(|error| error.to_string())
}

/// The processor and the number of threads that libtorch computes with, in words.
pub(super) fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    // Of the first core; x86 has a name, which hypervisors share among generations, Arm has numbers.
    let core = text.split("\n\n").next().unwrap_or_default();
    let field = |wanted: &str| {
        let fields = core.lines().filter_map(|line| line.split_once(':'));
        let mut named = fields.filter(|(name, _)| name.trim() == wanted);
        named.next().map(|(_, value)| value.trim().to_owned())
    };
    let mut words: Vec<String> = field("model name").into_iter().collect();
    for name in ["cpu family", "model", "stepping", "CPU implementer", "CPU part"] {
        words.extend(field(name).map(|value| format!("{name} {value}")));
    }
    if words.is_empty() {
        words.push(std::env::consts::ARCH.to_owned());
    }
    format!("{}, {} threads", words.join(", "), tch::get_num_threads())
}

#[cfg(test)]
mod tests {
    use super::*;
    use protonce_encoder::convolution::ConvAlgorithm;
    use tch::Kind;

    fn shape(images: i64, side: i64) -> ConvShape {
        ConvShape {
            kind: Kind::Float,
            images,
            inputs: 32,
            height: side,
            width: side,
            outputs: 32,
            size: 3,
            stride: 1,
            padding: 1,
            groups: 1,
        }
    }

    /// The plan of two shapes, how many were measured, and the warnings.
    fn choose(
        processor: &str,
        file: &Path,
        algorithm: ConvAlgorithm,
    ) -> (ConvPlan, usize, Vec<String>) {
        let mut measured = 0;
        let (conv_plan, warnings) = fastest(
            &[shape(16, 8), shape(16, 4)],
            processor,
            Some(file),
            &mut |_| {
                measured += 1;
                ConvAlgorithms::all(algorithm)
            },
            &mut |done, total| assert!(done <= total),
        );
        (conv_plan, measured, warnings)
    }

    #[test]
    fn choices_are_remembered_for_a_processor_and_survive_a_damaged_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("new/fastest.json");
        // Measured,
        let (first, measured, warnings) = choose("one", &file, ConvAlgorithm::Im2col);
        assert_eq!((first.0.len(), measured, warnings.len()), (2, 2, 0));
        assert_eq!(
            first.algorithms(&shape(16, 8)),
            ConvAlgorithms {
                // Im2col does not compute this pass of a 3×3 convolution.
                input_gradient: ConvAlgorithms::usual(&shape(16, 8)).input_gradient,
                ..ConvAlgorithms::all(ConvAlgorithm::Im2col)
            }
        );
        // used again, also for fewer images,
        let (again, measured, warnings) = choose("one", &file, ConvAlgorithm::Libtorch);
        assert_eq!((&again, measured, warnings.len()), (&first, 0, 0));
        assert_eq!(again.algorithms(&shape(3, 8)).forward, ConvAlgorithm::Im2col);
        assert_eq!(again.algorithms(&shape(3, 9)), ConvAlgorithms::usual(&shape(3, 9)));
        // but not by another processor, which does not disturb the first;
        let (other, measured, _) = choose("two", &file, ConvAlgorithm::Libtorch);
        assert_eq!((measured, other.0.len()), (2, 2));
        assert_ne!(other, first);
        assert_eq!(choose("one", &file, ConvAlgorithm::Libtorch).0, first);
        // damaged or from another version, measured again with a warning, and whole from then on.
        let whole = std::fs::read_to_string(&file).unwrap();
        let foreign = whole.replace(PROGRAM, "protonce 99.0.0");
        for damaged in [&whole[..whole.len() / 2], "", "{}", foreign.as_str()] {
            std::fs::write(&file, damaged).unwrap();
            let (_, measured, warnings) = choose("one", &file, ConvAlgorithm::Winograd);
            assert_eq!((measured, warnings.len()), (2, 1), "{damaged}");
            assert!(warnings[0].contains("measured again"), "{warnings:?}");
            let (conv_plan, measured, warnings) = choose("one", &file, ConvAlgorithm::Libtorch);
            assert_eq!((measured, warnings.len()), (0, 0));
            assert_eq!(
                conv_plan.algorithms(&shape(16, 8)),
                ConvAlgorithms::all(ConvAlgorithm::Winograd)
            );
        }
        // A file that cannot be written costs a sentence, not the run.
        let blocked = file.join("below-a-file.json");
        let (conv_plan, measured, warnings) = choose("one", &blocked, ConvAlgorithm::Libtorch);
        assert_eq!((conv_plan.0.len(), measured), (2, 2));
        assert!(!warnings.is_empty());
    }

    #[test]
    fn a_measurement_finds_algorithms_that_compute_the_shape() {
        for shape in [shape(1, 4), ConvShape { size: 1, padding: 0, ..shape(2, 6) }] {
            let algorithms = ConvAlgorithms::measured(&shape);
            let conv_plan = ConvPlan([(shape.to_string(), algorithms)].into());
            assert_eq!(conv_plan.algorithms(&shape), algorithms);
        }
        assert!(processor().ends_with("threads"));
    }
}
