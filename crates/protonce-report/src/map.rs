//! A plane in which embeddings that are near each other stay together.
//!
//! It is t-SNE's, by the crate `bhtsne`, whose interpolation (FIt-SNE) takes the same time for each
//! further point and which can be given neighbours. It begins with the plane of the two widest
//! directions. Without the feature `map` there is none.

#[cfg(feature = "map")]
use nalgebra::{DMatrix, DMatrixView};

use crate::neighbours::Neighbours;

/// Lays rows out in the plane, near ones together: (x, y) of each, from 0 to 1 within the square
/// that holds them all. None for fewer than ten rows, or when all are the same. Another call gives
/// another map of the same neighbourhoods: forces are added up in parallel, in no fixed order.
///
/// `progress` is told the share that is done, from 0 to 1.
#[cfg(feature = "map")]
pub(crate) fn lay_out(
    embeddings: &[f32],
    dim: usize,
    neighbours: &Neighbours,
    progress: &mut dyn FnMut(f64),
) -> Option<Vec<(f32, f32)>> {
    const EPOCHS: usize = 500;
    let count = embeddings.len() / dim.max(1);
    if count < 10 {
        return None;
    }
    let nearest: Vec<Vec<bhtsne::Neighbor<f32>>> = (0..count)
        .map(|row| {
            let near = neighbours.of_row(row).map(|(index, similarity)| bhtsne::Neighbor {
                index,
                // Of unit vectors: ‖a − b‖² = 2 − 2 a·b.
                distance: (2.0 - 2.0 * similarity).max(0.0).sqrt(),
            });
            near.collect()
        })
        .collect();
    let rows = vec![(); count];
    let mut tsne = bhtsne::tSNE::<f32, (), 2>::new(&rows);
    tsne.perplexity(neighbours.count as f32 / 3.0)
        .epochs(EPOCHS)
        .initial_embedding(principal_plane(embeddings, dim)?)
        .epoch_callback(|epoch, _| progress((epoch + 1) as f64 / EPOCHS as f64))
        .fit_sne_with_neighbors(&nearest);
    within_unit_square(&tsne.embedding())
}

/// No map: this build has none.
#[cfg(not(feature = "map"))]
pub(crate) fn lay_out(
    _embeddings: &[f32],
    _dim: usize,
    _neighbours: &Neighbours,
    _progress: &mut dyn FnMut(f64),
) -> Option<Vec<(f32, f32)>> {
    None
}

/// The rows in the plane of their two widest directions (PCA), small, as t-SNE wants its start: x and y
/// of each. The same rows give the same bits. None when all rows are the same.
#[cfg(feature = "map")]
fn principal_plane(embeddings: &[f32], dim: usize) -> Option<Vec<f32>> {
    /// Spread of the plane's coordinates.
    const SPREAD: f64 = 1e-4;
    let count = embeddings.len() / dim;
    // Column-major, so that a row of embeddings is a column: [dim, rows].
    let mut centred = DMatrixView::from_slice(embeddings, dim, count).map(f64::from);
    let mean = centred.column_mean();
    centred.column_iter_mut().for_each(|mut row| row -= &mean);
    let covariance: DMatrix<f64> = &centred * centred.transpose();
    let eigen = covariance.symmetric_eigen();
    // By rising spread.
    let mut order: Vec<usize> = (0..dim).collect();
    order.sort_by(|&a, &b| eigen.eigenvalues[a].total_cmp(&eigen.eigenvalues[b]));
    let mut plane = vec![0.0; 2 * count];
    for (axis, &direction) in order[dim.saturating_sub(2)..].iter().enumerate() {
        let along = centred.tr_mul(&eigen.eigenvectors.column(direction));
        for (point, &coordinate) in plane.chunks_exact_mut(2).zip(&along) {
            point[axis] = coordinate;
        }
    }
    let mean = plane.iter().sum::<f64>() / plane.len() as f64;
    let variance =
        plane.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / plane.len() as f64;
    let plane: Vec<f32> =
        plane.iter().map(|value| (value * (SPREAD / variance.sqrt())) as f32).collect();
    plane.iter().all(|value| value.is_finite()).then_some(plane)
}

#[cfg(feature = "map")]
fn within_unit_square(plane: &[f32]) -> Option<Vec<(f32, f32)>> {
    let points = plane.as_chunks::<2>().0;
    let range = |axis: usize| {
        points.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), point| {
            (low.min(point[axis]), high.max(point[axis]))
        })
    };
    let ((left, right), (top, bottom)) = (range(0), range(1));
    let side = (right - left).max(bottom - top);
    if !side.is_finite() || side <= 0.0 || points.iter().flatten().any(|value| !value.is_finite()) {
        return None;
    }
    let (x, y) = ((left + right) / 2.0, (top + bottom) / 2.0);
    Some(points.iter().map(|p| (0.5 + (p[0] - x) / side, 0.5 + (p[1] - y) / side)).collect())
}

#[cfg(all(test, feature = "map"))]
mod tests {
    use super::*;
    use crate::neighbours::tests::corners;

    #[test]
    fn the_map_keeps_groups_together() {
        let rows = corners(60);
        let neighbours = Neighbours::of(&rows, 3);
        let map = lay_out(&rows, 3, &neighbours, &mut |_| {}).unwrap();
        assert!(map.iter().all(|&(x, y)| (0.0..=1.0).contains(&x) && (0.0..=1.0).contains(&y)));
        let distance = |a: usize, b: usize| (map[a].0 - map[b].0).hypot(map[a].1 - map[b].1);
        let right = (0..180).filter(|&point| {
            let nearest = (0..180)
                .filter(|&other| other != point)
                .min_by(|&a, &b| distance(point, a).total_cmp(&distance(point, b)));
            nearest.unwrap() / 60 == point / 60
        });
        assert!(right.count() > 170);
    }

    #[test]
    fn the_first_plane_is_that_of_the_two_widest_directions_and_always_the_same() {
        // Wide along (3, 4, 0) / 5, half as wide along the third axis, narrow across both.
        let rows: Vec<f32> = (0..400)
            .flat_map(|row| {
                let angle = f64::from(row) * std::f64::consts::TAU / 400.0;
                let (far, near) = (2.0 * angle.cos(), angle.sin());
                let across = 0.01 * (7.0 * angle).sin();
                [0.6 * far - 0.8 * across, 0.8 * far + 0.6 * across, near].map(|v| v as f32 + 5.0)
            })
            .collect();
        let plane = principal_plane(&rows, 3).unwrap();
        // The widest direction is the second coordinate; signs are free.
        let scale = 1e-4 / (1.25f32).sqrt();
        for (row, point) in plane.chunks_exact(2).enumerate() {
            let angle = row as f32 * std::f32::consts::TAU / 400.0;
            let expected = [angle.sin().abs() * scale, 2.0 * angle.cos().abs() * scale];
            for (found, expected) in point.iter().zip(expected) {
                assert!((found.abs() - expected).abs() < 2e-6, "{row}: {found}, not {expected}");
            }
        }
        assert_eq!(plane, principal_plane(&rows, 3).unwrap());
        let line: Vec<f32> = (0..20u8).map(f32::from).collect();
        assert!(principal_plane(&line, 1).unwrap().chunks_exact(2).all(|point| point[1] == 0.0));
    }

    #[test]
    fn rows_that_are_all_the_same_or_too_few_have_no_map() {
        let same = [1.0, 0.0].repeat(50);
        let neighbours = Neighbours::of(&same, 2);
        assert!(lay_out(&same, 2, &neighbours, &mut |_| {}).is_none());
        assert!(lay_out(&[1.0, 0.0], 2, &Neighbours::of(&[1.0, 0.0], 2), &mut |_| {}).is_none());
    }
}
