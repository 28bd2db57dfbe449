//! Features in plain memory, where the solver reads one image at a time.

use tch::{Kind, Tensor};

use crate::tensors::{TensorError, values};

/// Feature vectors, one row per image.
#[derive(Debug)]
pub struct FeatureMatrix {
    values: Vec<f32>,
    dim: usize,
}

impl FeatureMatrix {
    /// Rows of `dim` numbers each, one after the other.
    pub fn new(values: Vec<f32>, dim: usize) -> FeatureMatrix {
        FeatureMatrix { values, dim }
    }

    /// The rows of `features` [n, dim] as they are.
    ///
    /// # Errors
    /// When libtorch cannot bring them into memory.
    pub fn from_tensor(features: &Tensor) -> Result<FeatureMatrix, TensorError> {
        let values = values(&features.to_kind(Kind::Float))?;
        Ok(FeatureMatrix::new(values, features.size().last().map_or(1, |&dim| dim.max(1) as usize)))
    }

    /// The rows of `features` [n, dim], each divided by its length + 10⁻⁵ as in the published code.
    ///
    /// # Errors
    /// As [`FeatureMatrix::from_tensor`].
    pub fn normalised(features: &Tensor) -> Result<FeatureMatrix, TensorError> {
        let length = features.norm_scalaropt_dim(2, [-1].as_slice(), true) + 1e-5;
        FeatureMatrix::from_tensor(&(features / length))
    }

    /// Numbers per row.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.values.len() / self.dim
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The rows at `indices`; one may come twice.
    pub fn select(&self, indices: &[usize]) -> FeatureMatrix {
        let values = indices.iter().flat_map(|&index| self.row(index)).copied().collect();
        FeatureMatrix { values, dim: self.dim }
    }

    /// One row.
    pub fn row(&self, index: usize) -> &[f32] {
        &self.values[index * self.dim..][..self.dim]
    }
}
