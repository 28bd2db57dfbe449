//! The threads that a clustering is computed on.
//!
//! Work is handed out in small pieces, each to the next free thread, and a call returns when all are
//! done. A thread that the system does not run, because other programs have the processor, then holds
//! up no more than the piece it is at. What a piece computes never depends on the thread or on how many
//! there are.

use std::sync::atomic::{AtomicBool, Ordering};

use rayon::iter::{ParallelBridge, ParallelIterator};
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::KMeansError;

/// A pool of threads, which ends when it is dropped.
pub struct Threads {
    pool: ThreadPool,
    stopped: AtomicBool,
}

impl Threads {
    /// Starts `count` threads; 0: one per core.
    ///
    /// # Errors
    /// When the system gives no more threads.
    pub fn new(count: usize) -> Result<Threads, KMeansError> {
        let pool = ThreadPoolBuilder::new().num_threads(count).build()?;
        Ok(Threads { pool, stopped: AtomicBool::new(false) })
    }

    /// Has the clustering that runs on these threads end at once, without a result: pieces of work that
    /// have not begun are passed over. For another thread or a call in between, whose user has lost patience.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Whether [`Threads::stop`] was called. What was computed since is worth nothing.
    pub fn stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
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
        let unless_stopped = |scratch: &mut S, piece: P| {
            if !self.stopped() {
                work(scratch, piece);
            }
        };
        self.pool.install(|| pieces.par_bridge().for_each_init(scratch, unless_stopped));
    }
}
