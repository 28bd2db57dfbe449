//! k-means as the published code asks faiss for it: Lloyd's iterations on matrix products.

use rand::seq::index;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::{Kind, Tensor};

use super::PrototypeError;

/// The options of Lloyd's k-means.
#[derive(Debug, Clone, Copy)]
pub struct KMeans {
    /// Rounds of assignment and update.
    pub iterations: usize,
    /// Random starts, of which the best is kept.
    pub starts: usize,
    /// Rows a cluster that training uses at most; further rows are only assigned.
    pub max_points_per_centroid: i64,
}

impl Default for KMeans {
    /// The published settings.
    fn default() -> KMeans {
        KMeans { iterations: 20, starts: 5, max_points_per_centroid: 1000 }
    }
}

/// Rows grouped around centroids.
pub struct Clustering {
    /// Means of the clusters: float32 [k, dim].
    pub centroids: Tensor,
    /// The nearest centroid of every row: int64 [rows].
    pub assignment: Tensor,
    /// L2 distance of every row to it: float32 [rows].
    pub distances: Tensor,
    /// Sum of squared distances over all rows.
    pub objective: f64,
}

impl KMeans {
    /// Clusters `rows` (float32 [n, dim]) around `clusters` centroids.
    ///
    /// # Errors
    /// When there are more clusters than rows, no clusters, or a row that is not finite.
    pub fn fit(
        &self,
        rows: &Tensor,
        clusters: i64,
        seed: u64,
    ) -> Result<Clustering, PrototypeError> {
        let _guard = tch::no_grad_guard();
        let count = rows.size()[0];
        if clusters < 1 {
            return Err(PrototypeError::NoClusters);
        }
        if clusters > count {
            return Err(PrototypeError::TooManyClusters { clusters, images: count });
        }
        let broken = rows.isfinite().all_dim(1, false).logical_not().nonzero();
        if broken.size()[0] > 0 {
            return Err(PrototypeError::NotFinite { row: broken.int64_value(&[0, 0]) });
        }
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let sample = self.max_points_per_centroid.saturating_mul(clusters);
        let training = if count > sample {
            rows.index_select(0, &draw(&mut random, count, sample, rows))
        } else {
            rows.shallow_clone()
        };
        let mut best: Option<(Tensor, f64)> = None;
        for _ in 0..self.starts.max(1) {
            let (centroids, objective) = self.lloyd(&training, clusters, &mut random);
            if best.as_ref().is_none_or(|(_, least)| objective < *least) {
                best = Some((centroids, objective));
            }
        }
        let centroids = match best {
            Some((centroids, _)) => centroids,
            None => return Err(PrototypeError::NoClusters),
        };
        let (assignment, squared) = assign(rows, &centroids);
        let objective = squared.sum(Kind::Double).double_value(&[]);
        Ok(Clustering { centroids, assignment, distances: squared.sqrt(), objective })
    }

    /// One start: centroids and the objective of the last assignment.
    fn lloyd(&self, rows: &Tensor, clusters: i64, random: &mut ChaCha8Rng) -> (Tensor, f64) {
        let start = draw(random, rows.size()[0], clusters, rows);
        let mut centroids = rows.index_select(0, &start);
        let mut objective = f64::INFINITY;
        for _ in 0..self.iterations {
            let (assignment, squared) = assign(rows, &centroids);
            objective = squared.sum(Kind::Double).double_value(&[]);
            centroids = means(rows, &assignment, &centroids, random);
        }
        (centroids, objective)
    }
}

/// `count` distinct row numbers out of `rows`, on the device of `like`.
fn draw(random: &mut ChaCha8Rng, rows: i64, count: i64, like: &Tensor) -> Tensor {
    let drawn = index::sample(random, rows as usize, count as usize);
    let drawn: Vec<i64> = drawn.into_iter().map(|row| row as i64).collect();
    Tensor::from_slice(&drawn).to_device(like.device())
}

/// The nearest of `centroids` [k, dim] to each of `rows` [n, dim], by L2: int64 [n], and the
/// squared distance, float32 [n].
pub fn assign(rows: &Tensor, centroids: &Tensor) -> (Tensor, Tensor) {
    // Elements of one tile of the [n, k] product: it is reduced while it is still in cache.
    const TILE: i64 = 1 << 20;
    let (count, clusters) = (rows.size()[0], centroids.size()[0]);
    let tile = (TILE / clusters).clamp(256, 65_536);
    let half_norms = squares(centroids) * 0.5;
    let opposite = centroids.tr().neg();
    let mut assignments = Vec::new();
    for start in (0..count).step_by(tile as usize) {
        let part = rows.narrow(0, start, tile.min(count - start));
        // ‖c‖²/2 − x·c is least where ‖x − c‖ is: [tile, k]
        let scores = half_norms.addmm(&part, &opposite);
        assignments.push(scores.argmin(1, false));
    }
    let assignment = Tensor::cat(&assignments, 0);
    // Exactly, for the one centroid that counts: the expanded form loses small distances.
    let squared = squares(&(rows - centroids.index_select(0, &assignment)));
    (assignment, squared)
}

/// The squared L2 length of each row: [n, dim] → [n].
fn squares(rows: &Tensor) -> Tensor {
    rows.square().sum_dim_intlist([1].as_slice(), false, Kind::Float)
}

/// The mean of each cluster's rows; a cluster that lost all of its rows takes half of a large
/// one's, as in faiss: both start from that one's centroid, moved slightly apart.
fn means(
    rows: &Tensor,
    assignment: &Tensor,
    centroids: &Tensor,
    random: &mut ChaCha8Rng,
) -> Tensor {
    const APART: f64 = 1.0 / 1024.0;
    let clusters = centroids.size()[0];
    let sums = centroids.zeros_like().index_put_(&[Some(assignment)], rows, true);
    let sizes = assignment.bincount(None::<&Tensor>, clusters);
    let means = sums / sizes.clamp_min(1).unsqueeze(1);
    let counted = sizes.to_device(tch::Device::Cpu);
    let mut sizes = vec![0i64; clusters as usize];
    counted.copy_data(&mut sizes, clusters as usize);
    let rows = rows.size()[0];
    for empty in 0..sizes.len() {
        if sizes[empty] > 0 {
            continue;
        }
        // A donor is found with a probability that grows with its size.
        let mut donor = 0;
        loop {
            let chance = (sizes[donor] - 1) as f64 / (rows - clusters).max(1) as f64;
            if random.random::<f64>() < chance {
                break;
            }
            donor = (donor + 1) % sizes.len();
        }
        let dim = means.size()[1];
        let sign = Tensor::from_slice(&[1.0 + APART, 1.0 - APART]).to_device(means.device());
        let sign = sign.to_kind(means.kind()).repeat([dim / 2 + 1]).narrow(0, 0, dim);
        let shared = means.get(donor as i64).copy();
        means.get(empty as i64).copy_(&(&shared * &sign));
        means.get(donor as i64).copy_(&(&shared * (2.0 - &sign)));
        sizes[empty] = sizes[donor] / 2;
        sizes[donor] -= sizes[empty];
    }
    means
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn as_many_clusters_as_rows_puts_each_row_in_its_own() {
        let rows = Tensor::arange(12, (Kind::Float, Device::Cpu)).view([6, 2]);
        let clustering = KMeans::default().fit(&rows, 6, 0).unwrap();
        assert_eq!(clustering.objective, 0.0);
        let mut assignment: Vec<i64> = clustering.assignment.try_into().unwrap();
        assignment.sort();
        assert_eq!(assignment, [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn identical_rows_and_more_clusters_than_values_come_to_an_end() {
        let rows = Tensor::ones([50, 3], (Kind::Float, Device::Cpu));
        let clustering = KMeans::default().fit(&rows, 10, 0).unwrap();
        assert!(clustering.objective < 1e-3);
    }

    #[test]
    fn the_same_seed_gives_the_same_bits() {
        tch::manual_seed(1);
        let rows = Tensor::randn([500, 8], (Kind::Float, Device::Cpu));
        let fit = |seed| KMeans::default().fit(&rows, 20, seed).unwrap();
        assert_eq!(fit(3).centroids, fit(3).centroids);
        assert_ne!(fit(3).centroids, fit(4).centroids);
    }

    #[test]
    fn impossible_requests_are_refused() {
        let rows = Tensor::zeros([5, 2], (Kind::Float, Device::Cpu));
        let refused =
            |clusters| KMeans::default().fit(&rows, clusters, 0).err().unwrap().to_string();
        assert!(refused(6).contains("6 clusters from 5 images"));
        assert!(refused(0).contains("0 clusters"));
        rows.get(3).copy_(&Tensor::from_slice(&[f32::NAN, 0.0]));
        assert!(refused(2).contains("image 3 is not finite"));
    }
}
