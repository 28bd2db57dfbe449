//! The threads that a clustering is computed on.
//!
//! Work is handed out in small pieces, each to the next free thread, and a call returns when all are
//! done. A thread that the system does not run, because other programs have the processor, then holds
//! up no more than the piece it is at. What a piece computes never depends on the thread or on how many
//! there are.

use rayon::iter::{ParallelBridge, ParallelIterator};
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::KMeansError;

/// A pool of threads, which ends when it is dropped.
pub struct Threads(ThreadPool);

impl Threads {
    /// Starts `count` threads; 0: one per core.
    ///
    /// # Errors
    /// When the system gives no more threads.
    pub fn new(count: usize) -> Result<Threads, KMeansError> {
        Ok(Threads(ThreadPoolBuilder::new().num_threads(count).build()?))
    }

    /// Does `work` on every piece of `pieces`, in any order.
    pub fn share<P: Send>(
        &self,
        pieces: impl Iterator<Item = P> + Send,
        work: impl Fn(P) + Send + Sync,
    ) {
        self.share_with(pieces, || (), |(), piece| work(piece));
    }

    /// The same with `scratch` memory, which a thread keeps from piece to piece.
    pub fn share_with<P: Send, S>(
        &self,
        pieces: impl Iterator<Item = P> + Send,
        scratch: impl Fn() -> S + Send + Sync,
        work: impl Fn(&mut S, P) + Send + Sync,
    ) {
        self.0.install(|| pieces.par_bridge().for_each_init(scratch, work));
    }
}
