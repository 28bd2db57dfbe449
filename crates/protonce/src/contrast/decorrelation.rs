//! Decorrelation: a penalty on what the dimensions of an embedding have in common.

use tch::{Kind, Tensor};

/// The sum of the squared correlations between two different dimensions of `queries` [batch, dim],
/// over the number of dimensions: float32 scalar, differentiable (the covariance term of VICReg,
/// <https://arxiv.org/abs/2105.04906>, of dimensions that are standardised over the batch, as in
/// Barlow Twins).
pub fn decorrelation(queries: &Tensor) -> Tensor {
    let size = queries.size();
    let (batch, dim) = (size[0], size[1]);
    let centred = queries - queries.mean_dim([0].as_slice(), true, Kind::Float);
    let variance = centred.square().mean_dim([0].as_slice(), true, Kind::Float);
    let standardised = centred / (variance + 1e-12).sqrt();
    let correlations = standardised.tr().matmul(&standardised) / batch as f64;
    let itself = Tensor::eye(dim, (Kind::Bool, queries.device()));
    correlations.masked_fill(&itself, 0.0).square().sum(Kind::Float) / dim as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_two_dimensions_have_in_common_counts() {
        // The third dimension is the first, twice as large; the second has nothing to do with them.
        let queries = Tensor::from_slice(&[1f32, 1., 2., -1., 1., -2., 1., -1., 2., -1., -1., -2.]);
        let found = decorrelation(&queries.view([4, 3])).double_value(&[]);
        assert!((found - 2.0 / 3.0).abs() < 1e-5, "{found}");
        let independent = queries.view([4, 3]).narrow(1, 0, 2);
        assert!(decorrelation(&independent).double_value(&[]) < 1e-9);
    }
}
