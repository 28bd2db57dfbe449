//! Any bytes as a checkpoint file: no panic, and memory bounded by the file's length.
//!
//! cp crates/protonce-pth/tests/*.pth* fuzz/corpus/checkpoint/
//! cargo +nightly fuzz run checkpoint -- -rss_limit_mb=512

#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use protonce_pth::Checkpoint;

fuzz_target!(|file: &[u8]| {
    let Ok(mut checkpoint) = Checkpoint::new(Cursor::new(file)) else { return };
    let mut tensors = Vec::new();
    for dict in checkpoint.state_dicts() {
        for (_, value) in dict.tensors {
            tensors.extend(checkpoint.tensor(value).ok().flatten());
        }
    }
    for tensor in tensors {
        let _ = checkpoint.read(&tensor);
    }
});
