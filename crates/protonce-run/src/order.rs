//! The order in which an epoch sees the images.
//!
//! Enters: the number of images and, for an archive, its size. Leaves: every image's index once, in an
//! order that follows from the seed and the epoch alone, so that a resumed run goes on in the same one.

use protonce_images::random::{Purpose, generator};
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::settings::{Config, Shuffle};

/// All of `images` in an order that follows from the seed and the epoch; `bytes` is the size of all
/// together, where it is known.
pub fn order(config: &Config, images: usize, bytes: Option<u64>, epoch: usize) -> Vec<usize> {
    let mut random = generator(config.seed, Purpose::Order { epoch: epoch as u64 });
    let mut order: Vec<usize> = (0..images).collect();
    match (config.shuffle, bytes) {
        (Shuffle::Local, Some(bytes)) => shuffle_locally(&mut order, bytes, &mut random),
        _ => order.shuffle(&mut random),
    }
    order
}

/// Bytes of a stretch that [`shuffle_locally`] takes as one.
const STRETCH_BYTES: u64 = 32 << 20;

/// Stretches that it mixes.
const STRETCHES: usize = 32;

/// Puts stretches of about 32 MiB in random order and shuffles 32 of them at a time.
///
/// Neighbours in a file then come up within a gigabyte of one another, which the page cache holds,
/// and images of 32 random places are mixed. `bytes` is the size of all images together.
fn shuffle_locally(order: &mut Vec<usize>, bytes: u64, random: &mut ChaCha8Rng) {
    let images = order.len() as u64;
    let stretch = (images * STRETCH_BYTES / bytes.max(1)).clamp(1, images.max(1)) as usize;
    let mut stretches: Vec<&[usize]> = order.chunks(stretch).collect();
    stretches.shuffle(random);
    let mut shuffled = stretches.concat();
    for mixed in shuffled.chunks_mut(stretch * STRETCHES) {
        mixed.shuffle(random);
    }
    *order = shuffled;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_those_on_record() {
        #[derive(serde::Deserialize)]
        struct Case {
            seed: u64,
            epoch: usize,
            order: Vec<usize>,
        }
        // The Python package is held to the same record.
        let text = include_str!("../tests/fixtures/orders.json");
        for case in serde_json::from_str::<Vec<Case>>(text).unwrap() {
            let preset = Config::resolve([Config::preset("v2").unwrap()]).unwrap();
            let config = Config { seed: case.seed, shuffle: Shuffle::Full, ..preset };
            assert_eq!(order(&config, case.order.len(), None, case.epoch), case.order);
        }
    }

    #[test]
    fn an_epoch_has_every_image_once_in_an_order_of_its_own() {
        const IMAGES: usize = 10_007;
        const STRETCH: usize = 50;
        let bytes = Some(IMAGES as u64 * STRETCH_BYTES / STRETCH as u64);
        let config = |shuffle, threads, seed| {
            let preset = Config::resolve([Config::preset("small").unwrap()]).unwrap();
            Config { shuffle, threads, loader_threads: threads, seed, ..preset }
        };
        for shuffle in [Shuffle::Full, Shuffle::Local] {
            let first = order(&config(shuffle, 1, 3), IMAGES, bytes, 0);
            let mut sorted = first.clone();
            sorted.sort_unstable();
            assert!(sorted.into_iter().eq(0..IMAGES));
            assert!(first == order(&config(shuffle, 7, 3), IMAGES, bytes, 0), "threads");
            assert!(first != order(&config(shuffle, 1, 3), IMAGES, bytes, 1), "the next epoch");
            assert!(first != order(&config(shuffle, 1, 4), IMAGES, bytes, 0), "another seed");

            // Images at a time that are mixed, and the stretches of the file that they are from.
            let mixed: Vec<&[usize]> = first.chunks(STRETCH * STRETCHES).collect();
            let stretches = mixed.iter().map(|images| {
                let all: std::collections::BTreeSet<usize> =
                    images.iter().map(|image| image / STRETCH).collect();
                all.len()
            });
            let most = stretches.max().unwrap();
            // The last stretch of the file is shorter, so that one may be cut in two.
            assert_eq!(most <= STRETCHES + 1, shuffle == Shuffle::Local, "{most} stretches");
            let neighbours = first.windows(2).filter(|pair| pair[1] == pair[0] + 1).count();
            assert!(neighbours < IMAGES / 100, "{neighbours} images follow their neighbour");
        }
        // Where the size is not known there is nothing to be local in.
        let full = order(&config(Shuffle::Full, 1, 3), IMAGES, None, 0);
        assert!(order(&config(Shuffle::Local, 1, 3), IMAGES, None, 0) == full);
    }
}
