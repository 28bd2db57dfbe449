//! x
mod config;
pub use config::*;
