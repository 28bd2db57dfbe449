//! Linear support vector machines on L2-normalised features, one per class: the paper's low-shot protocol
//! (PCL §4.1, after Goyal et al. 2019).
//!
//! Enters: an [`SvmSet`] to learn from and one to test on. Leaves: an [`SvmResult`] per C, the mean over
//! the classes. [`Svm`] trains one class, [`average_precision`] judges it, and [`svm_results`] is the
//! protocol.

mod average_precision;
mod feature_matrix;
mod low_shot;
mod solver;

pub use average_precision::average_precision;
pub use feature_matrix::FeatureMatrix;
pub use low_shot::{SvmMeasure, SvmResult, SvmSet, svm_results};
pub use solver::{Plane, Svm};
