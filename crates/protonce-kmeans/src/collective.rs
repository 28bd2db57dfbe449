//! What k-means asks of several processes that cluster their points together. It brings no transport of
//! its own: a program that has processes implements [`Collective`].

use std::error::Error;

use crate::KMeansError;

/// Why processes no longer understand each other, as the transport says it.
pub type CollectiveError = Box<dyn Error + Send + Sync>;

/// A group of processes, each of which has some of the points: process 0 the first, the last process the
/// last.
///
/// Every process calls the same operations in the same order. What they do by default is right for a
/// process that is alone.
pub trait Collective {
    /// The number of this process, from 0.
    fn rank(&self) -> usize {
        0
    }

    /// How many processes there are.
    fn size(&self) -> usize {
        1
    }

    /// The values of all processes, of which each may have another number: those of process 0 first.
    ///
    /// # Errors
    /// When a process is gone.
    fn gather(&self, own: &[u32]) -> Result<Vec<Vec<u32>>, CollectiveError> {
        Ok(vec![own.to_vec()])
    }

    /// Sends `values` to each of `processes`, which receive as many.
    ///
    /// # Errors
    /// When a process is gone.
    fn send(&self, processes: &[usize], values: &[f64]) -> Result<(), CollectiveError> {
        let _ = (processes, values);
        Ok(())
    }

    /// Puts into `values` what `process` sends.
    ///
    /// # Errors
    /// When it is gone.
    fn receive(&self, process: usize, values: &mut [f64]) -> Result<(), CollectiveError> {
        let _ = (process, values);
        Ok(())
    }
}

/// One process, alone.
#[derive(Debug, Clone, Copy, Default)]
pub struct SingleProcess;

impl Collective for SingleProcess {}

impl From<CollectiveError> for KMeansError {
    fn from(error: CollectiveError) -> KMeansError {
        KMeansError::Collective(error)
    }
}
