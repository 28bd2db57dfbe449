//! Linear support vector machines on L2-normalised features, one a class: the paper's low-shot protocol
//! (PCL §4.1, after Goyal et al. 2019).
//!
//! The objective is ½‖w‖² + Σ Cᵢ max(0, 1 − yᵢ wᵀxᵢ)², with C doubled for images of the class and the
//! bias a weight of a feature that is always 1; LIBLINEAR minimises the same one (its solver 1). Its
//! method too: coordinate descent on the dual (Hsieh et al. 2008, algorithm 3), where a step needs one
//! image. Classes are independent and share the processor's cores.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use tch::{Device, Kind, Tensor};

use super::TransferError;

/// The options of a support vector machine; the defaults are the published code's.
#[derive(Debug, Clone)]
pub struct Svm {
    /// C, the weight of an error against ½‖w‖².
    pub c: f64,
    /// How much more an error on an image of the class weighs.
    pub positive_weight: f64,
    /// Stops when no image's slope exceeds the others' by more.
    pub tolerance: f64,
    /// Stops after so many passes over the images at most.
    pub max_passes: usize,
}

impl Default for Svm {
    fn default() -> Svm {
        Svm { c: 0.5, positive_weight: 2.0, tolerance: 1e-4, max_passes: 2000 }
    }
}

/// Feature vectors as rows of numbers, divided by their lengths.
#[derive(Debug)]
pub struct Rows {
    values: Vec<f32>,
    dim: usize,
}

impl Rows {
    /// The rows of `features` [n, dim], each divided by its length + 10⁻⁵ as in the published code.
    pub fn normalised(features: &Tensor) -> Rows {
        let length = features.norm_scalaropt_dim(2, [-1].as_slice(), true) + 1e-5;
        Rows::as_they_are(&(features / length))
    }

    /// The rows of `features` [n, dim].
    pub fn as_they_are(features: &Tensor) -> Rows {
        let features = features.to_device(Device::Cpu).to_kind(Kind::Float).contiguous();
        let mut values = vec![0.0; features.numel()];
        features.copy_data(&mut values, features.numel());
        Rows { values, dim: features.size().last().map_or(1, |&dim| dim.max(1) as usize) }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.values.len() / self.dim
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The rows at `indices`; one may come twice.
    pub fn select(&self, indices: &[usize]) -> Rows {
        let values = indices.iter().flat_map(|&index| self.row(index)).copied().collect();
        Rows { values, dim: self.dim }
    }

    fn row(&self, index: usize) -> &[f32] {
        &self.values[index * self.dim..][..self.dim]
    }
}

/// A plane between the images of a class and the others.
#[derive(Debug, Clone)]
pub struct Plane {
    weight: Vec<f64>,
    bias: f64,
}

impl Plane {
    /// wᵀx + bias of each row: above 0 for images that look like the class.
    pub fn decisions(&self, rows: &Rows) -> Vec<f64> {
        (0..rows.len()).map(|row| dot(rows.row(row), &self.weight) + self.bias).collect()
    }
}

impl Svm {
    /// The plane for one class; `positive` tells for each row whether it is of the class.
    pub fn fit(&self, rows: &Rows, positive: &[bool]) -> Plane {
        let sign = |row: usize| if positive[row] { 1.0 } else { -1.0 };
        // 1 / 2C: what the squared error adds to the diagonal of the dual's quadratic form.
        let ridge = |row: usize| match positive[row] {
            true => 0.5 / (self.c * self.positive_weight),
            false => 0.5 / self.c,
        };
        let curvature: Vec<f64> =
            (0..rows.len()).map(|row| square(rows.row(row)) + 1.0 + ridge(row)).collect();
        let mut plane = Plane { weight: vec![0.0; rows.dim], bias: 0.0 };
        let mut alpha = vec![0.0; rows.len()];
        // Rows whose α stays at 0 leave `active` and come back for a last look.
        let mut active: Vec<usize> = (0..rows.len()).collect();
        let mut steepest_before = f64::INFINITY;
        let mut random = ChaCha8Rng::seed_from_u64(0);
        for _ in 0..self.max_passes {
            let (mut steepest, mut lowest) = (f64::NEG_INFINITY, f64::INFINITY);
            active.shuffle(&mut random);
            let mut place = 0;
            while place < active.len() {
                let row = active[place];
                let features = rows.row(row);
                let margin = sign(row) * (dot(features, &plane.weight) + plane.bias);
                let slope = margin - 1.0 + alpha[row] * ridge(row);
                if alpha[row] == 0.0 && slope > steepest_before {
                    active.swap_remove(place);
                    continue;
                }
                place += 1;
                let projected = if alpha[row] == 0.0 { slope.min(0.0) } else { slope };
                steepest = steepest.max(projected);
                lowest = lowest.min(projected);
                if projected.abs() > 1e-12 {
                    let before = alpha[row];
                    alpha[row] = (before - slope / curvature[row]).max(0.0);
                    let step = (alpha[row] - before) * sign(row);
                    let weights = plane.weight.iter_mut().zip(features);
                    weights.for_each(|(weight, &x)| *weight += step * f64::from(x));
                    plane.bias += step;
                }
            }
            if steepest - lowest <= self.tolerance {
                if active.len() == rows.len() {
                    break;
                }
                active = (0..rows.len()).collect();
                steepest_before = f64::INFINITY;
                continue;
            }
            steepest_before = if steepest <= 0.0 { f64::INFINITY } else { steepest };
        }
        plane
    }

    /// The planes of all classes; `positive` has one entry a class. Classes share the cores.
    pub fn fit_classes(&self, rows: &Rows, positive: &[Vec<bool>]) -> Vec<Plane> {
        each_on_a_core(positive.len(), |class| self.fit(rows, &positive[class]))
    }
}

/// `work` for 0 to `count`, on all cores, in order.
fn each_on_a_core<T: Send>(count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let cores = protonce_images::threads(0).min(count.max(1));
    let next = AtomicUsize::new(0);
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..cores {
            let (sender, next, work) = (sender.clone(), &next, &work);
            scope.spawn(move || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    // The receiver outlives the threads.
                    if number >= count || sender.send((number, work(number))).is_err() {
                        break;
                    }
                }
            });
        }
    });
    drop(sender);
    let mut done: Vec<(usize, T)> = receiver.into_iter().collect();
    done.sort_by_key(|&(number, _)| number);
    done.into_iter().map(|(_, result)| result).collect()
}

/// Eight sums side by side, so that the processor's vector units fill.
fn dot(row: &[f32], weight: &[f64]) -> f64 {
    let mut sums = [0.0; 8];
    let (rows, weights) = (row.chunks_exact(8), weight.chunks_exact(8));
    let rest: f64 =
        rows.remainder().iter().zip(weights.remainder()).map(|(&x, w)| f64::from(x) * w).sum();
    for (xs, ws) in rows.zip(weights) {
        for ((sum, &x), w) in sums.iter_mut().zip(xs).zip(ws) {
            *sum += f64::from(x) * w;
        }
    }
    sums.iter().sum::<f64>() + rest
}

fn square(row: &[f32]) -> f64 {
    row.iter().map(|&x| f64::from(x) * f64::from(x)).sum()
}

/// The area under a class's precision–recall curve, precision made non-increasing first, as the
/// published code computes it; between 0 and 1. Of equal decisions the later image counts first.
///
/// None without an image of the class: there is no recall then.
pub fn average_precision(decisions: &[f64], positive: &[bool]) -> Option<f64> {
    let total = positive.iter().filter(|&&positive| positive).count();
    if total == 0 {
        return None;
    }
    let mut order: Vec<usize> = (0..decisions.len()).collect();
    order.sort_by(|&a, &b| decisions[b].total_cmp(&decisions[a]).then(b.cmp(&a)));
    let mut found = 0;
    let precision: Vec<f64> = order
        .iter()
        .enumerate()
        .map(|(rank, &image)| {
            found += usize::from(positive[image]);
            found as f64 / (rank + 1) as f64
        })
        .collect();
    // Recall grows by the same amount at each image of the class, and nowhere else.
    let mut best = 0.0f64;
    let mut area = 0.0;
    for (&image, &precision) in order.iter().zip(&precision).rev() {
        best = best.max(precision);
        if positive[image] {
            area += best;
        }
    }
    Some(area / total as f64)
}

/// Labelled images for support vector machines.
#[derive(Debug)]
pub struct SvmSet {
    /// Features, normalised.
    pub rows: Rows,
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
/// With `shots` none, on all of `train`; otherwise `runs` times on so many images of each class,
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
        None => vec![(0..train.rows.len()).collect()],
        Some(shots) => (0..runs).map(|run| choose(train, shots, run, seed)).collect(),
    };
    let mut results = Vec::new();
    for &c in strengths {
        let svm = Svm { c, ..svm.clone() };
        let runs: Vec<f64> = chosen
            .iter()
            .map(|images| {
                let rows = train.rows.select(images);
                let positive: Vec<Vec<bool>> = train
                    .positive
                    .iter()
                    .map(|class| images.iter().map(|&image| class[image]).collect())
                    .collect();
                let planes = svm.fit_classes(&rows, &positive);
                let decisions: Vec<Vec<f64>> =
                    each_on_a_core(planes.len(), |class| planes[class].decisions(&test.rows));
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
    let mut key = [0; 32];
    for (place, number) in [seed, shots as u64, run as u64].into_iter().enumerate() {
        key[place * 8..][..8].copy_from_slice(&number.to_le_bytes());
    }
    let mut random = ChaCha8Rng::from_seed(key);
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
    fn average_precision_follows_the_published_curve() {
        // Ranked: right, wrong, right, wrong. Recall 1/2 at precision 1, recall 1 at 2/3.
        let decisions = [0.9, 0.8, 0.7, 0.6];
        let found = average_precision(&decisions, &[true, false, true, false]).unwrap();
        assert!((found - (1.0 + 2.0 / 3.0) / 2.0).abs() < 1e-12);
        // Precision is made non-increasing: a late run of right images lifts the earlier one.
        let found = average_precision(&decisions, &[false, true, true, true]).unwrap();
        assert!((found - 0.75).abs() < 1e-12);
        assert_eq!(average_precision(&decisions, &[false; 4]), None);
        // Of equal decisions the later one comes first.
        assert_eq!(average_precision(&[1.0, 1.0], &[false, true]), Some(1.0));
        assert_eq!(average_precision(&[1.0, 1.0], &[true, false]), Some(0.5));
    }

    #[test]
    fn a_plane_is_the_minimum_of_its_objective() {
        tch::manual_seed(1);
        let features = Tensor::randn([60, 11], (Kind::Float, Device::Cpu));
        let noise = Tensor::randn([60], (Kind::Float, Device::Cpu));
        let positive = (features.select(1, 0) + noise).gt(0.3);
        let positive: Vec<bool> = Vec::try_from(positive).unwrap();
        let rows = Rows::normalised(&features);
        let svm = Svm { tolerance: 1e-10, max_passes: 100_000, ..Svm::default() };
        let plane = svm.fit(&rows, &positive);
        let objective = |plane: &Plane| {
            let decisions = plane.decisions(&rows);
            let errors = decisions.iter().zip(&positive).map(|(decision, &positive)| {
                let (sign, weight) = if positive { (1.0, 2.0) } else { (-1.0, 1.0) };
                0.5 * weight * (1.0 - sign * decision).max(0.0).powi(2)
            });
            let square = plane.weight.iter().map(|w| w * w).sum::<f64>() + plane.bias.powi(2);
            errors.sum::<f64>() + square / 2.0
        };
        let minimum = objective(&plane);
        for place in 0..=plane.weight.len() {
            for step in [-1e-3, 1e-3] {
                let mut other = plane.clone();
                match other.weight.get_mut(place) {
                    Some(weight) => *weight += step,
                    None => other.bias += step,
                }
                assert!(objective(&other) > minimum, "coordinate {place}");
            }
        }
    }

    #[test]
    fn a_choice_takes_as_many_of_each_class_and_differs_between_runs() {
        let positive: Vec<Vec<bool>> =
            (0..3).map(|class| (0..30).map(|image| image % 3 == class).collect()).collect();
        let rows = Rows { values: vec![0.0; 30], dim: 1 };
        let set = SvmSet { rows, positive };
        let chosen = choose(&set, 4, 0, 7);
        for class in 0..3 {
            assert_eq!(chosen.iter().filter(|&&image| image % 3 == class).count(), 4);
        }
        assert_eq!(chosen, choose(&set, 4, 0, 7));
        assert_ne!(chosen, choose(&set, 4, 1, 7));
        assert_ne!(chosen, choose(&set, 4, 0, 8));
    }
}
