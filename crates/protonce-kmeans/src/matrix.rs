//! A matrix of float32 that somebody else owns: what every module here reads vectors from.

/// Vectors of equal length, one after the other: a borrowed matrix, row-major.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    /// Their values: [count, dim].
    pub values: &'a [f32],
    /// The length of each.
    pub dim: usize,
}

impl<'a> Matrix<'a> {
    /// How many vectors there are.
    pub fn count(&self) -> usize {
        self.values.len() / self.dim
    }

    /// One of them.
    #[inline(always)]
    pub fn row(&self, index: usize) -> &'a [f32] {
        &self.values[index * self.dim..][..self.dim]
    }

    /// The values of some of them, copied: [chosen, dim].
    pub fn select(&self, chosen: impl ExactSizeIterator<Item = usize>) -> Vec<f32> {
        let mut values = Vec::with_capacity(chosen.len() * self.dim);
        chosen.for_each(|index| values.extend_from_slice(self.row(index)));
        values
    }

    /// Those from `first` on, at most `count`.
    pub fn part(&self, first: usize, count: usize) -> Matrix<'a> {
        let last = (first + count).min(self.count());
        Matrix { values: &self.values[first * self.dim..last * self.dim], dim: self.dim }
    }
}
