//! A batch while its views are being made.
//!
//! Its memory is laid out before the first image is begun. Threads write the views of their images
//! straight into it, through [`Slot`]s; at the end, gaps that unreadable images left are closed.

use std::ops::Range;

use super::{Batch, Crops, Unreadable};
use crate::views::ViewConfig;

/// A batch in the making.
#[derive(Debug)]
pub(super) struct Assembly {
    /// One buffer per view, with room for every image of the batch.
    views: Vec<Vec<f32>>,
    /// Images not yet finished. While it is not zero, threads write into `views`.
    pending: usize,
    /// Position in the batch of each image that could not be read.
    unreadable: Vec<(usize, Unreadable)>,
}

/// Buffers of batches that were consumed, for use in later ones: a list for each view of an image.
pub(super) type Spare = Vec<Vec<Vec<f32>>>;

/// The memory of one view of neighbouring images of a batch.
pub(super) struct Slot {
    start: *mut f32,
    images: usize,
    /// Numbers per image.
    length: usize,
}

/// Numbers in a view with a side of `size` pixels.
fn view_length(size: usize) -> usize {
    size * size * 3
}

impl Assembly {
    /// An empty batch of so many `images`, whose views have the sides `sizes`.
    pub(super) fn new(images: usize, sizes: &[usize], spare: &mut Spare) -> Assembly {
        let buffer = |(spare, size): (&mut Vec<Vec<f32>>, &usize)| {
            let length = images * view_length(*size);
            match spare.pop() {
                Some(mut buffer) => {
                    buffer.resize(length, 0.0);
                    buffer
                }
                // Zeroed by the system, page by page, on the thread that first writes there.
                None => vec![0.0; length],
            }
        };
        let views = spare.iter_mut().zip(sizes).map(buffer).collect();
        Assembly { views, pending: images, unreadable: Vec::new() }
    }

    /// Replaces `slots` by those of the images at `positions`, one per view.
    pub(super) fn slots(
        &mut self,
        positions: &Range<usize>,
        sizes: &[usize],
        slots: &mut Vec<Slot>,
    ) {
        slots.clear();
        slots.extend(self.views.iter_mut().zip(sizes).map(|(view, &size)| {
            let length = view_length(size);
            debug_assert!(positions.end * length <= view.len());
            let start = view.as_mut_ptr().wrapping_add(positions.start * length);
            Slot { start, images: positions.len(), length }
        }));
    }

    /// Counts so many `images` as finished, and notes those that could not be read.
    pub(super) fn finish(&mut self, images: usize, unreadable: Vec<(usize, Unreadable)>) {
        self.unreadable.extend(unreadable);
        self.pending -= images;
    }

    /// Whether every image is finished.
    pub(super) fn is_complete(&self) -> bool {
        self.pending == 0
    }

    /// The batch of the images `asked` for, without gaps where some could not be read.
    pub(super) fn into_batch(
        mut self,
        asked: &[usize],
        crops: &Crops,
        config: &ViewConfig,
    ) -> Batch {
        self.unreadable.sort_by_key(|&(position, _)| position);
        let mut indices = asked.to_vec();
        if !self.unreadable.is_empty() {
            let missing = |position| {
                self.unreadable.binary_search_by_key(&position, |&(missing, _)| missing).is_ok()
            };
            let readable: Vec<usize> = (0..asked.len()).filter(|&p| !missing(p)).collect();
            for view in &mut self.views {
                let length = view.len() / asked.len();
                for (to, &from) in readable.iter().enumerate() {
                    view.copy_within(from * length..(from + 1) * length, to * length);
                }
                view.truncate(readable.len() * length);
            }
            indices = readable.iter().map(|&position| asked[position]).collect();
        }
        let unreadable = self.unreadable.into_iter().map(|(_, unreadable)| unreadable).collect();
        let (mut views, mut local_views) = (Vec::new(), Vec::new());
        for (number, view) in self.views.into_iter().enumerate() {
            if crops.is_local(number) { local_views.push(view) } else { views.push(view) }
        }
        let ViewConfig { image_size, local_size, .. } = *config;
        Batch { indices, views, image_size, local_views, local_size, unreadable }
    }
}

impl Slot {
    /// The numbers of the view of image `number` among those of the slot.
    ///
    /// # Panics
    /// When the slot has no more images than `number`.
    pub(super) fn pixels(&mut self, number: usize) -> &mut [f32] {
        assert!(number < self.images);
        // SAFETY: `start`, `images` and `length` come from `Assembly::slots`, which stays inside one
        // vector of initialised numbers. `Queue::take` hands out each (batch, position) once, so no
        // other slot overlaps, and `&mut self` admits one slice per slot at a time. Until
        // `Queue::finish` has counted these images the assembly's `pending` is above zero:
        // `Queue::wait` does not take it, and nothing else reads, grows or drops its vectors.
        // (Moving an `Assembly` within the queue does not move its vectors' memory.) A thread
        // replaces its slots, unused after `finish`, when it takes the next images. If the loader is
        // dropped first, the `Arc<Queue>` that this thread runs on keeps the assembly alive.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(number * self.length), self.length) }
    }
}
