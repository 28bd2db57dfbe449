//! Runs as large as they get, made up in the exact formats: what their reports cost, and how they
//! feel. Minutes long, so only on request:
//!
//! ```sh
//! cargo test --release -p protonce-cli --test program -- --ignored --nocapture large
//! ```
//!
//! The images are CIFAR-10's; PROTONCE_CIFAR10 names them where they are elsewhere.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::browser::Browser;
use crate::images::write_classes;
use crate::{protonce, succeed, tiny_pretrain};

const IMAGES: usize = 50_000;
const EPOCHS: usize = 10_000;
const DIM: usize = 128;
const CLUSTERS: [usize; 3] = [1000, 2000, 4000];

/// A number from −1 to 1 that follows from two others.
fn noise(a: usize, b: usize) -> f32 {
    let mut x = (a as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (b as u64) << 17;
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((x >> 40) as f32) / (1 << 23) as f32 - 1.0
}

/// The centre of a prototype: near its parent's, which is near its class's.
fn centre(m: usize, prototype: usize) -> Vec<f32> {
    let scale = [0.8, 0.5, 0.4][m];
    let parent = match m {
        0 => (0..DIM).map(|d| noise(prototype % 10, d)).collect(),
        _ => centre(m - 1, prototype % CLUSTERS[m - 1]),
    };
    let own = |d: usize| scale * noise(7919 * (m + 1) + prototype, d);
    parent.iter().enumerate().map(|(d, value): (usize, &f32)| value + own(d)).collect()
}

fn unit(mut row: Vec<f32>) -> Vec<f32> {
    let length = row.iter().map(|value| value * value).sum::<f32>().sqrt();
    row.iter_mut().for_each(|value| *value /= length);
    row
}

/// Writes safetensors: name, type, shape and bytes of each.
fn write_tensors(path: &Path, tensors: &[(String, &str, Vec<usize>, Vec<u8>)]) {
    let mut header = serde_json::Map::new();
    let mut bytes: Vec<u8> = Vec::new();
    for (name, dtype, shape, data) in tensors {
        let offsets = [bytes.len(), bytes.len() + data.len()];
        let entry = serde_json::json!({ "dtype": dtype, "shape": shape, "data_offsets": offsets });
        header.insert(name.clone(), entry);
        bytes.extend(data);
    }
    let header = serde_json::to_vec(&header).unwrap();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header);
    file.extend(bytes);
    std::fs::write(path, file).unwrap();
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// A run of 10 000 epochs over 50 000 images.
fn large_run(folder: &Path, images: &str) -> PathBuf {
    let (data, run) = (folder.join("data"), folder.join("run"));
    write_classes(&data, &["a"], 10);
    succeed(tiny_pretrain(data.to_str().unwrap(), &run, &["--epochs", "1"]));
    let settings = std::fs::read_to_string(run.join("config.toml")).unwrap();
    let settings = settings.replace(data.to_str().unwrap(), images);
    let settings = settings.replace("epochs = 1\n", &format!("epochs = {EPOCHS}\n"));
    std::fs::write(run.join("config.toml"), settings).unwrap();
    std::fs::remove_dir_all(run.join("checkpoints")).unwrap();
    std::fs::remove_dir_all(run.join("prototypes")).unwrap();
    std::fs::create_dir(run.join("prototypes")).unwrap();

    let mut log = String::new();
    for epoch in 0..EPOCHS {
        let loss = 4.0 + 4.0 / (1.0 + epoch as f32 / 900.0);
        for step in 1..=4 {
            let loss = loss + 0.3 * noise(epoch, step);
            writeln!(
                log,
                "{{\"event\":\"step\",\"epoch\":{epoch},\"step\":{},\"steps\":196,\"loss\":{loss},\"instance_loss\":{},\"instance_accuracy\":80.0,\"prototype_loss\":{},\"prototype_accuracy\":60.0,\"learning_rate\":0.03,\"images\":12500,\"seconds\":200,\"images_per_second\":62.5,\"waited\":1.5}}",
                step * 49,
                loss * 0.6,
                loss * 0.4
            )
            .unwrap();
        }
        if epoch % 5 == 0 {
            writeln!(
                log,
                "{{\"event\":\"evaluation\",\"epoch\":{},\"knn\":{{\"20\":{},\"200\":{}}},\"chance\":10.0,\"seconds\":9}}",
                epoch + 1,
                85.0 - 40.0 / (1.0 + epoch as f32 / 700.0),
                83.0 - 40.0 / (1.0 + epoch as f32 / 700.0)
            )
            .unwrap();
        }
    }
    writeln!(
        log,
        "{{\"event\":\"expectation\",\"epoch\":{EPOCHS},\"images\":{IMAGES},\"granularities\":[]}}"
    )
    .unwrap();
    std::fs::write(run.join("events.jsonl"), log).unwrap();

    // Images come in order of class, 5000 each; every class has a tenth of the prototypes.
    let prototype = |m: usize, image: usize, epoch: usize| {
        let moved = usize::from(noise(image, epoch) > 0.9);
        let within = (image + moved) * 7919 % (CLUSTERS[2] / 10);
        (image / 5000 + 10 * within) % CLUSTERS[m]
    };
    let centres: Vec<Vec<Vec<f32>>> = CLUSTERS
        .iter()
        .enumerate()
        .map(|(m, &count)| (0..count).map(|p| unit(centre(m, p))).collect())
        .collect();
    for epoch in [EPOCHS - 2, EPOCHS - 1, EPOCHS] {
        let mut tensors = Vec::new();
        for (m, &count) in CLUSTERS.iter().enumerate() {
            let assignment: Vec<u8> = (0..IMAGES)
                .flat_map(|image| (prototype(m, image, epoch) as i64).to_le_bytes())
                .collect();
            let phi: Vec<f32> = (0..count).map(|p| 0.2 + 0.05 * noise(p, m)).collect();
            tensors.push((format!("assignment.{m}"), "I64", vec![IMAGES], assignment));
            let rows = floats(&centres[m].concat());
            tensors.push((format!("prototypes.{m}"), "F32", vec![count, DIM], rows));
            tensors.push((format!("concentration.{m}"), "F32", vec![count], floats(&phi)));
        }
        write_tensors(&run.join(format!("prototypes/epoch-{epoch:04}.safetensors")), &tensors);
    }
    let rows: Vec<f32> = (0..IMAGES)
        .flat_map(|image| {
            let centre = &centres[2][prototype(2, image, EPOCHS)];
            unit(centre.iter().enumerate().map(|(d, v)| v + 0.03 * noise(image, d)).collect())
        })
        .collect();
    let tensors = [("embeddings".to_owned(), "F32", vec![IMAGES, DIM], floats(&rows))];
    write_tensors(&run.join("prototypes/embeddings.safetensors"), &tensors);
    run
}

#[test]
#[ignore = "takes minutes, and looks at times; see the module"]
fn large_run_is_reported_within_bounds_and_feels_light() {
    let images = std::env::var("PROTONCE_CIFAR10").unwrap_or_else(|_| {
        concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data/cifar10.tar").to_owned()
    });
    assert!(Path::new(&images).exists(), "no CIFAR-10 at {images}; name it in PROTONCE_CIFAR10");
    let folder = tempfile::tempdir().unwrap();
    let run = large_run(folder.path(), &format!("{images}#train"));

    let start = Instant::now();
    let arguments = ["report", run.to_str().unwrap(), "--json", "--quiet"];
    let mut child = protonce(&arguments).stdout(Stdio::piped()).spawn().unwrap();
    let mut most = 0;
    let status = loop {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id()));
        let peak = status.ok().and_then(|status| {
            let line = status.lines().find(|line| line.starts_with("VmHWM:"))?.to_owned();
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        });
        most = most.max(peak.unwrap_or(0));
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(status.success());
    let page = run.join("report.html");
    let bytes = std::fs::metadata(&page).unwrap().len();
    println!(
        "report of {IMAGES} images, {EPOCHS} epochs: {:?}, {} MB of memory, {:.1} MB",
        start.elapsed(),
        most / 1024,
        bytes as f64 / 1e6
    );
    assert!(bytes < 15_000_000);
    if let Ok(kept) = std::env::var("PROTONCE_SCREENSHOTS") {
        std::fs::create_dir_all(&kept).unwrap();
        std::fs::copy(&page, format!("{kept}/large.html")).unwrap();
    }

    let Some(mut browser) = Browser::start() else { return };
    let loaded = browser.open(&format!("file://{}", page.display()));
    browser.until("document.querySelectorAll('.curve').length > 8");
    println!("opened and drawn in {loaded:.2} s");
    let frames = "(async (act) => { const times = []; let before = performance.now(); \
        for (let i = 0; i < 120; i++) { act(i); await new Promise(requestAnimationFrame); \
        const now = performance.now(); times.push(now - before); before = now; } \
        times.sort((a, b) => a - b); return `median ${times[60].toFixed(1)} ms, 95 % ${times[114].toFixed(1)} ms`; })";
    let scrolling =
        browser.text(&format!("{frames}((i) => scrollTo({{ top: i * 90, behavior: 'instant' }}))"));
    println!("a frame while scrolling: {scrolling}");
    browser.value("document.querySelector('.mapbox').scrollIntoView({ block: 'center', behavior: 'instant' })");
    let wheel = "document.querySelector('.mapbox canvas').focus(), document.activeElement.dispatchEvent(new WheelEvent('wheel', { deltaY: i < 60 ? -30 : 30, clientX: 640, clientY: 450, cancelable: true }))";
    let zooming = browser.text(&format!("{frames}((i) => ({wheel}))"));
    println!(
        "a frame while zooming the map of {} images: {zooming}",
        browser.number("content.runs[0].analysis.sampled")
    );
    browser.picture("large-map", false);
    assert_eq!(browser.complaints, [""; 0]);
}
