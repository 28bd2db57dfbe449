//! Images, by their names, labels and bytes.

use std::path::PathBuf;
use std::sync::Arc;

use protonce_images::data;
use pyo3::exceptions::PyIndexError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::array::Array;
use crate::failure::Failure;
use crate::patience::{at_once, left_alone};

/// Where what is fetched from object stores is kept, and how many bytes of it.
#[pyfunction]
pub fn cache_objects(folder: Option<PathBuf>, limit: Option<u64>) {
    data::cache_objects(folder.as_deref(), limit);
}

/// An ordered collection of images, some or all of which may carry a label.
#[pyclass(frozen, module = "protonce._core")]
pub struct Dataset {
    pub images: Arc<data::Dataset>,
}

impl Dataset {
    fn checked(&self, index: usize) -> PyResult<usize> {
        let length = self.images.len();
        if index < length {
            return Ok(index);
        }
        let sentence = format!("image {index}: expected less than {length}, the number of images");
        Err(PyIndexError::new_err(sentence))
    }
}

#[pymethods]
impl Dataset {
    #[new]
    fn new(py: Python<'_>, argument: String) -> Result<Dataset, Failure> {
        let images = left_alone(py, move || Ok(data::Dataset::open(&argument)?))?;
        Ok(Dataset { images: Arc::new(images) })
    }

    fn __len__(&self) -> usize {
        self.images.len()
    }

    /// What was typed to open it.
    #[getter]
    fn argument(&self) -> &str {
        self.images.argument()
    }

    /// Names of the classes, in the order of their numbers.
    #[getter]
    fn classes(&self) -> Vec<String> {
        self.images.classes().to_vec()
    }

    /// The class of every image, −1 for none: int64 [images].
    #[getter]
    fn labels(&self) -> Array {
        let label = |index| self.images.label(index).map_or(-1, |label| label as i64);
        let labels: Vec<i64> = (0..self.images.len()).map(label).collect();
        let length = labels.len();
        Array::new(labels, &[length])
    }

    /// The name of every image.
    #[getter]
    fn names(&self) -> Vec<String> {
        (0..self.images.len()).map(|index| self.images.name(index).to_owned()).collect()
    }

    /// The name of one image.
    fn name(&self, index: usize) -> PyResult<String> {
        Ok(self.images.name(self.checked(index)?).to_owned())
    }

    /// The encoded bytes of one image.
    fn read<'py>(&self, py: Python<'py>, index: usize) -> Result<Bound<'py, PyBytes>, Failure> {
        let index = self.checked(index)?;
        let bytes = at_once(py, || {
            let mut bytes = Vec::new();
            self.images.read(index, &mut bytes)?;
            Ok(bytes)
        })?;
        Ok(PyBytes::new(py, &bytes))
    }
}
