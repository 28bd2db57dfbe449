//! An expectation step as the run's files hold it: which image belongs to which prototype, and how
//! near it is.

use std::cmp::Reverse;
use std::path::{Path, PathBuf};

use protonce_kmeans::normalised_mutual_information;
use protonce_run::{
    Granularity, PrototypesFile, TensorFileError, epoch_of, prototype_files, read_embeddings,
};

use crate::ReportError;

/// For each granularity, the cosine similarity of every image to its prototype; NaN without an
/// embedding.
pub(crate) type Similarities = Vec<Vec<f32>>;

/// One expectation step.
pub(crate) struct ExpectationStep {
    path: PathBuf,
    /// The epoch that it began, where the file's name says so.
    pub(crate) epoch: Option<usize>,
    /// At least one.
    pub(crate) granularities: Vec<Granularity>,
}

impl ExpectationStep {
    /// Reads the file of an expectation step.
    pub(crate) fn read(path: &Path) -> Result<ExpectationStep, ReportError> {
        let granularities = PrototypesFile::open(path)?.read()?;
        if granularities.is_empty() {
            return Err(ReportError::NoPrototypes { path: path.to_owned() });
        }
        Ok(ExpectationStep { path: path.to_owned(), epoch: epoch_of(path), granularities })
    }

    /// How many images the data set has, unreadable ones included.
    pub(crate) fn images(&self) -> usize {
        self.granularities[0].assignment.len()
    }

    /// How near every image is to its prototypes. Hands every embedding, scaled to length 1, to
    /// `row` on the way.
    ///
    /// None when the run keeps no embeddings of this step: `embeddings.safetensors` in the same
    /// folder (`embeddings`, f32, \[images, dim\]) belongs to the newest one.
    pub(crate) fn similarities(
        &self,
        mut row: impl FnMut(usize, &[f32]),
    ) -> Result<Option<Similarities>, ReportError> {
        let path = self.path.with_file_name("embeddings.safetensors");
        if !path.is_file() || !self.is_newest() {
            return Ok(None);
        }
        let dim = self.granularities[0].dim;
        let mut similarities = vec![vec![f32::NAN; self.images()]; self.granularities.len()];
        let mut unit = vec![0.0; dim];
        read_embeddings(&path, self.images(), dim, |image, embedding| {
            let length = embedding.iter().map(|value| value * value).sum::<f32>().sqrt();
            if !length.is_finite() || length == 0.0 {
                return;
            }
            for (unit, value) in unit.iter_mut().zip(embedding) {
                *unit = value / length;
            }
            for (granularity, similarities) in self.granularities.iter().zip(&mut similarities) {
                if let Ok(prototype) = usize::try_from(granularity.assignment[image]) {
                    let centre = &granularity.prototypes[prototype * dim..][..dim];
                    similarities[image] = unit.iter().zip(centre).map(|(a, b)| a * b).sum();
                }
            }
            row(image, &unit);
        })?;
        Ok(Some(similarities))
    }

    /// Whether no later expectation step left a file beside this one: only then do the embeddings
    /// in the folder belong to it.
    fn is_newest(&self) -> bool {
        let Some(epoch) = self.epoch else { return true };
        let run = self.path.parent().and_then(Path::parent);
        let newest = run.map(prototype_files).and_then(|files| files.last().map(|file| file.0));
        newest.is_none_or(|newest| newest <= epoch)
    }
}

/// The images of every prototype, by index.
pub(crate) fn members_of(granularity: &Granularity) -> Vec<Vec<u32>> {
    let mut members = vec![Vec::new(); granularity.count()];
    for (image, &prototype) in granularity.assignment.iter().enumerate() {
        if let Ok(prototype) = usize::try_from(prototype) {
            members[prototype].push(image as u32);
        }
    }
    members
}

/// Puts the images that are nearest to their prototype first; those without an embedding last.
pub(crate) fn nearest_first(images: &mut [u32], similarities: &[f32]) {
    let similarity = |image: u32| {
        let similarity = similarities[image as usize];
        if similarity.is_nan() { f32::NEG_INFINITY } else { similarity }
    };
    images.sort_by(|&a, &b| similarity(b).total_cmp(&similarity(a)).then(a.cmp(&b)));
}

/// Prototypes that have images, the largest first and of equals the first in order.
pub(crate) fn largest_first(members: &[Vec<u32>]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..members.len()).filter(|&p| !members[p].is_empty()).collect();
    order.sort_by_key(|&prototype| Reverse(members[prototype].len()));
    order
}

/// The assignments of every granularity of one expectation step, and nothing else of its file.
pub(crate) fn read_assignments(path: &Path) -> Result<Vec<Vec<i64>>, TensorFileError> {
    let mut file = PrototypesFile::open(path)?;
    (0..file.granularities()).map(|m| file.assignment(m)).collect()
}

/// Normalised mutual information of two labellings of the same images, 0 to 1, over the arithmetic
/// mean of their entropies; images that either leaves out (−1) do not count.
///
/// None when there is nothing to compare: no image, or one group in both.
pub(crate) fn mutual_information(a: &[i64], b: &[i64]) -> Option<f64> {
    let pairs = a.iter().zip(b).filter(|&(&a, &b)| a >= 0 && b >= 0);
    let (a, b): (Vec<i64>, Vec<i64>) = pairs.map(|(&a, &b)| (a, b)).unzip();
    let one_group = |groups: &[i64]| groups.windows(2).all(|pair| pair[0] == pair[1]);
    (!one_group(&a) || !one_group(&b)).then(|| normalised_mutual_information(&a, &b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mutual_information_is_that_of_scikit_learn() {
        let nmi = |a: &[i64], b: &[i64]| mutual_information(a, b).unwrap();
        // sklearn.metrics.normalized_mutual_info_score of the same lists.
        assert!((nmi(&[0, 0, 1, 1, 2, 2], &[0, 0, 1, 2, 2, 2]) - 0.739_667_4).abs() < 1e-6);
        let close =
            |found: f64, expected: f64| assert!((found - expected).abs() < 1e-12, "{found}");
        close(nmi(&[0, 0, 1, 1], &[5, 5, 3, 3]), 1.0);
        close(nmi(&[0, 0, 1, 1], &[0, 1, 0, 1]), 0.0);
        close(nmi(&[0, 0, -1, 1, 1], &[5, 5, 3, 3, -1]), 1.0);
        assert_eq!(mutual_information(&[0, 0], &[1, 1]), None);
        assert_eq!(mutual_information(&[-1], &[1]), None);
    }
}
