//! `protonce cluster` on files, and E-steps that save work.

use std::path::{Path, PathBuf};

use crate::images::write_classes;
use crate::{checkpoint, protonce, refuse, stderr, stdout, succeed, tiny_pretrain};

/// Writes `[rows, 2]` float32 values as numpy does.
fn write_npy(path: &Path, values: &[f32]) {
    let shape = format!("({}, 2)", values.len() / 2);
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}");
    let header = format!("{header:117}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    std::fs::write(path, bytes).unwrap();
}

/// Three heaps of rows far apart.
fn heaps() -> Vec<f32> {
    let row = |index: usize| [(index % 3) as f32 * 10.0, (index / 3) as f32 * 0.01 + 1.0];
    (0..60).flat_map(row).collect()
}

fn cluster(file: &Path, out: &Path, more: &[&str]) -> std::process::Command {
    let mut command = protonce(&["cluster", "--embeddings", file.to_str().unwrap()]);
    command.args(["--out", out.to_str().unwrap()]).args(more);
    command
}

#[test]
fn heaps_are_found_and_agree_with_their_labels() {
    let folder = tempfile::tempdir().unwrap();
    let (file, out) = (folder.path().join("rows.npy"), folder.path().join("out"));
    write_npy(&file, &heaps());
    let labels = folder.path().join("labels.txt");
    let names: Vec<&str> = (0..60).map(|index| ["left", "middle", "right"][index % 3]).collect();
    std::fs::write(&labels, names.join("\n")).unwrap();
    let labels = labels.to_str().unwrap();
    for start in ["random", "plus-plus", "parallel"] {
        let more = ["--clusters", "3,6", "--labels", labels, "--json", "--start", start];
        let output = succeed(cluster(&file, &out, &more));
        let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let first = &found["granularities"][0];
        for measure in ["ami", "nmi", "ari", "purity", "hungarian_accuracy"] {
            let value = first["labels"][measure].as_f64().unwrap();
            assert!((value - 1.0).abs() < 1e-9, "{start}: {first}");
        }
        assert_eq!(found["granularities"][1]["clusters"], 6);
        let tensors = tch::Tensor::read_safetensors(out.join("clusters.safetensors")).unwrap();
        let size = |name: &str| tensors.iter().find(|(found, _)| found == name).unwrap().1.size();
        assert_eq!(size("assignment.1"), [60]);
        assert_eq!(size("centroids.1"), [6, 2]);
        assert_eq!((size("concentration.1"), size("medoids.1")), (vec![6], vec![6]));
    }
}

#[test]
fn the_number_of_heaps_is_suggested() {
    let folder = tempfile::tempdir().unwrap();
    let (file, out) = (folder.path().join("rows.npy"), folder.path().join("out"));
    // Four heaps.
    let row = |index: usize| [(index % 4) as f32 * 10.0, (index / 4) as f32 * 0.01 + 1.0];
    write_npy(&file, &(0..80).flat_map(row).collect::<Vec<f32>>());
    let output = succeed(cluster(&file, &out, &["--suggest", "--start", "plus-plus"]));
    assert!(stdout(&output).contains("4 clusters stand apart best"), "{}", stdout(&output));
    assert!(image::open(out.join("suggest.png")).unwrap().width() > 500);
}

#[test]
fn equal_embeddings_stand_apart_at_no_number_of_clusters() {
    let folder = tempfile::tempdir().unwrap();
    let (file, out) = (folder.path().join("rows.npy"), folder.path().join("out"));
    let silhouettes = |more: &[&str]| {
        let output = succeed(cluster(&file, &out, &[more, &["--json"]].concat()));
        let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let all = found["granularities"].as_array().unwrap().iter();
        let all: Vec<serde_json::Value> = all.map(|found| found["silhouette"].clone()).collect();
        (all, stderr(&output))
    };
    for value in [0.0, 0.25, 1.0, -3e7] {
        write_npy(&file, &vec![value; 200]);
        let (found, text) = silhouettes(&["--suggest"]);
        assert!(found.len() > 2 && found.iter().all(serde_json::Value::is_null), "{found:?}");
        assert!(text.contains("no number of clusters stands apart"), "{text}");
        // The advice is not that of a training, which there is none of here.
        assert_eq!(text.matches("nearly equal to each other").count(), found.len(), "{text}");
        assert!(!text.contains("--lr"), "{text}");
    }
    // Two different rows are two clusters, however many are asked for.
    for (many, few) in [(99, 1), (50, 50), (2, 98)] {
        let values = [[1.0, 2.0].repeat(many), [5.0, 0.0].repeat(few)].concat();
        write_npy(&file, &values);
        let (found, text) = silhouettes(&["--suggest", "--start", "plus-plus"]);
        // scikit-learn: 1 for all but those that are alone.
        let right = if few == 1 { 0.99 } else { 1.0 };
        assert!((found[0].as_f64().unwrap() - right).abs() < 1e-9, "{found:?}");
        assert!(text.contains("2 clusters stand apart best"), "{text}");
        assert!(!text.contains("nearly equal"), "{text}");
    }
    write_npy(&file, &heaps());
    let (found, text) = silhouettes(&["--clusters", "1"]);
    assert!(found == [serde_json::Value::Null] && text.contains("silhouette none"), "{text}");
}

#[test]
fn a_place_that_cannot_be_written_to_is_refused_before_anything_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let absent = folder.path().join("absent.npy");
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    // A file, something below a file, and a file system that makes no files.
    let places = [file.clone(), file.join("below/it"), "/proc/protonce/clusters".into()];
    for out in places {
        let text = refuse(cluster(&absent, &out, &[]), 1);
        assert!(text.contains(&format!("cannot write {}", out.display())), "{text}");
    }
    // A file's place, before weights are read.
    let absent = absent.to_str().unwrap();
    for out in [folder.path().to_owned(), folder.path().join("no/file"), "/proc/file.npy".into()] {
        let out = out.to_str().unwrap();
        let embed = ["embed", "--weights", absent, "--data", absent, "--out", out];
        let import = ["weights", "import", absent, "--out", out];
        let export = ["weights", "export", absent, "--to", "timm", "--out", out];
        for command in [&embed[..], &import, &export] {
            let text = refuse(protonce(command), 1);
            assert!(text.contains(out) && !text.contains("absent"), "{text}");
        }
    }
    // Looking leaves nothing behind.
    let out = folder.path().join("deep/er");
    refuse(cluster(&folder.path().join("absent.npy"), &out, &[]), 1);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn impossible_embeddings_are_refused_in_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |values: &[f32], more: &[&str]| {
        let (file, out) = (folder.path().join("rows.npy"), folder.path().join("out"));
        write_npy(&file, values);
        let text = refuse(cluster(&file, &out, more), 1);
        assert_eq!(text.lines().count(), 1, "one sentence, not: {text}");
        assert!(!out.exists(), "nothing is written before all is well");
        text
    };
    let mut broken = heaps();
    broken[2 * 17 + 1] = f32::NAN;
    assert!(refused(&broken, &["--clusters", "3"]).contains("image 17 is not finite"));
    broken[2 * 17 + 1] = f32::NEG_INFINITY;
    assert!(refused(&broken, &["--clusters", "3"]).contains("image 17 is not finite"));
    for large in [1e20, -3e15, f32::MAX] {
        broken[2 * 17 + 1] = large;
        let text = refused(&broken, &["--clusters", "3"]);
        assert!(text.contains("image 17 has a value beyond ±1e15"), "{text}");
        assert!(!text.contains("finite"), "{text}");
    }
    assert!(refused(&heaps(), &["--clusters", "61"]).contains("61 clusters from 60 images"));
    assert!(refused(&heaps(), &["--clusters", "0"]).contains("0 clusters"));
    let mut zero = heaps();
    (zero[10], zero[11]) = (0.0, 0.0);
    let spherical = ["--clusters", "3", "--metric", "spherical"];
    assert!(refused(&zero, &spherical).contains("image 5 is zero"));
    let labels = folder.path().join("labels.txt");
    std::fs::write(&labels, "one\ntwo\n").unwrap();
    let with_labels = ["--clusters", "3", "--labels", labels.to_str().unwrap()];
    assert!(refused(&heaps(), &with_labels).contains("2 labels: expected 60"));
}

#[test]
fn degenerate_embeddings_are_clustered_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (file, out) = (folder.path().join("rows.npy"), folder.path().join("out"));
    for (values, clusters) in [
        (vec![0.5, 0.5], "1"),  // one row
        (heaps(), "1"),         // one cluster
        (vec![0.25; 200], "7"), // identical rows
        (vec![0.0; 200], "7"),  // nothing but zeros
    ] {
        write_npy(&file, &values);
        succeed(cluster(&file, &out, &["--clusters", clusters]));
    }
}

/// The `expectation` lines of a run, without their times.
fn expectations(run: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(run.join("events.jsonl")).unwrap();
    let events = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    events
        .filter(|event| event["event"] == "expectation")
        .map(|mut event| {
            let object = event.as_object_mut().unwrap();
            object.retain(|name, _| !name.ends_with("_seconds"));
            event
        })
        .collect()
}

#[test]
fn rare_expectations_from_reused_keys_survive_a_stop_to_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("images");
    write_classes(&data, &["a", "b"], 20);
    let data = data.to_str().unwrap();
    let saving =
        ["--expectation", "bank", "--expectation-every", "2", "--warm-start", "--epochs", "5"];
    let run = |name: &str| -> PathBuf { folder.path().join(name) };
    succeed(tiny_pretrain(data, &run("whole"), &saving));
    let found = expectations(&run("whole"));
    let epochs: Vec<i64> = found.iter().map(|event| event["epoch"].as_i64().unwrap()).collect();
    assert_eq!(epochs, [1, 3, 5], "after one epoch of warm-up, every other, and at the end");
    let reused: Vec<i64> = found.iter().map(|event| event["reused"].as_i64().unwrap()).collect();
    assert_eq!(reused, [40, 40, 0], "the finished encoder is shown as it is");
    assert!(found[0]["granularities"][0]["agreement"].is_null());
    assert!(found[1]["granularities"][0]["agreement"].as_f64().unwrap() > 0.0);

    // 5 steps an epoch: stopped within epoch 2, which has no E-step of its own.
    let mut stopped = tiny_pretrain(data, &run("stopped"), &saving);
    stopped.args(["--max-steps", "12"]);
    let output = succeed(stopped);
    assert!(stderr(&output).contains("stopped and saved"));
    succeed(protonce(&["pretrain", "--out", run("stopped").to_str().unwrap(), "--resume"]));
    assert_eq!(expectations(&run("stopped")), found);
    let weights =
        |name: &str| std::fs::read(checkpoint(&run(name)).join("training.safetensors")).unwrap();
    assert!(weights("stopped") == weights("whole"), "the same bits");
}
