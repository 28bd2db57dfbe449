//! The `protonce` program.

fn main() {}
