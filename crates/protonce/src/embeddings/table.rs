//! A file of embeddings before it has a format: images, their names and labels, and rows one by one.

use std::fs::File;
use std::io::{self, BufReader, Read};

use super::provenance::Summary;
use protonce_images::data::Dataset;

/// The raw rows, one after the other.
pub(super) struct RowReader {
    pub(super) file: BufReader<File>,
    pub(super) width: usize,
}

impl RowReader {
    /// Rows of `width` numbers each.
    pub(super) fn new(file: File, width: usize) -> RowReader {
        RowReader { file: BufReader::new(file), width }
    }

    /// The next row.
    pub(super) fn next(&mut self) -> io::Result<Vec<f32>> {
        let mut bytes = vec![0; self.width * size_of::<f32>()];
        self.file.read_exact(&mut bytes)?;
        Ok(bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
    }
}

/// What every format holds beside the rows: the image of each row, and its name and label.
pub(super) struct EmbeddingTable<'a> {
    pub(super) dataset: &'a Dataset,
    /// The image of each row.
    pub(super) indices: Vec<usize>,
    pub(super) summary: &'a Summary,
}

impl EmbeddingTable<'_> {
    /// The label of an image, in words.
    pub(super) fn label(&self, image: usize) -> Option<&str> {
        self.dataset.label(image).map(|label| self.dataset.classes()[label].as_str())
    }
}
