//! Rows to be clustered, in memory or on a device, and the two steps that k-means takes with them.
//!
//! On the CPU the steps are loops of our own ([`super::nearest`]); on any other device they are matrix
//! products of libtorch. Centroids and the assignment live on the CPU in either case: they are small.

use std::borrow::Cow;
use std::cell::OnceCell;

use tch::{Device, Kind, Tensor};

use super::nearest::{self, Assignment, Coded, Coding, Effort, RowCodes, Rows, Search};
use super::{Metric, PrototypeError};
use crate::world::World;
use protonce_simd::multiversion;

/// Rows that are fit to be clustered: float32 [count, dim].
pub struct Points<'a>(Place<'a>);

enum Place<'a> {
    Host(Box<Host<'a>>),
    Device(Tensor),
}

/// Rows in memory, with codes that are made when they are first needed.
struct Host<'a> {
    values: Cow<'a, [f32]>,
    dim: usize,
    coding: OnceCell<Coding>,
    codes: OnceCell<RowCodes>,
}

/// Values beyond this have squares that add up to infinity.
const LARGEST: f32 = 1e15;

impl<'a> Points<'a> {
    /// The rows of a tensor, float32 [count, dim] on any device.
    ///
    /// # Errors
    /// When a row is not finite, or has no direction and `metric` needs one.
    pub fn from_tensor(rows: &Tensor, metric: Metric) -> Result<Points<'static>, PrototypeError> {
        let _guard = tch::no_grad_guard();
        if rows.device() == Device::Cpu {
            let mut values = vec![0f32; rows.numel()];
            rows.contiguous().copy_data(&mut values, rows.numel());
            return Points::from_values(Cow::Owned(values), rows.size()[1] as usize, metric);
        }
        let broken = rows.abs().le(f64::from(LARGEST)).all_dim(1, false).logical_not().nonzero();
        if broken.size()[0] > 0 {
            return Err(PrototypeError::NotFinite { row: broken.int64_value(&[0, 0]) });
        }
        let norms = rows.square().sum_dim_intlist([1].as_slice(), true, Kind::Float).sqrt();
        let rows = match metric {
            Metric::Euclidean => rows.shallow_clone(),
            Metric::Spherical => {
                let without = norms.squeeze_dim(1).eq(0.0).nonzero();
                if without.size()[0] > 0 {
                    return Err(PrototypeError::Zero { row: without.int64_value(&[0, 0]) });
                }
                rows / norms
            }
        };
        Ok(Points(Place::Device(rows)))
    }

    /// Rows in memory, one after the other; a memory-mapped file is as good. They are copied only
    /// where `metric` is spherical and they do not have length 1 yet.
    ///
    /// # Errors
    /// When a row is not finite, or has no direction and `metric` needs one.
    pub fn from_values(
        values: Cow<'a, [f32]>,
        dim: usize,
        metric: Metric,
    ) -> Result<Points<'a>, PrototypeError> {
        let broken = values.iter().position(|value| value.is_nan() || value.abs() > LARGEST);
        if let Some(place) = broken {
            return Err(PrototypeError::NotFinite { row: (place / dim) as i64 });
        }
        let mut values = values;
        if metric == Metric::Spherical {
            let unit = |row: &[f32]| (length(row) - 1.0).abs() < 1e-6;
            if let Some(row) = values.chunks(dim).position(|row| length(row) == 0.0) {
                return Err(PrototypeError::Zero { row: row as i64 });
            }
            if !values.chunks(dim).all(unit) {
                values.to_mut().chunks_mut(dim).for_each(normalise);
            }
        }
        let (coding, codes) = (OnceCell::new(), OnceCell::new());
        Ok(Points(Place::Host(Box::new(Host { values, dim, coding, codes }))))
    }

    /// How many rows there are.
    pub fn count(&self) -> usize {
        match &self.0 {
            Place::Host(host) => host.rows().count(),
            Place::Device(rows) => rows.size()[0] as usize,
        }
    }

    /// The length of a row.
    pub fn dim(&self) -> usize {
        match &self.0 {
            Place::Host(host) => host.dim,
            Place::Device(rows) => rows.size()[1] as usize,
        }
    }

    /// Where they are.
    pub fn device(&self) -> Device {
        match &self.0 {
            Place::Host(_) => Device::Cpu,
            Place::Device(rows) => rows.device(),
        }
    }

    /// All values, on the CPU.
    pub(super) fn host_values(&self) -> Cow<'_, [f32]> {
        match &self.0 {
            Place::Host(host) => Cow::Borrowed(&host.values),
            Place::Device(rows) => Cow::Owned(to_host(rows)),
        }
    }

    /// Some of the rows.
    pub(super) fn select(&self, chosen: &[usize]) -> Points<'static> {
        Points(match &self.0 {
            Place::Host(host) => {
                let (coding, codes) = (OnceCell::new(), OnceCell::new());
                Place::Host(Box::new(Host {
                    values: Cow::Owned(host.rows().select(chosen.iter().copied())),
                    dim: host.dim,
                    coding,
                    codes,
                }))
            }
            Place::Device(rows) => {
                let chosen: Vec<i64> = chosen.iter().map(|&row| row as i64).collect();
                Place::Device(
                    rows.index_select(0, &Tensor::from_slice(&chosen).to_device(rows.device())),
                )
            }
        })
    }

    /// The values of some rows.
    pub(super) fn values(&self, chosen: &[usize]) -> Vec<f32> {
        match self.select(chosen).0 {
            Place::Host(host) => host.values.into_owned(),
            Place::Device(rows) => to_host(&rows),
        }
    }

    /// The first step: the nearest centroid of every row. `search` remembers the passes before.
    pub(super) fn assign(
        &self,
        search: &mut Search,
        centroids: &[f32],
        assignment: &mut Assignment,
    ) -> Effort {
        match &self.0 {
            Place::Host(host) => {
                let centroids = Rows { values: centroids, dim: host.dim };
                search.assign(&host.coded(), centroids, assignment)
            }
            Place::Device(rows) => {
                *assignment = assign_on_device(rows, centroids);
                let measured = (self.count() * (centroids.len() / self.dim())) as u64;
                Effort { scored: 0, measured }
            }
        }
    }

    /// The same for rows that are looked at once: no codes are kept.
    pub(super) fn assign_once(&self, centroids: &[f32]) -> Assignment {
        match &self.0 {
            Place::Host(host) => {
                let centroids = Rows { values: centroids, dim: host.dim };
                nearest::assign(host.rows(), centroids, host.coding())
            }
            Place::Device(rows) => assign_on_device(rows, centroids),
        }
    }

    /// The second step: the sums of each cluster's rows, over all processes.
    pub(super) fn sum(&self, nearest: &[u32], sums: &mut Sums, world: &World) {
        match &self.0 {
            Place::Host(host) => sums.update(host.rows(), nearest),
            Place::Device(rows) => {
                let clusters = sums.counts.len() as i64;
                let nearest: Vec<i64> = nearest.iter().map(|&cluster| i64::from(cluster)).collect();
                let nearest = Tensor::from_slice(&nearest).to_device(rows.device());
                let local = Tensor::zeros([clusters, rows.size()[1]], (Kind::Float, rows.device()));
                // Sorted before they are added, unlike by `index_add`: the same bits every time.
                let local = local.index_put(&[Some(&nearest)], rows, true);
                let counts = nearest.bincount(None::<&Tensor>, clusters);
                for (tensor, values) in [(local, &mut sums.totals), (counts, &mut sums.counts)] {
                    let tensor = tensor.to_device(Device::Cpu).to_kind(Kind::Double);
                    let length = values.len();
                    tensor.copy_data(values, length);
                }
            }
        }
        world.all_reduce_sum(&mut sums.totals);
        world.all_reduce_sum(&mut sums.counts);
    }
}

impl Host<'_> {
    fn rows(&self) -> Rows<'_> {
        Rows { values: &self.values, dim: self.dim }
    }

    fn coding(&self) -> &Coding {
        self.coding.get_or_init(|| Coding::new(self.rows()))
    }

    fn coded(&self) -> Coded<'_> {
        let coding = self.coding();
        let codes = self.codes.get_or_init(|| coding.code(self.rows()));
        Coded { rows: self.rows(), coding, codes }
    }
}

/// The Euclidean length of a row.
fn length(row: &[f32]) -> f64 {
    row.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt()
}

/// Gives a row the length 1; zeros stay zeros.
pub(super) fn normalise(row: &mut [f32]) {
    let length = length(row);
    if length > 0.0 {
        row.iter_mut().for_each(|value| *value = (f64::from(*value) / length) as f32);
    }
}

/// The values of a float32 tensor, row by row.
fn to_host(tensor: &Tensor) -> Vec<f32> {
    let mut values = vec![0f32; tensor.numel()];
    tensor.to_device(Device::Cpu).contiguous().copy_data(&mut values, tensor.numel());
    values
}

/// The nearest centroid of each of `rows`, by tiles of the product of both.
fn assign_on_device(rows: &Tensor, centroids: &[f32]) -> Assignment {
    // Elements of one tile of the [n, k] product.
    const TILE: i64 = 1 << 24;
    let (count, dim) = (rows.size()[0], rows.size()[1]);
    let centroids = Tensor::from_slice(centroids).view([-1, dim]).to_device(rows.device());
    let tile = (TILE / centroids.size()[0]).clamp(256, 65_536);
    let squares = |rows: &Tensor| rows.square().sum_dim_intlist([1].as_slice(), false, Kind::Float);
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

/// Clusters whose rows one job sums up.
const JOB: usize = 16;

/// Sums of the rows of each cluster.
pub struct Sums {
    dim: usize,
    /// This process's sums: [clusters, dim].
    local: Vec<f64>,
    /// The assignment that they belong to; empty before there is one.
    nearest: Vec<u32>,
    /// Sums over all processes: [clusters, dim].
    pub totals: Vec<f64>,
    /// Rows of each cluster, over all processes; whole numbers.
    pub counts: Vec<f64>,
}

impl Sums {
    /// No sums yet, of `clusters` clusters.
    pub fn new(clusters: usize, dim: usize) -> Sums {
        Sums {
            dim,
            local: vec![0.0; clusters * dim],
            nearest: Vec::new(),
            totals: vec![0.0; clusters * dim],
            counts: vec![0.0; clusters],
        }
    }

    /// Makes the totals and counts those of this process's rows.
    ///
    /// Each sum is taken in float64 in the order of the rows, whichever thread does it, and only
    /// those of clusters that won or lost a row since the last time.
    fn update(&mut self, rows: Rows, nearest: &[u32]) {
        let clusters = self.counts.len();
        let mut stale = vec![self.nearest.is_empty(); clusters];
        for (&before, &now) in self.nearest.iter().zip(nearest) {
            stale[before as usize] |= before != now;
            stale[now as usize] |= before != now;
        }
        self.nearest.clear();
        self.nearest.extend_from_slice(nearest);
        // The rows of each cluster, cluster after cluster.
        let mut ends = vec![0u32; clusters];
        for &cluster in nearest {
            ends[cluster as usize] += 1;
        }
        let mut end = 0;
        for (count, ends) in self.counts.iter_mut().zip(&mut ends) {
            *count = f64::from(*ends);
            (end, *ends) = (end + *ends, end);
        }
        let mut members = vec![0; nearest.len()];
        for (row, &cluster) in (0..).zip(nearest) {
            let end = &mut ends[cluster as usize];
            members[*end as usize] = row;
            *end += 1;
        }
        let dim = self.dim;
        let jobs = self.local.chunks_mut(JOB * dim).zip(ends.chunks(JOB)).zip(stale.chunks(JOB));
        let firsts = std::iter::once(0).chain(ends.iter().copied().skip(JOB - 1).step_by(JOB));
        nearest::share(jobs.zip(firsts), |(((sums, ends), stale), mut first)| {
            for ((sum, &end), &stale) in sums.chunks_mut(dim).zip(ends).zip(stale) {
                if stale {
                    sum_rows(rows, &members[first as usize..end as usize], sum);
                }
                first = end;
            }
        });
        self.totals.copy_from_slice(&self.local);
    }
}

multiversion! {
    /// The sum of the rows whose numbers are given.
    fn sum_rows(rows: Rows, members: &[u32], sum: &mut [f64]) {
        // As many sums as fit in registers, over all rows.
        const BLOCK: usize = 32;
        const AHEAD: usize = 6;
        let mut first = 0;
        let mut blocks = sum.chunks_exact_mut(BLOCK);
        for block in &mut blocks {
            let mut sums = [0f64; BLOCK];
            for (place, &row) in members.iter().enumerate() {
                // Rows of a cluster lie anywhere: the first time, memory has to be asked early.
                if first == 0 && let Some(&soon) = members.get(place + AHEAD) {
                    nearest::prefetch(rows.row(soon as usize));
                }
                let values = &rows.row(row as usize)[first..][..BLOCK];
                for place in 0..BLOCK {
                    sums[place] += f64::from(values[place]);
                }
            }
            block.copy_from_slice(&sums);
            first += BLOCK;
        }
        for sum in blocks.into_remainder() {
            let values = members.iter().map(|&row| f64::from(rows.row(row as usize)[first]));
            *sum = values.fold(0.0, |sum, value| sum + value);
            first += 1;
        }
    }
}
