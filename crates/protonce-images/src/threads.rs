//! How many threads a number of threads that someone asked for means.

use std::sync::OnceLock;
use std::thread::available_parallelism;

/// The cores that this process may keep busy, where it shares them with others.
static SHARE: OnceLock<usize> = OnceLock::new();

/// Threads to start where `requested` were asked for: that many, or one per core for 0. Cores
/// that a container or an affinity mask keeps from this process do not count, nor those that are left to
/// other processes by [`share_cores`].
pub fn threads(requested: usize) -> usize {
    match requested {
        0 => *SHARE.get().unwrap_or(&available_parallelism().map_or(1, usize::from)),
        threads => threads,
    }
}

/// Makes `cores` be all cores from now on, for a process that works with others on the same machine. Only
/// the first call counts.
pub fn share_cores(cores: usize) {
    // Set before, it stays as it was.
    let _ = SHARE.set(cores.max(1));
}
