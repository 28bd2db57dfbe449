//! Updates of θ: a step of gradient descent and the moving average, each in one pass over the numbers.

use std::iter::zip;

use protonce_simd::multiversion;
use tch::{Device, Tensor};

use super::memory::{elements, elements_mut};
use super::parallel::{ChunksMut, parallel_for};

/// Stochastic gradient descent with momentum and weight decay, as PyTorch's SGD computes it.
#[derive(Debug, Clone, Copy)]
pub struct Sgd {
    /// η.
    pub learning_rate: f64,
    /// μ, the share of the velocity that is kept.
    pub momentum: f64,
    /// λ, the L2 penalty, which pulls every parameter towards zero.
    pub weight_decay: f64,
}

impl Sgd {
    /// v ← μv + (g + λθ), θ ← θ − ηv. All float32 [parameters] on one device.
    pub(super) fn step(&self, theta: &mut Tensor, velocity: &mut Tensor, gradient: &Tensor) {
        let _guard = tch::no_grad_guard();
        if theta.device() != Device::Cpu {
            *velocity *= self.momentum;
            *velocity += gradient;
            *velocity += &*theta * self.weight_decay;
            *theta -= &*velocity * self.learning_rate;
            return;
        }
        let rates = [self.learning_rate, self.momentum, self.weight_decay].map(|x| x as f32);
        let theta = ChunksMut::new(elements_mut(theta), CHUNK);
        let velocity = ChunksMut::new(elements_mut(velocity), CHUNK);
        let gradient: Vec<&[f32]> = elements(gradient).chunks(CHUNK).collect();
        parallel_for(theta.len(), 1, |range| {
            for chunk in range {
                sgd(&mut theta.lock(chunk), &mut velocity.lock(chunk), gradient[chunk], rates);
            }
        });
    }
}

/// θ' ← mθ' + (1 − m)θ. Both float32 [parameters] on one device.
pub(super) fn ema_update(average: &mut Tensor, theta: &Tensor, momentum: f64) {
    let _guard = tch::no_grad_guard();
    if theta.device() != Device::Cpu {
        let _ = average.lerp_(theta, 1.0 - momentum);
        return;
    }
    let share = (1.0 - momentum) as f32;
    let average = ChunksMut::new(elements_mut(average), CHUNK);
    let theta: Vec<&[f32]> = elements(theta).chunks(CHUNK).collect();
    parallel_for(average.len(), 1, |range| {
        for chunk in range {
            lerp(&mut average.lock(chunk), theta[chunk], share);
        }
    });
}

/// Numbers that a thread updates at a time.
const CHUNK: usize = 1 << 16;

multiversion! {
    /// [`Sgd::step`] of one chunk.
    fn sgd(theta: &mut [f32], velocity: &mut [f32], gradient: &[f32], rates: [f32; 3]) {
        let [learning_rate, momentum, weight_decay] = rates;
        for ((theta, velocity), gradient) in zip(zip(theta, velocity), gradient) {
            *velocity = momentum * *velocity + gradient + weight_decay * *theta;
            *theta -= learning_rate * *velocity;
        }
    }
}

multiversion! {
    /// [`ema_update`] of one chunk.
    fn lerp(average: &mut [f32], theta: &[f32], share: f32) {
        for (average, theta) in zip(average, theta) {
            *average += share * (theta - *average);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Kind;

    fn normal(seed: i64) -> Tensor {
        tch::manual_seed(seed);
        // Neither a whole number of chunks nor of vectors.
        Tensor::randn([3 * CHUNK as i64 + 13], (Kind::Float, Device::Cpu))
    }

    fn assert_close(found: &Tensor, expected: &Tensor) {
        let difference = (found.to_kind(Kind::Double) - expected).abs().max();
        assert!(difference.double_value(&[]) < 1e-6, "{difference:?}");
    }

    #[test]
    fn two_steps_are_those_of_the_formulas() {
        let sgd = Sgd { learning_rate: 0.06, momentum: 0.9, weight_decay: 5e-4 };
        let (mut theta, mut velocity) = (normal(1), normal(2).zeros_like());
        let [mut exact, mut speed] = [&theta, &velocity].map(|x| x.to_kind(Kind::Double));
        for seed in [3, 4] {
            let gradient = normal(seed);
            sgd.step(&mut theta, &mut velocity, &gradient);
            speed = speed * 0.9 + gradient.to_kind(Kind::Double) + &exact * 5e-4;
            exact -= &speed * 0.06;
            assert_close(&velocity, &speed);
            assert_close(&theta, &exact);
        }
    }

    #[test]
    fn the_moving_average_is_that_of_the_formula() {
        let (mut average, theta) = (normal(1), normal(2));
        let [before, target] = [&average, &theta].map(|x| x.to_kind(Kind::Double));
        ema_update(&mut average, &theta, 0.99);
        assert_close(&average, &(before * 0.99 + target * 0.01));
    }
}
