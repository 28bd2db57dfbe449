//! How many threads a request for threads means.

/// The number of threads to start when `requested` are asked for: 0 means one per core.
pub fn threads(requested: usize) -> usize {
    match requested {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        requested => requested,
    }
}
