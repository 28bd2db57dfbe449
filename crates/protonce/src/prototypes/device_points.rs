//! Points on a GPU, for k-means: its two steps as matrix products of libtorch.

use std::borrow::Cow;

use protonce_kmeans::{Assignment, Effort, KMeansError, Members, Metric, Points, Threads};
use tch::{Device, Kind, Tensor};

/// Points that are fit to be clustered, on any device of libtorch.
pub struct DevicePoints {
    /// float32 [count, dim].
    rows: Tensor,
    metric: Metric,
}

/// Values beyond this have squares that add up to infinity.
const LARGEST: f64 = 1e15;

impl DevicePoints {
    /// The rows of a tensor, float32 [count, dim].
    ///
    /// # Errors
    /// When a row is not finite or too large for its squared length, or has no direction and `metric` needs one.
    pub fn new(rows: &Tensor, metric: Metric) -> Result<DevicePoints, KMeansError> {
        let _guard = tch::no_grad_guard();
        let rows = rows.detach();
        let first = |broken: Tensor| (broken.size()[0] > 0).then(|| broken.int64_value(&[0, 0]));
        let broken = rows.abs().le(LARGEST).all_dim(1, false).logical_not().nonzero();
        if let Some(row) = first(broken) {
            let point = row as usize;
            return Err(match rows.get(row).isfinite().all().int64_value(&[]) != 0 {
                true => KMeansError::TooLarge { point },
                false => KMeansError::NotFinite { point },
            });
        }
        let rows = match metric {
            Metric::Euclidean => rows,
            Metric::Spherical => {
                let norms = rows.square().sum_dim_intlist([1].as_slice(), true, Kind::Float).sqrt();
                if let Some(point) = first(norms.squeeze_dim(1).eq(0.0).nonzero()) {
                    return Err(KMeansError::Zero { point: point as usize });
                }
                rows / norms
            }
        };
        Ok(DevicePoints { rows, metric })
    }
}

impl Points for DevicePoints {
    type Search = ();

    fn count(&self) -> usize {
        self.rows.size()[0] as usize
    }

    fn dim(&self) -> usize {
        self.rows.size()[1] as usize
    }

    fn metric(&self) -> Metric {
        self.metric
    }

    fn values(&self) -> Cow<'_, [f32]> {
        Cow::Owned(to_host(&self.rows))
    }

    fn select(&self, chosen: &[usize]) -> Self {
        let chosen: Vec<i64> = chosen.iter().map(|&row| row as i64).collect();
        let chosen = Tensor::from_slice(&chosen).to_device(self.rows.device());
        DevicePoints { rows: self.rows.index_select(0, &chosen), metric: self.metric }
    }

    fn like(&self, values: Vec<f32>) -> Self {
        let dim = self.rows.size()[1];
        let rows = Tensor::from_slice(&values).view([values.len() as i64 / dim, dim]);
        DevicePoints { rows: rows.to_device(self.rows.device()), metric: self.metric }
    }

    fn assign(
        &self,
        (): &mut (),
        centroids: &[f32],
        assignment: &mut Assignment,
        threads: &Threads,
    ) -> Effort {
        *assignment = self.assign_once(centroids, threads);
        let measured = (self.count() * (centroids.len() / self.dim())) as u64;
        Effort { scored: 0, measured }
    }

    /// By tiles of the product of points and centroids.
    fn assign_once(&self, centroids: &[f32], _: &Threads) -> Assignment {
        // Elements of one tile of the [n, k] product.
        const TILE: i64 = 1 << 24;
        let rows = &self.rows;
        let (count, dim) = (rows.size()[0], rows.size()[1]);
        let centroids = Tensor::from_slice(centroids).view([-1, dim]).to_device(rows.device());
        let tile = (TILE / centroids.size()[0]).clamp(256, 65_536);
        let squares =
            |rows: &Tensor| rows.square().sum_dim_intlist([1].as_slice(), false, Kind::Float);
        let half_squares = squares(&centroids) * 0.5;
        let opposite = centroids.tr().neg();
        let (mut nearest, mut squared) = (Vec::new(), Vec::new());
        for start in (0..count).step_by(tile as usize) {
            let part = rows.narrow(0, start, tile.min(count - start));
            // ‖c‖²/2 − x·c is least where ‖x − c‖ is: [tile, k]
            let found = half_squares.addmm(&part, &opposite).argmin(1, false);
            // Exactly, for the one centroid that counts: the expanded form loses small distances.
            squared.push(squares(&(&part - centroids.index_select(0, &found))));
            nearest.push(found);
        }
        let nearest = Tensor::cat(&nearest, 0).to_device(Device::Cpu);
        let mut numbers = vec![0i64; count as usize];
        nearest.copy_data(&mut numbers, count as usize);
        Assignment {
            nearest: numbers.into_iter().map(|number| number as u32).collect(),
            squared: to_host(&Tensor::cat(&squared, 0)),
        }
    }

    fn sum(&self, members: &Members, clusters: &[u32], sums: &mut [f64], _: &Threads) {
        let (rows, count) = (&self.rows, clusters.len() as i64);
        let (mut of, mut chosen) = (Vec::new(), Vec::new());
        for (number, &cluster) in (0i64..).zip(clusters) {
            of.resize(of.len() + members.of(cluster).len(), number);
            chosen.extend(members.of(cluster).iter().map(|&row| i64::from(row)));
        }
        let [of, chosen] =
            [of, chosen].map(|numbers| Tensor::from_slice(&numbers).to_device(rows.device()));
        let totals = Tensor::zeros([count, rows.size()[1]], (Kind::Float, rows.device()));
        // Sorted before they are added, unlike by `index_add`: the same bits every time.
        let totals = totals.index_put(&[Some(&of)], &rows.index_select(0, &chosen), true);
        let mut added = vec![0f64; sums.len()];
        totals.to_device(Device::Cpu).to_kind(Kind::Double).copy_data(&mut added, sums.len());
        for (sum, added) in sums.iter_mut().zip(added) {
            *sum += added;
        }
    }
}

/// The values of a float32 tensor, row by row.
fn to_host(tensor: &Tensor) -> Vec<f32> {
    let mut values = vec![0f32; tensor.numel()];
    tensor.to_device(Device::Cpu).contiguous().copy_data(&mut values, tensor.numel());
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use protonce_kmeans::{HostPoints, Init, KMeans};
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    /// Heaps of points around the corners of a cube: [count, 3].
    fn heaps(count: usize) -> Vec<f32> {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let mut heap = |number: usize| -> [f32; 3] {
            let corner = |axis: usize| -> f32 { if number >> axis & 1 == 1 { 5.0 } else { 1.0 } };
            [0, 1, 2].map(|axis| corner(axis) + random.random_range(-0.5f32..0.5))
        };
        (0..count).flat_map(|number| heap(number % 8)).collect()
    }

    #[test]
    fn clusters_are_those_of_points_in_memory() {
        let values = heaps(400);
        for metric in [Metric::Euclidean, Metric::Spherical] {
            for init in [Init::Random, Init::PlusPlus, Init::Parallel] {
                // One start: of several that end alike, rounding would decide which is best.
                let one = KMeans { starts: 1, ..KMeans::default() };
                let options = KMeans { init, max_points_per_centroid: 40, ..one };
                let host = HostPoints::new(&values[..], 3, metric).unwrap();
                let host = options.fit(&host, 8).unwrap();
                let rows = Tensor::from_slice(&values).view([-1, 3]);
                let device = options.fit(&DevicePoints::new(&rows, metric).unwrap(), 8).unwrap();
                assert_eq!(host.assignment, device.assignment, "{metric:?}, {init:?}");
                for (host, device) in host.centroids.iter().zip(&device.centroids) {
                    assert!((host - device).abs() < 1e-5, "{metric:?}, {init:?}");
                }
                assert!((host.objective - device.objective).abs() < 1e-4 * host.objective);
            }
        }
    }

    #[test]
    fn impossible_points_are_refused() {
        let rows = Tensor::zeros([5, 2], (Kind::Float, Device::Cpu));
        let refused = |metric| DevicePoints::new(&rows, metric).err().unwrap().to_string();
        assert!(refused(Metric::Spherical).contains("point 0 is zero"));
        for value in [f32::NAN, f32::INFINITY] {
            rows.get(3).copy_(&Tensor::from_slice(&[value, 0.0]));
            assert!(refused(Metric::Euclidean).contains("point 3 is not finite"));
        }
        for value in [2e15, -1e20, f32::MAX] {
            rows.get(3).copy_(&Tensor::from_slice(&[value, 0.0]));
            assert!(refused(Metric::Euclidean).contains("point 3 has a value beyond"));
        }
    }
}
