//! Passes over θ: gradient descent and the moving average, each element read and written once.

use std::iter::zip;
use std::sync::{Mutex, PoisonError};

use tch::{Device, Tensor};

use super::autograd::parallel_for;
use super::memory::{elements, elements_mut};
use protonce_simd::multiversion;

/// Stochastic gradient descent with momentum and weight decay, as PyTorch's SGD computes it.
#[derive(Debug, Clone, Copy)]
pub struct Sgd {
    /// η.
    pub learning_rate: f64,
    /// μ, what is kept of the velocity.
    pub momentum: f64,
    /// λ, which pulls every parameter towards zero.
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
        let gradient = elements::<f32>(gradient);
        let pieces: Vec<_> = zip(pieces(elements_mut(theta)), pieces(elements_mut(velocity)))
            .zip(gradient.chunks(PIECE))
            .collect();
        parallel_for(pieces.len(), 1, |range| {
            for ((theta, velocity), gradient) in &pieces[range] {
                descend(&mut taken(theta), &mut taken(velocity), gradient, rates);
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
    let pieces: Vec<_> =
        zip(pieces(elements_mut(average)), elements::<f32>(theta).chunks(PIECE)).collect();
    parallel_for(pieces.len(), 1, |range| {
        for (average, theta) in &pieces[range] {
            approach(&mut taken(average), theta, share);
        }
    });
}

/// Elements a thread takes at a time.
const PIECE: usize = 1 << 16;

/// Each piece for the one thread that works on it.
fn pieces(elements: &mut [f32]) -> impl Iterator<Item = Mutex<&mut [f32]>> {
    elements.chunks_mut(PIECE).map(Mutex::new)
}

fn taken<'a, 'b>(piece: &'a Mutex<&'b mut [f32]>) -> std::sync::MutexGuard<'a, &'b mut [f32]> {
    piece.lock().unwrap_or_else(PoisonError::into_inner)
}

multiversion! {
    fn descend(theta: &mut [f32], velocity: &mut [f32], gradient: &[f32], rates: [f32; 3]) {
        let [learning_rate, momentum, weight_decay] = rates;
        for ((theta, velocity), gradient) in zip(zip(theta, velocity), gradient) {
            *velocity = momentum * *velocity + gradient + weight_decay * *theta;
            *theta -= learning_rate * *velocity;
        }
    }
}

multiversion! {
    fn approach(average: &mut [f32], theta: &[f32], share: f32) {
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
        // Neither a whole number of pieces nor of vectors.
        Tensor::randn([3 * PIECE as i64 + 13], (Kind::Float, Device::Cpu))
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
    fn a_follower_takes_its_share() {
        let (mut average, theta) = (normal(1), normal(2));
        let [before, target] = [&average, &theta].map(|x| x.to_kind(Kind::Double));
        ema_update(&mut average, &theta, 0.99);
        assert_close(&average, &(before * 0.99 + target * 0.01));
    }
}
