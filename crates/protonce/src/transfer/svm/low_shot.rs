//! The protocol: planes of all classes trained on a few images of each, or on all, and tested.

use rand::seq::SliceRandom;
use rayon::prelude::*;
use serde::Serialize;

use super::{FeatureMatrix, Svm, average_precision};
use crate::transfer::TransferError;
use protonce_images::random::{Purpose, generator};

/// Labelled images for support vector machines.
#[derive(Debug)]
pub struct SvmSet {
    /// Features, normalised.
    pub features: FeatureMatrix,
    /// For each class, whether each image is of it.
    pub positive: Vec<Vec<bool>>,
}

/// What the images' labels are, and so what is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SvmMeasure {
    /// An image is of any number of classes: the mean of their average precisions, in percent.
    MeanAveragePrecision,
    /// An image is of one class: how often its plane's decision is the highest, in percent.
    Accuracy,
}

/// The result at one number of shots and one C.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SvmResult {
    /// Training images of each class; none: all there are.
    pub shots: Option<usize>,
    /// C.
    pub c: f64,
    /// Mean over the runs, in percent.
    pub mean: f64,
    /// Standard deviation over the runs (their mean known, as in the published code).
    pub deviation: f64,
    /// Each run's result: one run with all images, otherwise one for each choice of images.
    pub runs: Vec<f64>,
}

/// Trains and tests the planes of all classes with every C in `strengths`.
///
/// With `shots` none, on all of `train`; otherwise `runs` times on this many images of each class,
/// chosen by `seed`. An image chosen for two of its classes counts twice, as in the published code.
/// `classes` names the classes in messages.
///
/// # Errors
/// When a class has fewer training images than `shots`, or none to train or test on.
pub fn svm_results(
    svm: &Svm,
    (train, test): (&SvmSet, &SvmSet),
    classes: &[String],
    measure: SvmMeasure,
    (shots, runs, seed): (Option<usize>, usize, u64),
    strengths: &[f64],
) -> Result<Vec<SvmResult>, TransferError> {
    for (class, positive) in classes.iter().zip(&train.positive) {
        let (found, needed) = (count(positive), shots.unwrap_or(1));
        if found < needed {
            return Err(TransferError::TooFewShots { class: class.clone(), found, needed });
        }
    }
    if let Some(class) = test.positive.iter().position(|positive| count(positive) == 0)
        && measure == SvmMeasure::MeanAveragePrecision
    {
        return Err(TransferError::NotTested { class: classes[class].clone() });
    }
    let chosen: Vec<Vec<usize>> = match shots {
        None => vec![(0..train.features.len()).collect()],
        Some(shots) => (0..runs).map(|run| choose(train, shots, run, seed)).collect(),
    };
    let mut results = Vec::new();
    for &c in strengths {
        let svm = Svm { c, ..svm.clone() };
        let runs: Vec<f64> = chosen
            .iter()
            .map(|images| {
                let features = train.features.select(images);
                let positive: Vec<Vec<bool>> = train
                    .positive
                    .iter()
                    .map(|class| images.iter().map(|&image| class[image]).collect())
                    .collect();
                let planes = svm.fit_classes(&features, &positive);
                let decisions: Vec<Vec<f64>> =
                    planes.par_iter().map(|plane| plane.decisions(&test.features)).collect();
                measured(measure, &decisions, &test.positive)
            })
            .collect();
        let mean = runs.iter().sum::<f64>() / runs.len().max(1) as f64;
        let variance = runs.iter().map(|run| (run - mean).powi(2)).sum::<f64>();
        let deviation = (variance / runs.len().max(1) as f64).sqrt();
        results.push(SvmResult { shots, c, mean, deviation, runs });
    }
    Ok(results)
}

fn count(positive: &[bool]) -> usize {
    positive.iter().filter(|&&positive| positive).count()
}

/// `shots` images of each class, drawn for this run.
fn choose(train: &SvmSet, shots: usize, run: usize, seed: u64) -> Vec<usize> {
    let purpose = Purpose::Shots { shots: shots as u64, run: run as u64 };
    let mut random = generator(seed, purpose);
    let mut chosen = Vec::new();
    for class in &train.positive {
        let mut images: Vec<usize> = (0..class.len()).filter(|&image| class[image]).collect();
        images.shuffle(&mut random);
        images.truncate(shots);
        chosen.extend(images);
    }
    chosen
}

fn measured(measure: SvmMeasure, decisions: &[Vec<f64>], positive: &[Vec<bool>]) -> f64 {
    match measure {
        SvmMeasure::MeanAveragePrecision => {
            let precisions = decisions.iter().zip(positive);
            let sum: f64 = precisions.filter_map(|(d, p)| average_precision(d, p)).sum();
            100.0 * sum / decisions.len().max(1) as f64
        }
        SvmMeasure::Accuracy => {
            let images = decisions.first().map_or(0, Vec::len);
            let right = (0..images).filter(|&image| {
                let best = (0..decisions.len())
                    .max_by(|&a, &b| decisions[a][image].total_cmp(&decisions[b][image]));
                best.is_some_and(|class| positive[class][image])
            });
            100.0 * right.count() as f64 / images.max(1) as f64
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_takes_as_many_of_each_class_and_differs_between_runs() {
        let positive: Vec<Vec<bool>> =
            (0..3).map(|class| (0..30).map(|image| image % 3 == class).collect()).collect();
        let features = FeatureMatrix::new(vec![0.0; 30], 1);
        let set = SvmSet { features, positive };
        let chosen = choose(&set, 4, 0, 7);
        for class in 0..3 {
            assert_eq!(chosen.iter().filter(|&&image| image % 3 == class).count(), 4);
        }
        assert_eq!(chosen, choose(&set, 4, 0, 7));
        assert_ne!(chosen, choose(&set, 4, 1, 7));
        assert_ne!(chosen, choose(&set, 4, 0, 8));
    }
}
