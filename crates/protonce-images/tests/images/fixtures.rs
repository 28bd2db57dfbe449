//! Where the reference numbers lie.

use std::path::PathBuf;

/// Reads a file of reference numbers from the folder in `PROTONCE_FIXTURES`, or else from
/// `tests/fixtures`.
pub fn load(name: &str) -> Vec<u8> {
    let folder = std::env::var_os("PROTONCE_FIXTURES").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures"),
        PathBuf::from,
    );
    let path = folder.join(name);
    std::fs::read(&path)
        .unwrap_or_else(|error| panic!("the fixture {} cannot be read: {error}", path.display()))
}
