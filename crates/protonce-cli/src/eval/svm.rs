//! `protonce eval svm`.

use std::collections::HashSet;

use anyhow::bail;
use clap::Args;
use protonce::transfer::{FeatureMatrix, Svm, SvmMeasure, SvmSet, svm_results};
use protonce_encoder::Output;
use serde_json::json;

use super::progress::with_spinner;
use super::split::Labels;
use super::{EvalResult, Figure, Prepared};
use protonce_cli::say;

#[derive(Args)]
pub struct Options {
    /// C, the weight of an error against ½‖w‖²; each value is an evaluation of its own. The paper's
    /// figures are of 0.5.
    #[arg(long, value_name = "C,C", value_delimiter = ',', num_args = 1, default_value = "0.5")]
    c: Vec<f64>,
    /// Training images of each class, several numbers one after the other; `full` is all there are.
    /// More than a class has are left out.
    #[arg(
        long,
        value_name = "N,N",
        value_delimiter = ',',
        num_args = 1,
        default_value = "1,2,4,8,16,full"
    )]
    shots: Vec<String>,
    /// Choices of images that the mean and deviation are over.
    #[arg(long, value_name = "N", default_value_t = 5)]
    runs: usize,
}

impl Default for Options {
    fn default() -> Options {
        let shots = ["1", "2", "4", "8", "16", "full"].map(str::to_owned).to_vec();
        Options { c: vec![0.5], shots, runs: 5 }
    }
}

pub fn measure(prepared: &Prepared, options: &Options) -> anyhow::Result<EvalResult> {
    if let Some(c) = options.c.iter().find(|c| !(**c > 0.0 && c.is_finite())) {
        bail!("\"c\" is {c}: expected more than 0");
    }
    if options.runs == 0 {
        bail!("\"runs\" is 0: expected 1 or more");
    }
    let mut shots = Vec::new();
    for entry in &options.shots {
        shots.push(match entry.as_str() {
            "full" => None,
            number => match number.parse() {
                Ok(number) if number > 0 => Some(number),
                _ => bail!("\"shots\" has \"{entry}\": expected numbers above 0, or full"),
            },
        });
    }
    let features = prepared.features(Output::Features)?;
    let classes = &prepared.split.classes;
    let measure = match prepared.split.labels {
        Labels::Single { .. } => SvmMeasure::Accuracy,
        Labels::Multiple { .. } => SvmMeasure::MeanAveragePrecision,
    };
    let (train, test) = match &prepared.split.labels {
        Labels::Single { train, test } => {
            let of = |images: &[i64], labels: &[i64], class: i64| -> Vec<bool> {
                images.iter().map(|&image| labels[image as usize] == class).collect()
            };
            let all = |images: &[i64], labels: &[i64]| {
                (0..classes.len() as i64).map(|class| of(images, labels, class)).collect()
            };
            (all(&features.train_images, train), all(&features.test_images, test))
        }
        Labels::Multiple { train, test } => {
            let of = |images: &[i64], positive: &[Vec<bool>]| -> Vec<Vec<bool>> {
                let class =
                    |class: &Vec<bool>| images.iter().map(|&image| class[image as usize]).collect();
                positive.iter().map(class).collect()
            };
            (of(&features.train_images, train), of(&features.test_images, test))
        }
    };
    let train = SvmSet { features: FeatureMatrix::normalised(&features.train)?, positive: train };
    let test = SvmSet { features: FeatureMatrix::normalised(&features.test)?, positive: test };
    let shots = possible(shots, &train.positive, classes);
    let svm = Svm::default();
    let (mut figures, mut results) = (Vec::new(), Vec::new());
    for shots in shots {
        let drawn = (shots, options.runs, prepared.args.seed);
        let name = match shots {
            None => "SVM full".to_owned(),
            Some(1) => "SVM 1 shot".to_owned(),
            Some(shots) => format!("SVM {shots} shots"),
        };
        let found = with_spinner(&name, || {
            svm_results(&svm, (&train, &test), classes, measure, drawn, &options.c)
        })??;
        for result in found {
            let mut name = name.clone();
            if options.c.len() > 1 {
                name.push_str(&format!(", C {}", result.c));
            }
            let deviation = result.shots.map(|_| result.deviation);
            figures.push(Figure { evaluation: name, value: result.mean, deviation });
            results.push(result);
        }
    }
    Ok(EvalResult { name: "svm", figures, json: json!({ "measure": measure, "results": results }) })
}

/// Those of `shots` that every class has the images for, each once; what is left out is said. `positive` says
/// which images are of each class.
fn possible(
    mut shots: Vec<Option<usize>>,
    positive: &[Vec<bool>],
    classes: &[String],
) -> Vec<Option<usize>> {
    let mut seen = HashSet::new();
    shots.retain(|shots| seen.insert(*shots));
    let images = |class: &Vec<bool>| class.iter().filter(|&&there| there).count();
    let fewest = positive.iter().map(images).zip(classes).min_by_key(|&(count, _)| count);
    let Some((fewest, class)) = fewest else { return shots };
    let (possible, impossible): (Vec<_>, Vec<_>) =
        shots.into_iter().partition(|shots| shots.is_none_or(|shots| shots <= fewest));
    let list = |shots: &[Option<usize>]| {
        let numbers: Vec<String> = shots.iter().flatten().map(usize::to_string).collect();
        numbers.join(", ")
    };
    if possible.is_empty() {
        // The evaluation says what is expected.
        return impossible;
    }
    if !impossible.is_empty() {
        say!(
            "note: left out: SVM on {} images of each class, for class \"{class}\" has {fewest} training images",
            list(&impossible)
        );
    }
    // Where every class has as many images as that, and each image is of one class, they are all there are.
    let all = positive.first().map_or(0, Vec::len);
    let single = || (0..all).all(|image| positive.iter().filter(|class| class[image]).count() == 1);
    let full =
        |shots: &Option<usize>| *shots == Some(fewest) && all == fewest * classes.len() && single();
    let (same, possible): (Vec<_>, Vec<_>) = match possible.contains(&None) {
        true => possible.into_iter().partition(full),
        false => (Vec::new(), possible),
    };
    if !same.is_empty() {
        say!(
            "note: left out: SVM on {} images of each class, which are all, as in full",
            list(&same)
        );
    }
    possible
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which of 1, 2, 4, 8, 16 and full are done with so many images of each class.
    fn done(counts: &[usize]) -> Vec<Option<usize>> {
        let all: usize = counts.iter().sum();
        let mut from = 0;
        let mut of = |count: &usize| {
            from += count;
            (0..all).map(|image| (from - count..from).contains(&image)).collect()
        };
        let positive: Vec<Vec<bool>> = counts.iter().map(&mut of).collect();
        let classes: Vec<String> = (0..counts.len()).map(|class| class.to_string()).collect();
        let shots = [Some(1), Some(2), Some(4), Some(4), Some(8), Some(16), None];
        possible(shots.to_vec(), &positive, &classes)
    }

    #[test]
    fn shots_that_a_class_cannot_fill_and_those_that_are_all_images_are_left_out() {
        assert_eq!(done(&[3, 20, 20]), [Some(1), Some(2), None]);
        assert_eq!(done(&[40, 9]), [Some(1), Some(2), Some(4), Some(8), None]);
        assert_eq!(done(&[16, 17, 16]), [Some(1), Some(2), Some(4), Some(8), Some(16), None]);
        assert_eq!(done(&[16, 16, 16]), [Some(1), Some(2), Some(4), Some(8), None]);
        assert_eq!(done(&[1, 1]), [None]);
        let two = [vec![true, false, false], vec![false, true, true]];
        let classes = ["cat", "dog"].map(str::to_owned);
        assert_eq!(possible(vec![Some(1)], &two, &classes), [Some(1)]);
        // Two images of two classes and two of none are no two images of each.
        let overlap = [vec![true, true, false, false], vec![true, true, false, false]];
        assert_eq!(possible(vec![Some(2), None], &overlap, &classes), [Some(2), None]);
        // Nothing is left: the evaluation refuses it by its own sentence.
        assert_eq!(possible(vec![Some(2), Some(4)], &two, &classes), [Some(2), Some(4)]);
    }
}
