//! The program without its engine, and with it.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::images::write_classes;
use crate::{protonce, refuse, stdout, succeed};

/// A copy of the program, without the engine beside it and without a libtorch to be found.
fn alone(folder: &Path) -> PathBuf {
    let copy = folder.join("protonce");
    std::fs::copy(env!("CARGO_BIN_EXE_protonce"), &copy).unwrap();
    copy
}

#[test]
fn what_needs_no_tensors_needs_no_libtorch_either() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    write_classes(&data, &["a", "b"], 3);
    let data = data.to_str().unwrap();
    let program = alone(folder.path());
    let run = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        command.env_clear().args(arguments);
        command
    };
    assert!(stdout(&succeed(run(&["data", "check", data]))).contains("6 images, 6 readable"));
    let packed = folder.path().join("images.pack");
    succeed(run(&["data", "pack", data, "--out", packed.to_str().unwrap()]));
    assert!(packed.exists());
    let text = refuse(run(&["report", data]), 1);
    assert!(text.contains("is no run"), "{text}");

    let text = refuse(run(&["pretrain", data, "--out", "run"]), 1);
    assert!(text.starts_with("protonce: cannot start ") && text.contains("protonce-engine"));
    assert_eq!(text.lines().count(), 1, "{text}");
}

#[test]
fn both_programs_say_the_same() {
    let engine = Path::new(env!("CARGO_BIN_EXE_protonce-engine"));
    for arguments in [
        &["--help"][..],
        &["--version"],
        &["help"],
        &["help", "eval"],
        &["data", "check", "--help"],
        &["pretrain", "-h"],
        &["weights", "export", "--help"],
        &[],
        &["nonsense"],
        &["report"],
        &["pretrain", "images", "--nonsense"],
    ] {
        let output = protonce(arguments).output().unwrap();
        let mut other = Command::new(engine);
        #[cfg(unix)]
        std::os::unix::process::CommandExt::arg0(&mut other, env!("CARGO_BIN_EXE_protonce"));
        assert_eq!(other.args(arguments).output().unwrap(), output, "{arguments:?}");
    }
}
