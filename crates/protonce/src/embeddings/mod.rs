//! Files of embeddings: one row of numbers for every image.
//!
//! Enters: an encoder and images, or a file of embeddings that any program wrote. Leaves: a file in one
//! of several [`Format`]s with its [`Summary`] beside it, or rows in memory ([`Embeddings`]), among which
//! [`nearest`] searches. Embedding millions of images takes hours, so that a killed run continues where
//! it was ([`Partial`]).

mod embed;
mod error;
mod formats;
mod nearest;
mod partial;
mod provenance;
mod stored;
mod table;

pub use embed::{Embed, EmbedImageError, embed, embed_image};
pub use error::{EmbeddingsError, ReadError};
pub use formats::{Format, read, read_labels};
pub use nearest::{Neighbour, nearest};
pub use partial::Partial;
pub use provenance::{Provenance, Summary};
pub use stored::Embeddings;
