//! Mean and standard deviation of a data set's channels.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Decoder, Image};
use crate::data::{DataError, Dataset, StoreError};

/// Images looked at: more of them no longer change the third decimal.
const ENOUGH: usize = 10_000;

/// Means, then standard deviations, of red, green and blue.
pub type ChannelStats = ([f64; 3], [f64; 3]);

/// Mean and standard deviation of red, green and blue, scaled to [0, 1], over all pixels of at most
/// 10 000 images spread evenly over the data set; each image counts the same.
///
/// Images that cannot be read are left out. None when there are no others, or when a channel never
/// varies. The result does not depend on the number of `threads` (0: one per core).
///
/// # Errors
/// When the object store that the images lie in fails.
pub fn measure_stats(
    dataset: &Dataset,
    threads: usize,
) -> Result<Option<ChannelStats>, StoreError> {
    let threads = crate::threads(threads);
    let count = dataset.len().min(ENOUGH);
    let next = AtomicUsize::new(0);
    let moments = Mutex::new(vec![None; count]);
    let failed = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let (mut decoder, mut image) = (Decoder::default(), Image::default());
                let mut bytes = Vec::new();
                loop {
                    let position = next.fetch_add(1, Ordering::Relaxed);
                    if position >= count {
                        return;
                    }
                    let index = position * dataset.len() / count;
                    let read = dataset.read(index, &mut bytes);
                    if let Err(DataError::Store(error)) = read {
                        *failed.lock().unwrap_or_else(|error| error.into_inner()) = Some(error);
                        next.store(count, Ordering::Relaxed);
                        return;
                    }
                    if read.is_ok() && decoder.decode(&bytes, &mut image).is_ok() {
                        let found = of_image(&image);
                        moments.lock().unwrap_or_else(|error| error.into_inner())[position] =
                            Some(found);
                    }
                }
            });
        }
    });
    if let Some(error) = failed.into_inner().unwrap_or_else(|error| error.into_inner()) {
        return Err(error);
    }
    // Added up in the order of the images, no matter which thread was first.
    let moments = moments.into_inner().unwrap_or_else(|error| error.into_inner());
    let (mut sums, mut images) = ([[0.0; 2]; 3], 0.0);
    for image in moments.into_iter().flatten() {
        images += 1.0;
        for (sum, moment) in sums.iter_mut().flatten().zip(image.into_iter().flatten()) {
            *sum += moment;
        }
    }
    if images == 0.0 {
        return Ok(None);
    }
    let mean = sums.map(|[first, _]| first / images);
    let std: [f64; 3] =
        std::array::from_fn(|c| (sums[c][1] / images - mean[c] * mean[c]).max(0.0).sqrt());
    Ok(std.iter().all(|&std| std > 1e-6).then_some((mean, std)))
}

/// Mean and mean square of each channel.
fn of_image(image: &Image) -> [[f64; 2]; 3] {
    let mut sums = [[0u64; 2]; 3];
    for pixel in image.pixels.chunks_exact(3) {
        for (sum, &value) in sums.iter_mut().zip(pixel) {
            let value = u64::from(value);
            sum[0] += value;
            sum[1] += value * value;
        }
    }
    let pixels = (image.pixels.len() / 3) as f64;
    sums.map(|[first, second]| [first as f64 / pixels / 255.0, second as f64 / pixels / 65025.0])
}
