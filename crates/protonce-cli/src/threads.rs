//! `--threads`: how many threads tensor arithmetic takes.

use anyhow::Context;

/// Lets tensor arithmetic take `requested` threads. 0 leaves libtorch's own choice: one per core, where
/// it counts the hyperthreads of a core as one, for they share the units that multiply, and heeds
/// `OMP_NUM_THREADS`.
pub fn use_tensor_threads(requested: usize) -> anyhow::Result<()> {
    if requested > 0 {
        tch::set_num_threads(i32::try_from(requested).context("--threads is too large")?);
    }
    Ok(())
}
