//! Evaluations of an encoder: what they print, and what they leave alone.

use std::path::Path;

use serde_json::Value;

use crate::images::{jpeg, write_classes};
use crate::{checkpoint, protonce, refuse, stderr, succeed, tiny_pretrain};

/// A run, and training and test images of three classes.
struct Trained {
    folder: tempfile::TempDir,
}

impl Trained {
    fn new() -> Trained {
        let folder = tempfile::tempdir().unwrap();
        write_classes(&folder.path().join("data/train"), &["a", "b", "c"], 12);
        write_classes(&folder.path().join("data/test"), &["a", "b", "c"], 5);
        let data = folder.path().join("data/train");
        let run = folder.path().join("run");
        let more = ["--method", "moco", "--epochs", "1"];
        succeed(tiny_pretrain(data.to_str().unwrap(), &run, &more));
        Trained { folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn command(&self, evaluation: &str, more: &[&str]) -> std::process::Command {
        let (run, cache) = (self.path("run"), self.path("cache"));
        let mut command = protonce(&["eval", evaluation, "--weights", &run, "--cache", &cache]);
        command.args(["--batch-size", "8", "--threads", "1"]).args(more);
        command
    }

    /// What an evaluation of the data prints with `--json`.
    fn json(&self, evaluation: &str, more: &[&str]) -> Value {
        let data = self.path("data");
        let more = [&["--data", &data, "--json"], more].concat();
        let output = succeed(self.command(evaluation, &more));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

fn percent(value: &Value) -> bool {
    value.as_f64().is_some_and(|value| (0.0..=100.0).contains(&value))
}

#[test]
fn all_evaluations_give_their_figures() {
    let trained = Trained::new();
    let encoder = checkpoint(Path::new(&trained.path("run"))).join("encoder.safetensors");
    let before = std::fs::read(&encoder).unwrap();
    let found = trained.json("all", &["--skip", "semi"]);
    let all = &found["all"];
    assert!(percent(&all["knn"][0]["top1"]) && percent(&all["linear"]["top1"]), "{found}");
    let shots: Vec<&Value> =
        all["svm"]["results"].as_array().unwrap().iter().map(|row| &row["shots"]).collect();
    // No class has sixteen images.
    assert_eq!(
        shots,
        [1, 2, 4, 8].map(Value::from).iter().chain([&Value::Null]).collect::<Vec<_>>()
    );
    assert_eq!(all["svm"]["results"][0]["runs"].as_array().unwrap().len(), 5);
    assert!(all["cluster"]["ami"].as_f64().unwrap() <= 1.0);

    // The same features, one evaluation at a time.
    for (evaluation, key) in
        [("knn", "knn"), ("linear", "linear"), ("svm", "svm"), ("cluster", "cluster")]
    {
        let more: &[&str] = if evaluation == "svm" { &["--shots", "1,2,4,8,full"] } else { &[] };
        assert_eq!(trained.json(evaluation, more)[key], all[key], "{evaluation}");
    }

    let semi = trained.json("semi", &["--fraction", "0.5", "--epochs", "1"]);
    assert_eq!(semi["semi"][0]["images"], 18);
    assert!(percent(&semi["semi"][0]["top1"]), "{semi}");
    let sgd = trained.json("linear", &["--protocol", "sgd", "--epochs", "2", "--lr", "0.1"]);
    assert_eq!(sgd["linear"]["losses"].as_array().unwrap().len(), 2);
    assert_eq!(std::fs::read(&encoder).unwrap(), before, "the weights on disk stay as they are");

    let markdown = {
        let data = trained.path("data");
        let more = ["--data", &data, "--skip", "semi,linear,svm,cluster", "--markdown"];
        succeed(trained.command("all", &more)).stdout
    };
    let markdown = String::from_utf8(markdown).unwrap();
    assert!(markdown.lines().nth(1).unwrap().starts_with("| ---"), "{markdown}");
    assert!(markdown.contains("kNN k 20"), "{markdown}");
}

#[test]
fn what_few_images_cannot_give_is_left_out_and_said() {
    let trained = Trained::new();
    let data = trained.path("data");
    let said = |evaluation: &str, more: &[&str]| {
        let more = [&["--data", &data, "--json"], more].concat();
        let output = succeed(trained.command(evaluation, &more));
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        (found, stderr(&output))
    };
    let shots = |found: &Value| -> Vec<Option<u64>> {
        let results = found["svm"]["results"].as_array().unwrap().iter();
        results.map(|row| row["shots"].as_u64()).collect()
    };
    for (asked, done, note) in [
        ("4,13,16", vec![Some(4)], "left out: SVM on 13, 16 images of each class"),
        ("12,full", vec![None], "left out: SVM on 12 images of each class, which are all"),
        ("2,2,12", vec![Some(2), Some(12)], ""),
    ] {
        let (found, text) = said("svm", &["--shots", asked]);
        assert_eq!(shots(&found), done, "{asked}");
        assert!(text.contains(note) && text.contains("note") != note.is_empty(), "{text}");
    }
    let impossible = ["--data", &data[..], "--shots", "13,200"];
    let text = refuse(trained.command("svm", &impossible), 1);
    assert!(text.contains("has 12 training images: expected 13"), "{text}");
    assert!(!text.contains("left out"), "{text}");

    // One in a hundred and one in ten of twelve images are one image.
    let shares = ["--fraction", "0.01,0.1,0.5", "--epochs", "1"];
    let (found, text) = said("semi", &shares);
    let images: Vec<&Value> =
        found["semi"].as_array().unwrap().iter().map(|row| &row["images"]).collect();
    assert_eq!(images, [3, 18]);
    assert!(text.contains("the same 3 images as another"), "{text}");

    let others = ["--per-class", "6", "--skip", "linear,semi,svm,cluster"];
    let (found, text) = said("all", &others);
    assert_eq!(found["all"]["knn"].as_array().unwrap().len(), 1);
    assert!(text.contains("kNN with 200 neighbours, which with 18 training images"), "{text}");
}

#[test]
fn retrieval_a_picture_and_untrained_weights() {
    let trained = Trained::new();
    let picture = trained.path("neighbours.png");
    let found = trained.json("knn", &["--retrieval", "--picture", &picture, "--queries", "3"]);
    let recalls = found["retrieval"].as_array().unwrap();
    let recall = |place: usize| recalls[place]["recall"].as_f64().unwrap();
    assert!(recall(0) <= recall(1) && recall(2) <= recall(3), "{found}");
    assert!(image::open(&picture).unwrap().width() > 800);

    // Another seed is another encoder; the same is the same.
    let untrained = |seed| trained.json("linear", &["--untrained", "--seed", seed, "--c", "1"]);
    assert_eq!(untrained("1")["linear"], untrained("1")["linear"]);
    let objective = |found: Value| found["linear"]["objective"].as_f64().unwrap();
    assert_ne!(objective(untrained("1")), objective(untrained("2")));
}

/// `VOCdevkit` with 24 images for training and 12 for tests, of three classes. Every third image is of
/// two classes, some labels are difficult, some lists leave images out.
fn vocdevkit(folder: &Path) {
    let root = folder.join("VOCdevkit/VOC2007");
    let lists = root.join("ImageSets/Main");
    std::fs::create_dir_all(&lists).unwrap();
    std::fs::create_dir_all(root.join("JPEGImages")).unwrap();
    for (set, first, count) in [("trainval", 0, 24), ("test", 100, 12)] {
        for (number, class) in ["bird", "cat", "dog"].iter().enumerate() {
            let mut list = String::new();
            for image in 0..count {
                let label = match image % 3 == number as u32 {
                    true => " 1",
                    false if image % 3 == 0 && number == 1 => " 1",
                    false if image % 5 == 0 => " 0",
                    // Absent: in no list but its own class's.
                    false if image % 7 == 0 => continue,
                    false => "-1",
                };
                list.push_str(&format!("{:06} {label}\n", first + image));
            }
            std::fs::write(lists.join(format!("{class}_{set}.txt")), list).unwrap();
        }
        for image in 0..count {
            let file = root.join(format!("JPEGImages/{:06}.jpg", first + image));
            std::fs::write(file, jpeg(image % 3, image)).unwrap();
        }
    }
}

#[test]
fn voc07_in_full_and_with_few_shots() {
    let trained = Trained::new();
    let voc = tempfile::tempdir().unwrap();
    vocdevkit(voc.path());
    let data = voc.path().to_str().unwrap();
    let more = ["--data", data, "--shots", "1,4,full", "--c", "0.5,1", "--json"];
    let output = succeed(trained.command("svm", &more));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["svm"]["measure"], "mean_average_precision");
    let results = found["svm"]["results"].as_array().unwrap();
    assert_eq!(results.len(), 6);
    assert!(results.iter().all(|row| percent(&row["mean"])), "{found}");
    assert_eq!(results[5]["runs"].as_array().unwrap().len(), 1);
    // Colours tell these classes apart, and all images tell more than one.
    assert!(results[4]["mean"].as_f64() >= results[0]["mean"].as_f64(), "{found}");

    // One C is the paper's setting: its figures stand beside.
    let output = succeed(trained.command("svm", &["--data", data, "--shots", "full", "--json"]));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["published"][1]["value"], 85.4);
    assert!(stderr(&output).contains("PCL v2, 200"));

    let says = |evaluation: &str, more: &[&str], words: &str| {
        let more = [&["--data", data], more].concat();
        let text = refuse(trained.command(evaluation, &more), 1);
        assert!(text.contains(words), "{text}");
    };
    says("svm", &["--shots", "9"], "has 8 training images: expected 9 or more");
    says("knn", &[], "several classes each");
    says("semi", &[], "several classes each");
}

#[test]
fn bad_input_gets_one_sentence() {
    let trained = Trained::new();
    let (train, test) = (trained.path("data/train"), trained.path("data/test"));
    let says = |evaluation: &str, more: &[&str], words: &[&str]| {
        let text = refuse(trained.command(evaluation, more), 1);
        for word in words {
            assert!(text.contains(word), "\"{word}\" is missing in: {text}");
        }
        let errors = text.lines().filter(|line| line.starts_with("protonce: ")).count();
        assert_eq!(errors, 1, "one sentence, not: {text}");
    };
    let both = ["--train", &train, "--test", &test];
    let with = |more: &[&'static str]| [&both[..], more].concat();
    says("svm", &with(&["--shots", "13"]), &["\"a\" has 12", "fewer shots"]);
    says("svm", &with(&["--shots", "none"]), &["shots", "full"]);
    says("svm", &with(&["--c", "0"]), &["\"c\" is 0"]);
    says("linear", &with(&["--c=-1"]), &["\"c\"", "above 0"]);
    says("linear", &with(&["--per-class", "1"]), &["one value"]);
    says("semi", &with(&["--fraction", "1.5"]), &["fraction", "at most 1"]);
    says("semi", &with(&["--list", "no/such/list"]), &["no/such/list"]);
    says("knn", &with(&["--k", "0"]), &["\"k\" is 0"]);
    says("cluster", &with(&["--clusters", "99"]), &["99 clusters"]);
    says("knn", &["--data", &train], &["no benchmark", "VOCdevkit"]);

    let one = trained.path("one");
    write_classes(Path::new(&one), &["a"], 4);
    for evaluation in ["knn", "linear", "svm", "semi", "cluster"] {
        says(evaluation, &["--train", &one, "--test", &one], &["one class only", "\"a\""]);
    }
    let more = trained.path("more");
    write_classes(Path::new(&more), &["a", "zebra"], 2);
    says("linear", &["--train", &train, "--test", &more], &["zebra", "a, b, c"]);
    let flat = trained.path("data/train/a");
    says("linear", &["--train", &flat, "--test", &flat], &["no labels"]);
    let missing =
        protonce(&["eval", "knn", "--weights", "no/run", "--train", &train, "--test", &test]);
    let text = refuse(missing, 1);
    assert!(text.contains("no/run"), "{text}");
    // Neither images nor a benchmark is wrong usage.
    refuse(trained.command("knn", &[]), 2);
    refuse(trained.command("knn", &["--train", &train]), 2);
}
