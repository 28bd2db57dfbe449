//! The plane between the images of a class and the others.
//!
//! The objective is ½‖w‖² + Σ Cᵢ max(0, 1 − yᵢ wᵀxᵢ)², with C doubled for images of the class and the
//! bias a weight of a feature that is always 1; LIBLINEAR minimises the same one (its solver 1). Its
//! method too: coordinate descent on the dual (Hsieh et al. 2008, algorithm 3), where a step needs one
//! image.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::FeatureMatrix;

/// The options of a support vector machine; the defaults are the published code's.
#[derive(Debug, Clone)]
pub struct Svm {
    /// C, the weight of an error against ½‖w‖².
    pub c: f64,
    /// How much more an error on an image of the class weighs.
    pub positive_weight: f64,
    /// Stops when no image's slope exceeds the others' by more.
    pub tolerance: f64,
    /// Stops after this many passes over the images at most.
    pub max_passes: usize,
}

impl Default for Svm {
    fn default() -> Svm {
        Svm { c: 0.5, positive_weight: 2.0, tolerance: 1e-4, max_passes: 2000 }
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
    pub fn decisions(&self, rows: &FeatureMatrix) -> Vec<f64> {
        (0..rows.len()).map(|row| dot(rows.row(row), &self.weight) + self.bias).collect()
    }
}

impl Svm {
    /// The plane for one class; `positive` says for each row whether it is of the class.
    pub fn fit(&self, rows: &FeatureMatrix, positive: &[bool]) -> Plane {
        let sign = |row: usize| if positive[row] { 1.0 } else { -1.0 };
        // 1 / 2C: what the squared error adds to the diagonal of the dual's quadratic form.
        let ridge = |row: usize| match positive[row] {
            true => 0.5 / (self.c * self.positive_weight),
            false => 0.5 / self.c,
        };
        let curvature: Vec<f64> =
            (0..rows.len()).map(|row| square(rows.row(row)) + 1.0 + ridge(row)).collect();
        let mut plane = Plane { weight: vec![0.0; rows.dim()], bias: 0.0 };
        let mut alpha = vec![0.0; rows.len()];
        // Rows whose α stays at 0 leave `active` and come back for a last look.
        let mut active: Vec<usize> = (0..rows.len()).collect();
        let mut steepest_before = f64::INFINITY;
        let mut random = ChaCha8Rng::seed_from_u64(0);
        for _ in 0..self.max_passes {
            let (mut steepest, mut lowest) = (f64::NEG_INFINITY, f64::INFINITY);
            active.shuffle(&mut random);
            let mut next = 0;
            while next < active.len() {
                let row = active[next];
                let features = rows.row(row);
                let margin = sign(row) * (dot(features, &plane.weight) + plane.bias);
                let slope = margin - 1.0 + alpha[row] * ridge(row);
                if alpha[row] == 0.0 && slope > steepest_before {
                    active.swap_remove(next);
                    continue;
                }
                next += 1;
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

    /// The planes of all classes; `positive` has one entry per class. Classes are independent and share
    /// the processor's cores.
    pub fn fit_classes(&self, rows: &FeatureMatrix, positive: &[Vec<bool>]) -> Vec<Plane> {
        positive.par_iter().map(|positive| self.fit(rows, positive)).collect()
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind, Tensor};

    #[test]
    fn a_plane_is_the_minimum_of_its_objective() {
        tch::manual_seed(1);
        let features = Tensor::randn([60, 11], (Kind::Float, Device::Cpu));
        let noise = Tensor::randn([60], (Kind::Float, Device::Cpu));
        let positive = (features.select(1, 0) + noise).gt(0.3);
        let positive: Vec<bool> = Vec::try_from(positive).unwrap();
        let rows = FeatureMatrix::normalised(&features).unwrap();
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
        for coordinate in 0..=plane.weight.len() {
            for step in [-1e-3, 1e-3] {
                let mut other = plane.clone();
                match other.weight.get_mut(coordinate) {
                    Some(weight) => *weight += step,
                    None => other.bias += step,
                }
                assert!(objective(&other) > minimum, "coordinate {coordinate}");
            }
        }
    }
}
