//! The order of centroids in which neighbours lie near each other, so that one bound can rule out a
//! whole group of them.

use super::kernel::GROUP;
use crate::distance::squared_distance;
use crate::matrix::Matrix;

/// The centroids in an order in which each 64 after another lie near each other: cut in two, again
/// and again, across the line between two that are far apart.
pub fn order(centroids: Matrix) -> Vec<u32> {
    let mut order: Vec<u32> = (0..centroids.count() as u32).collect();
    bisect(centroids, &mut order);
    order
}

fn bisect(centroids: Matrix, order: &mut [u32]) {
    let groups = order.len().div_ceil(GROUP);
    if groups < 2 {
        return;
    }
    let row = |index: u32| centroids.row(index as usize);
    let farthest = |from: u32| {
        order.iter().copied().max_by(|&a, &b| {
            squared_distance(row(from), row(a)).total_cmp(&squared_distance(row(from), row(b)))
        })
    };
    let Some(one) = farthest(order[0]) else { return };
    let Some(other) = farthest(one) else { return };
    let line: Vec<f32> = row(one).iter().zip(row(other)).map(|(a, b)| a - b).collect();
    let mut along: Vec<(f32, u32)> = order
        .iter()
        .map(|&index| (row(index).iter().zip(&line).map(|(a, b)| a * b).sum(), index))
        .collect();
    let middle = groups / 2 * GROUP;
    along.select_nth_unstable_by(middle, |a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    for (place, (_, index)) in order.iter_mut().zip(along) {
        *place = index;
    }
    let (low, high) = order.split_at_mut(middle);
    bisect(centroids, low);
    bisect(centroids, high);
}
