//! The random numbers of one view.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;

use crate::random::{Purpose, View, generator};

/// A stream of random numbers that depends on (seed, epoch, image, view) alone.
///
/// Streams of neighbouring images share nothing, and no thread needs to know what another has drawn.
/// The distributions are written out here because those of a library may change between releases,
/// and with them every resumed run.
#[derive(Clone, Debug)]
pub struct ViewRandom(ChaCha8Rng);

impl ViewRandom {
    /// The stream of `view` of the image of index `image` in `epoch` of a run with `seed`.
    pub fn new(seed: u64, epoch: u64, image: u64, view: View) -> ViewRandom {
        ViewRandom(generator(seed, Purpose::View { epoch, image, view }))
    }

    /// Uniform in [0, 1), a multiple of 2⁻⁵³.
    pub fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform in [low, high).
    pub fn uniform(&mut self, [low, high]: [f64; 2]) -> f64 {
        low + (high - low) * self.unit()
    }

    /// True with the given probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// Uniform in 0..bound; 0 when `bound` is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        // The high word of the product: its bias is bound · 2⁻⁶⁴, far below what could be seen.
        ((u128::from(self.0.next_u64()) * bound as u128) >> 64) as usize
    }
}
