//! Which centroid every point is nearest to, and what finding out has cost.

/// The nearest centroid of each point and the squared distance to it.
#[derive(Clone)]
pub struct Assignment {
    /// Numbers of centroids: \[points\].
    pub nearest: Vec<u32>,
    /// ‖x − c‖² as [`squared_distance`](crate::squared_distance) computes it: \[points\].
    pub squared: Vec<f32>,
}

impl Assignment {
    /// Of `count` points, before anything is known: any centroid will do to begin with.
    pub fn unknown(count: usize) -> Assignment {
        Assignment { nearest: vec![0; count], squared: vec![0.0; count] }
    }
}

/// What an assignment has cost.
#[derive(Debug, Clone, Copy, Default)]
pub struct Effort {
    /// Scores of centroids, computed from quantized vectors.
    pub scored: u64,
    /// Distances computed in float32, besides one per point.
    pub measured: u64,
}
