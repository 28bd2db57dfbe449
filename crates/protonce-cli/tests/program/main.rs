//! Uses the program as a person would: by its command line, on files, and with kill.

// Helpers of tests fail as tests do; the exemption in clippy.toml covers test functions only.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod browser;
mod cluster;
mod copies;
mod data;
mod evaluations;
mod images;
mod large;
mod live;
mod lock;
mod manual;
mod output;
mod plan;
mod processes;
mod refusals;
mod report;
mod resume;
mod runs;
#[allow(dead_code)]
#[path = "../../../protonce-images/tests/images/store/server.rs"]
mod server;
mod settings;
mod signals;
mod start;
mod stores;
mod weights;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// `protonce` with arguments, not yet started.
fn protonce(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_protonce"));
    command.args(arguments);
    command
}

/// A run small enough for a test: a narrow network, and 16-px images, so that it comes to few pixels.
fn tiny_pretrain(data: &str, out: &Path, more: &[&str]) -> Command {
    let mut command = protonce(&["pretrain", data, "--out", out.to_str().unwrap()]);
    command.args(["--preset", "small", "--stem", "imagenet", "--image-size", "16"]);
    command.args(["--batch-size", "8", "--queue", "50"]);
    command.args(["--clusters", "4,8", "--warmup-epochs", "1", "--threads", "1"]);
    if !more.contains(&"--base-channels") {
        command.args(["--base-channels", "16"]);
    }
    // What is fastest now depends on who else computes: the tests that run beside it.
    if !more.contains(&"--tune") {
        command.args(["--tune", "off"]);
    }
    command.args(more);
    command
}

/// The folder of a run's last checkpoint.
fn checkpoint(run: &Path) -> PathBuf {
    protonce_run::Checkpoint::find(run).unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What a command that must succeed printed.
fn succeed(mut command: Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?} failed: {}", stderr(&output));
    output
}

/// The one sentence of a command that must be refused with `status`.
fn refuse(mut command: Command, status: i32) -> String {
    let output = command.output().unwrap();
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(status), "{command:?}: {text}");
    assert!(output.stdout.is_empty(), "stdout is for results");
    assert!(!text.contains("panicked"), "{text}");
    text
}
