//! Image data sets, formats, packed files, views and the loader, as their users have them.

// Helpers of tests fail as tests do; the exemption in clippy.toml covers test functions only.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod benchmarks;
mod containers;
mod datasets;
mod fixtures;
mod formats;
mod kinds;
mod layouts;
mod loader;
mod packed;
mod pillow;
#[cfg(feature = "object-store")]
mod store;
