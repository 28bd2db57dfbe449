//! How many threads a number of threads that someone asked for means.

use std::thread::available_parallelism;

/// Threads to start where `requested` were asked for: that many, or one per core for 0. Cores
/// that a container or an affinity mask keeps from this process do not count.
pub fn threads(requested: usize) -> usize {
    match requested {
        0 => available_parallelism().map_or(1, usize::from),
        threads => threads,
    }
}
