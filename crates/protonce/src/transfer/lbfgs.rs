//! L-BFGS (Liu & Nocedal 1989): the minimum of a smooth function of many numbers, from its values and
//! gradients. Knows nothing of tensors: points are slices of float64.

use std::collections::VecDeque;

/// A function's value and gradient at a point.
type Objective<'a, E> = dyn Fn(&[f64]) -> Result<(f64, Vec<f64>), E> + 'a;

/// When to stop.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lbfgs {
    /// Stops when a step promises to lower the function by less.
    pub(super) tolerance: f64,
    /// Stops after this many steps at most.
    pub(super) max_steps: usize,
}

/// Where the search ended.
pub(super) struct Minimum {
    pub(super) point: Vec<f64>,
    pub(super) value: f64,
    /// How often the function was evaluated.
    pub(super) evaluations: usize,
    /// Whether the tolerance was met.
    pub(super) converged: bool,
}

/// A step and what it did to the gradient.
struct Pair {
    step: Vec<f64>,
    change: Vec<f64>,
    /// Their product.
    curvature: f64,
}

impl Lbfgs {
    /// Descends from `start` with a backtracking line search; `evaluate` gives value and gradient.
    ///
    /// # Errors
    /// Those of `evaluate`.
    pub(super) fn minimise<E>(
        &self,
        start: Vec<f64>,
        evaluate: &Objective<'_, E>,
    ) -> Result<Minimum, E> {
        // Pairs of steps and gradient changes that stand for the curvature.
        const MEMORY: usize = 12;
        const SUFFICIENT: f64 = 1e-4;
        const SHORTEST: f64 = 1e-6;
        let mut point = start;
        let (mut value, mut gradient) = evaluate(&point)?;
        let mut evaluations = 1;
        let mut pairs: VecDeque<Pair> = VecDeque::new();
        let mut converged = false;
        for _ in 0..self.max_steps {
            let direction = descent(&gradient, &pairs);
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
                let (next_value, next_gradient) = evaluate(&next)?;
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
        Ok(Minimum { point, value, evaluations, converged })
    }
}

/// −H⁻¹ · gradient with the inverse curvature H⁻¹ that `pairs` stand for: the two-loop recursion
/// (Nocedal & Wright, algorithm 7.4).
fn descent(gradient: &[f64], pairs: &VecDeque<Pair>) -> Vec<f64> {
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

pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// to ← to + factor · from.
pub(super) fn add(to: &mut [f64], factor: f64, from: &[f64]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to += factor * from);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_narrow_valley_is_followed_to_its_end() {
        // Rosenbrock's function, whose minimum is 0 at (1, 1).
        let rosenbrock = |x: &[f64]| {
            let (a, b) = (1.0 - x[0], x[1] - x[0] * x[0]);
            let gradient = vec![-2.0 * a - 400.0 * x[0] * b, 200.0 * b];
            Ok::<_, std::convert::Infallible>((a * a + 100.0 * b * b, gradient))
        };
        let search = Lbfgs { tolerance: 1e-12, max_steps: 200 };
        let minimum = search.minimise(vec![-1.2, 1.0], &rosenbrock).unwrap();
        assert!(minimum.converged && minimum.evaluations < 100, "{}", minimum.evaluations);
        assert!(minimum.point.iter().all(|x| (x - 1.0).abs() < 1e-4), "{:?}", minimum.point);
    }
}
