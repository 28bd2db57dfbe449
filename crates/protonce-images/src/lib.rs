//! Image data sets and the random views of contrastive learning, without a tensor library.
//!
//! Enters: one argument, `PATH[#SUBFOLDER]`: a folder, a `.tar`, `.zip` or `.parquet` or a set of these, a
//! text list or a packed file, or the address of one in an object store. Leaves: batches of normalised pixels, channels last: two random views per image for training (PCL's and
//! MoCo's augmentations), or one centre crop for evaluation, made on several threads and the same to
//! the bit for any number of them.
//!
//! ```
//! use std::sync::Arc;
//!
//! use protonce_images::data::Dataset;
//! use protonce_images::views::{Crops, Loader, LoaderOptions, ViewConfig};
//!
//! # let folder = tempfile::tempdir()?;
//! # let folder = folder.path().to_str().ok_or("not UTF-8")?;
//! # for name in ["cat", "dog"] {
//! #     image::RgbImage::new(40, 30).save(format!("{folder}/{name}.png"))?;
//! # }
//! let dataset = Arc::new(Dataset::open(folder)?);
//! let views = ViewConfig::v2(32); // MoCo v2's augmentations at 32 pixels a side
//! let crops = Crops::Random { seed: 0, epoch: 0, views: views.pretraining_views() };
//! let batches = vec![vec![1, 0]]; // one batch of images 1 and 0
//! for batch in Loader::new(dataset, LoaderOptions { views, batches, crops, threads: 0 })? {
//!     let batch = batch?;
//!     assert_eq!(batch.views.len(), 2); // query and key views: [images, 32, 32, 3] each
//!     assert_eq!(batch.views[0].len(), batch.indices.len() * 32 * 32 * 3);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Features, all on by default: `jpeg-xl` decodes JPEG XL, `parquet` reads tables with a column of
//! images, `object-store` reads what lies in object stores and on web servers.
//!
//! [`data`] knows names, labels and bytes and decodes nothing; [`views`] turns bytes into pixels;
//! [`random`] has a stream of numbers for everything that is drawn at random; [`settings`](mod@settings) is how the
//! settings of views, and of runs, are defined.

mod batches;
pub mod data;
pub mod random;
pub mod settings;
mod threads;
pub mod views;

pub use batches::{batch_count, batches};
pub use threads::{share_cores, threads};
