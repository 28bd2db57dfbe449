//! Files of embeddings.

mod read;

pub use read::{Embeddings, ReadError, read, read_labels};
