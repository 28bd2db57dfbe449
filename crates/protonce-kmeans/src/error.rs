//! What can be wrong with a clustering that was asked for.

/// Why points cannot be clustered.
#[derive(Debug, thiserror::Error)]
pub enum KMeansError {
    /// More clusters than points.
    #[error("cannot form {clusters} clusters from {points} points: ask for {points} or fewer")]
    TooManyClusters {
        /// Clusters asked for.
        clusters: usize,
        /// Points there are.
        points: usize,
    },
    /// No clusters.
    #[error("0 clusters were asked for: expected 1 or more")]
    NoClusters,
    /// A point with a value that is not a number.
    #[error("point {point} is not finite: it has NaN or inf")]
    NotFinite {
        /// Its number.
        point: usize,
    },
    /// A point with a value whose square overflows float32 in a sum of squares.
    #[error(
        "point {point} has a value beyond ±1e15, so that distances overflow float32: divide all points \
         by one number, which changes no clusters"
    )]
    TooLarge {
        /// Its number.
        point: usize,
    },
    /// A point without a direction, where directions are compared.
    #[error("point {point} is zero and has no direction: leave it out, or use Metric::Euclidean")]
    Zero {
        /// Its number.
        point: usize,
    },
    /// Values that do not make whole points.
    #[error("{values} values are no points of {dim} dimensions: expected a multiple of 1 or more")]
    Shape {
        /// Values there are.
        values: usize,
        /// Values of each point.
        dim: usize,
    },
    /// Clusters of other points.
    #[error(
        "the clusters of {found} points are known from before: expected {expected}, one per point"
    )]
    Before {
        /// Clusters given.
        found: usize,
        /// Points there are.
        expected: usize,
    },
    /// Centroids to begin with that are not those of so many clusters.
    #[error("{found} values are no {clusters} centroids of {dim} dimensions to begin with")]
    Centroids {
        /// Values given.
        found: usize,
        /// Clusters asked for.
        clusters: usize,
        /// Values of each point.
        dim: usize,
    },
    /// A centroid to begin with that has a value which is not a number.
    #[error("centroid {centroid} to begin with is not finite: it has NaN or inf")]
    CentroidNotFinite {
        /// Its number.
        centroid: usize,
    },
    /// A centroid to begin with that has a value whose square overflows float32 in a sum of squares.
    #[error(
        "centroid {centroid} to begin with has a value beyond ±1e15: expected the points' range"
    )]
    CentroidTooLarge {
        /// Its number.
        centroid: usize,
    },
    /// Another thread called [`Threads::stop`](crate::Threads::stop).
    #[error("the clustering was stopped before its end")]
    Stopped,
    /// Points of several processes, and a choice of first centroids that needs them all in one.
    #[error("centroids to begin with are drawn from points of several processes at random only")]
    AcrossProcesses,
    /// The processes that cluster together have lost one another.
    #[error("{0}")]
    Collective(#[source] crate::CollectiveError),
    /// The system gives no more threads.
    #[error("cannot start the threads of k-means ({0}): ask for fewer")]
    Threads(#[from] rayon::ThreadPoolBuildError),
}
