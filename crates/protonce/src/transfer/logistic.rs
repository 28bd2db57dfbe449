//! Multinomial logistic regression on frozen features, solved to the minimum.
//!
//! The objective is scikit-learn's: C · Σ cross-entropy + ½‖W‖², the bias free, over all images at
//! once. Minimised by L-BFGS (Liu & Nocedal 1989) in coordinates in which the objective is nearly
//! round: the features are centred, and W is expressed in the eigenvectors of their covariance, each
//! scaled by the curvature that the objective has along it at W = 0. That changes the path, not the
//! minimum, and takes tens of passes over the features where raw coordinates take many hundreds.
//! Passes are float32 products; the objective, gradient and steps are summed in float64.

use std::collections::{HashMap, VecDeque};

use serde::Serialize;
use tch::{Device, Kind, Tensor};

use super::TransferError;

/// A linear layer on features.
#[derive(Debug)]
pub struct LinearClassifier {
    /// float32 [classes, dim].
    pub weight: Tensor,
    /// float32 [classes].
    pub bias: Tensor,
}

impl LinearClassifier {
    /// [rows, dim] → [rows, classes].
    pub fn scores(&self, features: &Tensor) -> Tensor {
        features.linear(&self.weight, Some(&self.bias))
    }
}

/// Shares of images whose class is among the best-scored.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct TopAccuracy {
    /// The best-scored class is right, in percent.
    pub top1: f64,
    /// One of the five best-scored classes is right, in percent.
    pub top5: f64,
}

/// How often `labels` (int64 [rows]) are among the best of `scores` [rows, classes].
pub fn top_accuracy(scores: &Tensor, labels: &Tensor) -> TopAccuracy {
    let (rows, classes) = scores.size2().unwrap_or((0, 1));
    let (_, best) = scores.topk(classes.min(5), 1, true, true);
    let right = best.eq_tensor(&labels.unsqueeze(1));
    let percent =
        |hits: Tensor| hits.sum(Kind::Double).double_value(&[]) * 100.0 / rows.max(1) as f64;
    TopAccuracy { top1: percent(right.narrow(1, 0, 1)), top5: percent(right.shallow_clone()) }
}

/// How far a fit goes.
#[derive(Debug, Clone)]
pub struct Logistic {
    /// Stops when a step promises to lower the mean objective by less.
    pub tolerance: f64,
    /// Stops after so many steps at most.
    pub max_steps: usize,
}

impl Default for Logistic {
    fn default() -> Logistic {
        Logistic { tolerance: 1e-7, max_steps: 1000 }
    }
}

/// A fit at one strength of regularisation.
#[derive(Debug)]
pub struct LogisticFit {
    /// C, the weight of the cross-entropy against ½‖W‖².
    pub c: f64,
    /// The minimum.
    pub classifier: LinearClassifier,
    /// Mean cross-entropy + ‖W‖² / (2 C n) there.
    pub objective: f64,
    /// Passes over the features.
    pub passes: usize,
    /// Whether the tolerance was met.
    pub converged: bool,
}

impl Logistic {
    /// Fits at each of `strengths`, from the smallest C to the largest, each starting from the one
    /// before.
    ///
    /// `features`: float32 [n, dim], `labels`: int64 [n] in 0..`classes`, on one device.
    pub fn sweep(
        &self,
        features: &Tensor,
        labels: &Tensor,
        classes: i64,
        strengths: &[f64],
    ) -> Vec<LogisticFit> {
        let _guard = tch::no_grad_guard();
        let problem = Problem::new(features, labels, classes);
        let mut strengths = strengths.to_vec();
        strengths.sort_by(f64::total_cmp);
        let dim = features.size()[1];
        // W in the eigenvectors of the covariance, then the bias.
        let mut weight = vec![0.0; (classes * dim) as usize];
        let mut bias = vec![0.0; classes as usize];
        let mut fits = Vec::new();
        for c in strengths {
            let round = Round::new(&problem, c);
            let start = round.shrink(&weight, &bias);
            let minimum = self.minimise(start, &|point| round.evaluate(point));
            (weight, bias) = round.stretch(&minimum.point);
            fits.push(LogisticFit {
                c,
                classifier: problem.classifier(&weight, &bias),
                objective: minimum.value,
                passes: minimum.evaluations,
                converged: minimum.converged,
            });
        }
        fits
    }

    /// The strength at which the classifier does best on a tenth of each class's images that it was
    /// not fitted to, and what share of them it gets right at each strength, in percent. A single
    /// strength is the choice; a tie goes to the smaller.
    ///
    /// # Errors
    /// When there is no strength, one that is not above 0, or several and no class has two images.
    pub fn choose(
        &self,
        features: &Tensor,
        labels: &Tensor,
        classes: i64,
        strengths: &[f64],
    ) -> Result<(f64, Vec<(f64, f64)>), TransferError> {
        let positive = |c: &f64| *c > 0.0 && c.is_finite();
        if strengths.is_empty() || !strengths.iter().all(positive) {
            let found = format!("{strengths:?}");
            return Err(TransferError::Option { option: "c", found, expected: "above 0" });
        }
        if let [only] = strengths {
            return Ok((*only, Vec::new()));
        }
        let (fitted, held_out) = tenth_of_each_class(labels);
        if held_out.numel() == 0 {
            let found = format!("{strengths:?}");
            let expected = "one value: no class has an image to spare for a choice";
            return Err(TransferError::Option { option: "c", found, expected });
        }
        let select = |rows: &Tensor| (features.index_select(0, rows), labels.index_select(0, rows));
        let ((features, labels), (tested, truth)) = (select(&fitted), select(&held_out));
        let mut best = (0.0, -1.0);
        let mut shares = Vec::new();
        for fit in self.sweep(&features, &labels, classes, strengths) {
            let top1 = top_accuracy(&fit.classifier.scores(&tested), &truth).top1;
            if top1 > best.1 {
                best = (fit.c, top1);
            }
            shares.push((fit.c, top1));
        }
        Ok((best.0, shares))
    }

    /// L-BFGS with a backtracking line search.
    fn minimise(&self, start: Vec<f64>, evaluate: &Objective) -> Minimum {
        // Pairs of steps and gradient changes that stand for the curvature.
        const MEMORY: usize = 12;
        const SUFFICIENT: f64 = 1e-4;
        const SHORTEST: f64 = 1e-6;
        let mut point = start;
        let (mut value, mut gradient) = evaluate(&point);
        let mut evaluations = 1;
        let mut pairs: VecDeque<Pair> = VecDeque::new();
        let mut converged = false;
        for _ in 0..self.max_steps {
            let direction = sgd(&gradient, &pairs);
            let slope = dot(&direction, &gradient);
            // Half the slope is what the step gains where the objective is quadratic.
            converged = -slope / 2.0 < self.tolerance;
            if converged {
                break;
            }
            let mut length = 1.0;
            let (next, next_value, next_gradient) = loop {
                let next: Vec<f64> =
                    point.iter().zip(&direction).map(|(x, d)| x + length * d).collect();
                let (next_value, next_gradient) = evaluate(&next);
                evaluations += 1;
                // float32 passes cannot tell smaller differences apart.
                let noise = 1e-8 * value.abs();
                if next_value <= value + SUFFICIENT * length * slope + noise || length < SHORTEST {
                    break (next, next_value, next_gradient);
                }
                // The minimum of the parabola through both values and the slope, within bounds.
                let parabola = -slope * length / (2.0 * (next_value - value - slope * length));
                length *= parabola.clamp(0.1, 0.5);
            };
            if length < SHORTEST {
                break;
            }
            let step: Vec<f64> = next.iter().zip(&point).map(|(b, a)| b - a).collect();
            let change: Vec<f64> =
                next_gradient.iter().zip(&gradient).map(|(b, a)| b - a).collect();
            let curvature = dot(&step, &change);
            if curvature > 1e-12 * dot(&change, &change) {
                if pairs.len() == MEMORY {
                    pairs.pop_front();
                }
                pairs.push_back(Pair { step, change, curvature });
            }
            (point, value, gradient) = (next, next_value, next_gradient);
        }
        Minimum { point, value, evaluations, converged }
    }
}

/// Rows to fit and rows to test on: the second, twelfth, … of each class are for testing, so one of
/// every class that has two.
fn tenth_of_each_class(labels: &Tensor) -> (Tensor, Tensor) {
    let rows = labels.size1().unwrap_or(0) as usize;
    let mut numbers = vec![0i64; rows];
    labels.to_device(Device::Cpu).copy_data(&mut numbers, rows);
    let mut seen = HashMap::new();
    let (mut fitted, mut held_out) = (Vec::new(), Vec::new());
    for (row, label) in numbers.into_iter().enumerate() {
        let count = seen.entry(label).or_insert(0);
        *count += 1;
        if *count % 10 == 2 { held_out.push(row as i64) } else { fitted.push(row as i64) }
    }
    let place = |rows: &[i64]| Tensor::from_slice(rows).to_device(labels.device());
    (place(&fitted), place(&held_out))
}

/// A function's value and gradient at a point.
type Objective<'a> = dyn Fn(&[f64]) -> (f64, Vec<f64>) + 'a;

struct Minimum {
    point: Vec<f64>,
    value: f64,
    evaluations: usize,
    converged: bool,
}

struct Pair {
    step: Vec<f64>,
    change: Vec<f64>,
    /// Their product.
    curvature: f64,
}

/// −H⁻¹ · gradient with the inverse curvature H⁻¹ that `pairs` tell of: the two-loop recursion
/// (Nocedal & Wright, algorithm 7.4).
fn sgd(gradient: &[f64], pairs: &VecDeque<Pair>) -> Vec<f64> {
    let mut direction: Vec<f64> = gradient.iter().map(|g| -g).collect();
    let mut shares = Vec::with_capacity(pairs.len());
    for pair in pairs.iter().rev() {
        let share = dot(&pair.step, &direction) / pair.curvature;
        add(&mut direction, -share, &pair.change);
        shares.push(share);
    }
    if let Some(last) = pairs.back() {
        let scale = last.curvature / dot(&last.change, &last.change);
        direction.iter_mut().for_each(|d| *d *= scale);
    }
    for (pair, share) in pairs.iter().zip(shares.iter().rev()) {
        let back = dot(&pair.change, &direction) / pair.curvature;
        add(&mut direction, share - back, &pair.step);
    }
    direction
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(to: &mut [f64], factor: f64, from: &[f64]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to += factor * from);
}

/// The images, and the coordinates in which they are seen.
struct Problem<'a> {
    features: &'a Tensor,
    labels: &'a Tensor,
    classes: i64,
    /// float64 [dim].
    mean: Tensor,
    /// Eigenvectors of the covariance as columns, float64 [dim, dim].
    eigenvectors: Tensor,
    /// Its eigenvalues.
    variances: Vec<f64>,
}

impl<'a> Problem<'a> {
    fn new(features: &'a Tensor, labels: &'a Tensor, classes: i64) -> Problem<'a> {
        let (rows, dim) = features.size2().unwrap_or((0, 0));
        let mean = features.mean_dim([0].as_slice(), false, Kind::Double);
        // The coordinates need not be exact, so a sample of the rows will do.
        let stride = (rows / (16 * dim).max(1)).max(1);
        let sample = features.slice(0, 0, rows, stride) - mean.to_kind(Kind::Float);
        let covariance = sample.tr().matmul(&sample) / sample.size()[0] as f64;
        let covariance = covariance.to_device(Device::Cpu).to_kind(Kind::Double);
        let (variances, eigenvectors) = covariance.linalg_eigh("L");
        let variances = numbers(&variances).into_iter().map(|v| v.max(0.0)).collect();
        let mean = mean.to_device(Device::Cpu);
        Problem { features, labels, classes, mean, eigenvectors, variances }
    }

    /// float64 [classes, dim] out of coordinates along the eigenvectors.
    fn weight(&self, coordinates: &[f64]) -> Tensor {
        let shape = [self.classes, self.variances.len() as i64];
        Tensor::from_slice(coordinates).view(shape).matmul(&self.eigenvectors.tr())
    }

    /// The classifier on features that are not centred.
    fn classifier(&self, weight: &[f64], bias: &[f64]) -> LinearClassifier {
        let weight = self.weight(weight);
        let bias = Tensor::from_slice(bias) - weight.mv(&self.mean);
        let device = self.features.device();
        let place = |tensor: Tensor| tensor.to_kind(Kind::Float).to_device(device);
        LinearClassifier { weight: place(weight), bias: place(bias) }
    }

    /// The mean cross-entropy and its gradient by the weight's coordinates and by the bias.
    fn cross_entropy(&self, weight: &[f64], bias: &[f64]) -> (f64, Vec<f64>, Vec<f64>) {
        // Rows whose features stay in the processor's cache between the two products.
        const BLOCK: i64 = 1 << 20;
        let classifier = self.classifier(weight, bias);
        let (rows, dim) = self.features.size2().unwrap_or((0, 1));
        let block = (BLOCK / dim.max(self.classes)).max(256);
        let device = self.features.device();
        let mut loss = Tensor::zeros([1], (Kind::Double, device));
        let mut by_weight = Tensor::zeros([self.classes, dim], (Kind::Double, device));
        let mut by_bias = Tensor::zeros([self.classes], (Kind::Double, device));
        for start in (0..rows).step_by(block as usize) {
            let length = block.min(rows - start);
            let features = self.features.narrow(0, start, length);
            let labels = self.labels.narrow(0, start, length).unsqueeze(1);
            let log_probability = classifier.scores(&features).log_softmax(1, Kind::Float);
            loss -= log_probability.gather(1, &labels, false).sum(Kind::Double);
            // Probability less truth: [rows, classes].
            let error = log_probability.exp();
            let error = error.scatter_add(
                1,
                &labels,
                &Tensor::full([length, 1], -1.0, (Kind::Float, device)),
            );
            by_weight += error.tr().matmul(&features).to_kind(Kind::Double);
            by_bias += error.sum_dim_intlist([0].as_slice(), false, Kind::Double);
        }
        let by_bias = by_bias.to_device(Device::Cpu);
        let by_weight = by_weight.to_device(Device::Cpu) - by_bias.outer(&self.mean);
        let by_weight = by_weight.matmul(&self.eigenvectors);
        let mean = 1.0 / rows.max(1) as f64;
        (loss.double_value(&[0]) * mean, numbers(&(by_weight * mean)), numbers(&(by_bias * mean)))
    }
}

/// The objective at one C in coordinates in which it is nearly round.
struct Round<'a> {
    problem: &'a Problem<'a>,
    /// 1 / (C n): the penalty of the mean objective is half of it times ‖W‖².
    penalty: f64,
    /// Of each eigenvector: its length in these coordinates.
    scales: Vec<f64>,
    bias_scale: f64,
}

impl<'a> Round<'a> {
    fn new(problem: &'a Problem<'a>, c: f64) -> Round<'a> {
        let penalty = 1.0 / (c * problem.features.size()[0].max(1) as f64);
        // At W = 0 all classes are equally likely, and the cross-entropy curves by 1/classes times
        // the variance.
        let share = 1.0 / problem.classes.max(1) as f64;
        let scales = problem.variances.iter().map(|v| 1.0 / (share * v + penalty).sqrt()).collect();
        Round { problem, penalty, scales, bias_scale: 1.0 / share.sqrt() }
    }

    /// Round coordinates of a weight and a bias.
    fn shrink(&self, weight: &[f64], bias: &[f64]) -> Vec<f64> {
        let weight = weight.iter().zip(self.scales.iter().cycle()).map(|(w, s)| w / s);
        weight.chain(bias.iter().map(|b| b / self.bias_scale)).collect()
    }

    /// The weight and the bias at round coordinates.
    fn stretch(&self, point: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let (weight, bias) = point.split_at(point.len() - self.problem.classes as usize);
        let weight = weight.iter().zip(self.scales.iter().cycle()).map(|(w, s)| w * s).collect();
        (weight, bias.iter().map(|b| b * self.bias_scale).collect())
    }

    fn evaluate(&self, point: &[f64]) -> (f64, Vec<f64>) {
        let (weight, bias) = self.stretch(point);
        let (loss, mut by_weight, by_bias) = self.problem.cross_entropy(&weight, &bias);
        add(&mut by_weight, self.penalty, &weight);
        let by_weight = by_weight.iter().zip(self.scales.iter().cycle()).map(|(g, s)| g * s);
        let gradient = by_weight.chain(by_bias.iter().map(|g| g * self.bias_scale)).collect();
        (loss + self.penalty / 2.0 * dot(&weight, &weight), gradient)
    }
}

/// A float64 tensor's numbers, row by row.
fn numbers(tensor: &Tensor) -> Vec<f64> {
    let mut numbers = vec![0.0; tensor.numel()];
    tensor.contiguous().view([-1]).copy_data(&mut numbers, tensor.numel());
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Noisy clusters whose coordinates differ a thousandfold in scale.
    fn clusters(rows: i64, dim: i64, classes: i64) -> (Tensor, Tensor) {
        tch::manual_seed(3);
        let labels = Tensor::arange(rows, (Kind::Int64, Device::Cpu)).remainder(classes);
        let centres = Tensor::randn([classes, dim], (Kind::Float, Device::Cpu));
        let noise = Tensor::randn([rows, dim], (Kind::Float, Device::Cpu));
        let scales = Tensor::linspace(-1.5, 1.5, dim, (Kind::Float, Device::Cpu));
        let scales = (scales * 10f64.ln()).exp();
        ((centres.index_select(0, &labels) + 2.0 * noise + 1.0) * scales, labels)
    }

    /// The gradient of C · Σ cross-entropy + ½‖W‖² at a fit, in float64 by autograd.
    fn gradient(fit: &LogisticFit, features: &Tensor, labels: &Tensor) -> f64 {
        let track = |tensor: &Tensor| tensor.to_kind(Kind::Double).set_requires_grad(true);
        let (weight, bias) = (track(&fit.classifier.weight), track(&fit.classifier.bias));
        let scores = features.to_kind(Kind::Double).linear(&weight, Some(&bias));
        let penalty = weight.square().sum(Kind::Double) / (2.0 * fit.c * labels.size()[0] as f64);
        let loss = scores.cross_entropy_for_logits(labels) + penalty;
        let gradients = Tensor::run_backward(&[&loss], &[&weight, &bias], false, false);
        gradients.iter().map(|g| g.abs().max().double_value(&[])).fold(0.0, f64::max)
    }

    #[test]
    fn every_fit_of_a_sweep_is_a_minimum() {
        let (features, labels) = clusters(600, 20, 4);
        let fits = Logistic { tolerance: 1e-10, ..Logistic::default() }.sweep(
            &features,
            &labels,
            4,
            &[10.0, 0.001, 1.0],
        );
        assert_eq!(fits.iter().map(|fit| fit.c).collect::<Vec<_>>(), [0.001, 1.0, 10.0]);
        for fit in &fits {
            assert!(fit.converged, "C {}", fit.c);
            let slope = gradient(fit, &features, &labels);
            assert!(slope < 1e-4, "C {}: slope {slope}", fit.c);
        }
    }

    #[test]
    fn a_start_near_the_minimum_saves_passes() {
        let (features, labels) = clusters(600, 20, 4);
        let both = Logistic::default().sweep(&features, &labels, 4, &[1.0, 2.0]);
        let cold = Logistic::default().sweep(&features, &labels, 4, &[2.0]);
        assert!((both[1].objective - cold[0].objective).abs() < 1e-5);
        assert!(both[1].passes < cold[0].passes);
    }

    #[test]
    fn a_feature_that_never_changes_is_no_obstacle() {
        let (features, labels) = clusters(300, 8, 3);
        let features =
            Tensor::cat(&[&features, &Tensor::ones([300, 2], (Kind::Float, Device::Cpu))], 1);
        let fits = Logistic::default().sweep(&features, &labels, 3, &[1.0]);
        assert!(fits[0].converged && fits[0].objective.is_finite());
    }

    #[test]
    fn accuracy_counts_the_first_and_the_first_five() {
        let scores = Tensor::arange(6, (Kind::Float, Device::Cpu)).view([1, 6]).repeat([3, 1]);
        let accuracy = top_accuracy(&scores, &Tensor::from_slice(&[5i64, 1, 0]));
        assert!((accuracy.top1 - 100.0 / 3.0).abs() < 1e-9, "{accuracy:?}");
        assert!((accuracy.top5 - 200.0 / 3.0).abs() < 1e-9, "{accuracy:?}");
        let two = top_accuracy(&scores.narrow(1, 0, 2), &Tensor::from_slice(&[1i64, 0, 1]));
        assert_eq!(two.top5, 100.0);
    }
}
