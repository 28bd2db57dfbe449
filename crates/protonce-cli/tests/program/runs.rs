//! Whole runs: what they leave behind, and that every way to train works.

use std::path::Path;

use crate::images::write_classes;
use crate::{checkpoint, protonce, stderr, succeed, tiny_pretrain};

fn data_in(folder: &Path) -> String {
    let data = folder.join("data");
    write_classes(&data, &["a", "b", "c"], 14);
    data.to_str().unwrap().to_owned()
}

#[test]
fn a_run_leaves_what_it_promises_and_json_is_alone_on_stdout() {
    let folder = tempfile::tempdir().unwrap();
    let data = data_in(folder.path());
    let run = folder.path().join("run");
    let more =
        ["--epochs", "3", "--json", "--keep", "2", "--eval-train", &data, "--eval-test", &data];
    let output = succeed(tiny_pretrain(&data, &run, &more));
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary["outcome"], "finished");
    assert!(summary["evaluation"]["knn"]["20"].as_f64().unwrap() > 0.0);
    assert!(stderr(&output).contains("epoch 3/3"));
    for file in [
        "config.toml",
        "convolutions.json",
        "events.jsonl",
        "checkpoints/last",
        "checkpoints/epoch-0003/encoder.safetensors",
        "checkpoints/epoch-0002/state.json",
        "checkpoints/epoch-0003/training.safetensors",
        "prototypes/epoch-0001.safetensors",
        "prototypes/epoch-0003.safetensors",
        "prototypes/embeddings.safetensors",
    ] {
        assert!(run.join(file).exists(), "{file} is missing");
    }
    assert!(!run.join("checkpoints/epoch-0001").exists(), "--keep 2 keeps two");

    let weights = run.to_str().unwrap();
    let eval = ["eval", "knn", "--weights", weights, "--train", &data, "--test", &data, "--json"];
    let output = succeed(protonce(&eval));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    // The same weights and images as the run's own last evaluation.
    assert_eq!(found["knn"][0]["top1"], summary["evaluation"]["knn"]["20"]);

    succeed(protonce(&["report", weights]));
    assert!(run.join("report.html").exists());
}

#[test]
fn every_variant_of_the_method_trains() {
    let folder = tempfile::tempdir().unwrap();
    let data = data_in(folder.path());
    for (name, more) in [
        ("moco", &["--method", "moco"][..]),
        ("masked", &["--duplicates", "mask", "--negatives", "2"]),
        ("auto", &["--clusters", "auto"]),
        ("splits", &["--bn-splits", "3"]),
        ("v1", &["--views", "v1", "--head", "linear", "--schedule", "step", "--milestones", "1"]),
        ("bf16", &["--precision", "bf16"]),
        // 42 images in batches of 41: the image left over joins the batch.
        ("left over", &["--batch-size", "41", "--log-every", "1"]),
        ("queue shorter than a batch", &["--queue", "3"]),
        ("as many prototypes as images", &["--clusters", "42"]),
    ] {
        let run = folder.path().join(name);
        let more = [&["--epochs", "2"], more].concat();
        let output = succeed(tiny_pretrain(&data, &run, &more));
        assert!(stderr(&output).contains("epoch 2/2"), "{name}: {}", stderr(&output));
        std::fs::remove_dir_all(&run).unwrap();
    }
}

#[test]
fn a_diverged_loss_names_the_last_good_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let data = data_in(folder.path());
    let run = folder.path().join("run");
    succeed(tiny_pretrain(&data, &run, &["--method", "moco", "--epochs", "1"]));
    // The learning rate of a run is fixed, so divergence has to come with a new run.
    let diverged = folder.path().join("diverged");
    let more = ["--method", "moco", "--epochs", "6", "--lr", "1e38", "--log-every", "1"];
    let text = crate::refuse(tiny_pretrain(&data, &diverged, &more), 1);
    assert!(text.contains("no longer finite") && text.contains("checkpoint"), "{text}");
}

/// What a command shows on a terminal: util-linux's `script` is one to it.
fn on_a_terminal(command: &std::process::Command, no_colour: bool) -> Option<String> {
    let quoted = |word: &std::ffi::OsStr| format!("'{}'", word.to_str().unwrap());
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let line = words.map(quoted).collect::<Vec<_>>().join(" ");
    let mut script = std::process::Command::new("script");
    script.args(["-qefc", &line, "/dev/null"]).env("TERM", "xterm-256color").env_remove("NO_COLOR");
    if no_colour {
        script.env("NO_COLOR", "1");
    }
    match script.output() {
        Ok(output) => {
            assert!(output.status.success());
            Some(String::from_utf8_lossy(&output.stdout).into_owned())
        }
        Err(error) => {
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{error}");
            eprintln!("SKIPPED: the dashboard was not looked at, for want of the program `script`");
            None
        }
    }
}

#[test]
fn a_terminal_gets_a_dashboard_and_a_pipe_gets_lines() {
    let folder = tempfile::tempdir().unwrap();
    let data = data_in(folder.path());
    let out = |name: &str| folder.path().join(name);
    let more = ["--epochs", "3", "--log-every", "1", "--eval-train", &data, "--eval-test", &data];

    let lines = stderr(&succeed(tiny_pretrain(&data, &out("pipe"), &more)));
    assert!(lines.contains("epoch 2/3: loss") && lines.contains("E-step: 42 images"), "{lines}");
    assert!(!lines.contains('\u{1b}') && !lines.contains('━'), "{lines}");

    let quiet = [&more[..], &["--quiet"]].concat();
    assert_eq!(stderr(&succeed(tiny_pretrain(&data, &out("quiet"), &quiet))), "");

    let Some(shown) = on_a_terminal(&tiny_pretrain(&data, &out("terminal"), &more), false) else {
        return;
    };
    for part in ["━", "epoch 3/3", "▁", "chance", "done: "] {
        assert!(shown.contains(part), "{part} is missing: {shown}");
    }
    assert!(!shown.contains("epoch 2/3: loss"), "no lines beside the dashboard");
    assert!(shown.contains("\u{1b}[32m"), "in colour");
    let plain = on_a_terminal(&tiny_pretrain(&data, &out("plain"), &more), true).unwrap();
    // The cursor still moves.
    let colours = ["\u{1b}[32m", "\u{1b}[36m", "\u{1b}[1m"];
    assert!(plain.contains("━") && !colours.iter().any(|c| plain.contains(c)), "NO_COLOR: {plain}");
}

#[test]
fn a_tuned_run_goes_on_as_it_began_whatever_became_of_the_cache() {
    let folder = tempfile::tempdir().unwrap();
    let data = data_in(folder.path());
    let cache = folder.path().join("cache");
    let remembered = cache.join("protonce/convolutions/fastest.json");
    let tuned = |run: &Path, more: &[&str]| {
        let mut command =
            tiny_pretrain(&data, run, &[&["--epochs", "2", "--device", "cpu"], more].concat());
        command.env("XDG_CACHE_HOME", &cache);
        succeed(command)
    };
    let [whole, again, stopped] = ["whole", "again", "stopped"].map(|run| folder.path().join(run));
    let read = |run: &Path, file: &str| std::fs::read(run.join(file)).unwrap();
    let weights = |run: &Path| std::fs::read(checkpoint(run).join("training.safetensors")).unwrap();

    tuned(&whole, &["--tune", "on"]);
    let choices: serde_json::Value =
        serde_json::from_slice(&read(&whole, "convolutions.json")).unwrap();
    assert!(choices.as_object().unwrap().len() >= 11, "{choices}");
    let first = std::fs::read(&remembered).unwrap();
    tuned(&again, &["--tune", "on"]);
    assert!(weights(&whole) == weights(&again), "remembered choices give the same bits");
    assert_eq!(std::fs::read(&remembered).unwrap(), first);

    tuned(&stopped, &["--tune", "on", "--max-steps", "3"]);
    std::fs::write(&remembered, "damaged").unwrap();
    tuned(&stopped, &["--tune", "off", "--resume"]);
    assert!(weights(&whole) == weights(&stopped), "the run kept its choices");

    let output = tuned(&folder.path().join("new"), &["--tune", "on"]);
    assert!(stderr(&output).contains("damaged"), "{}", stderr(&output));
    assert!(std::fs::read_to_string(&remembered).unwrap().contains("protonce"));
}

#[test]
fn checkpointed_blocks_train_to_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let data = data_in(folder.path());
    let [plain, checkpointed] = [&[][..], &["--checkpoint-blocks"]].map(|more| {
        let run = folder.path().join(format!("run{}", more.len()));
        succeed(tiny_pretrain(&data, &run, &[&["--epochs", "2"], more].concat()));
        std::fs::read(checkpoint(&run).join("training.safetensors")).unwrap()
    });
    assert!(plain == checkpointed);
}

#[test]
fn a_step_is_measured_without_images_at_hand() {
    let output = succeed(protonce(&[
        "bench",
        "step",
        "--preset",
        "small",
        "--stem",
        "imagenet",
        "--image-size",
        "16",
        "--batch-size",
        "8",
        "--queue",
        "50",
        "--clusters",
        "4,8",
        "--threads",
        "1",
        "--steps",
        "1",
        "--warmup-steps",
        "0",
        "--checkpoint-blocks",
        "--json",
    ]));
    let times: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let seconds = |value: &serde_json::Value| value.as_f64().unwrap();
    assert_eq!(times["images"], 8);
    assert!(seconds(&times["images_per_second"]) > 0.0 && seconds(&times["peak"]) > 0.0);
    let parts = times["parts"].as_object().unwrap();
    let sum: f64 = parts.values().map(|part| seconds(&part["seconds"])).sum();
    assert!(parts.len() == 6 && sum <= seconds(&times["step"]));
    // Computed again on the way back.
    assert!(seconds(&parts["backward"]["kernels"]["convolution"]["operations"]) > 0.0);
    assert!(stderr(&output).contains("waiting for views"), "{}", stderr(&output));
}
