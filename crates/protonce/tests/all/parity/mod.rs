//! Compares this crate with reference numbers computed by the published code and the libraries it
//! is built on. One module a room.

mod encoders;
mod fixtures;
mod method;
