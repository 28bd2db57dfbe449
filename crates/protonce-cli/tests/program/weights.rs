//! Weights handed on, and embeddings on disk.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use protonce::weights::{Export, Target, Weights, export};

use crate::images::{picture, write_classes};
use crate::{protonce, refuse, stderr, stdout, succeed, tiny_pretrain};

/// Networks as every tool has them.
const PUBLISHED: &[&str] = &["--base-channels", "64"];

/// A run, trained with whatever `more` adds.
fn run_in(folder: &Path, more: &[&str]) -> (String, String) {
    let data = folder.join("data");
    write_classes(&data, &["a", "b", "c"], 14);
    let data = data.to_str().unwrap().to_owned();
    let run = folder.join("run");
    let settings = ["--epochs", "2", "--eval-train", &data, "--eval-test", &data];
    succeed(tiny_pretrain(&data, &run, &[&settings[..], more].concat()));
    (data, run.to_str().unwrap().to_owned())
}

fn json(output: &std::process::Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_run_goes_out_with_a_card_and_means_the_same_wherever_weights_are_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let (data, run) = run_in(folder.path(), PUBLISHED);
    let shown = json(&succeed(protonce(&["weights", "show", &run, "--json"])));
    for target in ["torchvision", "timm", "pcl", "safetensors", "detectron2", "onnx"] {
        let out = folder.path().join(format!("weights.{target}"));
        let out = out.to_str().unwrap();
        let export = ["weights", "export", &run, "--to", target, "--out", out, "--json"];
        let export = [&export[..], &["--licence", "CC0-1.0"]].concat();
        let exported = json(&succeed(protonce(&export)));
        assert_eq!(exported["files"].as_array().unwrap().len(), 3);

        let card = std::fs::read(format!("{out}.card.json")).unwrap();
        let card: serde_json::Value = serde_json::from_slice(&card).unwrap();
        assert_eq!(card["card"]["method"], "pcl");
        assert_eq!(card["card"]["epochs"], 2);
        assert_eq!(card["card"]["licence"], "CC0-1.0");
        assert_eq!(card["card"]["data"]["name"], "data");
        assert_eq!(card["card"]["data"]["images"], 42);
        assert!(card["card"]["evaluation"]["knn"].is_object());
        assert_eq!(card["card"]["settings"]["queue"], 50);
        let text = std::fs::read_to_string(format!("{out}.card.md")).unwrap();
        assert!(text.contains("CC0-1.0") && text.contains("Prototypical"), "{text}");
        // Where the images lay on this machine goes nowhere.
        assert!(!text.contains(&data) && !card.to_string().contains(&data));

        if ["torchvision", "pcl", "safetensors"].contains(&target) {
            let again = json(&succeed(protonce(&["weights", "show", out, "--json"])));
            assert_eq!(again["checksum"], shown["checksum"], "{target}");
        }
        if target == "safetensors" {
            let same = json(&succeed(protonce(&["weights", "diff", &run, out, "--json"])));
            assert_eq!(same["same"], true);
            let knn = |weights| {
                let eval = ["eval", "knn", "--weights", weights, "--train", &data, "--test", &data];
                let eval = [&eval[..], &["--no-cache", "--json"]].concat();
                json(&succeed(protonce(&eval)))["knn"].clone()
            };
            assert!(knn(out).is_array());
            assert_eq!(knn(out), knn(&run));
        }
    }
    let text = refuse(protonce(&["weights", "export", &run, "--to", "keras", "--out", "x"]), 2);
    assert!(text.contains("torchvision, timm"), "{text}");
    let pcl = folder.path().join("weights.pcl");
    let text = stdout(&succeed(protonce(&["weights", "show", pcl.to_str().unwrap()])));
    assert!(text.contains("module.encoder_k.conv1.weight (no part"), "{text}");
}

#[test]
fn weights_that_diverged_are_refused_by_every_command_in_the_same_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let (data, run) =
        run_in(folder.path(), &[PUBLISHED, &["--method", "moco", "--epochs", "1"]].concat());
    let out = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    for (target, value) in
        [(Target::Safetensors, f64::NAN), (Target::Pcl, f64::INFINITY), (Target::Timm, f64::NAN)]
    {
        let mut weights = Weights::read(Path::new(&run)).unwrap();
        let broken = weights.tensors.iter_mut().filter(|(name, _)| name.starts_with("layer2.0.bn"));
        for (_, tensor) in broken.filter(|(_, tensor)| tensor.is_floating_point()) {
            let _ = tensor.get(3).fill_(value);
        }
        let names = weights.tensors.iter().map(|(name, _)| name);
        let first = names.clone().find(|name| name.starts_with("layer2.0.bn")).unwrap().clone();
        let file = out("diverged");
        let options = Export { target, head: true, fold: false, licence: None };
        export(&weights, &Vec::new(), &options, Path::new(&file)).unwrap();
        let sentence = format!("{file}: its tensor {first} has numbers that are NaN or infinite");
        let (imported, rows, again) = (out("imported"), out("rows.npy"), out("again"));
        for command in [
            &["weights", "import", &file, "--out", &imported][..],
            &["embed", "--weights", &file, "--data", &data, "--out", &rows],
            &["eval", "knn", "--weights", &file, "--train", &data, "--test", &data],
            &["pretrain", &data, "--out", &again, "--init", &file, "--epochs", "1"],
        ] {
            let text = refuse(protonce(command), 1);
            assert!(text.contains(&sentence), "{command:?}: {text}");
            assert_eq!(text.lines().count(), 1, "one sentence, not: {text}");
        }
        assert!(![imported, rows, again].iter().any(|left| Path::new(left).exists()));
    }
}

#[test]
fn what_was_chosen_in_a_file_is_said_by_every_command_that_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    let (data, run) =
        run_in(folder.path(), &[PUBLISHED, &["--method", "moco", "--epochs", "1"]].concat());
    let out = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    // The published layout, with the momentum encoder beside the query encoder.
    let file = out("weights.pth.tar");
    succeed(protonce(&["weights", "export", &run, "--to", "pcl", "--out", &file]));
    let note = format!("note: {file}: it holds 2 encoders: taken is \"module.encoder_q.\"");
    let (imported, rows) = (out("imported"), out("rows.npy"));
    for command in [
        &["weights", "import", &file, "--out", &imported][..],
        &["weights", "show", &file],
        &["embed", "--weights", &file, "--data", &data, "--out", &rows],
        &["eval", "knn", "--no-cache", "--weights", &file, "--train", &data, "--test", &data],
    ] {
        let text = stderr(&succeed(protonce(command)));
        assert!(text.contains(&note) && text.contains("module.encoder_k."), "{command:?}: {text}");
    }
    for prefix in ["module.encoder_k.", "module.encoder_k"] {
        let import = ["weights", "import", &file, "--out", &imported, "--prefix", prefix];
        assert!(!stderr(&succeed(protonce(&import))).contains("note"));
    }
}

#[test]
fn embeddings_of_a_killed_run_are_those_of_an_undisturbed_one() {
    let folder = tempfile::tempdir().unwrap();
    let (data, run) = run_in(folder.path(), &[]);
    std::fs::write(Path::new(&data).join("b/broken.png"), "no image").unwrap();
    // Many images out of a few.
    let list = folder.path().join("list.txt");
    let names = (0..240).flat_map(|_| {
        ["a", "b", "c"]
            .map(|class| (0..14).map(move |n| format!("data/{class}/{n:03}.png\t{class}\n")))
    });
    let mut lines: String = names.flatten().collect();
    lines.push_str("data/b/broken.png\tb\n");
    std::fs::write(&list, lines).unwrap();
    let list = list.to_str().unwrap();
    let embed = |out: &Path| {
        let mut command = protonce(&["embed", "--weights", &run, "--data", list]);
        command.args(["--out", out.to_str().unwrap(), "--json"]);
        command
    };
    let rows = |name: &str| {
        let out = folder.path().join(name);
        let report = json(&succeed(embed(&out)));
        assert_eq!(report["summary"]["rows"], 240 * 42);
        assert_eq!(report["summary"]["unreadable"][0]["name"], "data/b/broken.png");
        std::fs::read(out).unwrap()
    };
    let whole = rows("whole.npy");

    let killed = folder.path().join("killed.npy");
    let mut child = embed(&killed).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let state = folder.path().join(".killed.npy.partial/state.json");
    let mut waited = 0;
    while !state.exists() {
        std::thread::sleep(Duration::from_millis(5));
        waited += 1;
        assert!(waited < 20_000, "no part of the embeddings is ever safe");
    }
    // SIGKILL: nothing in the process can soften it.
    child.kill().unwrap();
    assert!(!child.wait().unwrap().success(), "it was over before its kill");
    assert!(!killed.exists());
    // As after a power cut: the end of the rows is torn.
    let raw = state.with_file_name("rows.f32");
    let mut bytes = std::fs::read(&raw).unwrap();
    bytes.extend([9; 1001]);
    std::fs::write(&raw, bytes).unwrap();
    assert!(rows("killed.npy") == whole, "the resumed file differs");
    assert!(!state.exists());
    // Done is done.
    let before = std::fs::metadata(&killed).unwrap().modified().unwrap();
    rows("killed.npy");
    assert_eq!(std::fs::metadata(&killed).unwrap().modified().unwrap(), before);
}

#[test]
fn every_format_holds_the_same_rows_names_and_labels() {
    let folder = tempfile::tempdir().unwrap();
    // Untrained, for a few steps on such images make all rows alike.
    let (data, run) = run_in(folder.path(), &["--lr", "0"]);
    std::fs::write(Path::new(&data).join("b/broken,\"name\".png"), "no image").unwrap();
    let query = folder.path().join("query.png");
    picture(1, 3).save(&query).unwrap();
    let drawn = folder.path().join("drawn.png");
    let mut files = Vec::new();
    for ending in ["npy", "safetensors", "parquet", "csv"] {
        let out = folder.path().join(format!("rows.{ending}"));
        let out = out.to_str().unwrap().to_owned();
        let mut command = protonce(&["embed", "--weights", &run, "--data", &data, "--out", &out]);
        command.args(["--output", "embeddings", "--json"]);
        if ending != "csv" {
            command.args(["--nearest", query.to_str().unwrap(), "--count", "3"]);
            command.args(["--draw", drawn.to_str().unwrap()]);
        }
        let report = json(&succeed(command));
        assert_eq!(report["summary"]["rows"], 42);
        if ending != "csv" {
            // The query is one of the images.
            assert_eq!(report["nearest"][0]["name"], "b/003.png");
            assert!(report["nearest"][0]["similarity"].as_f64().unwrap() > 0.999);
            assert_eq!(report["nearest"].as_array().unwrap().len(), 3);
            assert!(image::open(&drawn).unwrap().width() > 300);
            std::fs::remove_file(&drawn).unwrap();
        }
        files.push(out);
    }
    let rows = |file: &str| protonce::embeddings::read(file).unwrap();
    let npy = rows(&files[0]);
    assert_eq!((npy.dim(), npy.values().len()), (128, 42 * 128));
    for file in &files[1..3] {
        assert_eq!(rows(file).values(), npy.values(), "{file}");
    }
    let labels = protonce::embeddings::read_labels(&format!("{}#labels", files[1])).unwrap();
    assert_eq!(labels, (0..3).flat_map(|class| [class; 14]).collect::<Vec<i64>>());
    let text = std::fs::read_to_string(&files[3]).unwrap();
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(lines[0][..4], ["index", "name", "label", "0"]);
    assert_eq!(lines[1][..3], ["0", "a/000.png", "a"]);
    // One image of b is missing, so its rows' numbers skip one.
    assert_eq!(lines[42][..3], ["42", "c/013.png", "c"]);
    let csv: Vec<f32> =
        lines[1..].iter().flat_map(|line| &line[3..]).map(|text| text.parse().unwrap()).collect();
    assert_eq!(csv, npy.values());
    let images = std::fs::read_to_string(format!("{}.images.csv", files[0])).unwrap();
    assert_eq!(images.lines().nth(1), Some("0,a/000.png,a"));

    let embed = ["embed", "--weights", &run, "--data", &data, "--out"];
    // A bare name, in the current folder.
    let mut bare = protonce(&[&embed[..], &["bare.npy"]].concat());
    bare.current_dir(folder.path());
    succeed(bare);
    assert!(folder.path().join("bare.npy").exists());
    let text = refuse(protonce(&[&embed[..], &["rows.txt"]].concat()), 1);
    assert!(text.contains(".parquet"), "{text}");
}
