//! Whether a clustering is worth training on, in numbers that can be watched.

use serde::{Deserialize, Serialize};

use crate::Clustering;

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
    /// Of a clustering, the concentration of each of its clusters, and how far it agrees with the one
    /// before.
    pub fn new(clustering: &Clustering, concentration: &[f32], agreement: Option<f64>) -> Quality {
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
        quality.warning = quality.find_fault(images);
        quality
    }

    fn find_fault(&self, images: i64) -> Option<String> {
        let Quality { clusters, objective, empty, singletons, largest, .. } = self;
        if images > *clusters && *objective < 1e-7 {
            return Some(format!(
                "the embeddings of {clusters} prototypes are nearly equal (mean squared distance {objective:.1e}): the encoder has collapsed, try a lower --lr or a longer --warmup-epochs"
            ));
        }
        if *clusters >= 8 && *largest > images / 2 {
            return Some(format!(
                "one of {clusters} prototypes has {largest} of {images} images: the encoder is collapsing, try a lower --lr or a longer --warmup-epochs"
            ));
        }
        if 2 * (empty + singletons) > *clusters && images > 2 * clusters {
            return Some(format!(
                "{} of {clusters} prototypes have at most one image: ask for fewer --clusters",
                empty + singletons
            ));
        }
        None
    }
}
