//! Working memory, which each thread keeps from one call to the next: an allocation for each call would
//! fall into the gaps between activations and leave no room there for the next of those.

use std::cell::RefCell;

use super::panel::{Row, ZERO};

/// As many rows as were ever asked for.
#[derive(Default)]
pub(super) struct Scratch(RefCell<Vec<Row>>);

thread_local! {
    /// One block's values at all positions.
    pub(super) static BLOCKS: Scratch = Scratch::default();
    /// Filters at all positions, or sums of their gradients, on the thread that starts a pass.
    pub(super) static FILTERS: Scratch = Scratch::default();
}

impl Scratch {
    /// Runs `body` on `rows` rows, which hold arbitrary values.
    pub(super) fn with<T>(&self, rows: usize, body: impl FnOnce(&mut [Row]) -> T) -> T {
        let mut memory = self.0.borrow_mut();
        if memory.len() < rows {
            // Allocated anew rather than grown: nothing in it is worth copying.
            *memory = Vec::new();
            memory.resize(rows, ZERO);
        }
        body(&mut memory[..rows])
    }
}
