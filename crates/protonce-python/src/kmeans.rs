//! k-means and measures of clusterings, for arrays.

use protonce_kmeans::{
    HostPoints, Init, KMeans, Metric, Points, SingleProcess, Start, Threads, squared_distance,
};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::array::{Array, rows, values};
use crate::failure::Failure;
use crate::patience::{at_once, watched};

fn metric(spherical: bool) -> Metric {
    if spherical { Metric::Spherical } else { Metric::Euclidean }
}

/// The result of [`kmeans_fit`]: centroids float32 [clusters, dim], labels int64 [points], the sum of
/// squared distances, rounds of assignment and update.
type Fitted = (Array, Array, f64, usize);

/// Clusters float32 `points` of shape [points, dim].
///
/// `centroids`, float32 [clusters, dim], is where it begins instead of what `init` draws. `progress` is
/// called with the rounds done and the most there can be.
#[pyfunction]
#[pyo3(signature = (
    points, clusters, *, iterations, starts, max_points_per_centroid, init, centroids, spherical,
    seed, threads, progress
))]
#[allow(clippy::too_many_arguments)]
pub fn kmeans_fit(
    py: Python<'_>,
    points: Bound<'_, PyAny>,
    clusters: usize,
    iterations: usize,
    starts: usize,
    max_points_per_centroid: Option<usize>,
    init: &str,
    centroids: Option<Bound<'_, PyAny>>,
    spherical: bool,
    seed: u64,
    threads: usize,
    progress: Option<Bound<'_, PyAny>>,
) -> Result<Fitted, Failure> {
    let (values, dim) = rows::<f32>(&points)?;
    let init = match init {
        "random" => Init::Random,
        "k-means++" => Init::PlusPlus,
        "k-means||" => Init::Parallel,
        other => {
            let sentence = format!(
                "init is \"{other}\": expected \"k-means++\", \"k-means||\", \"random\" or centroids"
            );
            return Err(Failure::Argument(sentence));
        }
    };
    let centroids = match &centroids {
        Some(centroids) => Some(rows::<f32>(centroids)?.0),
        None => None,
    };
    let options = KMeans {
        iterations,
        starts,
        max_points_per_centroid: max_points_per_centroid.unwrap_or(usize::MAX),
        init,
        seed,
        threads,
    };
    let threads = Threads::new(threads)?;
    let clustering = watched(
        py,
        progress.as_ref(),
        || threads.stop(),
        |progress| {
            let points = HostPoints::new(values, dim, metric(spherical))?;
            let start = centroids.map_or(Start::Drawn, Start::Centroids);
            Ok(options.fit_on(&points, clusters, start, &SingleProcess, &threads, progress)?)
        },
    )?;
    let rounds = clustering.history.len().saturating_sub(1);
    let (count, clusters) = (clustering.assignment.len(), clustering.clusters());
    Ok((
        Array::new(clustering.centroids, &[clusters, dim]),
        Array::new(clustering.assignment, &[count]),
        clustering.objective,
        rounds,
    ))
}

/// The nearest of float32 `centroids` [clusters, dim] to each of float32 `points` [points, dim], int64
/// [points], and the sum of the squared distances.
#[pyfunction]
#[pyo3(signature = (points, centroids, *, spherical, threads))]
pub fn kmeans_predict(
    py: Python<'_>,
    points: Bound<'_, PyAny>,
    centroids: Bound<'_, PyAny>,
    spherical: bool,
    threads: usize,
) -> Result<(Array, f64), Failure> {
    let ((values, dim), centroids) = (rows::<f32>(&points)?, rows::<f32>(&centroids)?.0);
    let threads = Threads::new(threads)?;
    let (nearest, objective) = watched(
        py,
        None,
        || threads.stop(),
        |_| {
            let points = HostPoints::new(values, dim, metric(spherical))?;
            let assignment = points.assign_once(centroids, &threads);
            let objective = assignment.squared.iter().map(|&squared| f64::from(squared)).sum();
            let nearest: Vec<i64> = assignment.nearest.into_iter().map(i64::from).collect();
            Ok((nearest, objective))
        },
    )?;
    let count = nearest.len();
    Ok((Array::new(nearest, &[count]), objective))
}

/// The L2 distance of each of float32 `points` [points, dim] to each of float32 `centroids`
/// [clusters, dim]: float32 [points, clusters].
#[pyfunction]
#[pyo3(signature = (points, centroids, *, spherical, threads))]
pub fn kmeans_distances(
    py: Python<'_>,
    points: Bound<'_, PyAny>,
    centroids: Bound<'_, PyAny>,
    spherical: bool,
    threads: usize,
) -> Result<Array, Failure> {
    let ((values, dim), centroids) = (rows::<f32>(&points)?, rows::<f32>(&centroids)?.0);
    let threads = Threads::new(threads)?;
    let clusters = centroids.len() / dim.max(1);
    let distances = watched(
        py,
        None,
        || threads.stop(),
        |_| {
            let points = HostPoints::new(values, dim, metric(spherical))?;
            let values = points.values();
            let mut distances = vec![0f32; points.count() * clusters];
            let pieces = distances.chunks_mut(clusters.max(1)).zip(values.chunks(dim));
            threads.share(pieces, |(distances, point)| {
                for (distance, centroid) in distances.iter_mut().zip(centroids.chunks(dim)) {
                    *distance = squared_distance(point, centroid).sqrt();
                }
            });
            Ok(distances)
        },
    )?;
    let count = distances.len() / clusters.max(1);
    Ok(Array::new(distances, &[count, clusters]))
}

/// Measures of the agreement of int64 `clusters` with int64 `labels`, both [things].
#[pyfunction]
pub fn agreement<'py>(
    py: Python<'py>,
    labels: Bound<'py, PyAny>,
    clusters: Bound<'py, PyAny>,
) -> Result<Bound<'py, PyDict>, Failure> {
    let (labels, clusters) = (values::<i64>(&labels)?.0, values::<i64>(&clusters)?.0);
    if labels.len() != clusters.len() || labels.is_empty() {
        let sentence = format!(
            "{} labels and {} clusters: expected as many of both, one or more",
            labels.len(),
            clusters.len()
        );
        return Err(Failure::Argument(sentence));
    }
    let found = at_once(py, || Ok(protonce_kmeans::agreement(labels, clusters)))?;
    let measures = PyDict::new(py);
    measures.set_item("ami", found.ami)?;
    measures.set_item("nmi", found.nmi)?;
    measures.set_item("ari", found.ari)?;
    measures.set_item("purity", found.purity)?;
    measures.set_item("hungarian_accuracy", found.hungarian_accuracy)?;
    Ok(measures)
}
