//! k-means against Lloyd's iterations written out: the same bits, however much work was skipped.

use protonce_kmeans::{Clustering, HostPoints, Init, KMeans, Metric, squared_distance};
use rand::seq::index;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Lloyd's iterations as one would write them down: [k, dim] centroids, the nearest of each row, and
/// the squared distance to it. `random` chooses whose rows an empty cluster shares.
fn lloyd(
    rows: &[Vec<f32>],
    mut centroids: Vec<Vec<f32>>,
    iterations: usize,
    random: &mut ChaCha8Rng,
) -> (Vec<Vec<f32>>, Vec<usize>, Vec<f32>) {
    let (mut nearest, mut squared) = (Vec::new(), Vec::new());
    for iteration in 0..=iterations {
        (nearest, squared) = (Vec::new(), Vec::new());
        for row in rows {
            let mut best = (0, f32::INFINITY);
            for (number, centroid) in centroids.iter().enumerate() {
                let distance = squared_distance(row, centroid);
                if distance < best.1 {
                    best = (number, distance);
                }
            }
            nearest.push(best.0);
            squared.push(best.1);
        }
        if iteration == iterations {
            break;
        }
        let mut sizes = vec![0f64; centroids.len()];
        for (number, centroid) in centroids.iter_mut().enumerate() {
            let mut sum = vec![0f64; rows[0].len()];
            for (row, _) in rows.iter().zip(&nearest).filter(|(_, cluster)| **cluster == number) {
                sum.iter_mut().zip(row).for_each(|(sum, &value)| *sum += f64::from(value));
                sizes[number] += 1.0;
            }
            *centroid = sum.iter().map(|sum| (sum / sizes[number].max(1.0)) as f32).collect();
        }
        let spare = (rows.len() - centroids.len()) as f64;
        for empty in 0..centroids.len() {
            if sizes[empty] > 0.0 {
                continue;
            }
            let mut donor = 0;
            while random.random::<f64>() >= (sizes[donor] - 1.0) / spare {
                donor = (donor + 1) % centroids.len();
            }
            let apart =
                |place: usize| if place.is_multiple_of(2) { 1.0 / 1024.0 } else { -1.0 / 1024.0 };
            let shared = centroids[donor].clone();
            let moved = |sign: f32| -> Vec<f32> {
                shared
                    .iter()
                    .enumerate()
                    .map(|(i, value)| value * (1.0 + sign * apart(i)))
                    .collect()
            };
            (centroids[empty], centroids[donor]) = (moved(1.0), moved(-1.0));
            sizes[empty] = (sizes[donor] / 2.0).floor();
            sizes[donor] -= sizes[empty];
        }
    }
    (centroids, nearest, squared)
}

/// Both, from the same rows at the start.
fn compare(name: &str, rows: &[Vec<f32>], clusters: usize, seed: u64) {
    let init = Init::Random;
    let options = KMeans { iterations: 12, starts: 1, init, seed, ..KMeans::default() };
    let dim = rows[0].len();
    let points = HostPoints::new(rows.concat(), dim, Metric::Euclidean).unwrap();
    let found = options.fit(&points, clusters).unwrap();
    let Clustering { centroids, assignment, distances, history, .. } = found;
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let drawn = index::sample(&mut random, rows.len(), clusters);
    let start = drawn.into_iter().map(|row| rows[row].clone()).collect();
    let (expected, nearest, squared) = lloyd(rows, start, 12, &mut random);
    let nearest: Vec<i64> = nearest.into_iter().map(|cluster| cluster as i64).collect();
    assert!(assignment == nearest, "{name}: other clusters");
    assert!(centroids == expected.concat(), "{name}: other centroids");
    let roots: Vec<f32> = squared.iter().map(|squared| squared.sqrt()).collect();
    assert!(distances == roots, "{name}: other distances");
    let all = (rows.len() * clusters * history.len()) as f64;
    let measured: u64 = history.iter().map(|iteration| iteration.measured).sum();
    let scored: u64 = history.iter().map(|iteration| iteration.scored).sum();
    println!(
        "{name}: {:.2} % of distances measured, {:.1} % scored",
        100.0 * measured as f64 / all,
        100.0 * scored as f64 / all
    );
}

fn gaussian(random: &mut ChaCha8Rng, dim: usize, deviation: f32) -> Vec<f32> {
    // A sum of uniform numbers will do.
    (0..dim)
        .map(|_| deviation * (0..4).map(|_| random.random_range(-0.87f32..0.87)).sum::<f32>())
        .collect()
}

fn unit(mut row: Vec<f32>) -> Vec<f32> {
    let length = row.iter().map(|value| value * value).sum::<f32>().sqrt();
    row.iter_mut().for_each(|value| *value /= length);
    row
}

/// Normalised rows around `centres` directions.
fn clustered(
    random: &mut ChaCha8Rng,
    count: usize,
    dim: usize,
    centres: usize,
    spread: f32,
) -> Vec<Vec<f32>> {
    let centres: Vec<Vec<f32>> = (0..centres).map(|_| unit(gaussian(random, dim, 1.0))).collect();
    (0..count)
        .map(|_| {
            let noise = gaussian(random, dim, spread / (dim as f32).sqrt());
            let centre = &centres[random.random_range(0..centres.len())];
            unit(centre.iter().zip(noise).map(|(a, b)| a + b).collect())
        })
        .collect()
}

#[test]
fn the_result_is_that_of_plain_float32_iterations() {
    let random = &mut ChaCha8Rng::seed_from_u64(7);
    compare("clustered", &clustered(random, 4000, 128, 60, 0.5), 150, 1);
    compare("isotropic", &(0..3000).map(|_| gaussian(random, 64, 1.0)).collect::<Vec<_>>(), 130, 2);
    compare("tight", &clustered(random, 3000, 96, 300, 0.01), 70, 3);
    compare(
        "few dimensions",
        &(0..4000).map(|_| gaussian(random, 3, 1.0)).collect::<Vec<_>>(),
        200,
        4,
    );
    compare(
        "one dimension",
        &(0..1000).map(|_| gaussian(random, 1, 1.0)).collect::<Vec<_>>(),
        20,
        5,
    );
    compare("odd dimension", &clustered(random, 2000, 37, 40, 0.4), 100, 6);
    compare("one cluster", &clustered(random, 500, 20, 5, 0.4), 1, 7);
    compare("more dimensions than rows", &clustered(random, 300, 1001, 30, 0.4), 40, 8);
    compare("very many dimensions", &clustered(random, 60, 9000, 5, 0.4), 8, 9);
}

#[test]
fn neither_outliers_nor_offsets_nor_ties_change_it() {
    let random = &mut ChaCha8Rng::seed_from_u64(8);
    let far: Vec<Vec<f32>> = clustered(random, 2500, 48, 40, 0.5)
        .into_iter()
        .enumerate()
        .map(|(row, values)| {
            values
                .into_iter()
                .map(|value| if row.is_multiple_of(50) { 1e4 * value } else { value })
                .collect()
        })
        .collect();
    compare("outliers", &far, 90, 1);
    let offset: Vec<Vec<f32>> = clustered(random, 2500, 48, 40, 0.5)
        .into_iter()
        .map(|row| row.iter().map(|value| value + 300.0).collect())
        .collect();
    compare("offset", &offset, 90, 2);
    // Whole numbers have many equal distances; of these the first centroid wins.
    let grid: Vec<Vec<f32>> =
        (0..3000).map(|_| (0..6).map(|_| random.random_range(0..4) as f32).collect()).collect();
    compare("ties", &grid, 90, 3);
    for scale in [1e-14f32, 1e-8, 1e8, 1e14] {
        let scaled: Vec<Vec<f32>> = clustered(random, 1500, 32, 40, 0.5)
            .into_iter()
            .map(|row| row.iter().map(|value| value * scale).collect())
            .collect();
        compare(&format!("times {scale:e}"), &scaled, 70, 4);
    }
}

#[test]
fn one_two_and_three_threads_give_the_same_bits() {
    let random = &mut ChaCha8Rng::seed_from_u64(9);
    let rows = clustered(random, 5000, 40, 50, 0.5).concat();
    for init in [Init::Random, Init::PlusPlus, Init::Parallel] {
        for metric in [Metric::Euclidean, Metric::Spherical] {
            let fit = |threads| {
                // Fewer points are trained on than there are.
                let most = KMeans { max_points_per_centroid: 30, ..KMeans::default() };
                let options = KMeans { starts: 2, init, seed: 5, threads, ..most };
                let points = HostPoints::new(&rows[..], 40, metric).unwrap();
                options.fit(&points, 130).unwrap()
            };
            let one = fit(1);
            for threads in [2, 3] {
                let several = fit(threads);
                assert!(one.centroids == several.centroids, "{init:?}: other centroids");
                assert!(one.assignment == several.assignment, "{init:?}: other clusters");
                assert!(one.distances == several.distances, "{init:?}: other distances");
                assert_eq!(one.objective, several.objective);
                // Even the work that was skipped is the same.
                let work = |clustering: &Clustering| -> Vec<(f64, u64, u64, u64)> {
                    let history = clustering.history.iter();
                    history.map(|i| (i.objective, i.changed, i.scored, i.measured)).collect()
                };
                assert_eq!(work(&one), work(&several));
            }
        }
    }
}
