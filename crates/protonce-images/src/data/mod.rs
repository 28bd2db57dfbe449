//! Where images come from.
//!
//! Enters: one argument, `PATH[#SUBFOLDER]`: a folder, a `.tar`, `.zip` or `.parquet` or a set of these, a
//! text list or a packed file; or an address such as `s3://BUCKET/KEY`. Leaves: a [`Dataset`], which knows every image's name and label and hands out its bytes, still encoded.
//! Nothing here decodes, so that opening a million images costs an index and no more.
//!
//! Images are ordered by name, byte by byte. That makes an index a durable name for an image: the
//! prototypes of an epoch, the random views and a resumed run all speak of image 17 and mean the
//! same picture on every machine, whichever of these ways it is stored.

mod archive;
mod argument;
mod benchmark;
mod dataset;
mod error;
mod fingerprint;
mod folder;
mod list;
mod listing;
mod name;
mod packed;
mod raw;
mod read_ahead;
mod shards;
mod source;
mod storage;
#[cfg(feature = "object-store")]
mod store;
#[cfg(not(feature = "object-store"))]
#[path = "no_store.rs"]
mod store;
mod store_error;
#[cfg(feature = "parquet")]
mod table;
mod zip;

pub use argument::without_secrets;
pub use benchmark::{Benchmark, LAYOUTS, Labelled, MultiLabel, Splits, open_benchmark};
pub use dataset::{Dataset, lies_within};
pub use error::DataError;
pub use name::IMAGE_EXTENSIONS;
pub use packed::PackWriter;
pub(crate) use read_ahead::ReadAhead;
#[cfg(feature = "object-store")]
pub use store::cache_objects;
pub use store_error::{StoreError, StoreProblem};
