//! Every random number that the program draws from a seed: the seed and a purpose enter, a generator
//! leaves.
//!
//! What is drawn for a purpose depends on the seed and on that purpose alone, never on what was drawn
//! before or on the thread that draws. A run that was killed therefore goes on with the same bits,
//! and so does a run with another number of threads. Two purposes never share a stream of numbers:
//! each has a key of its own of the ChaCha cipher, or a stream of its own under that key.
//!
//! Some numbers do not come from here because they do not follow from the seed of a run. k-means is a
//! library of its own and takes a seed, which the E-step sets to the position of the granularity, as
//! the published code does. The solver of the linear SVM visits its rows in an order that is the same
//! in every run, and so are the pictures that speed is measured on. The nonce of a report's page comes
//! from the operating system.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// One of the random views of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum View {
    /// The view that the query encoder sees (x_i, augmented once). Supervised training has this one
    /// alone.
    Query,
    /// The view that the momentum encoder sees (x_i, augmented another time).
    Key,
    /// The small view of this number, counted from 0, of multi-crop training.
    Local(u32),
}

/// What random numbers are drawn for, and where in a run.
///
/// Epochs, steps, images and granularities are counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// The parameters of a random view.
    View {
        /// The epoch.
        epoch: u64,
        /// The index of the image.
        image: u64,
        /// Which of its views.
        view: View,
    },
    /// The order of the images in an epoch of pretraining.
    Order {
        /// The epoch.
        epoch: u64,
    },
    /// The order in which the keys of a batch are normalised in groups (MoCo's shuffled batch norm).
    KeyOrder {
        /// The epoch.
        epoch: u64,
        /// The step of that epoch.
        step: u64,
    },
    /// The negative prototypes of a batch.
    Negatives {
        /// The epoch.
        epoch: u64,
        /// The step of that epoch.
        step: u64,
        /// The granularity.
        granularity: u16,
    },
    /// The values that training starts from: an encoder's parameters, the queue's keys, a
    /// classifier's weights.
    ///
    /// Each of them reads the stream from its beginning. The first keys of the queue are directions
    /// along the normal numbers that the first convolution was drawn from, which does no harm: real
    /// keys replace them within the first steps.
    Initial,
    /// The order of the images in an epoch of supervised training: a linear probe, fine-tuning.
    SupervisedOrder {
        /// The epoch.
        epoch: u64,
    },
    /// The images that a run is made of where it uses a sample.
    Sample,
    /// The images whose labels a semi-supervised evaluation uses.
    LabelledImages,
    /// The images per class that a run of a low-shot evaluation trains on.
    Shots {
        /// Images per class.
        shots: u64,
        /// The run.
        run: u64,
    },
}

/// The generator of the numbers for `purpose` in a run with `seed`, at the beginning of its stream.
pub fn generator(seed: u64, purpose: Purpose) -> ChaCha8Rng {
    let (key, stream) = key_and_stream(seed, purpose);
    let mut generator = ChaCha8Rng::from_seed(key);
    generator.set_stream(stream);
    generator
}

// The numbers of these purposes are above those of any granularity, which has 16 bits, and a local
// view, which has 32 bits, does not reach the next of them.
const LOCAL_VIEWS: u64 = 1 << 32;
const LABELLED_IMAGES: u64 = 2 << 32;
const SHOTS: u64 = 3 << 32;
const SAMPLE: u64 = 4 << 32;

/// The key of a purpose, and the stream under it.
///
/// A key is (seed, two numbers that say where in the run, the number of the purpose). Numbers of
/// purposes are part of the format of a run: one that is changed gives other images, batches and
/// negatives to every run that is resumed or repeated. Two purposes have the key that the `rand`
/// crate derives from the seed instead, and are told apart by the stream.
fn key_and_stream(seed: u64, purpose: Purpose) -> ([u8; 32], u64) {
    let derived = || ChaCha8Rng::seed_from_u64(seed).get_seed();
    let (first, second, number) = match purpose {
        Purpose::View { epoch, image, view: View::Query } => (epoch, image, 0),
        Purpose::View { epoch, image, view: View::Key } => (epoch, image, 1),
        Purpose::View { epoch, image, view: View::Local(view) } => {
            (epoch, image, LOCAL_VIEWS + u64::from(view))
        }
        Purpose::Order { epoch } => (epoch, 0, 2),
        Purpose::KeyOrder { epoch, step } => (epoch, step, 3),
        Purpose::Negatives { epoch, step, granularity } => {
            (epoch, step, 4 + u64::from(granularity))
        }
        Purpose::Initial => return (derived(), 0),
        // Stream 0 is that of the initial values, which no epoch below 2⁶⁴ − 1 meets.
        Purpose::SupervisedOrder { epoch } => return (derived(), epoch.wrapping_add(1)),
        Purpose::Sample => (0, 0, SAMPLE),
        Purpose::LabelledImages => (0, 0, LABELLED_IMAGES),
        Purpose::Shots { shots, run } => (shots, run, SHOTS),
    };
    let mut key = [0; 32];
    for (bytes, number) in key.chunks_exact_mut(8).zip([seed, first, second, number]) {
        bytes.copy_from_slice(&number.to_le_bytes());
    }
    (key, 0)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use rand_chacha::rand_core::Rng;

    use super::*;

    /// Every purpose at each of the small numbers of `range`, and at the largest.
    fn purposes(range: std::ops::Range<u64>) -> Vec<Purpose> {
        let mut purposes = vec![Purpose::Initial, Purpose::Sample, Purpose::LabelledImages];
        for first in range.clone().chain([u64::MAX - 1]) {
            purposes.push(Purpose::Order { epoch: first });
            purposes.push(Purpose::SupervisedOrder { epoch: first });
            for second in range.clone().chain([u64::MAX]) {
                let locals = range.clone().map(|view| View::Local(view as u32));
                let views = [View::Query, View::Key, View::Local(u32::MAX)].into_iter();
                purposes.extend(views.chain(locals).map(|view| Purpose::View {
                    epoch: first,
                    image: second,
                    view,
                }));
                purposes.push(Purpose::KeyOrder { epoch: first, step: second });
                let granularities = range.clone().map(|number| number as u16).chain([u16::MAX]);
                purposes.extend(granularities.map(|granularity| Purpose::Negatives {
                    epoch: first,
                    step: second,
                    granularity,
                }));
                purposes.push(Purpose::Shots { shots: first, run: second });
            }
        }
        purposes
    }

    #[test]
    fn no_two_purposes_share_a_stream() {
        let mut seen = HashMap::new();
        for seed in [0, 1, 2, 3, u64::MAX] {
            for purpose in purposes(0..9) {
                let before = seen.insert(key_and_stream(seed, purpose), (seed, purpose));
                assert_eq!(before, None, "shares its stream with {purpose:?} of seed {seed}");
            }
        }
    }

    #[test]
    fn the_streams_that_published_runs_drew_from_are_unchanged() {
        let bytes = |[seed, first, second, number]: [u8; 4]| {
            let mut key = [0; 32];
            (key[0], key[8], key[16], key[24]) = (seed, first, second, number);
            key
        };
        let key = |purpose| key_and_stream(7, purpose);
        let view = |view| key(Purpose::View { epoch: 3, image: 5, view });
        assert_eq!(view(View::Query), (bytes([7, 3, 5, 0]), 0));
        assert_eq!(view(View::Key), (bytes([7, 3, 5, 1]), 0));
        assert_eq!(key(Purpose::Order { epoch: 3 }), (bytes([7, 3, 0, 2]), 0));
        assert_eq!(key(Purpose::KeyOrder { epoch: 3, step: 5 }), (bytes([7, 3, 5, 3]), 0));
        for granularity in 0..5 {
            let found = key(Purpose::Negatives { epoch: 3, step: 5, granularity });
            assert_eq!(found, (bytes([7, 3, 5, 4 + granularity as u8]), 0));
        }
        let wide = key_and_stream(
            0x0102_0304_0506_0708,
            Purpose::KeyOrder { epoch: 0x1112_1314_1516_1718, step: 0x2122_2324_2526_2728 },
        );
        assert_eq!(
            wide.0,
            [
                0x08, 0x07, 0x06, 0x05, 0x04, 0x03, 0x02, 0x01, 0x18, 0x17, 0x16, 0x15, 0x14, 0x13,
                0x12, 0x11, 0x28, 0x27, 0x26, 0x25, 0x24, 0x23, 0x22, 0x21, 3, 0, 0, 0, 0, 0, 0, 0,
            ]
        );

        // Initial values, and the order of supervised training.
        let drawn = |mut random: ChaCha8Rng| [random.next_u64(), random.next_u64()];
        let mut before = ChaCha8Rng::seed_from_u64(7);
        assert_eq!(drawn(generator(7, Purpose::Initial)), drawn(before.clone()));
        before.set_stream(4);
        assert_eq!(drawn(generator(7, Purpose::SupervisedOrder { epoch: 3 })), drawn(before));
    }
}
