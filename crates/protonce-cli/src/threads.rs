//! How many threads tensor arithmetic takes, and how processes on one machine share its cores.

use std::collections::BTreeSet;
use std::fs::read_to_string;
use std::thread::available_parallelism;

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

/// Leaves to each of `processes` on this machine its share of the cores, unless their launcher has done so
/// already; also of those for tensor arithmetic, for which launchers set `OMP_NUM_THREADS` to 1.
pub fn share_cores(processes: usize) -> anyhow::Result<()> {
    let cores = share(
        available_parallelism().map_or(1, usize::from),
        allowed("self"),
        allowed(&std::os::unix::process::parent_id().to_string()),
        processes,
    );
    protonce_images::share_cores(cores);
    use_tensor_threads((cores / hyperthreads()).max(1))
}

/// The share of one of `processes` that may run on `own` cores each, of which it is to use `available`, and
/// whose launcher may run on `launchers`. A launcher that keeps its processes to some of its cores has dealt
/// them out.
fn share(
    available: usize,
    own: Option<usize>,
    launchers: Option<usize>,
    processes: usize,
) -> usize {
    let cores = match (own, launchers) {
        (Some(own), Some(all)) if own < all => available.min(all / processes),
        _ => available / processes,
    };
    cores.max(1)
}

/// How many cores `process` may run on, where the system tells.
fn allowed(process: &str) -> Option<usize> {
    let status = read_to_string(format!("/proc/{process}/status")).ok()?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    count(list.trim())
}

/// The numbers in a list such as `0-3,8`.
fn count(list: &str) -> Option<usize> {
    let counts = list.split(',').map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        Some(last.checked_sub(first)? + 1)
    });
    counts.sum()
}

/// How many of what the system calls cores share one, at most.
fn hyperthreads() -> usize {
    let siblings = |cpu: usize| {
        let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
        Some(read_to_string(path).ok()?.trim().to_owned())
    };
    let lists: BTreeSet<String> = (0..).map_while(siblings).collect();
    lists.iter().filter_map(|list| count(list)).max().unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_shared_once() {
        // torchrun leaves all cores to all.
        assert_eq!(share(8, Some(8), Some(8), 2), 4);
        assert_eq!(share(2, Some(2), Some(2), 4), 1);
        // mpirun binds each process to a core, or to a socket that two of four share.
        assert_eq!(share(1, Some(1), Some(8), 2), 1);
        assert_eq!(share(8, Some(8), Some(16), 4), 4);
        // A container that may use two cores' time, on whichever.
        assert_eq!(share(2, Some(64), Some(64), 2), 1);
        assert_eq!(share(8, None, None, 2), 4);
        assert_eq!(
            [count("0-3,8"), count("5"), count(""), count("3-1")],
            [Some(5), Some(1), None, None]
        );
    }
}
