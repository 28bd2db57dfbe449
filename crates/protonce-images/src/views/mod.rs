//! From bytes to the two random views of an image.
//!
//! Enters: encoded images from [`crate::data`]. Leaves: batches of normalised pixels, two random
//! views per image for pretraining (the query view and the key view, x_i augmented twice), or one
//! centre crop for the E-step and for evaluation.
//!
//! Every operation computes what Pillow and torchvision compute on 8-bit pixels, so that a
//! representation learnt here can be compared with a published one: same resampling, same blur,
//! same rounding. A view depends on (seed, epoch, index, view) alone, never on the thread that made
//! it.
//!
//! The files follow a pixel: [`decode`] → parameters drawn ([`ViewParameters`]) → resize, colour,
//! blur → [`Renderer`], which applies them in the published order → [`Loader`], which
//! does so for batches on several threads.

mod blur;
mod check;
mod color;
mod config;
mod decode;
mod grid;
mod jpeg;
#[cfg(feature = "jpeg-xl")]
mod jpeg_xl;
mod loader;
mod look;
mod pack;
mod parameters;
mod planes;
mod png_text;
mod pnm;
mod random;
mod render;
mod resize;
mod stats;
mod tiff;

pub use blur::{BlurScratch, gaussian_blur};
pub use check::{Broken, ClassCount, DataReport, Sizes, Spread, check};
pub use color::{brightness, contrast, flip, grey, hue, saturation, solarise};
pub use config::{Augmentations, KeyViews, ViewConfig};
pub use decode::{DecodeError, Decoder, Image, MAX_PIXELS, decode};
pub use grid::view_grid;
pub use loader::{Batch, Crops, Loader, LoaderError, LoaderOptions, Recycler, Unreadable};
pub use look::median_side;
pub use pack::{Encoding, PackOptions, PackReport, pack};
pub use parameters::{Jitter, JitterStep, ViewParameters};
pub use planes::Planes;
pub use random::ViewRandom;

pub use crate::random::View;
pub use render::Renderer;
pub use resize::{CropBox, Resizer};
pub use stats::{ChannelStats, measure_stats};
