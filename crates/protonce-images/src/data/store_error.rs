//! Why an object of a store, or a file of a web server, cannot be read.

/// An object that cannot be found or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot read {address}: {problem}")]
pub struct StoreError {
    /// The object's address, without what gives access to it.
    pub address: String,
    /// What is wrong.
    pub problem: StoreProblem,
}

/// What is wrong with an object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreProblem {
    /// An address that names nothing.
    #[error(
        "{0}; expected s3://BUCKET/KEY, gs://BUCKET/KEY, az://CONTAINER/KEY or https://HOST/PATH"
    )]
    Address(&'static str),
    /// No object of that name.
    #[error("there is no such object; check the address")]
    Missing,
    /// No bucket of that name.
    #[error(
        "there is no such bucket; check the address, and AWS_ENDPOINT where it is not Amazon's"
    )]
    MissingBucket,
    /// A pattern or a folder without an archive or table.
    #[error("no .tar, .zip or .parquet is called so; check the address")]
    NothingMatches,
    /// The store wants other credentials, or any.
    #[error(
        "permission is denied ({0}); check the credentials in the environment or, for an address with \
         a signature, whether it has expired"
    )]
    Denied(String),
    /// The store refuses for another reason.
    #[error("the server answers \"{0}\"; check the address, and try again later")]
    Refused(String),
    /// The store cannot be reached.
    #[error(
        "there is no answer ({0}); check the network, the address and the credentials in the environment"
    )]
    NoAnswer(String),
    /// The object ends early, time after time.
    #[error(
        "it is cut short on the way ({0}); check the network and the server, and try again later"
    )]
    CutShort(String),
    /// The object is another one than when it was opened.
    #[error("it has changed since it was opened; start again with what is there now")]
    Changed,
    /// A server that hands out files as a whole only.
    #[error("the server does not hand out parts of files (range requests); download it first")]
    NoRanges,
    /// A web server, which has no list of its files.
    #[error(
        "a web server does not list its files; spell them out with braces, such as \
         shard-{{000..127}}.tar"
    )]
    NoListing,
    /// The folder for what was fetched cannot be used.
    #[error(
        "what is fetched cannot be kept in {folder} ({reason}); make room there, or name another folder \
         with --cache-dir"
    )]
    Cache {
        /// The folder.
        folder: String,
        /// Why.
        reason: String,
    },
    /// A program without the feature `object-store`.
    #[error("this program was built without object stores; download it first")]
    NotBuilt,
    /// The task that fetched it ended without a result.
    #[error("met a bug, please report it: {0}")]
    Bug(&'static str),
}
