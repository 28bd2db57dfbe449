//! Files of embeddings: one row of numbers for every image.

mod embed;
mod nearest;
mod read;
mod write;

pub use embed::{Embed, embed, embed_image};
pub use nearest::{Neighbour, nearest};
pub use read::{Embeddings, ReadError, read, read_labels};
pub use write::{EmbeddingsError, Format, Partial, Source, Summary};
