//! The neighbourhood of embeddings: who is nearest to whom, and a plane in which neighbours stay
//! together.
//!
//! Neighbours are exact. The plane is t-SNE's, by the crate `bhtsne`, whose interpolation
//! (FIt-SNE) takes the same time for each further point and which can be given neighbours.

use tch::{Device, Kind, Tensor};

/// The nearest rows of every row.
pub(super) struct Neighbours {
    /// Neighbours of each row.
    pub(super) count: usize,
    /// [rows, count], the nearest first, the row itself left out.
    pub(super) rows: Vec<u32>,
    /// Cosine similarity: [rows, count].
    pub(super) similarities: Vec<f32>,
}

impl Neighbours {
    /// Most neighbours that are looked for: three times the map's perplexity.
    const MOST: usize = 45;

    /// Finds them among `embeddings`, f32 [rows, dim], of length 1 each.
    pub(super) fn of(embeddings: &[f32], dim: usize) -> Neighbours {
        // Similarities held at a time: a block of rows against all.
        const BLOCK: usize = 1 << 24;
        let count = embeddings.len() / dim.max(1);
        let nearest = Self::MOST.min(count.saturating_sub(1));
        let mut found = Neighbours {
            count: nearest,
            rows: Vec::with_capacity(count * nearest),
            similarities: Vec::with_capacity(count * nearest),
        };
        if nearest == 0 {
            return found;
        }
        let _guard = tch::no_grad_guard();
        let all = Tensor::from_slice(embeddings).view([count as i64, dim as i64]);
        let block = (BLOCK / count).max(1);
        for start in (0..count).step_by(block) {
            let length = block.min(count - start);
            let part = all.narrow(0, start as i64, length as i64);
            // One more than wanted: a row is its own nearest.
            let (similarity, row) = part.matmul(&all.tr()).topk(nearest as i64 + 1, 1, true, true);
            let (similarity, row) = (values::<f32>(&similarity), values::<i64>(&row));
            for (place, (similarities, rows)) in
                similarity.chunks(nearest + 1).zip(row.chunks(nearest + 1)).enumerate()
            {
                let own = (start + place) as i64;
                // Among many equals it may not be among the nearest at all.
                let skip = rows.iter().position(|&row| row == own).unwrap_or(nearest);
                for (position, (&similarity, &row)) in similarities.iter().zip(rows).enumerate() {
                    if position != skip {
                        found.rows.push(row as u32);
                        found.similarities.push(similarity);
                    }
                }
            }
        }
        found
    }

    /// Neighbours of one row with their similarity.
    pub(super) fn of_row(&self, row: usize) -> impl Iterator<Item = (usize, f32)> + '_ {
        let range = row * self.count..(row + 1) * self.count;
        let rows = self.rows[range.clone()].iter().map(|&row| row as usize);
        rows.zip(self.similarities[range].iter().copied())
    }
}

fn values<T: tch::kind::Element + Copy + Default>(tensor: &Tensor) -> Vec<T> {
    let mut values = vec![T::default(); tensor.numel()];
    tensor.contiguous().copy_data(&mut values, tensor.numel());
    values
}

/// Lays rows out in the plane, near ones together: (x, y) of each, from 0 to 1 within the square
/// that holds them all. None for fewer than ten rows, or when all are the same. Another call gives
/// another map of the same neighbourhoods: forces are added up in parallel, in no fixed order.
///
/// `progress` is told the share that is done, from 0 to 1.
pub(super) fn lay_out(
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

/// The rows in the plane of their two widest directions, small, as t-SNE wants its start.
fn principal_plane(embeddings: &[f32], dim: usize) -> Option<Vec<f32>> {
    let _guard = tch::no_grad_guard();
    let rows = Tensor::from_slice(embeddings).view([-1, dim as i64]);
    let centred = &rows - rows.mean_dim([0].as_slice(), true, Kind::Float);
    let spread = centred.tr().matmul(&centred).to_kind(Kind::Double);
    let (_, directions) = spread.f_linalg_eigh("L").ok()?;
    let widest = directions.narrow(1, (dim as i64 - 2).max(0), 2.min(dim as i64));
    let plane = centred.matmul(&widest.to_kind(Kind::Float)).to_device(Device::Cpu);
    let plane = match dim {
        1 => Tensor::cat(&[&plane, &plane.zeros_like()], 1),
        _ => plane,
    };
    let plane = &plane * (1e-4 / plane.std(false).double_value(&[]));
    let plane = values::<f32>(&plane);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Points around three corners of a cube, `each` at every corner.
    fn corners(each: usize) -> Vec<f32> {
        let mut rows = Vec::new();
        for row in 0..3 * each {
            let mut point =
                [0.03 * (row % 7) as f32, 0.02 * (row % 5) as f32, 0.01 * (row % 3) as f32];
            point[row / each] += 1.0;
            let length = point.iter().map(|value| value * value).sum::<f32>().sqrt();
            rows.extend(point.map(|value| value / length));
        }
        rows
    }

    #[test]
    fn neighbours_are_the_nearest_others() {
        let rows = corners(60);
        let neighbours = Neighbours::of(&rows, 3);
        assert_eq!(neighbours.count, Neighbours::MOST);
        for row in 0..180 {
            let near: Vec<(usize, f32)> = neighbours.of_row(row).collect();
            assert!(near.iter().all(|&(other, _)| other != row && other / 60 == row / 60));
            assert!(near.windows(2).all(|pair| pair[0].1 >= pair[1].1));
        }
    }

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
    fn rows_that_are_all_the_same_or_too_few_have_no_map() {
        let same = [1.0, 0.0].repeat(50);
        let neighbours = Neighbours::of(&same, 2);
        assert!((0..50).all(|row| neighbours.of_row(row).all(|(other, _)| other != row)));
        assert!(lay_out(&same, 2, &neighbours, &mut |_| {}).is_none());
        assert!(lay_out(&[1.0, 0.0], 2, &Neighbours::of(&[1.0, 0.0], 2), &mut |_| {}).is_none());
    }
}
