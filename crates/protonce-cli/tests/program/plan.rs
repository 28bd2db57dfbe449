//! What is chosen where nothing is said, and starting from weights that exist.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::images::write_classes;
use crate::resume::last_checkpoint;
use crate::{protonce, refuse, stderr, succeed, tiny_pretrain};

fn settings(run: &Path) -> toml::Table {
    std::fs::read_to_string(run.join("config.toml")).unwrap().parse().unwrap()
}

#[test]
fn nothing_but_images_is_needed_and_the_printed_command_makes_the_same_run() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("my images");
    write_classes(&data, &["a", "b"], 10);
    let run = folder.path().join("run");
    let (data, out) = (data.to_str().unwrap(), run.to_str().unwrap());
    let start = Instant::now();
    let more = ["--budget", "8s", "--threads", "1", "--tune", "off"];
    let output = succeed(protonce(&[&["pretrain", data, "--out", out][..], &more].concat()));
    // A time that others share is no matter of a test; that there is an end is.
    assert!(start.elapsed() < Duration::from_secs(120));

    let text = stderr(&output);
    let chosen = settings(&run);
    for (name, expected) in [
        ("image-size", toml::Value::from(32)),
        ("arch", "resnet18".into()),
        ("batch-size", 10.into()),
        ("clusters", vec![8].into()),
        ("stats", "given".into()),
    ] {
        assert_eq!(chosen[name], expected, "{name}");
    }
    assert!(chosen["epochs"].as_integer().unwrap() >= 1, "{text}");
    let reason = "half of the images are 20 px or more";
    for said in [reason, "20 images", "a step", "this will take about"] {
        assert!(text.contains(said), "\"{said}\" is missing in: {text}");
    }
    let mut chosen_lines = text.lines().filter(|line| line.starts_with("  "));
    assert!(
        !chosen_lines.any(|line| line.contains("threads")),
        "that was given, not chosen: {text}"
    );

    let again = folder.path().join("again");
    let command = text.lines().find_map(|line| line.strip_prefix("the same again: ")).unwrap();
    let program = env!("CARGO_BIN_EXE_protonce");
    let command = command.replacen("protonce", program, 1).replace(out, again.to_str().unwrap());
    succeed({
        let mut shell = Command::new("sh");
        shell.args(["-c", &command]);
        shell
    });
    assert_eq!(settings(&again), chosen);
    assert!(last_checkpoint(&run) == last_checkpoint(&again), "the weights differ");
}

#[test]
fn a_budget_or_a_number_of_epochs_but_not_both() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    write_classes(&data, &["a", "b"], 10);
    let (data, run) = (data.to_str().unwrap(), folder.path().join("run"));
    succeed(tiny_pretrain(data, &run, &["--budget", "2s"]));
    let chosen = settings(&run);
    let epochs = chosen["epochs"].as_integer().unwrap();
    assert!(epochs != 200, "{epochs} is the preset's");
    assert_eq!(chosen["temperature"], 0.2.into(), "the preset's own settings stay");

    let other = folder.path().join("other");
    let text = refuse(tiny_pretrain(data, &other, &["--budget", "2s", "--epochs", "3"]), 2);
    assert!(text.contains("cannot be used with"), "{text}");
    let text = refuse(tiny_pretrain(data, &other, &["--budget", "soon"]), 2);
    assert!(text.contains("30m, 2h"), "{text}");
    assert!(!other.exists());
}

#[test]
fn a_warm_up_longer_than_the_run_is_shortened_and_refused_where_it_was_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    write_classes(&data, &["a", "b"], 10);
    let data = data.to_str().unwrap();
    let pretrain = |name: &str, more: &[&str]| {
        let mut command = protonce(&["pretrain", data, "--threads", "1", "--tune", "off"]);
        command.args(["--out", folder.path().join(name).to_str().unwrap()]);
        command.args(["--image-size", "16", "--batch-size", "8", "--clusters", "4"]);
        command.args(more);
        command
    };
    for (preset, epochs, warmup) in [("small", "2", 1), ("small", "1", 0), ("v2", "2", 1)] {
        let name = format!("{preset}-{epochs}");
        let small = ["--arch", "resnet18", "--stem", "imagenet", "--queue", "8"];
        let more = [&["--preset", preset, "--epochs", epochs][..], &small].concat();
        let text = stderr(&succeed(pretrain(&name, &more)));
        let chosen = settings(&folder.path().join(&name));
        assert_eq!(chosen["warmup-epochs"], warmup.into(), "{name}");
        let said = format!("warmup-epochs {warmup} (the preset's");
        assert!(text.contains(&said) && text.contains("more than the run has"), "{text}");
    }
    for (preset, epochs, warmup) in [("auto", "2", "3"), ("small", "4", "20"), ("v2", "1", "2")] {
        let asked = ["--preset", preset, "--epochs", epochs, "--warmup-epochs", warmup];
        let text = refuse(pretrain("refused", &asked), 1);
        let said = format!("\"warmup-epochs\" is {warmup}, but the run has {epochs} epochs");
        assert!(text.contains(&said) && text.contains("--method moco"), "{text}");
        assert!(!folder.path().join("refused").exists());
    }
}

#[test]
fn more_images_than_the_time_allows_are_sampled() {
    let folder = tempfile::tempdir().unwrap();
    // Where many images are, names of the same few do as well.
    let data = folder.path().join("data");
    write_classes(&data, &["a"], 5);
    let (list, out) = (folder.path().join("list.txt"), folder.path().join("run"));
    let lines = (0..200_000).map(|number| format!("data/a/{:03}.png\n", number % 5));
    std::fs::write(&list, lines.collect::<String>()).unwrap();
    let (list, out) = (list.to_str().unwrap(), out.to_str().unwrap());
    let more = ["--budget", "5s", "--threads", "1", "--tune", "off", "--max-steps", "1"];
    let output = succeed(protonce(&[&["pretrain", list, "--out", out][..], &more].concat()));
    let text = stderr(&output);
    let chosen = settings(Path::new(out));
    let sample = chosen["sample"].as_integer().unwrap();
    assert!((64..100_000).contains(&sample), "{sample}");
    assert!(text.contains("of 200000 images, what can be looked at 10 times"), "{text}");
    assert!(text.contains(&format!("{sample} images in")), "{text}");
}

/// Tensors that differ between two files of weights, most first.
fn changed(one: &str, other: &str) -> Vec<String> {
    let output = protonce(&["weights", "diff", one, other, "--json"]).output().unwrap();
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let tensors = found["changed"].as_array().unwrap().iter();
    tensors.map(|tensor| tensor[0].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_run_starts_from_weights_and_leaves_frozen_stages_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    write_classes(&data, &["a", "b"], 10);
    let data = data.to_str().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let [first, file, still, frozen, other] =
        ["first", "pcl.pth", "still", "frozen", "other"].map(path);
    succeed(tiny_pretrain(data, Path::new(&first), &["--epochs", "2"]));
    // The layout of the published checkpoints.
    succeed(protonce(&["weights", "export", &first, "--to", "pcl", "--out", &file]));

    // At a rate of 0 only statistics of batches change.
    let labels = ["--eval-train", data, "--eval-test", data];
    let more = [&["--init", &file, "--epochs", "1", "--lr", "0"][..], &labels].concat();
    let output = succeed(tiny_pretrain(data, Path::new(&still), &more));
    let statistics = |name: &String| name.contains("running") || name.contains("num_batches");
    let found = changed(&first, &still);
    assert!(found.iter().all(statistics), "{found:?}");
    let text = stderr(&output);
    assert!(text.contains("the weights it starts from"), "{text}");
    assert!(text.contains("untrained network"), "{text}");
    // They go out with the weights, as do the figures before training.
    let exported = path("exported.pth");
    succeed(protonce(&["weights", "export", &still, "--to", "torchvision", "--out", &exported]));
    let card = std::fs::read_to_string(path("exported.pth.card.md")).unwrap();
    assert!(card.contains("started from: pcl.pth"), "{card}");
    assert!(card.contains("| the weights it starts from | "), "{card}");

    let more = ["--init", &first, "--freeze-stages", "2", "--epochs", "1"];
    succeed(tiny_pretrain(data, Path::new(&frozen), &more));
    let found = changed(&first, &frozen);
    let trained: Vec<_> = found.iter().filter(|name| !statistics(name)).collect();
    for name in &trained {
        let part = ["layer3.", "layer4.", "fc."].iter().any(|part| name.starts_with(part));
        assert!(part, "{name} is frozen");
    }
    assert!(trained.iter().any(|name| name.starts_with("layer3.")), "{trained:?}");

    let small = ["--init", &file, "--stem", "small", "--epochs", "1"];
    let text = refuse(tiny_pretrain(data, Path::new(&other), &small), 1);
    assert!(text.contains("imagenet stem") && text.contains("small stem"), "{text}");
    assert!(!Path::new(&other).join("config.toml").exists());
    let text = refuse(tiny_pretrain(data, Path::new(&other), &["--init", "nowhere.pth"]), 1);
    assert!(text.contains("nowhere.pth"), "{text}");
}

/// A file of the folder of large files that are kept beside the repository, or none, said loudly. It must be
/// there where `PROTONCE_SHARED` says so.
fn published() -> Option<PathBuf> {
    let named = std::env::var_os("PROTONCE_SHARED").map(PathBuf::from);
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let path = named.clone().unwrap_or_else(beside).join("fixtures/pcl_v2_resnet18_legacy.pth.tar");
    if named.is_none() && !path.exists() {
        eprintln!("SKIPPED: {} is absent", path.display());
        return None;
    }
    Some(path)
}

#[test]
fn a_run_starts_from_a_checkpoint_of_the_published_scripts() {
    let Some(file) = published() else { return };
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    write_classes(&data, &["a", "b"], 10);
    let run = folder.path().join("run");
    let options =
        ["--init", file.to_str().unwrap(), "--lr", "0", "--epochs", "1", "--base-channels", "64"];
    succeed(tiny_pretrain(data.to_str().unwrap(), &run, &options));

    let imported = folder.path().join("imported.safetensors");
    let [from, to] = [file.to_str().unwrap(), imported.to_str().unwrap()];
    succeed(protonce(&["weights", "import", from, "--out", to]));
    let found = changed(to, run.to_str().unwrap());
    let statistics = |name: &String| name.contains("running") || name.contains("num_batches");
    assert!(!found.is_empty() && found.iter().all(statistics), "{found:?}");
}
