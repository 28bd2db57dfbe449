//! Results go to stdout and nothing else does; where they cannot go, that is told or the program ends.

use std::fs::File;
use std::process::{Command, Stdio};

use crate::images::write_classes;
use crate::{protonce, refuse, stderr, stdout, succeed, tiny_pretrain};

/// Commands that print a result, with some words of it.
fn commands(data: &str, weights: &str) -> Vec<(Command, &'static str)> {
    let out = format!("{data}.clusters");
    let rows = format!("{data}.npy");
    vec![
        (protonce(&["data", "check", data]), "20 images, 20 readable"),
        (protonce(&["data", "check", data, "--json"]), "\"readable\":20"),
        (protonce(&["weights", "show", weights]), "conv1.weight [16, 3, 7, 7]"),
        (
            protonce(&["cluster", "--embeddings", &rows, "--clusters", "2", "--out", &out]),
            "2 clusters",
        ),
        (protonce(&["completions", "bash"]), "encoder-momentum"),
        (protonce(&["pretrain", "--help"]), "--save-minutes"),
    ]
}

#[test]
fn results_are_on_stdout_a_closed_pipe_ends_quietly_and_a_full_one_in_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    write_classes(&data, &["a", "b"], 10);
    let (data, run) = (data.to_str().unwrap(), folder.path().join("run"));

    // Nobody looks at the progress: training is not for that.
    let mut command = tiny_pretrain(data, &run, &["--epochs", "1"]);
    let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    drop(child.stderr.take());
    assert!(child.wait().unwrap().success());
    let run = run.to_str().unwrap();
    let rows = format!("{data}.npy");
    succeed(protonce(&["embed", "--weights", run, "--data", data, "--out", &rows]));

    for (command, words) in commands(data, run) {
        let output = succeed(command);
        assert!(stdout(&output).contains(words), "\"{words}\" is missing in: {}", stdout(&output));
        assert!(!stderr(&output).contains(words), "{}", stderr(&output));
    }
    for (mut command, _) in commands(data, run) {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(141), "{command:?}: {}", stderr(&output));
        assert_eq!(stderr(&output), "", "{command:?}");
    }
    if !cfg!(target_os = "linux") {
        return;
    }
    for (mut command, _) in commands(data, run) {
        command.stdout(File::options().write(true).open("/dev/full").unwrap());
        let text = refuse(command, 1);
        assert!(text.contains("cannot write to stdout: No space left"), "{text}");
    }
}
