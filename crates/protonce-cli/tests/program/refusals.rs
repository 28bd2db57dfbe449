//! Bad input gets one clear sentence and loses nothing.

use std::path::Path;

use crate::images::{jpeg, write_classes};
use crate::{protonce, refuse, succeed, tiny_pretrain};

fn says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "\"{word}\" is missing in: {text}");
    }
    let errors = text.lines().filter(|line| line.starts_with("protonce: ")).count();
    assert_eq!(errors, 1, "one sentence, not: {text}");
}

/// What pretraining on `data` says when it must not start.
fn refused(data: &Path, more: &[&str]) -> String {
    let out = tempfile::tempdir().unwrap();
    refuse(tiny_pretrain(data.to_str().unwrap(), &out.path().join("run"), more), 1)
}

#[test]
fn an_empty_folder() {
    let folder = tempfile::tempdir().unwrap();
    says(&refused(folder.path(), &[]), &["no images"]);
}

#[test]
fn a_folder_that_does_not_exist() {
    says(&refused(Path::new("no/such/folder"), &[]), &["no/such/folder"]);
}

#[test]
fn one_image() {
    let folder = tempfile::tempdir().unwrap();
    write_classes(folder.path(), &["a"], 1);
    says(&refused(folder.path(), &[]), &["one image", "at least two"]);
}

#[test]
fn a_folder_of_text_files() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["readme.txt", "notes.md", "labels.csv"] {
        std::fs::write(folder.path().join(name), "not an image").unwrap();
    }
    says(&refused(folder.path(), &[]), &["no images", "jpg"]);
}

#[test]
fn all_images_broken() {
    let folder = tempfile::tempdir().unwrap();
    for index in 0..12 {
        std::fs::write(folder.path().join(format!("{index:02}.jpg")), "not a JPEG").unwrap();
    }
    let text = refused(folder.path(), &["--batch-size", "12"]);
    says(&text, &["12 of 12 images cannot be read", "--max-bad", "00.jpg", "09.jpg"]);
    let sentence = text.lines().find(|line| line.starts_with("protonce: ")).unwrap();
    assert_eq!(sentence.matches(".jpg").count(), 10, "the first ten names: {sentence}");
}

#[test]
fn a_batch_larger_than_the_data() {
    let folder = tempfile::tempdir().unwrap();
    write_classes(folder.path(), &["a"], 7);
    says(
        &refused(folder.path(), &["--clusters", "2"]),
        &["batch of 8", "7 images", "--batch-size 7"],
    );
}

#[test]
fn more_clusters_than_images() {
    let folder = tempfile::tempdir().unwrap();
    write_classes(folder.path(), &["a"], 10);
    says(&refused(folder.path(), &["--clusters", "5,11"]), &["11 clusters", "10 images"]);
}

#[test]
fn an_output_that_cannot_be_written() {
    let folder = tempfile::tempdir().unwrap();
    write_classes(folder.path(), &["a"], 10);
    // A file where a folder is needed: permissions would not stop root.
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let command = tiny_pretrain(folder.path().to_str().unwrap(), &file.join("run"), &[]);
    let sentence = refuse(command, 1);
    says(&sentence, &["cannot write", "file/run", "Not a directory"]);
    assert_eq!(sentence.matches("Not a directory").count(), 1, "{sentence}");
}

#[test]
fn a_class_that_the_evaluations_training_images_lack() {
    let folder = tempfile::tempdir().unwrap();
    let (train, test) = (folder.path().join("train"), folder.path().join("test"));
    write_classes(&train, &["cat", "dog"], 5);
    write_classes(&test, &["cat", "zebra"], 2);
    let more = ["--eval-train", train.to_str().unwrap(), "--eval-test", test.to_str().unwrap()];
    says(&refused(&train, &more), &["\"zebra\"", "cat, dog"]);
    let command = tiny_pretrain(train.to_str().unwrap(), &folder.path().join("run"), &more[..2]);
    says(&refuse(command, 2), &["eval-test"]);
}

#[test]
fn an_existing_run_and_a_run_that_does_not_fit() {
    let folder = tempfile::tempdir().unwrap();
    let (data, other) = (folder.path().join("data"), folder.path().join("other"));
    write_classes(&data, &["a", "b"], 8);
    write_classes(&other, &["a", "b"], 9);
    let (data, other) = (data.to_str().unwrap(), other.to_str().unwrap());
    let out = folder.path().join("run");
    says(&refuse(tiny_pretrain(data, &out, &["--resume"]), 1), &["no run", "without --resume"]);
    succeed(tiny_pretrain(data, &out, &["--epochs", "1"]));
    let before = std::fs::read(out.join("events.jsonl")).unwrap();

    says(&refuse(tiny_pretrain(data, &out, &[]), 1), &["already holds a run", "--resume"]);
    let more = ["--resume", "--epochs", "2", "--arch", "resnet34"];
    says(&refuse(tiny_pretrain(data, &out, &more), 1), &["arch", "resnet34", "resnet18"]);
    let more = ["--resume", "--epochs", "2"];
    says(&refuse(tiny_pretrain(other, &out, &more), 1), &["not what this run began with"]);

    // Nothing was lost by asking for the impossible.
    assert!(
        std::fs::read(out.join("events.jsonl")).unwrap().starts_with(&before[..before.len() / 2])
    );
    // Going on for longer, or with a lower learning rate after a divergence, is meant to be possible.
    succeed(tiny_pretrain(data, &out, &["--resume", "--epochs", "2", "--lr", "0.01"]));
}

#[test]
fn broken_images_among_good_ones_are_skipped_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    write_classes(&data, &["a", "b"], 20);
    let whole = jpeg(0, 1);
    std::fs::write(data.join("a/truncated.jpg"), &whole[..whole.len() / 2]).unwrap();
    std::fs::write(data.join("b/empty.jpg"), "").unwrap();
    let (data, out) = (data.to_str().unwrap(), folder.path().join("run"));

    let text = refuse(tiny_pretrain(data, &folder.path().join("strict"), &["--epochs", "1"]), 1);
    says(&text, &["--max-bad 0.01", "of 42 images cannot be read", ".jpg"]);

    succeed(tiny_pretrain(data, &out, &["--epochs", "2", "--max-bad", "0.1"]));
    let events = std::fs::read_to_string(out.join("events.jsonl")).unwrap();
    let skipped: Vec<&str> = events.lines().filter(|line| line.contains("\"skipped\"")).collect();
    assert_eq!(skipped.len(), 2, "each is named once: {skipped:?}");
    assert!(events.contains("a/truncated.jpg") && events.contains("b/empty.jpg"));

    let output = succeed(protonce(&["data", "check", data, "--json"]));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["images"], &report["readable"]), (&42.into(), &40.into()));
}

#[test]
fn wrong_usage_exits_with_2() {
    let out = tempfile::tempdir().unwrap();
    let run = out.path().join("run");
    let with = |more: &[&str]| refuse(tiny_pretrain("data", &run, more), 2);
    assert!(with(&["--arch", "vgg16"]).contains("resnet18"));
    assert!(with(&["--clusters", "many"]).contains("250,500,1000"));
    assert!(with(&["--no-such-flag"]).contains("--no-such-flag"));
    says(&with(&["--temperature", "0"]), &["temperature", "more than 0"]);
    says(&with(&["--crop-scale", "0.5,0.2"]), &["crop", "low"]);
    let file = out.path().join("settings.toml");
    std::fs::write(&file, "learning-rate = 1").unwrap();
    let text = with(&["--config", file.to_str().unwrap()]);
    says(&text, &["\"learning-rate\"", "lr"]);
    assert!(refuse(protonce(&["pretrain", "--out", "x"]), 2).contains("DATA"));
}

#[test]
fn weights_that_are_none() {
    let folder = tempfile::tempdir().unwrap();
    write_classes(folder.path(), &["a"], 3);
    let data = folder.path().to_str().unwrap();
    let eval = ["eval", "knn", "--weights", data, "--train", data, "--test", data];
    says(&refuse(protonce(&eval), 1), &["no weights", "run folder"]);
}
