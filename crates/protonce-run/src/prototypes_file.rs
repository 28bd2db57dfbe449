//! What an E-step leaves on disk: which prototype each image belongs to, the prototypes, their
//! concentrations, and the embeddings that all this was made of.
//!
//! `prototypes/epoch-NNNN.safetensors` holds, for each granularity M, `assignment.M` (int64 \[images\],
//! −1 for an image that could not be read), `prototypes.M` (float32 \[prototypes, dim\], of length 1 each)
//! and `concentration.M` (float32 \[prototypes\]). `prototypes/embeddings.safetensors` holds
//! `embeddings` (float32 \[images, dim\]) of the newest E-step.

use std::path::Path;

use crate::{Dtype, RawTensor, TensorData, TensorFile, TensorFileError, write_tensors};

/// One granularity of an E-step (PCL §3.2 and §3.3).
#[derive(Debug, Clone, PartialEq)]
pub struct Granularity {
    /// The prototype of each image: \[images\]; −1 for an image that could not be read.
    pub assignment: Vec<i64>,
    /// L2-normalised centroids, row by row: \[prototypes, dim\]; as they are in [`write_clusters`].
    pub prototypes: Vec<f32>,
    /// The length of a prototype.
    pub dim: usize,
    /// φ, each prototype's temperature: \[prototypes\].
    pub concentration: Vec<f32>,
}

impl Granularity {
    /// How many prototypes there are.
    pub fn count(&self) -> usize {
        self.concentration.len()
    }

    /// Its tensors under their names in a file, where the rows are called `rows`.
    fn named(&self, m: usize, rows: &str) -> [(String, RawTensor); 3] {
        let (count, dim) = (self.count(), self.dim);
        [
            (
                format!("assignment.{m}"),
                RawTensor::i64s(&[self.assignment.len()], &self.assignment),
            ),
            (format!("{rows}.{m}"), RawTensor::f32s(&[count, dim], &self.prototypes)),
            (format!("concentration.{m}"), RawTensor::f32s(&[count], &self.concentration)),
        ]
    }
}

/// An open `epoch-NNNN.safetensors`, of which only the header was read.
pub struct PrototypesFile {
    file: TensorFile,
    granularities: usize,
}

impl PrototypesFile {
    /// Opens a file of an E-step.
    ///
    /// # Errors
    /// When it cannot be read or is no safetensors file.
    pub fn open(path: &Path) -> Result<PrototypesFile, TensorFileError> {
        let file = TensorFile::open(path)?;
        let has = |m: &usize| file.describe(&format!("assignment.{m}")).is_some();
        let granularities = (0..).take_while(has).count();
        Ok(PrototypesFile { file, granularities })
    }

    /// How many granularities it holds.
    pub fn granularities(&self) -> usize {
        self.granularities
    }

    /// The assignments of granularity `m`, and nothing else of it.
    ///
    /// # Errors
    /// When they are missing or cannot be read.
    pub fn assignment(&mut self, m: usize) -> Result<Vec<i64>, TensorFileError> {
        self.file.i64s(&format!("assignment.{m}"), &[None])
    }

    /// All of granularity `m`.
    ///
    /// # Errors
    /// When a tensor is missing or of a shape that does not fit the others, an assignment names no
    /// prototype, or the file cannot be read.
    pub fn granularity(&mut self, m: usize) -> Result<Granularity, TensorFileError> {
        let name = format!("prototypes.{m}");
        let shape = self.file.check(&name, Dtype::F32, &[None, None])?;
        let (count, dim) = (shape[0], shape[1]);
        let prototypes = self.file.f32s(&name, &[Some(count), Some(dim)])?;
        let concentration = self.file.f32s(&format!("concentration.{m}"), &[Some(count)])?;
        // Every granularity is of the same images.
        let images =
            self.file.describe("assignment.0").and_then(|(_, shape)| shape.first().copied());
        let name = format!("assignment.{m}");
        let assignment = self.file.i64s(&name, &[images])?;
        let largest = assignment.iter().max().copied().unwrap_or(-1);
        if largest >= count as i64 {
            return Err(TensorFileError::Tensor {
                path: self.file.path().to_owned(),
                name,
                expected: format!("positions among the {count} prototypes"),
                found: format!("up to {largest}"),
            });
        }
        Ok(Granularity { assignment, prototypes, dim, concentration })
    }

    /// All granularities.
    ///
    /// # Errors
    /// As [`PrototypesFile::granularity`].
    pub fn read(&mut self) -> Result<Vec<Granularity>, TensorFileError> {
        (0..self.granularities).map(|m| self.granularity(m)).collect()
    }

    /// Writes a file of an E-step, whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(path: &Path, granularities: &[Granularity]) -> Result<(), TensorFileError> {
        let named = granularities.iter().enumerate();
        let named: Vec<_> = named.flat_map(|(m, one)| one.named(m, "prototypes")).collect();
        write_tensors(path, &named, None)
    }
}

/// Writes what `protonce cluster` found, whole or not at all: as an E-step's file, but with
/// `centroids.M`, which are not normalised, in place of prototypes, and with `medoids.M` (int64
/// \[clusters\]), the row nearest to each centroid.
///
/// # Errors
/// When it cannot be written.
pub fn write_clusters(
    path: &Path,
    granularities: &[(Granularity, Vec<i64>)],
) -> Result<(), TensorFileError> {
    let mut named = Vec::new();
    for (m, (granularity, medoids)) in granularities.iter().enumerate() {
        named.extend(granularity.named(m, "centroids"));
        named.push((format!("medoids.{m}"), RawTensor::i64s(&[medoids.len()], medoids)));
    }
    write_tensors(path, &named, None)
}

/// Writes the embeddings of an E-step, float32 \[images, dim\], whole or not at all.
///
/// # Errors
/// When they cannot be written.
pub fn write_embeddings(path: &Path, embeddings: impl TensorData) -> Result<(), TensorFileError> {
    write_tensors(path, &[("embeddings", embeddings)], None)
}

/// Hands on the embeddings of `images` images of length `dim` in `path`, in order, each with the index
/// of its image.
///
/// # Errors
/// When the file cannot be read or has other images or another length.
pub fn read_embeddings(
    path: &Path,
    images: usize,
    dim: usize,
    embedding: impl FnMut(usize, &[f32]),
) -> Result<(), TensorFileError> {
    TensorFile::open(path)?.rows("embeddings", Some(images), dim, embedding)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granularity(assignment: &[i64]) -> Granularity {
        Granularity {
            assignment: assignment.to_vec(),
            prototypes: vec![1.0, 0.0, 0.0, 1.0],
            dim: 2,
            concentration: vec![0.1, 0.2],
        }
    }

    #[test]
    fn what_an_expectation_step_found_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("epoch-0001.safetensors");
        let written = [granularity(&[0, -1, 1]), granularity(&[1, -1, 1])];
        PrototypesFile::write(&path, &written).unwrap();
        let mut file = PrototypesFile::open(&path).unwrap();
        assert_eq!(file.granularities(), 2);
        assert_eq!(file.assignment(1).unwrap(), [1, -1, 1]);
        assert_eq!(file.read().unwrap(), written);
    }

    #[test]
    fn granularities_of_other_images_and_assignments_to_nothing_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("epoch-0001.safetensors");
        for (second, said) in [(&[0, 1][..], "I64 [3] but is I64 [2]"), (&[0, 1, 2], "up to 2")] {
            let written = [granularity(&[0, -1, 1]), granularity(second)];
            PrototypesFile::write(&path, &written).unwrap();
            let error = PrototypesFile::open(&path).unwrap().read().unwrap_err().to_string();
            assert!(error.contains(said) && error.contains("assignment.1"), "{error}");
        }
    }

    #[test]
    fn clusters_are_named_as_what_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clusters.safetensors");
        write_clusters(&path, &[(granularity(&[0, 1]), vec![0, 1])]).unwrap();
        let names = TensorFile::open(&path).unwrap().names();
        assert_eq!(names, ["assignment.0", "medoids.0", "centroids.0", "concentration.0"]);
    }
}
