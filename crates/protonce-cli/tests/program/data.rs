//! Packed files: whatever takes images takes them, and packing survives being killed.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use image::{Rgb, RgbImage};
use serde_json::Value;

use crate::images::write_classes;
use crate::live::Server;
use crate::resume::last_checkpoint;
use crate::{protonce, succeed, tiny_pretrain};

fn json(arguments: &[&str]) -> Value {
    serde_json::from_slice(&succeed(protonce(arguments)).stdout).unwrap()
}

/// The `loader` lines of a run's log.
fn loader_lines(run: &Path) -> Vec<Value> {
    let log = fs::read_to_string(run.join("events.jsonl")).unwrap();
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|event| event["event"] == "loader").collect()
}

#[test]
fn a_packed_file_goes_wherever_images_go() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    write_classes(&at("images"), &["a", "b", "c"], 14);
    let (images, pack) = (at("images"), at("images.pack"));
    let (images, pack) = (images.to_str().unwrap(), pack.to_str().unwrap());
    let packed = json(&["data", "pack", images, "--out", pack, "--encoding", "raw", "--json"]);
    assert_eq!((&packed["images"], &packed["resumed"]), (&42.into(), &0.into()));
    assert_eq!(json(&["data", "check", pack, "--json"])["readable"], 42);

    // The same bits whatever the number of threads, and after a stop.
    let settings = ["--shuffle", "local", "--stats", "auto", "--epochs", "3"];
    for (run, threads) in [("one", "1"), ("three", "3")] {
        let more = [&settings[..], &["--loader-threads", threads]].concat();
        succeed(tiny_pretrain(pack, &at(run), &more));
        let lines = loader_lines(&at(run));
        assert_eq!(lines.len(), 3);
        for line in lines {
            assert_eq!(
                (&line["images"], &line["threads"].to_string()),
                (&42.into(), &threads.into())
            );
            let (waited, seconds) = (line["waited"].as_f64(), line["seconds"].as_f64());
            assert!(waited.unwrap() <= seconds.unwrap());
        }
    }
    assert!(last_checkpoint(&at("one")) == last_checkpoint(&at("three")), "the weights differ");
    let stopped = [&settings[..], &["--max-steps", "8"]].concat();
    succeed(tiny_pretrain(pack, &at("stopped"), &stopped));
    // What was settled when the run began is not asked again.
    succeed(tiny_pretrain(pack, &at("stopped"), &[&settings[..], &["--resume"]].concat()));
    assert!(last_checkpoint(&at("one")) == last_checkpoint(&at("stopped")), "the weights differ");
    let settled = fs::read_to_string(at("stopped/config.toml")).unwrap();
    assert!(settled.contains("shuffle = \"local\"") && settled.contains("stats = \"given\""));
    assert!(!settled.contains("0.485"), "the mean is that of the images: {settled}");

    let run = at("one");
    let weights = run.to_str().unwrap();
    let [of_folder, of_pack] = [images, pack].map(|data| {
        let knn = ["eval", "knn", "--weights", weights, "--train", data, "--test", data, "--json"];
        let out = at(&format!("{}.npy", data.len()));
        let embed = ["embed", "--weights", weights, "--data", data, "--out", out.to_str().unwrap()];
        succeed(protonce(&embed));
        (json(&knn)["knn"].clone(), fs::read(out).unwrap())
    });
    assert!(of_folder == of_pack, "features differ");

    let report = json(&["report", weights, "--json", "--quiet"]);
    assert_eq!((&report["thumbnails"], &report["map"]), (&42.into(), &42.into()));
    let (status, picture) = Server::start(&[&run]).get("/runs/0/images/7");
    assert_eq!(status, 200);
    image::load_from_memory(&picture).unwrap();
}

#[test]
fn a_run_from_before_some_settings_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (data, run) = (folder.path().join("data"), folder.path().join("run"));
    write_classes(&data, &["a", "b"], 12);
    let data = data.to_str().unwrap();
    succeed(tiny_pretrain(data, &run, &["--epochs", "2"]));
    let settings = fs::read_to_string(run.join("config.toml")).unwrap();
    let later = ["stats", "shuffle", "expectation", "warm-start", "solarise", "local-"];
    let earlier: Vec<&str> =
        settings.lines().filter(|line| !later.iter().any(|name| line.starts_with(name))).collect();
    assert!(earlier.len() + 10 <= settings.lines().count(), "{settings}");
    fs::write(run.join("config.toml"), earlier.join("\n")).unwrap();
    succeed(tiny_pretrain(data, &run, &["--epochs", "3", "--resume"]));
    succeed(protonce(&["report", run.to_str().unwrap()]));
}

#[test]
fn packing_that_is_killed_goes_on_to_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("images")).unwrap();
    // Four pictures under many names: more than three shards of pixels for little work.
    for number in 0..90u32 {
        let path = at(&format!("images/{number:02}.bmp"));
        if number < 4 {
            let colour = |x: u32, y: u32| Rgb([x as u8, y as u8, (number * 50 + x * y) as u8]);
            RgbImage::from_fn(1000, 800, colour).save(path).unwrap();
        } else {
            fs::hard_link(at(&format!("images/{:02}.bmp", number % 4)), path).unwrap();
        }
    }
    let pack = |out: &str| {
        let (images, out) = (at("images"), at(out));
        let (images, out) = (images.to_str().unwrap(), out.to_str().unwrap());
        protonce(&["data", "pack", images, "--out", out, "--encoding", "raw", "--json"])
    };
    succeed(pack("whole.pack"));

    let (partial, killed) = (at("killed.pack.partial"), at("killed.pack"));
    let length = || fs::metadata(&partial).map_or(0, |metadata| metadata.len());
    // Before there is a file, at its header, and in or after each shard.
    for bytes in [0, 1, 10 << 20, 66 << 20, 100 << 20, 140 << 20] {
        let mut child =
            pack("killed.pack").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        while length() < bytes && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        // SIGKILL: nothing in the process can soften it.
        child.kill().unwrap();
        let status = child.wait().unwrap();
        println!("killed with {} bytes of {bytes}: {status}", length());
        assert!(!status.success() && !killed.exists(), "the file was packed before its kill");
    }
    let last: Value = serde_json::from_slice(&succeed(pack("killed.pack")).stdout).unwrap();
    assert!(last["resumed"].as_u64().unwrap() > 26, "a shard was packed before: {last}");
    assert!(!partial.exists());
    let same = fs::read(&killed).unwrap() == fs::read(at("whole.pack")).unwrap();
    assert!(same, "the packed files differ");
}
