//! Which images make a batch: an order of images enters, the batches of an epoch leave.
//!
//! This is the rule of training, where a batch of one image is useless: contrastive learning has
//! nothing to tell it apart from, and batch norm no variance to divide by. Evaluation has no such
//! need, since no image there depends on the others of its batch, and cuts its images into plain
//! chunks.

/// Batches in an epoch of training over `images` images, as many as [`batches`] makes.
///
/// A `size` of 0 counts as 1.
pub fn batch_count(images: usize, size: usize) -> usize {
    let size = size.max(1);
    let joined = images > size && images % size == 1;
    images.div_ceil(size) - usize::from(joined)
}

/// `order` in batches of `size` for training. The last may be smaller, but a single image that is
/// left over joins the batch before it. A `size` of 0 counts as 1.
pub fn batches(order: &[usize], size: usize) -> Vec<Vec<usize>> {
    let size = size.max(1);
    let count = batch_count(order.len(), size);
    let last = count.saturating_sub(1);
    let batch = |number: usize| {
        let end = if number == last { order.len() } else { (number + 1) * size };
        order[number * size..end].to_vec()
    };
    (0..count).map(batch).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_image_is_in_one_batch_and_none_is_alone() {
        for images in 0..40 {
            let order: Vec<usize> = (0..images).rev().collect();
            for size in 1..45 {
                let batches = batches(&order, size);
                assert_eq!(batches.concat(), order, "{images} in batches of {size}");
                assert_eq!(batches.len(), batch_count(images, size), "{images} by {size}");
                if let Some((last, whole)) = batches.split_last() {
                    assert!(whole.iter().all(|batch| batch.len() == size), "{images} by {size}");
                    let alone = last.len() == 1 && size > 1 && images > 1;
                    assert!(!alone && last.len() <= size + 1, "{images} by {size}");
                }
            }
        }
    }

    #[test]
    fn a_smaller_last_batch_stays_and_a_single_image_joins_the_batch_before_it() {
        assert_eq!(batches(&[4, 2, 0, 1, 3], 3), [vec![4, 2, 0], vec![1, 3]]);
        assert_eq!(batches(&[4, 2, 0, 1, 3], 2), [vec![4, 2], vec![0, 1, 3]]);
        assert_eq!(batches(&[4], 2), [vec![4]]);
        assert_eq!(batches(&[4, 2], 0), [vec![4], vec![2]]);
        assert!(batches(&[], 2).is_empty());
    }
}
