//! The library as a program uses it. One binary, since each would link libtorch anew.

// Helpers of tests fail as tests do; the exemption in clippy.toml covers test functions only.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod parity;
mod transfer;
mod weights;
