//! Compares this crate with reference numbers computed by the published code and the libraries it
//! is built on. One module a room.

// Helpers of tests fail as tests do; the exemption in clippy.toml covers test functions only.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod encoders;
mod fixtures;
mod method;
