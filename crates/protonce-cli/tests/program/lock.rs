//! One process at a time trains in a run folder.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::images::write_classes;
use crate::{protonce, refuse, stderr, succeed, tiny_pretrain};

const SETTINGS: [&str; 4] = ["--epochs", "200", "--log-every", "1"];

/// Starts training and waits for its first step.
fn training(data: &str, run: &Path, more: &[&str]) -> Child {
    let log = || fs::read(run.join("events.jsonl")).unwrap_or_default();
    let before = log();
    let mut command = tiny_pretrain(data, run, &[&SETTINGS[..], more].concat());
    let mut child = command.stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    while log() == before || log().is_empty() {
        assert_eq!(child.try_wait().unwrap(), None, "it does not train");
        std::thread::sleep(Duration::from_millis(2));
    }
    child
}

#[test]
fn a_second_process_is_told_who_trains_and_a_kill_frees_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let (data, run) = (folder.path().join("data"), folder.path().join("run"));
    write_classes(&data, &["a", "b"], 10);
    let data = data.to_str().unwrap();
    for attempt in 0..3 {
        let more: &[&str] = if attempt == 0 { &[] } else { &["--resume"] };
        let mut child = training(data, &run, more);
        let text = refuse(tiny_pretrain(data, &run, &[&SETTINGS[..], &["--resume"]].concat()), 1);
        let holder = format!("in use: process {} on ", child.id());
        assert!(text.contains(&holder), "{holder}: {text}");
        let text = refuse(tiny_pretrain(data, &run, &SETTINGS), 1);
        assert!(text.contains("already holds a run"), "{text}");
        if attempt == 2 {
            // Who reads needs no lock.
            while protonce_run::Checkpoint::find(&run).is_none() {
                std::thread::sleep(Duration::from_millis(2));
            }
            succeed(protonce(&["report", run.to_str().unwrap(), "--quiet"]));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        for line in fs::read_to_string(run.join("events.jsonl")).unwrap().lines() {
            serde_json::from_str::<serde_json::Value>(line).unwrap();
        }
    }
}

#[test]
fn of_two_that_begin_in_one_folder_one_does() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    write_classes(&data, &["a", "b"], 10);
    let (data, run) = (data.to_str().unwrap(), folder.path().join("run"));
    let both = [(); 2].map(|()| {
        let mut command = tiny_pretrain(data, &run, &["--epochs", "1"]);
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    });
    let both = both.map(|child| child.wait_with_output().unwrap());
    let begun = both.iter().filter(|output| output.status.success()).count();
    assert_eq!(begun, 1, "{:?}", both.each_ref().map(stderr));
    let refused = both.iter().find(|output| !output.status.success()).unwrap();
    let said = stderr(refused);
    assert!(said.contains("in use") || said.contains("already holds a run"), "{said}");
}
