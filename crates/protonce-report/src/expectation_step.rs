//! An expectation step as the run's files hold it: which image belongs to which prototype, and how
//! near it is.

use std::cmp::Reverse;
use std::path::{Path, PathBuf};

use safetensors::tensor::Dtype;

use super::ReportError;
use super::tensors::TensorFile;
use crate::pretrain::prototype_files;
use protonce_kmeans::normalised_mutual_information;

/// For each granularity, the cosine similarity of every image to its prototype; NaN without an
/// embedding.
pub(super) type Similarities = Vec<Vec<f32>>;

/// One expectation step.
pub(super) struct Expectation {
    path: PathBuf,
    pub(super) epoch: Option<usize>,
    pub(super) granularities: Vec<Granularity>,
}

/// One granularity of it.
pub(super) struct Granularity {
    /// Prototype of every image; −1 where the image could not be read.
    pub(super) assignment: Vec<i32>,
    /// How many prototypes there are.
    pub(super) count: usize,
    /// Length of an embedding.
    pub(super) dim: usize,
    /// [count, dim]
    prototypes: Vec<f32>,
    /// φ: [count]
    pub(super) concentration: Vec<f32>,
}

impl Expectation {
    /// Reads `epoch-NNNN.safetensors`: `assignment.M`, `prototypes.M` and `concentration.M` of each
    /// granularity M.
    pub(super) fn read(path: &Path) -> Result<Expectation, ReportError> {
        let mut file = TensorFile::open(path)?;
        let count = (0..).take_while(|m| file.has(&format!("assignment.{m}"))).count();
        if count == 0 {
            return Err(ReportError::NoPrototypes { path: path.to_owned() });
        }
        let mut granularities: Vec<Granularity> = Vec::with_capacity(count);
        for m in 0..count {
            let images = granularities.first().map(|first| first.assignment.len());
            granularities.push(Granularity::read(&mut file, m, images)?);
        }
        Ok(Expectation { path: path.to_owned(), epoch: epoch_of(path), granularities })
    }

    /// How many images the data set has, unreadable ones included.
    pub(super) fn images(&self) -> usize {
        self.granularities[0].assignment.len()
    }

    /// How near every image is to its prototypes. Hands every embedding, scaled to length 1, to
    /// `row` on the way.
    ///
    /// None when the run keeps no embeddings of this step: `embeddings.safetensors` in the same
    /// folder (`embeddings`, f32, \[images, dim\]) belongs to the newest one.
    pub(super) fn similarities(
        &self,
        mut row: impl FnMut(usize, &[f32]),
    ) -> Result<Option<Similarities>, ReportError> {
        let path = self.path.with_file_name("embeddings.safetensors");
        if !path.is_file() || !self.is_newest() {
            return Ok(None);
        }
        let dim = self.granularities[0].dim;
        let mut file = TensorFile::open(&path)?;
        let place = file.find("embeddings", Dtype::F32, &[Some(self.images()), Some(dim)])?;
        let mut similarities = vec![vec![f32::NAN; self.images()]; self.granularities.len()];
        let mut unit = vec![0.0; dim];
        file.rows(&place, |image, embedding| {
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

impl Granularity {
    fn read(
        file: &mut TensorFile,
        m: usize,
        images: Option<usize>,
    ) -> Result<Granularity, ReportError> {
        let place = file.find(&format!("prototypes.{m}"), Dtype::F32, &[None, None])?;
        let (count, dim) = (place.shape[0], place.shape[1]);
        let prototypes = file.floats(&place)?;
        let place = file.find(&format!("concentration.{m}"), Dtype::F32, &[Some(count)])?;
        let concentration = file.floats(&place)?;
        let assignment = read_assignment(file, m, images)?;
        let largest = assignment.iter().max().copied().unwrap_or(-1);
        if i64::from(largest) >= count as i64 {
            return Err(ReportError::Tensor {
                path: file.path().to_owned(),
                name: format!("assignment.{m}"),
                expected: format!("positions among the {count} prototypes"),
                found: format!("up to {largest}"),
            });
        }
        Ok(Granularity { assignment, count, dim, prototypes, concentration })
    }

    /// The images of every prototype, by index.
    pub(super) fn members(&self) -> Vec<Vec<u32>> {
        let mut members = vec![Vec::new(); self.count];
        for (image, &prototype) in self.assignment.iter().enumerate() {
            if let Ok(prototype) = usize::try_from(prototype) {
                members[prototype].push(image as u32);
            }
        }
        members
    }
}

/// Puts the images that are nearest to their prototype first; those without an embedding last.
pub(super) fn nearest_first(images: &mut [u32], similarities: &[f32]) {
    let similarity = |image: u32| {
        let similarity = similarities[image as usize];
        if similarity.is_nan() { f32::NEG_INFINITY } else { similarity }
    };
    images.sort_by(|&a, &b| similarity(b).total_cmp(&similarity(a)).then(a.cmp(&b)));
}

/// Prototypes that have images, the largest first and of equals the first in order.
pub(super) fn largest_first(members: &[Vec<u32>]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..members.len()).filter(|&p| !members[p].is_empty()).collect();
    order.sort_by_key(|&prototype| Reverse(members[prototype].len()));
    order
}

/// The assignments of every granularity of one expectation step, and nothing else of its file.
pub(super) fn read_assignments(path: &Path) -> Result<Vec<Vec<i32>>, ReportError> {
    let mut file = TensorFile::open(path)?;
    let count = (0..).take_while(|m| file.has(&format!("assignment.{m}"))).count();
    (0..count).map(|m| read_assignment(&mut file, m, None)).collect()
}

fn read_assignment(
    file: &mut TensorFile,
    m: usize,
    images: Option<usize>,
) -> Result<Vec<i32>, ReportError> {
    let place = file.find(&format!("assignment.{m}"), Dtype::I64, &[images])?;
    file.positions(&place)
}

/// Normalised mutual information of two labellings of the same images, 0 to 1, over the arithmetic
/// mean of their entropies; images that either leaves out (−1) do not count.
///
/// None when there is nothing to compare: no image, or one group in both.
pub(super) fn mutual_information(a: &[i32], b: &[i32]) -> Option<f64> {
    let pairs = a.iter().zip(b).filter(|&(&a, &b)| a >= 0 && b >= 0);
    let (a, b): (Vec<i64>, Vec<i64>) = pairs.map(|(&a, &b)| (i64::from(a), i64::from(b))).unzip();
    let one_group = |groups: &[i64]| groups.windows(2).all(|pair| pair[0] == pair[1]);
    (!one_group(&a) || !one_group(&b)).then(|| normalised_mutual_information(&a, &b))
}

/// `…/epoch-0020.safetensors` → 20.
fn epoch_of(path: &Path) -> Option<usize> {
    let name = path.file_name()?.to_str()?;
    name.strip_prefix("epoch-")?.strip_suffix(".safetensors")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mutual_information_is_that_of_scikit_learn() {
        let nmi = |a: &[i32], b: &[i32]| mutual_information(a, b).unwrap();
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
