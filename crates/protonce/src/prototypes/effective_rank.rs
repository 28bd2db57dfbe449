//! Signs of collapse that need no labels: embeddings in, how many dimensions they fill and how far
//! they are spread out.

use tch::{Kind, Tensor};

/// How many directions `rows` [n, d] fill: exp of the entropy of their singular values, each as a
/// share of their sum. 1 when all rows are along one direction, d when none counts more than another.
///
/// Source: RankMe (Garrido et al., ICML 2023).
pub fn effective_rank(rows: &Tensor) -> f64 {
    let _guard = tch::no_grad_guard();
    // The squares of the singular values are the eigenvalues of a d × d matrix.
    let gram = rows.tr().matmul(rows).to_kind(Kind::Double).to_device(tch::Device::Cpu);
    let singular = gram.linalg_eigvalsh("L").clamp_min(0.0).sqrt();
    let shares = &singular / singular.sum(Kind::Double);
    let entropy = -(&shares * shares.clamp_min(f64::MIN_POSITIVE).log()).sum(Kind::Double);
    entropy.exp().double_value(&[])
}

/// The mean deviation of the dimensions of unit vectors `rows` [n, d], in units of that of vectors in
/// all directions, 1/√d: 0 when all are the same.
pub fn spread(rows: &Tensor) -> f64 {
    let _guard = tch::no_grad_guard();
    let deviations = rows.std_dim([0].as_slice(), false, false);
    deviations.mean(Kind::Double).double_value(&[]) * (rows.size()[1] as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn the_rank_is_the_number_of_directions_that_count_alike() {
        let eye = Tensor::eye(8, (Kind::Float, Device::Cpu));
        assert!((effective_rank(&eye) - 8.0).abs() < 1e-6);
        assert!((effective_rank(&eye.narrow(0, 0, 3)) - 3.0).abs() < 1e-6);
        let same = Tensor::ones([5, 8], (Kind::Float, Device::Cpu));
        assert!((effective_rank(&same) - 1.0).abs() < 1e-3);
        // Singular values 3 and 1: shares of 3/4 and 1/4.
        let two = Tensor::from_slice(&[3f32, 0.0, 0.0, 1.0]).view([2, 2]);
        let entropy = -(0.75 * 0.75f64.ln() + 0.25 * 0.25f64.ln());
        assert!((effective_rank(&two) - entropy.exp()).abs() < 1e-6);
    }

    #[test]
    fn the_spread_is_that_of_directions_at_random() {
        tch::manual_seed(1);
        let random = Tensor::randn([2000, 64], (Kind::Float, Device::Cpu));
        let unit = protonce_encoder::normalise_rows(&random);
        assert!((spread(&unit) - 1.0).abs() < 0.02, "{}", spread(&unit));
        assert_eq!(spread(&Tensor::ones([5, 8], (Kind::Float, Device::Cpu))), 0.0);
    }
}
