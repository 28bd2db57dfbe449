//! Who is nearest to whom among embeddings, exactly.

use std::cmp::Ordering;

use nalgebra::{DMatrix, DMatrixView};
use rayon::prelude::*;

/// The nearest rows of every row.
pub(crate) struct Neighbours {
    /// Neighbours of each row.
    pub(crate) count: usize,
    /// \[rows, count\], the nearest first, the row itself left out.
    pub(crate) rows: Vec<u32>,
    /// Cosine similarity: \[rows, count\].
    pub(crate) similarities: Vec<f32>,
}

impl Neighbours {
    /// Most neighbours that are looked for: three times the map's perplexity.
    pub(crate) const MOST: usize = 45;

    /// Finds them among `embeddings`, f32 \[rows, dim\], of length 1 each. Of equally near ones the first
    /// comes first.
    pub(crate) fn of(embeddings: &[f32], dim: usize) -> Neighbours {
        // Similarities that a thread holds at a time: a block of rows against all.
        const BLOCK: usize = 1 << 22;
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
        // Column-major, so that a row of embeddings is a column: [dim, rows].
        let all = DMatrixView::from_slice(embeddings, dim, count);
        // A copy once, since nalgebra multiplies fast only what is not transposed.
        let rows_of_all = all.transpose();
        let block = (BLOCK / count).max(1);
        let starts: Vec<usize> = (0..count).step_by(block).collect();
        let blocks: Vec<Vec<(f32, u32)>> = starts
            .into_par_iter()
            .map(|start| {
                let length = block.min(count - start);
                // Each row against all: [rows, length].
                let mut similarities = DMatrix::zeros(count, length);
                similarities.gemm(1.0, &rows_of_all, &all.columns(start, length), 0.0);
                let rows = similarities.as_slice().chunks_exact(count).enumerate();
                rows.flat_map(|(row, similarities)| nearest_in(similarities, start + row, nearest))
                    .collect()
            })
            .collect();
        for (similarity, row) in blocks.into_iter().flatten() {
            found.rows.push(row);
            found.similarities.push(similarity);
        }
        found
    }

    /// Neighbours of one row with their similarity.
    pub(crate) fn of_row(&self, row: usize) -> impl Iterator<Item = (usize, f32)> + '_ {
        let range = row * self.count..(row + 1) * self.count;
        let rows = self.rows[range.clone()].iter().map(|&row| row as usize);
        rows.zip(self.similarities[range].iter().copied())
    }
}

/// The `count` rows that are most similar to the row `own`, itself left out, the nearest first.
fn nearest_in(similarities: &[f32], own: usize, count: usize) -> Vec<(f32, u32)> {
    let nearer = |a: &(f32, u32), b: &(f32, u32)| match b.0.total_cmp(&a.0) {
        Ordering::Equal => a.1.cmp(&b.1),
        order => order,
    };
    let mut best: Vec<(f32, u32)> = Vec::with_capacity(2 * count);
    let mut least = f32::NEG_INFINITY;
    for (row, &similarity) in similarities.iter().enumerate() {
        // Nearly all fail here, so that a row costs little more than one look.
        if similarity <= least || row == own {
            continue;
        }
        best.push((similarity, row as u32));
        if best.len() == 2 * count {
            best.select_nth_unstable_by(count - 1, nearer);
            best.truncate(count);
            least = best[count - 1].0;
        }
    }
    best.sort_unstable_by(nearer);
    best.truncate(count);
    best
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Points around three corners of a cube, `each` at every corner.
    pub(crate) fn corners(each: usize) -> Vec<f32> {
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
    fn none_is_nearer_than_those_that_are_found() {
        let rows = corners(60);
        let neighbours = Neighbours::of(&rows, 3);
        for (row, own) in rows.chunks_exact(3).enumerate() {
            let mut all: Vec<f32> = rows
                .chunks_exact(3)
                .map(|other| own.iter().zip(other).map(|(a, b)| a * b).sum())
                .collect();
            all.remove(row);
            all.sort_by(|a, b| b.total_cmp(a));
            for ((_, similarity), expected) in neighbours.of_row(row).zip(all) {
                assert!((similarity - expected).abs() < 1e-6, "{similarity}, not {expected}");
            }
        }
    }

    #[test]
    fn a_row_is_never_its_own_neighbour_among_equals() {
        let same = [1.0, 0.0].repeat(50);
        let neighbours = Neighbours::of(&same, 2);
        assert!((0..50).all(|row| neighbours.of_row(row).all(|(other, _)| other != row)));
        assert_eq!(Neighbours::of(&[1.0, 0.0], 2).count, 0);
    }
}
