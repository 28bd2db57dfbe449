//! Multinomial logistic regression on frozen features, solved to the minimum.
//!
//! The objective is scikit-learn's: C · Σ cross-entropy + ½‖W‖², the bias free, over all images at
//! once. Minimised by L-BFGS in coordinates in which the objective is nearly
//! round: the features are centred, and W is expressed in the eigenvectors of their covariance, each
//! scaled by the curvature that the objective has along it at W = 0. That changes the path, not the
//! minimum, and takes tens of passes over the features where raw coordinates take many hundreds.
//! Passes are float32 products; the objective, gradient and steps are summed in float64.

use std::collections::HashMap;

use tch::{Device, Kind, Tensor};

use super::TransferError;
use super::classifier::{LinearClassifier, top_accuracy};
use super::lbfgs::{Lbfgs, add, dot};
use crate::tensors::values;

/// How far a fit goes.
#[derive(Debug, Clone)]
pub struct Logistic {
    /// Stops when a step promises to lower the mean objective by less.
    pub tolerance: f64,
    /// Stops after this many steps at most.
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
    /// `features`: float32 [n, dim], `labels`: int64 \[n\] in 0..`classes`, on one device.
    ///
    /// # Errors
    /// When a tensor is of another type.
    pub fn sweep(
        &self,
        features: &Tensor,
        labels: &Tensor,
        classes: i64,
        strengths: &[f64],
    ) -> Result<Vec<LogisticFit>, TransferError> {
        let _guard = tch::no_grad_guard();
        let problem = Problem::new(features, labels, classes)?;
        let mut strengths = strengths.to_vec();
        strengths.sort_by(f64::total_cmp);
        let dim = features.size()[1];
        // W in the eigenvectors of the covariance, then the bias.
        let mut weight = vec![0.0; (classes * dim) as usize];
        let mut bias = vec![0.0; classes as usize];
        let mut fits = Vec::new();
        let search = Lbfgs { tolerance: self.tolerance, max_steps: self.max_steps };
        for c in strengths {
            let round = Round::new(&problem, c);
            let start = round.shrink(&weight, &bias);
            let minimum = search.minimise(start, &|point| round.evaluate(point))?;
            (weight, bias) = round.stretch(&minimum.point);
            fits.push(LogisticFit {
                c,
                classifier: problem.classifier(&weight, &bias),
                objective: minimum.value,
                passes: minimum.evaluations,
                converged: minimum.converged,
            });
        }
        Ok(fits)
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
        let (fitted, held_out) = tenth_of_each_class(labels)?;
        if held_out.numel() == 0 {
            let found = format!("{strengths:?}");
            let expected = "one value: no class has an image to spare for a choice";
            return Err(TransferError::Option { option: "c", found, expected });
        }
        let select = |rows: &Tensor| (features.index_select(0, rows), labels.index_select(0, rows));
        let ((features, labels), (tested, truth)) = (select(&fitted), select(&held_out));
        let mut best = (0.0, -1.0);
        let mut shares = Vec::new();
        for fit in self.sweep(&features, &labels, classes, strengths)? {
            let top1 = top_accuracy(&fit.classifier.scores(&tested), &truth).top1;
            if top1 > best.1 {
                best = (fit.c, top1);
            }
            shares.push((fit.c, top1));
        }
        Ok((best.0, shares))
    }
}

/// Rows to fit and rows to test on: the second, twelfth, … of each class are for testing, so one of
/// every class that has two.
fn tenth_of_each_class(labels: &Tensor) -> Result<(Tensor, Tensor), TransferError> {
    let mut seen = HashMap::new();
    let (mut fitted, mut held_out) = (Vec::new(), Vec::new());
    for (row, label) in values::<i64>(labels)?.into_iter().enumerate() {
        let count = seen.entry(label).or_insert(0);
        *count += 1;
        if *count % 10 == 2 { held_out.push(row as i64) } else { fitted.push(row as i64) }
    }
    let on_device = |rows: &[i64]| Tensor::from_slice(rows).to_device(labels.device());
    Ok((on_device(&fitted), on_device(&held_out)))
}

/// The images, and the coordinates in which the classifier is expressed.
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
    fn new(
        features: &'a Tensor,
        labels: &'a Tensor,
        classes: i64,
    ) -> Result<Problem<'a>, TransferError> {
        let (rows, dim) = (features.size()[0], features.size()[1]);
        let mean = features.mean_dim([0].as_slice(), false, Kind::Double);
        // The coordinates need not be exact, so a sample of the rows will do.
        let stride = (rows / (16 * dim).max(1)).max(1);
        let sample = features.slice(0, 0, rows, stride) - mean.to_kind(Kind::Float);
        let covariance = sample.tr().matmul(&sample) / sample.size()[0] as f64;
        let covariance = covariance.to_device(Device::Cpu).to_kind(Kind::Double);
        let (variances, eigenvectors) = covariance.linalg_eigh("L");
        let variances = values::<f64>(&variances)?.into_iter().map(|v| v.max(0.0)).collect();
        let mean = mean.to_device(Device::Cpu);
        Ok(Problem { features, labels, classes, mean, eigenvectors, variances })
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
        let single = |tensor: Tensor| tensor.to_kind(Kind::Float).to_device(device);
        LinearClassifier { weight: single(weight), bias: single(bias) }
    }

    /// The mean cross-entropy and its gradient by the weight's coordinates and by the bias.
    fn cross_entropy(
        &self,
        weight: &[f64],
        bias: &[f64],
    ) -> Result<(f64, Vec<f64>, Vec<f64>), TransferError> {
        // Rows whose features stay in the processor's cache between the two products.
        const BLOCK: i64 = 1 << 20;
        let classifier = self.classifier(weight, bias);
        let (rows, dim) = (self.features.size()[0], self.features.size()[1]);
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
        let (by_weight, by_bias) = (values(&(by_weight * mean))?, values(&(by_bias * mean))?);
        Ok((loss.double_value(&[0]) * mean, by_weight, by_bias))
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

    fn evaluate(&self, point: &[f64]) -> Result<(f64, Vec<f64>), TransferError> {
        let (weight, bias) = self.stretch(point);
        let (loss, mut by_weight, by_bias) = self.problem.cross_entropy(&weight, &bias)?;
        add(&mut by_weight, self.penalty, &weight);
        let by_weight = by_weight.iter().zip(self.scales.iter().cycle()).map(|(g, s)| g * s);
        let gradient = by_weight.chain(by_bias.iter().map(|g| g * self.bias_scale)).collect();
        Ok((loss + self.penalty / 2.0 * dot(&weight, &weight), gradient))
    }
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
        let fits = Logistic { tolerance: 1e-10, ..Logistic::default() }
            .sweep(&features, &labels, 4, &[10.0, 0.001, 1.0])
            .unwrap();
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
        let both = Logistic::default().sweep(&features, &labels, 4, &[1.0, 2.0]).unwrap();
        let cold = Logistic::default().sweep(&features, &labels, 4, &[2.0]).unwrap();
        assert!((both[1].objective - cold[0].objective).abs() < 1e-5);
        assert!(both[1].passes < cold[0].passes);
    }

    #[test]
    fn a_feature_that_never_changes_is_no_obstacle() {
        let (features, labels) = clusters(300, 8, 3);
        let features =
            Tensor::cat(&[&features, &Tensor::ones([300, 2], (Kind::Float, Device::Cpu))], 1);
        let fits = Logistic::default().sweep(&features, &labels, 3, &[1.0]).unwrap();
        assert!(fits[0].converged && fits[0].objective.is_finite());
    }
}
