//! Settings are defined once: presets, files, checks, resumed runs and documentation follow.

// Helpers of tests fail as tests do; the exemption in clippy.toml covers test functions only.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod definitions;
mod page;
mod presets;
mod schedules;
