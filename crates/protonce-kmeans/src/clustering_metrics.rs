//! How well clusters agree with labels, or with other clusters: two numberings of the same things in,
//! five measures out. Names of clusters do not matter.
//!
//! AMI, NMI and ARI are those of scikit-learn (Vinh, Epps & Bailey 2010; Hubert & Arabie 1985), with
//! the arithmetic mean as normaliser.

use std::collections::BTreeMap;

use serde::Serialize;

/// Measures of agreement; 1 is perfect for each.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Agreement {
    /// Adjusted mutual information: 0 for independent numberings.
    pub ami: f64,
    /// Normalised mutual information; grows with the number of clusters alone.
    pub nmi: f64,
    /// Adjusted Rand index: 0 for independent numberings.
    pub ari: f64,
    /// Share of things that are of their cluster's most frequent label.
    pub purity: f64,
    /// Share of things that are right when each cluster is given at most one label and each label to at
    /// most one cluster, in the best way.
    pub hungarian_accuracy: f64,
}

/// How often each label meets each cluster.
struct Contingency {
    /// Label, cluster and how often they meet, where they do; in the order of labels and clusters.
    cells: Vec<(usize, usize, u64)>,
    /// Things of each label.
    labels: Vec<u64>,
    /// Things of each cluster.
    clusters: Vec<u64>,
    /// Things in all.
    count: u64,
}

impl Contingency {
    /// Of two numberings of the same length.
    fn new(labels: &[i64], clusters: &[i64]) -> Contingency {
        assert_eq!(labels.len(), clusters.len(), "two numberings of the same things");
        let (labels, clusters) = (dense(labels), dense(clusters));
        let mut pairs: Vec<(usize, usize)> = labels.iter().copied().zip(clusters).collect();
        pairs.sort_unstable();
        let mut cells: Vec<(usize, usize, u64)> = Vec::new();
        for (label, cluster) in pairs {
            match cells.last_mut() {
                Some(cell) if (cell.0, cell.1) == (label, cluster) => cell.2 += 1,
                _ => cells.push((label, cluster, 1)),
            }
        }
        let mut sums = [Vec::new(), Vec::new()];
        for &(label, cluster, count) in &cells {
            for (sums, number) in sums.iter_mut().zip([label, cluster]) {
                sums.resize(sums.len().max(number + 1), 0);
                sums[number] += count;
            }
        }
        let [labels, clusters] = sums;
        let count = labels.iter().sum();
        Contingency { cells, labels, clusters, count }
    }

    /// In nats.
    fn mutual_information(&self) -> f64 {
        let count = self.count as f64;
        let information = |&(label, cluster, met): &(usize, usize, u64)| {
            let independent = self.labels[label] as f64 * self.clusters[cluster] as f64;
            let met = met as f64;
            met / count * (met.ln() + count.ln() - independent.ln())
        };
        self.cells.iter().map(information).sum::<f64>().max(0.0)
    }

    /// The mean of both numberings' entropies.
    fn mean_entropy(&self) -> f64 {
        (entropy(&self.labels, self.count) + entropy(&self.clusters, self.count)) / 2.0
    }

    /// Whether neither numbering tells anything apart.
    fn trivial(&self) -> bool {
        self.labels.len() <= 1 && self.clusters.len() <= 1
    }

    fn nmi(&self) -> f64 {
        if self.trivial() {
            return 1.0;
        }
        let information = self.mutual_information();
        if information <= f64::EPSILON { 0.0 } else { information / self.mean_entropy() }
    }

    fn ami(&self) -> f64 {
        if self.trivial() {
            return 1.0;
        }
        let expected = self.expected_information();
        let room = self.mean_entropy() - expected;
        let room = if room < 0.0 { room.min(-f64::EPSILON) } else { room.max(f64::EPSILON) };
        (self.mutual_information() - expected) / room
    }

    /// The mean of the mutual information over all numberings with the same sizes (Vinh, Epps & Bailey
    /// 2010, equation 24a).
    fn expected_information(&self) -> f64 {
        let count = self.count as usize;
        let factorials = log_factorials(count);
        let (labels, clusters) = (multiplicities(&self.labels), multiplicities(&self.clusters));
        let total = count as f64;
        let mut expected = 0.0;
        for (&a, &a_times) in &labels {
            for (&b, &b_times) in &clusters {
                let (a, b) = (a as usize, b as usize);
                let fixed =
                    factorials[a] + factorials[b] + factorials[count - a] + factorials[count - b]
                        - factorials[count];
                let mut sum = 0.0;
                for met in (a + b).saturating_sub(count).max(1)..=a.min(b) {
                    let chance = fixed
                        - factorials[met]
                        - factorials[a - met]
                        - factorials[b - met]
                        - factorials[count + met - a - b];
                    let met = met as f64;
                    let information = (total * met).ln() - (a as f64 * b as f64).ln();
                    sum += met / total * information * chance.exp();
                }
                expected += sum * (a_times * b_times) as f64;
            }
        }
        expected
    }

    fn ari(&self) -> f64 {
        let squares = |counts: &mut dyn Iterator<Item = u64>| -> f64 {
            counts.map(|count| (count as f64).powi(2)).sum()
        };
        let count = self.count as f64;
        let met = squares(&mut self.cells.iter().map(|cell| cell.2));
        let labels = squares(&mut self.labels.iter().copied());
        let clusters = squares(&mut self.clusters.iter().copied());
        // Pairs: together in both, in the labels only, in the clusters only, in neither.
        let both = met - count;
        let (first, second) = (labels - met, clusters - met);
        let neither = count * count - met - first - second;
        if first == 0.0 && second == 0.0 {
            return 1.0;
        }
        2.0 * (both * neither - first * second)
            / ((both + first) * (first + neither) + (both + second) * (second + neither))
    }

    fn purity(&self) -> f64 {
        let mut most = vec![0; self.clusters.len()];
        for &(_, cluster, met) in &self.cells {
            most[cluster] = most[cluster].max(met);
        }
        most.iter().sum::<u64>() as f64 / self.count as f64
    }

    fn hungarian_accuracy(&self) -> f64 {
        // The smaller side gives the rows.
        let (rows, columns) = (self.labels.len(), self.clusters.len());
        let turned = rows > columns;
        let width = rows.max(columns);
        let mut met = vec![0i64; rows.min(columns) * width];
        for &(label, cluster, count) in &self.cells {
            let (row, column) = if turned { (cluster, label) } else { (label, cluster) };
            met[row * width + column] = count as i64;
        }
        best_matching(&met, width) as f64 / self.count as f64
    }
}

/// All measures of agreement of `clusters` with `labels`: two numberings of the same, at least one,
/// things.
///
/// # Panics
/// When their lengths differ.
pub fn agreement(labels: &[i64], clusters: &[i64]) -> Agreement {
    let table = Contingency::new(labels, clusters);
    Agreement {
        ami: table.ami(),
        nmi: table.nmi(),
        ari: table.ari(),
        purity: table.purity(),
        hungarian_accuracy: table.hungarian_accuracy(),
    }
}

/// Normalised mutual information alone, which is quick for any number of clusters.
///
/// # Panics
/// When the lengths differ.
pub fn normalised_mutual_information(one: &[i64], other: &[i64]) -> f64 {
    Contingency::new(one, other).nmi()
}

/// The same numbering with the numbers 0, 1, … in their order.
fn dense(numbers: &[i64]) -> Vec<usize> {
    let mut known = numbers.to_vec();
    known.sort_unstable();
    known.dedup();
    numbers.iter().map(|number| known.binary_search(number).unwrap_or(0)).collect()
}

/// In nats.
fn entropy(sizes: &[u64], count: u64) -> f64 {
    let count = count as f64;
    -sizes.iter().map(|&size| size as f64 / count * ((size as f64).ln() - count.ln())).sum::<f64>()
}

/// How often each size occurs.
fn multiplicities(sizes: &[u64]) -> BTreeMap<u64, u64> {
    let mut times = BTreeMap::new();
    for &size in sizes {
        *times.entry(size).or_insert(0) += 1;
    }
    times
}

/// ln 0!, ln 1!, …, ln `most`!, summed with compensation: a million terms lose nothing.
fn log_factorials(most: usize) -> Vec<f64> {
    let (mut sum, mut lost) = (0f64, 0f64);
    let mut factorials = vec![0.0];
    for number in 1..=most {
        let term = (number as f64).ln() - lost;
        let next = sum + term;
        lost = (next - sum) - term;
        sum = next;
        factorials.push(sum);
    }
    factorials
}

/// The largest sum of entries of `gains` ([rows, width], no more rows than columns) with one in each
/// row and at most one in each column, by shortest augmenting paths (Kuhn 1955; Jonker & Volgenant
/// 1987).
fn best_matching(gains: &[i64], width: usize) -> i64 {
    const FAR: i64 = i64::MAX;
    let rows = gains.len() / width;
    // Costs −gain, less potentials of row and column, stay at least 0, and are 0 where matched.
    let mut row_potential = vec![0i64; rows];
    let mut column_potential = vec![0i64; width];
    let mut matched: Vec<Option<usize>> = vec![None; width];
    for start in 0..rows {
        let mut distance = vec![FAR; width];
        let mut from: Vec<Option<usize>> = vec![None; width];
        let mut done = vec![false; width];
        let (mut row, mut last, mut reached) = (start, None, 0);
        let end = loop {
            let mut nearest: Option<usize> = None;
            for column in (0..width).filter(|&column| !done[column]) {
                let cost =
                    -gains[row * width + column] - row_potential[row] - column_potential[column];
                if reached + cost < distance[column] {
                    distance[column] = reached + cost;
                    from[column] = last;
                }
                if nearest.is_none_or(|best| distance[column] < distance[best]) {
                    nearest = Some(column);
                }
            }
            // There are no more rows than columns, so one is always free.
            let Some(column) = nearest else { break None };
            done[column] = true;
            reached = distance[column];
            last = Some(column);
            match matched[column] {
                Some(next) => row = next,
                None => break Some(column),
            }
        };
        row_potential[start] += reached;
        for column in (0..width).filter(|&column| done[column]) {
            if let Some(owner) = matched[column] {
                row_potential[owner] += reached - distance[column];
            }
            column_potential[column] -= reached - distance[column];
        }
        // Along the path every column takes the row of the column before it.
        let mut column = end;
        while let Some(here) = column {
            matched[here] = from[here].map_or(Some(start), |before| matched[before]);
            column = from[here];
        }
    }
    matched
        .iter()
        .enumerate()
        .filter_map(|(column, row)| row.map(|row| gains[row * width + column]))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_measure_is_that_of_scikit_learn() {
        #[derive(serde::Deserialize)]
        struct Case {
            labels: Vec<i64>,
            clusters: Vec<i64>,
            ami: f64,
            nmi: f64,
            ari: f64,
            purity: f64,
            hungarian_accuracy: f64,
        }
        let text = include_str!("../tests/fixtures/clustering.json");
        let cases: Vec<Case> = serde_json::from_str(text).unwrap();
        assert!(!cases.is_empty());
        for case in cases {
            let found = agreement(&case.labels, &case.clusters);
            for (name, found, expected) in [
                ("ami", found.ami, case.ami),
                ("nmi", found.nmi, case.nmi),
                ("ari", found.ari, case.ari),
                ("purity", found.purity, case.purity),
                ("hungarian_accuracy", found.hungarian_accuracy, case.hungarian_accuracy),
            ] {
                assert!((found - expected).abs() < 1e-9, "{name}: {found}, expected {expected}");
            }
        }
    }

    #[test]
    fn names_do_not_matter_and_nothing_to_tell_apart_is_agreement() {
        let found = agreement(&[5, 5, -1, -1, 9], &[0, 0, 7, 7, 3]);
        for measure in [found.ami, found.nmi, found.ari, found.purity, found.hungarian_accuracy] {
            assert!((measure - 1.0).abs() < 1e-12, "{found:?}");
        }
        assert_eq!(agreement(&[1, 1], &[2, 2]).ami, 1.0);
        assert_eq!(normalised_mutual_information(&[1, 1, 2, 2], &[1, 2, 1, 2]), 0.0);
    }

    #[test]
    fn the_best_matching_beats_every_other() {
        use rand::{RngExt, SeedableRng};
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        // All ways to give `rows` rows different columns.
        fn best(gains: &[i64], width: usize, used: u32) -> i64 {
            if gains.is_empty() {
                return 0;
            }
            let (row, rest) = gains.split_at(width);
            let free = (0..width).filter(|column| used >> column & 1 == 0);
            free.map(|column| row[column] + best(rest, width, used | 1 << column)).max().unwrap()
        }
        for _ in 0..200 {
            let width = random.random_range(1..6);
            let rows = random.random_range(1..=width);
            let gains: Vec<i64> = (0..rows * width).map(|_| random.random_range(0..9)).collect();
            assert_eq!(best_matching(&gains, width), best(&gains, width, 0));
        }
    }
}
