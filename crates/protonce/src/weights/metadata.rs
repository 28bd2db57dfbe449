//! Everything about weights but the tensors, as our safetensors files hold it.

use serde::{Deserialize, Serialize};

use super::Card;
use protonce_images::views::ViewConfig;
use protonce_run::EncoderConfig;

/// What an encoder is, which images it wants and where it comes from.
#[derive(Serialize, Deserialize)]
pub(super) struct Metadata {
    pub(super) encoder: EncoderConfig,
    pub(super) views: ViewConfig,
    pub(super) card: Card,
}
