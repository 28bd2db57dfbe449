//! Points in memory.

use std::borrow::Cow;
use std::cell::OnceCell;

use crate::KMeansError;
use crate::assignment::{Assignment, Effort};
use crate::distance::{length, normalise};
use crate::matrix::Matrix;
use crate::nearest::{self, QuantizedRows, Quantizer, RowCodes, Search};
use crate::points::{Metric, Points};
use crate::sums::{Members, add_rows};
use crate::threads::Threads;

/// Points in memory, borrowed or owned, with codes that are made when they are first needed and serve
/// every clustering of these points.
pub struct HostPoints<'a> {
    values: Cow<'a, [f32]>,
    dim: usize,
    metric: Metric,
    quantizer: OnceCell<Quantizer>,
    codes: OnceCell<RowCodes>,
}

/// Values beyond this have squares that add up to infinity.
const LARGEST: f32 = 1e15;

/// The first value that cannot be clustered, and its place.
pub fn first_unfit(values: &[f32]) -> Option<(usize, f32)> {
    let unfit = |&(_, value): &(usize, f32)| value.is_nan() || value.abs() > LARGEST;
    values.iter().copied().enumerate().find(unfit)
}

impl<'a> HostPoints<'a> {
    /// Points of `dim` values each, one after the other; a memory-mapped file is as good. Borrowed ones
    /// are copied only where `metric` is spherical and they do not have length 1 yet.
    ///
    /// # Errors
    /// When `values` are not whole points, or a point is not finite or too large for its squared length,
    /// or has no direction and `metric` needs one.
    pub fn new(
        values: impl Into<Cow<'a, [f32]>>,
        dim: usize,
        metric: Metric,
    ) -> Result<HostPoints<'a>, KMeansError> {
        let mut values = values.into();
        if dim == 0 || !values.len().is_multiple_of(dim) {
            return Err(KMeansError::Shape { values: values.len(), dim });
        }
        if let Some((place, value)) = first_unfit(&values) {
            let point = place / dim;
            return Err(match value.is_finite() {
                true => KMeansError::TooLarge { point },
                false => KMeansError::NotFinite { point },
            });
        }
        if metric == Metric::Spherical {
            let unit = |point: &[f32]| (length(point) - 1.0).abs() < 1e-6;
            if let Some(point) = values.chunks(dim).position(|point| length(point) == 0.0) {
                return Err(KMeansError::Zero { point });
            }
            if !values.chunks(dim).all(unit) {
                values.to_mut().chunks_mut(dim).for_each(normalise);
            }
        }
        Ok(HostPoints::valid(values, dim, metric))
    }

    fn valid(values: Cow<'a, [f32]>, dim: usize, metric: Metric) -> HostPoints<'a> {
        HostPoints { values, dim, metric, quantizer: OnceCell::new(), codes: OnceCell::new() }
    }

    fn rows(&self) -> Matrix<'_> {
        Matrix { values: &self.values, dim: self.dim }
    }

    fn quantizer(&self, threads: &Threads) -> &Quantizer {
        self.quantizer.get_or_init(|| Quantizer::new(self.rows(), threads))
    }

    fn quantized(&self, threads: &Threads) -> QuantizedRows<'_> {
        let quantizer = self.quantizer(threads);
        let codes = self.codes.get_or_init(|| quantizer.rows(self.rows(), threads));
        QuantizedRows { rows: self.rows(), quantizer, codes }
    }
}

impl Points for HostPoints<'_> {
    type Search = Search;

    fn count(&self) -> usize {
        self.rows().count()
    }

    fn dim(&self) -> usize {
        self.dim
    }

    fn metric(&self) -> Metric {
        self.metric
    }

    fn values(&self) -> Cow<'_, [f32]> {
        Cow::Borrowed(&self.values)
    }

    fn select(&self, chosen: &[usize]) -> Self {
        let values = self.rows().select(chosen.iter().copied());
        HostPoints::valid(Cow::Owned(values), self.dim, self.metric)
    }

    fn like(&self, values: Vec<f32>) -> Self {
        HostPoints::valid(Cow::Owned(values), self.dim, self.metric)
    }

    fn assign(
        &self,
        search: &mut Search,
        centroids: &[f32],
        assignment: &mut Assignment,
        threads: &Threads,
    ) -> Effort {
        // One of several processes may have none.
        if self.values.is_empty() {
            return Effort::default();
        }
        let centroids = Matrix { values: centroids, dim: self.dim };
        search.assign(&self.quantized(threads), centroids, assignment, threads)
    }

    fn assign_once(&self, centroids: &[f32], threads: &Threads) -> Assignment {
        if self.values.is_empty() {
            return Assignment::unknown(0);
        }
        let centroids = Matrix { values: centroids, dim: self.dim };
        nearest::assign(self.rows(), centroids, self.quantizer(threads), threads)
    }

    fn sum(&self, members: &Members, clusters: &[u32], sums: &mut [f64], threads: &Threads) {
        add_rows(self.rows(), members, clusters, sums, threads);
    }
}
