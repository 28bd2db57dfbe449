//! A plane in which embeddings that are near each other stay together.
//!
//! Enters: embeddings and the nearest others of each, which the caller knows already. Leaves: a place in
//! the unit square for each.
//!
//! It is t-SNE's, by the crate `bhtsne`, whose interpolation (FIt-SNE) takes the same time for each
//! further point. It begins with the plane of the two widest directions. This is a crate of its own since
//! `bhtsne` and the FFTs below it are generic: whatever calls them compiles them, which takes longer than
//! all the rest of a report.
//!
//! ```
//! // Twenty directions along a half circle, and the nearest others of each.
//! let angle = |row: usize| row as f32 * 0.15;
//! let embeddings: Vec<f32> = (0..20).flat_map(|row| [angle(row).cos(), angle(row).sin()]).collect();
//! let nearest: Vec<Vec<(usize, f32)>> = (0..20)
//!     .map(|row| {
//!         let mut others: Vec<usize> = (0..20).filter(|&other| other != row).collect();
//!         others.sort_by_key(|other| other.abs_diff(row));
//!         others.iter().map(|&other| (other, (angle(other) - angle(row)).cos())).collect()
//!     })
//!     .collect();
//! let map = protonce_map::lay_out(&embeddings, 2, &nearest, &mut |_| {}).unwrap();
//! assert_eq!(map.len(), 20);
//! ```

use nalgebra::{DMatrix, DMatrixView};

/// Lays rows out in the plane, near ones together: (x, y) of each, from 0 to 1 within the square
/// that holds them all. None for fewer than ten rows, or when all are the same. Another call gives
/// another map of the same neighbourhoods: forces are added up in parallel, in no fixed order.
///
/// `embeddings` are f32 \[rows, dim\], of length 1 each. `nearest` has, of each row, the numbers of as many
/// others as of any row and their cosine similarities, the nearest first; a third of them is the perplexity.
/// `progress` is told the share that is done, from 0 to 1.
pub fn lay_out(
    embeddings: &[f32],
    dim: usize,
    nearest: &[Vec<(usize, f32)>],
    progress: &mut dyn FnMut(f64),
) -> Option<Vec<(f32, f32)>> {
    const EPOCHS: usize = 500;
    let count = embeddings.len() / dim.max(1);
    if count < 10 {
        return None;
    }
    let neighbour = |&(index, similarity): &(usize, f32)| bhtsne::Neighbor {
        index,
        // Of unit vectors: ‖a − b‖² = 2 − 2 a·b.
        distance: (2.0 - 2.0 * similarity).max(0.0).sqrt(),
    };
    let nearest: Vec<Vec<bhtsne::Neighbor<f32>>> =
        nearest.iter().map(|near| near.iter().map(neighbour).collect()).collect();
    let rows = vec![(); count];
    let mut tsne = bhtsne::tSNE::<f32, (), 2>::new(&rows);
    tsne.perplexity(nearest[0].len() as f32 / 3.0)
        .epochs(EPOCHS)
        .initial_embedding(principal_plane(embeddings, dim)?)
        .epoch_callback(|epoch, _| progress((epoch + 1) as f64 / EPOCHS as f64))
        .fit_sne_with_neighbors(&nearest);
    within_unit_square(&tsne.embedding())
}

/// The rows in the plane of their two widest directions (PCA), small, as t-SNE wants its start: x and y
/// of each. The same rows give the same bits. None when all rows are the same.
pub fn principal_plane(embeddings: &[f32], dim: usize) -> Option<Vec<f32>> {
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
