//! The images that are laid out in the map and searched for outliers: a bounded number of them, spread
//! evenly over the data set.

use crate::ReportError;
use crate::expectation_step::{ExpectationStep, Similarities};

/// Images spread evenly over the readable ones, with their embeddings.
pub(super) struct Sample {
    pub(super) images: Vec<usize>,
    /// [images, dim], each of length 1; empty when the run keeps no embeddings of the step.
    pub(super) rows: Vec<f32>,
}

impl Sample {
    pub(super) fn of(step: &ExpectationStep, most: usize) -> Sample {
        let assignment = &step.granularities[0].assignment;
        let readable: Vec<usize> = (0..assignment.len()).filter(|&i| assignment[i] >= 0).collect();
        let count = most.min(readable.len());
        let images = (0..count).map(|k| readable[k * readable.len() / count]).collect();
        Sample { images, rows: Vec::new() }
    }

    /// The similarity of every image to its prototypes, and the embeddings of the sample, in one
    /// pass over the file. Images without a finite embedding leave the sample.
    pub(super) fn read(
        self,
        step: &ExpectationStep,
    ) -> Result<(Option<Similarities>, Sample), ReportError> {
        let mut wanted = self.images.iter().copied().peekable();
        let mut kept = Sample { images: Vec::new(), rows: Vec::new() };
        let similarities = step.similarities(|image, row| {
            while wanted.next_if(|&next| next < image).is_some() {}
            if wanted.next_if_eq(&image).is_some() {
                kept.images.push(image);
                kept.rows.extend_from_slice(row);
            }
        })?;
        Ok((similarities, kept))
    }
}
