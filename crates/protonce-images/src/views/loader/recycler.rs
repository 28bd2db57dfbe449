//! Takes back the memory of batches that may outlive their loader.

use std::sync::{Arc, Weak};

use super::Batch;
use super::queue::Queue;

/// Takes back the memory of a loader's batches, from any thread; once the loader is gone it is freed.
#[derive(Clone, Debug)]
pub struct Recycler(Weak<Queue>);

impl Recycler {
    pub(super) fn new(queue: &Arc<Queue>) -> Recycler {
        Recycler(Arc::downgrade(queue))
    }

    /// Hands back the memory of a batch's views for use in a later batch.
    pub fn recycle(&self, batch: Batch) {
        if let Some(queue) = self.0.upgrade() {
            queue.recycle(batch);
        }
    }
}
