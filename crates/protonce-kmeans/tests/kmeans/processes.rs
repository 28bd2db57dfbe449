//! Points that are dealt to several processes are clustered as one process clusters them: threads stand
//! for processes, channels for what is between them.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use protonce_kmeans::{
    Clustering, Collective, CollectiveError, HostPoints, Init, KMeans, KMeansError, Metric,
    SingleProcess, Threads,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// One of several processes: a channel to and from each.
struct Process {
    rank: usize,
    to: Vec<Sender<Vec<u64>>>,
    from: Vec<Receiver<Vec<u64>>>,
}

impl Process {
    fn all(size: usize) -> Vec<Process> {
        let empty = |rank| Process { rank, to: Vec::new(), from: Vec::new() };
        let mut processes: Vec<Process> = (0..size).map(empty).collect();
        for sender in 0..size {
            for receiver in 0..size {
                let (to, from) = channel();
                processes[sender].to.push(to);
                processes[receiver].from.push(from);
            }
        }
        processes
    }
}

impl Collective for Process {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.to.len()
    }

    fn gather(&self, own: &[u32]) -> Result<Vec<Vec<u32>>, CollectiveError> {
        for to in &self.to {
            to.send(own.iter().map(|&value| u64::from(value)).collect())?;
        }
        let received = self.from.iter().map(|from| {
            Ok(from.recv()?.into_iter().map(|value| value as u32).collect::<Vec<u32>>())
        });
        received.collect()
    }

    fn send(&self, processes: &[usize], values: &[f64]) -> Result<(), CollectiveError> {
        for &process in processes {
            self.to[process].send(values.iter().map(|value| value.to_bits()).collect())?;
        }
        Ok(())
    }

    fn receive(&self, process: usize, values: &mut [f64]) -> Result<(), CollectiveError> {
        let received = self.from[process].recv()?;
        assert_eq!(received.len(), values.len());
        for (value, bits) in values.iter_mut().zip(received) {
            *value = f64::from_bits(bits);
        }
        Ok(())
    }
}

/// What each of `size` processes makes of its stretch of `rows`, of which the first has the fewest: of four
/// it has none.
fn in_processes<R: Send>(
    size: usize,
    rows: &[f32],
    dim: usize,
    metric: Metric,
    cluster: impl Fn(&HostPoints, &Process) -> R + Sync,
) -> Vec<R> {
    let count = rows.len() / dim;
    let bound = |process: usize| match size {
        4 => count * process * process.saturating_sub(1) / 12 * dim,
        _ => count * process * process / (size * size) * dim,
    };
    thread::scope(|scope| {
        let threads: Vec<_> = Process::all(size)
            .into_iter()
            .map(|process| {
                let own = &rows[bound(process.rank)..bound(process.rank + 1)];
                let cluster = &cluster;
                scope.spawn(move || cluster(&HostPoints::new(own, dim, metric).unwrap(), &process))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// Everything but seconds and effort.
fn assert_same(found: &Clustering, expected: &Clustering, what: &str) {
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    assert!(bits(&found.centroids) == bits(&expected.centroids), "centroids, {what}");
    assert!(found.assignment == expected.assignment, "assignment, {what}");
    assert!(bits(&found.distances) == bits(&expected.distances), "distances, {what}");
    assert_eq!(found.objective.to_bits(), expected.objective.to_bits(), "{what}");
    let course = |clustering: &Clustering| -> Vec<(u64, u64)> {
        let history = clustering.history.iter();
        history.map(|iteration| (iteration.objective.to_bits(), iteration.changed)).collect()
    };
    assert_eq!(course(found), course(expected), "{what}");
}

/// Rows around a few directions, some of them twice.
fn rows(count: usize, dim: usize, seed: u64) -> Vec<f32> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let centres: Vec<f32> = (0..7 * dim).map(|_| random.random_range(-1.0..1.0)).collect();
    let mut rows = Vec::new();
    for _ in 0..count {
        let centre = random.random_range(0..7) * dim;
        // Values of many magnitudes, whose sums depend on their order.
        let scale: f32 = 10f32.powi(-random.random_range(0..12));
        rows.extend(
            (0..dim).map(|d| centres[centre + d] + scale * random.random_range(-0.3f32..0.3)),
        );
    }
    rows.copy_within(0..3 * dim, 5 * dim);
    rows
}

#[test]
fn any_number_of_processes_comes_to_the_same_bits() {
    for (count, dim, clusters, metric, options) in [
        // As the E-step asks for it.
        (900, 16, 20, Metric::Euclidean, KMeans::default()),
        // A sample of the points.
        (700, 5, 9, Metric::Euclidean, KMeans { max_points_per_centroid: 30, ..KMeans::default() }),
        (600, 40, 150, Metric::Spherical, KMeans { starts: 2, seed: 3, ..KMeans::default() }),
        // Fewer different points than clusters: some lose all of theirs.
        (60, 3, 60, Metric::Euclidean, KMeans { starts: 1, ..KMeans::default() }),
    ] {
        let rows = rows(count, dim, count as u64);
        let options = KMeans { threads: 1, ..options };
        let ignore = &mut |_, _| ();
        let points = HostPoints::new(&rows[..], dim, metric).unwrap();
        let alone = options.fit_with(&points, clusters, None, &SingleProcess, ignore).unwrap();
        // A clustering that goes on from an earlier one, of which some clusters are not known.
        let mut before = alone.assignment.clone();
        before.iter_mut().step_by(7).for_each(|cluster| *cluster = -1);
        let warm = |before: &[i64]| {
            options.fit_with(&points, clusters, Some(before), &SingleProcess, &mut |_, _| ())
        };
        let (warm_alone, known_alone) = (warm(&before).unwrap(), warm(&alone.assignment).unwrap());
        let coarse = clusters / 3;
        let threads = Threads::new(1).unwrap();
        let merged_alone =
            options.merge(&points, &alone, coarse, &SingleProcess, &threads, ignore).unwrap();
        for size in [1, 2, 3, 4] {
            let found = in_processes(size, &rows, dim, metric, |points, process| {
                let fit = |before: Option<&[i64]>| {
                    options.fit_with(points, clusters, before, process, &mut |_, _| ()).unwrap()
                };
                let drawn = fit(None);
                let threads = Threads::new(1).unwrap();
                let ignore = &mut |_, _| ();
                let merged = options.merge(points, &drawn, coarse, process, &threads, ignore);
                (drawn, fit(Some(&before)), fit(Some(&alone.assignment)), merged.unwrap())
            });
            for (rank, (drawn, warm, known, merged)) in found.iter().enumerate() {
                let what = format!("{count} points, process {rank} of {size}");
                assert_same(drawn, &alone, &what);
                assert_same(warm, &warm_alone, &format!("{what}, some known"));
                assert_same(known, &known_alone, &format!("{what}, all known"));
                assert_same(merged, &merged_alone, &format!("{what}, merged"));
            }
        }
    }
}

#[test]
fn what_needs_all_points_in_one_process_is_refused() {
    let rows = rows(50, 4, 1);
    for init in [Init::PlusPlus, Init::Parallel] {
        let options = KMeans { init, threads: 1, ..KMeans::default() };
        let found = in_processes(2, &rows, 4, Metric::Euclidean, |points, process| {
            options.fit_with(points, 5, None, process, &mut |_, _| ()).err()
        });
        assert!(found.iter().all(|error| matches!(error, Some(KMeansError::AcrossProcesses))));
    }
}

#[test]
fn a_process_that_is_gone_is_an_error_of_the_others() {
    let rows = rows(50, 4, 1);
    let found = in_processes(3, &rows, 4, Metric::Euclidean, |points, process| {
        if process.rank == 1 {
            return None;
        }
        KMeans { threads: 1, ..KMeans::default() }
            .fit_with(points, 5, None, process, &mut |_, _| ())
            .err()
    });
    assert!(matches!(
        found[..],
        [Some(KMeansError::Collective(_)), None, Some(KMeansError::Collective(_))]
    ));
}
