//! The queue: a ring of the keys of past images, the negatives of InfoNCE (MoCo §3.2).

use protonce_images::random::{Purpose, generator};
use rand_distr::{Distribution, StandardNormal};
use tch::{Device, Kind, Tensor};

use protonce_encoder::normalise_rows;

/// The last r keys, and whose they are. Any batch size fits any length.
pub struct Queue {
    keys: Tensor,
    images: Tensor,
    position: i64,
}

impl Queue {
    /// `length` random directions of `dim` dimensions, which real keys then replace.
    pub fn new(length: i64, dim: i64, device: Device, seed: u64) -> Queue {
        let random: Vec<f32> = StandardNormal
            .sample_iter(generator(seed, Purpose::Initial))
            .take((length * dim) as usize)
            .collect();
        let keys = normalise_rows(&Tensor::from_slice(&random).view([length, dim]));
        Queue::restore(keys.to_device(device), None, 0)
    }

    /// A queue as it was saved: `keys` [r, dim], the next key to go to row `position`. Where it was not
    /// saved whose they are, they are nobody's.
    pub fn restore(keys: Tensor, images: Option<Tensor>, position: i64) -> Queue {
        let nobody = || Tensor::full([keys.size()[0]], -1, (Kind::Int64, keys.device()));
        let images = images.unwrap_or_else(nobody);
        Queue { keys, images, position }
    }

    /// The keys, oldest and newest mixed: [r, dim].
    pub fn keys(&self) -> &Tensor {
        &self.keys
    }

    /// The image of each key: int64 \[r\], −1 where it is of none.
    pub fn images(&self) -> &Tensor {
        &self.images
    }

    /// The row that the next key replaces.
    pub fn position(&self) -> i64 {
        self.position
    }

    /// Replaces the oldest keys by `keys` [batch, dim] of `images` \[batch\], of which only the last r
    /// are kept.
    pub fn enqueue(&mut self, keys: &Tensor, images: &Tensor) {
        let length = self.keys.size()[0];
        let batch = keys.size()[0];
        let kept = batch.min(length);
        let until_end = kept.min(length - self.position);
        let wrapped = kept - until_end;
        for (ring, new) in [(&self.keys, keys), (&self.images, images)] {
            let new = new.narrow(0, batch - kept, kept);
            ring.narrow(0, self.position, until_end).copy_(&new.narrow(0, 0, until_end));
            ring.narrow(0, 0, wrapped).copy_(&new.narrow(0, until_end, wrapped));
        }
        self.position = (self.position + kept) % length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The keys of a queue to which batches were added, and its position. Each key is of the image
    /// whose number is the key's value.
    fn queue_after(length: i64, batches: &[&[f32]]) -> (Vec<f32>, i64) {
        let empty = Tensor::full([length, 1], -1.0, (Kind::Float, Device::Cpu));
        let mut queue = Queue::restore(empty, None, 0);
        for batch in batches {
            let keys = Tensor::from_slice(batch);
            queue.enqueue(&keys.view([-1, 1]), &keys.to_kind(Kind::Int64));
        }
        let keys = queue.keys.view([-1]);
        assert_eq!(queue.images, keys.to_kind(Kind::Int64));
        (Vec::try_from(keys).unwrap(), queue.position)
    }

    #[test]
    fn batches_that_do_not_divide_the_length_wrap_around() {
        assert_eq!(queue_after(4, &[&[1., 2., 3.], &[4., 5., 6.]]), (vec![5., 6., 3., 4.], 2));
    }

    #[test]
    fn a_batch_longer_than_the_queue_leaves_its_last_keys() {
        let (keys, position) = queue_after(2, &[&[1., 2., 3., 4., 5.]]);
        assert_eq!((keys, position), (vec![4., 5.], 0));
    }
}
