//! `protonce eval svm`.

use anyhow::bail;
use clap::Args;
use protonce_encoder::Output;
use protonce::transfer::{FeatureMatrix, Svm, SvmMeasure, SvmSet, svm_results};
use serde_json::json;

use super::progress::with_spinner;
use super::split::Labels;
use super::{EvalResult, Figure, Prepared};

#[derive(Args)]
pub struct Options {
    /// C, the weight of an error against ½‖w‖²; each value is an evaluation of its own. The paper's
    /// figures are of 0.5.
    #[arg(long, value_name = "C,C", value_delimiter = ',', num_args = 1, default_value = "0.5")]
    c: Vec<f64>,
    /// Training images of each class, several numbers one after the other; `full` is all there are.
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

impl Options {
    /// The defaults on a data set in which every class has `images` images at least.
    pub fn for_images(images: usize) -> Options {
        let shots = [1, 2, 4, 8, 16].into_iter().filter(|&shots| shots <= images);
        let shots = shots.map(|shots| shots.to_string()).chain(["full".to_owned()]).collect();
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
