//! A run is what it was after it was copied or moved, by whatever tool.

use std::fs;
use std::path::{Path, PathBuf};

use crate::images::write_classes;
use crate::resume::{events, last_checkpoint};
use crate::{checkpoint, protonce, refuse, stderr, stdout, succeed, tiny_pretrain};

/// Copies a folder, with what links lead to if they are `followed`, without links otherwise.
fn copy(from: &Path, to: &Path, followed: bool) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        match path.is_symlink() {
            true if !followed => {}
            _ if path.is_dir() => copy(&path, &to, followed),
            _ => _ = fs::copy(&path, &to).unwrap(),
        }
    }
}

/// Makes a run look as earlier versions left it: a link, and no checksums.
#[cfg(unix)]
fn make_old(run: &Path) {
    let last = checkpoint(run);
    fs::remove_file(last.join("SHA256SUMS")).unwrap();
    fs::remove_file(run.join("checkpoints/last")).unwrap();
    let link = run.join("checkpoints/last");
    std::os::unix::fs::symlink(last.file_name().unwrap(), link).unwrap();
}

#[cfg(unix)]
#[test]
fn a_copied_or_moved_run_goes_on_to_the_bits_of_the_undisturbed_one() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    write_classes(&data, &["a", "b", "c"], 13);
    let data = data.to_str().unwrap();
    let at = |name: &str| -> PathBuf { folder.path().join(name) };
    let settings = ["--epochs", "3", "--log-every", "2"];
    succeed(tiny_pretrain(data, &at("whole"), &settings));
    // 5 steps an epoch: within the second, which has prototypes.
    let seven = [&settings[..], &["--max-steps", "7"]].concat();
    succeed(tiny_pretrain(data, &at("stopped"), &seven));

    copy(&at("stopped"), &at("copied"), false);
    let goes_on = |run: &str| {
        let output =
            succeed(tiny_pretrain(data, &at(run), &[&settings[..], &["--resume"]].concat()));
        assert!(
            last_checkpoint(&at("whole")) == last_checkpoint(&at(run)),
            "{run}: weights differ"
        );
        assert_eq!(events(&at("whole")), events(&at(run)), "{run}");
        assert!(!at(run).join("checkpoints/last").is_symlink());
        stderr(&output)
    };
    goes_on("copied");
    make_old(&at("stopped"));
    copy(&at("stopped"), &at("links followed"), true);
    copy(&at("stopped"), &at("without links"), false);
    fs::rename(at("stopped"), at("moved")).unwrap();
    goes_on("moved");
    goes_on("links followed");
    assert!(goes_on("without links").contains("checkpoints/last names no checkpoint"));

    // Whole or not, what is there can be looked at and is never begun anew.
    let run = at("copied");
    let shown = |weights: &Path| {
        stdout(&succeed(protonce(&["weights", "show", weights.to_str().unwrap()])))
    };
    assert_eq!(shown(&run), shown(&run.join("checkpoints/last")));
    let training = checkpoint(&run).join("training.safetensors");
    fs::write(&training, "half of").unwrap();
    let more = ["--epochs", "4", "--resume", "--max-steps", "1"];
    let text = stderr(&succeed(tiny_pretrain(data, &run, &more)));
    assert!(text.contains("training.safetensors"), "{text}");
    assert!(text.contains("going on from checkpoints/epoch-0002"), "{text}");
    let encoder = checkpoint(&run).join("encoder.safetensors");
    let mut bytes = fs::read(&encoder).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&encoder, bytes).unwrap();
    let text = refuse(protonce(&["weights", "show", run.to_str().unwrap()]), 1);
    assert!(text.contains("encoder.safetensors") && text.contains("earlier checkpoint"), "{text}");
    fs::remove_file(run.join("config.toml")).unwrap();
    let text = refuse(tiny_pretrain(data, &run, &settings), 1);
    assert!(text.contains("no config.toml") && text.contains("another --out"), "{text}");
}
