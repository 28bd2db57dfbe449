//! k-means as a program uses it.

// Helpers of tests fail as tests do; the exemption in clippy.toml covers test functions only.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod faiss;
mod lloyd;
mod processes;
