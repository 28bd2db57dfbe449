//! Whether a clustering is worth training on, in numbers that can be watched.

use serde::{Deserialize, Serialize};

use crate::Clustering;

/// Where embeddings come from, which decides what can be done when they cannot be clustered well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// An encoder that is being trained on their clusters.
    Training,
    /// Elsewhere.
    Given,
}

/// One granularity in numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// Clusters.
    pub clusters: i64,
    /// Mean squared distance of an embedding to its centroid.
    pub objective: f64,
    /// Clusters without an image.
    pub empty: i64,
    /// Clusters of one image.
    pub singletons: i64,
    /// Images of the largest cluster.
    pub largest: i64,
    /// How many clusters have 1, 2 to 3, 4 to 7, … images: the entry at i counts sizes from 2^i on.
    pub sizes: Vec<i64>,
    /// Least and largest concentration.
    pub concentration: [f64; 2],
    /// Normalised mutual information with the clusters of the E-step before: 1 where nothing changed.
    /// None where there was none.
    pub agreement: Option<f64>,
    /// What is wrong with it, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

impl Quality {
    /// Of a clustering, the concentration of each of its clusters, how far it agrees with the one
    /// before, and the source of its points.
    pub fn new(
        clustering: &Clustering,
        concentration: &[f32],
        agreement: Option<f64>,
        source: Source,
    ) -> Quality {
        let mut sizes = vec![0i64; clustering.clusters()];
        for &cluster in &clustering.assignment {
            sizes[cluster as usize] += 1;
        }
        let images: i64 = sizes.iter().sum();
        let largest = sizes.iter().copied().max().unwrap_or(0);
        let mut histogram = vec![0; largest.checked_ilog2().map_or(0, |last| last as usize + 1)];
        for place in sizes.iter().filter_map(|size| size.checked_ilog2()) {
            histogram[place as usize] += 1;
        }
        let of = |size: i64| sizes.iter().filter(|&&found| found == size).count() as i64;
        let least = concentration.iter().copied().fold(f32::INFINITY, f32::min).into();
        let most = concentration.iter().copied().fold(f32::NEG_INFINITY, f32::max).into();
        let mut quality = Quality {
            clusters: sizes.len() as i64,
            objective: clustering.objective / images.max(1) as f64,
            empty: of(0),
            singletons: of(1),
            largest,
            sizes: histogram,
            concentration: [least, most],
            agreement,
            warning: None,
        };
        let [between, within] = spread(clustering, &sizes, quality.objective);
        let nearly_equal = images > 1 && source.nearly_equal(between, within, quality.empty > 0);
        let nearly_equal = nearly_equal.then_some(between + within);
        quality.warning = quality.find_fault(images, nearly_equal, source);
        quality
    }

    /// `nearly_equal`: the variance of all embeddings relative to their squared length, if it is next to
    /// nothing.
    fn find_fault(&self, images: i64, nearly_equal: Option<f64>, source: Source) -> Option<String> {
        let Quality { clusters, empty, singletons, largest, .. } = self;
        let few = empty + singletons;
        let crowded = *clusters >= 8 && *largest > images / 2;
        let idle = 2 * few > *clusters && images > 2 * clusters;
        let retrain = "try a lower --lr or a longer --warmup-epochs";
        match (source, nearly_equal) {
            (Source::Training, Some(spread)) => Some(format!(
                "the {clusters} prototypes are nearly equal to each other (variance {spread:.1e} of their squared length): the encoder has collapsed, {retrain}"
            )),
            (Source::Given, Some(spread)) => Some(format!(
                "the {images} embeddings are nearly equal to each other (variance {spread:.1e} of their squared length), so that clusters mean nothing: look at the weights and the images that they were made of"
            )),
            (Source::Training, None) if crowded => Some(format!(
                "one of {clusters} prototypes has {largest} of {images} images: the encoder is collapsing, {retrain}"
            )),
            (Source::Given, None) if crowded => Some(format!(
                "one of {clusters} clusters has {largest} of {images} embeddings: the others may hold outliers alone; look at them, or try --metric spherical or --start plus-plus"
            )),
            (Source::Training, None) if idle => Some(format!(
                "{few} of {clusters} prototypes have at most one image: ask for fewer --clusters"
            )),
            (Source::Given, None) if idle => Some(format!(
                "{few} of {clusters} clusters have at most one embedding: fewer --clusters are enough"
            )),
            _ => None,
        }
    }
}

impl Source {
    /// Whether embeddings count as equal that vary so much between prototypes and within them, relative to
    /// their squared length. An encoder in training tells images apart by angles, which must be seen. Of
    /// other embeddings no more is asked than float32 can tell apart, for they may have a large mean;
    /// where clusters are empty, though, the others' centroids were moved to split them.
    fn nearly_equal(self, between: f64, within: f64, empty: bool) -> bool {
        match self {
            Source::Training => between + within <= 2e-6,
            Source::Given => between <= 1e-12 && within <= if empty { 2e-6 } else { 1e-12 },
        }
    }
}

/// How far the prototypes are from each other, each as often as it has images, and the embeddings from
/// them: mean squared distances, over the mean squared length of all embeddings.
fn spread(clustering: &Clustering, sizes: &[i64], objective: f64) -> [f64; 2] {
    let images = sizes.iter().sum::<i64>().max(1) as f64;
    let prototypes = || clustering.centroids.chunks(clustering.dim).zip(sizes);
    let mut mean = vec![0f64; clustering.dim];
    for (prototype, &size) in prototypes() {
        for (mean, &value) in mean.iter_mut().zip(prototype) {
            *mean += f64::from(value) * size as f64 / images;
        }
    }
    let (mut between, mut length) = (0.0, 0.0);
    for (prototype, &size) in prototypes() {
        for (&mean, &value) in mean.iter().zip(prototype) {
            between += (f64::from(value) - mean).powi(2) * size as f64 / images;
            length += f64::from(value).powi(2) * size as f64 / images;
        }
    }
    match length + objective {
        0.0 => [0.0; 2],
        length => [between / length, objective / length],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ConcentrationOptions, HostPoints, KMeans, Metric, concentration};

    fn warning(rows: &[f32], clusters: usize, source: Source) -> Option<String> {
        let points = HostPoints::new(rows, 2, Metric::Euclidean).unwrap();
        let clustering = KMeans::default().fit(&points, clusters).unwrap();
        let options = ConcentrationOptions { temperature: 0.2, smoothing: 10.0 };
        let concentration = concentration(&clustering, options);
        Quality::new(&clustering, &concentration, None, source).warning
    }

    /// Rows around three corners, so many around each and no further from it than `within`.
    fn corners(count: usize, within: f32) -> Vec<f32> {
        let row = |row: usize| {
            let (corner, place) = (row % 3, (row / 3) as f32 / count as f32 * within);
            [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]][corner].map(|value: f32| value + place)
        };
        (0..3 * count).flat_map(row).collect()
    }

    #[test]
    fn equal_embeddings_of_one_cluster_are_no_collapse_while_prototypes_differ() {
        for within in [0.0, 1e-7, 1e-4] {
            for source in [Source::Training, Source::Given] {
                assert_eq!(warning(&corners(20, within), 3, source), None, "{within}");
            }
        }
    }

    #[test]
    fn embeddings_that_are_nearly_equal_are_called_so_with_advice_for_their_source() {
        let near = |offset: f32| -> Vec<f32> {
            corners(20, 0.0).iter().map(|value| 1000.0 + value * offset).collect()
        };
        for rows in [vec![0.25; 120], vec![0.0; 120], near(0.1), near(1e-3)] {
            for clusters in [1, 2, 3, 8, 16, 32] {
                let text = warning(&rows, clusters, Source::Training).unwrap();
                assert!(text.contains("nearly equal") && text.contains("--lr"), "{text}");
            }
        }
        for rows in [vec![0.25; 120], vec![1.0; 120], vec![0.0; 120], near(1e-5)] {
            for clusters in [1, 2, 3, 8, 16, 32] {
                let text = warning(&rows, clusters, Source::Given).unwrap();
                assert!(text.contains("nearly equal") && !text.contains("--lr"), "{text}");
            }
        }
        // A large mean hides nothing.
        for clusters in [1, 2, 3] {
            assert_eq!(warning(&near(0.1), clusters, Source::Given), None);
        }
    }

    #[test]
    fn advice_names_options_of_the_command_that_gives_it() {
        let mut crowded = corners(20, 0.5);
        crowded.extend([0.5; 400]);
        let mut idle = vec![0.5; 200];
        idle.extend([9.0, 9.0, -9.0, 0.0]);
        for (rows, clusters, of_training, of_given) in [
            (crowded, 8, "--warmup-epochs", "--metric spherical"),
            (idle, 7, "ask for fewer --clusters", "fewer --clusters are enough"),
        ] {
            let text = warning(&rows, clusters, Source::Training).unwrap();
            assert!(text.contains(of_training) && text.contains("prototypes"), "{text}");
            let text = warning(&rows, clusters, Source::Given).unwrap();
            assert!(text.contains(of_given) && !text.contains("prototypes"), "{text}");
        }
    }
}
