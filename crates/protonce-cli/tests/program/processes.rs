//! One run over several processes. The test sets the variables that torchrun would set.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use crate::images::write_classes;
use crate::resume::{events, last_checkpoint};
use crate::{stderr, succeed, tiny_pretrain};

/// A port that nobody listens at.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Starts `size` processes of the command that `of_rank` makes for each.
fn launch(size: usize, of_rank: impl Fn(usize) -> Command) -> Vec<Child> {
    let port = free_port().to_string();
    let start = |rank: usize| {
        let mut command = of_rank(rank);
        let (rank, size) = (rank.to_string(), size.to_string());
        command.envs([("RANK", &rank), ("WORLD_SIZE", &size)]);
        // Two are started as if by hand: nothing says that they are on one machine.
        if size.as_str() != "2" {
            command.envs([("LOCAL_RANK", &rank), ("LOCAL_WORLD_SIZE", &size)]);
        }
        command.envs([("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", port.as_str())]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    (0..size).map(start).collect()
}

fn wait(processes: Vec<Child>) -> Vec<Output> {
    processes.into_iter().map(|process| process.wait_with_output().unwrap()).collect()
}

/// Lets `size` processes do what must succeed.
fn succeed_in(size: usize, of_rank: impl Fn(usize) -> Command) {
    for (rank, output) in wait(launch(size, of_rank)).iter().enumerate() {
        assert!(output.status.success(), "process {rank} of {size}: {}", stderr(output));
        assert!(
            rank == 0 || stderr(output).is_empty(),
            "only the first speaks: {}",
            stderr(output)
        );
    }
}

/// What happened in a run, whoever shared it.
fn course(run: &Path) -> Vec<serde_json::Value> {
    let mut events = events(run);
    events.retain(|event| event["event"] != "world");
    events
}

fn assert_same(run: &Path, whole: &Path) {
    assert_eq!(course(run), course(whole), "{}", run.display());
    assert!(last_checkpoint(run) == last_checkpoint(whole), "weights of {}", run.display());
    let files = |run: &Path| {
        let folder = std::fs::read_dir(run.join("prototypes")).unwrap();
        let mut files: Vec<_> = folder
            .map(|entry| {
                let path = entry.unwrap().path();
                (path.file_name().unwrap().to_owned(), std::fs::read(path).unwrap())
            })
            .collect();
        files.sort();
        files
    };
    assert!(files(run) == files(whole), "prototypes of {}", run.display());
}

#[test]
fn one_two_and_four_processes_come_to_the_same_bits_also_by_turns() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    // 21 images, of which two cannot be read: batches of 8, the last of which is smaller.
    write_classes(&data, &["a", "b"], 10);
    std::fs::write(data.join("a/007.png"), "no image").unwrap();
    std::fs::write(data.join("b/torn.png"), "nor this").unwrap();
    let data = data.to_str().unwrap();
    let run = |name: &str| folder.path().join(name);

    // Much as published; groups of two images.
    let settings = ["--epochs", "2", "--bn-splits", "4", "--head", "mlp", "--max-bad", "0.2"];
    let measured = ["--eval-train", data, "--eval-test", data, "--log-every", "1"];
    let settings = [&settings[..], &measured, &["--loader-threads", "1"]].concat();
    succeed(tiny_pretrain(data, &run("whole"), &settings));
    for (size, name) in [(2, "two"), (4, "four")] {
        succeed_in(size, |_| tiny_pretrain(data, &run(name), &settings));
        assert_same(&run(name), &run("whole"));
    }

    // Each of these stops in another place, and another number of processes goes on.
    for (size, more) in [
        (4, &["--max-steps", "1"][..]),
        (2, &["--resume", "--max-steps", "2"]),
        (1, &["--resume-or-begin", "--max-steps", "1"]),
        (4, &["--resume"]),
    ] {
        succeed_in(size, |_| tiny_pretrain(data, &run("turns"), &[&settings[..], more].concat()));
    }
    assert!(last_checkpoint(&run("turns")) == last_checkpoint(&run("whole")), "by turns");
}

#[test]
fn every_option_comes_to_the_same_bits_in_two_processes() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    write_classes(&data, &["a", "b"], 9);
    let data = data.to_str().unwrap();
    let run = |name: &str| folder.path().join(name);
    let settings = "--head mlp-bn --queue-negatives other-prototypes --duplicates mask \
        --local-views 2 --local-size 8 --decorrelation 0.05 --schedule cosine-by-step \
        --initial-size 8 --bn-splits 2 --hierarchy tree --expectation bank --warm-start \
        --checkpoint-blocks --epochs 2 --loader-threads 1";
    let settings: Vec<&str> = settings.split_whitespace().collect();
    succeed(tiny_pretrain(data, &run("whole"), &settings));
    succeed_in(2, |_| tiny_pretrain(data, &run("two"), &settings));
    assert_same(&run("two"), &run("whole"));
}

#[test]
fn a_killed_process_ends_the_others_and_the_same_command_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    write_classes(&data, &["a", "b"], 8);
    let data = data.to_str().unwrap();
    let run = |name: &str| folder.path().join(name);
    let settings = ["--epochs", "3", "--log-every", "1", "--resume-or-begin"];
    let command = |name: &'static str| move |_| tiny_pretrain(data, &run(name), &settings);
    succeed_in(2, command("whole"));
    for killed in [1, 0] {
        let mut processes = launch(2, command("killed"));
        let events = run("killed").join("events.jsonl");
        let steps = || {
            let text = std::fs::read_to_string(&events).unwrap_or_default();
            text.matches("\"step\"").count()
        };
        let before = steps();
        while steps() <= before {
            assert!(processes[0].try_wait().unwrap().is_none(), "the run ended by itself");
            std::thread::sleep(Duration::from_millis(5));
        }
        processes[killed].kill().unwrap();
        let outputs = wait(processes);
        let said = stderr(&outputs[1 - killed]);
        assert_eq!(outputs[1 - killed].status.code(), Some(1), "{said}");
        assert!(said.contains("another process has ended"), "{said}");
    }
    succeed_in(2, command("killed"));
    assert!(last_checkpoint(&run("killed")) == last_checkpoint(&run("whole")), "weights differ");
}

#[cfg(unix)]
#[test]
fn an_interrupt_of_any_process_saves_once_and_ends_all() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    write_classes(&data, &["a", "b"], 10);
    let data = data.to_str().unwrap();
    let run = folder.path().join("run");
    let settings = ["--epochs", "1000", "--log-every", "1", "--save-every", "1000"];
    let processes = launch(2, |_| tiny_pretrain(data, &run, &settings));
    while !std::fs::read_to_string(run.join("events.jsonl")).unwrap_or_default().contains("loss") {
        std::thread::sleep(Duration::from_millis(5));
    }
    // SAFETY: kill(2) takes plain numbers; the process is our child and not yet waited for.
    assert_eq!(unsafe { libc::kill(processes[1].id() as i32, libc::SIGINT) }, 0);
    for output in wait(processes) {
        assert!(output.status.success(), "{}", stderr(&output));
    }
    let events = std::fs::read_to_string(run.join("events.jsonl")).unwrap();
    let saved: Vec<bool> =
        events.lines().map(|line| line.contains("\"event\":\"checkpoint\"")).collect();
    assert_eq!(saved.iter().filter(|saved| **saved).count(), 1);
    assert_eq!(saved.last(), Some(&true));
}

#[test]
fn what_one_process_finds_wrong_all_say() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    write_classes(&data, &["a", "b"], 10);
    let data = data.to_str().unwrap();
    let run = folder.path().join("run");
    let refused = |of_rank: &dyn Fn(usize) -> Command, sentences: [&str; 2]| {
        for (output, sentence) in wait(launch(2, of_rank)).iter().zip(sentences) {
            let said = stderr(output);
            assert!(!output.status.success() && said.contains(sentence), "{said}");
            assert_eq!(
                said.lines().filter(|line| line.starts_with("protonce:")).count(),
                1,
                "{said}"
            );
        }
    };
    let with = |more: &[&str]| tiny_pretrain(data, &run, more);
    refused(
        &|rank| with(&["--lr", if rank == 1 { "0.5" } else { "0.1" }]),
        [
            "process 1 has ended: process 1 has another set of settings",
            "has another set of settings",
        ],
    );
    let three =
        "3 groups of batch norm (--bn-splits) cannot be dealt evenly to 2 processes: start 1 or 3";
    refused(&|_| with(&["--bn-splits", "3"]), [three, three]);
    let other = folder.path().join("other");
    write_classes(&other, &["a", "c"], 10);
    let other = other.to_str().unwrap();
    refused(
        &|rank| tiny_pretrain(if rank == 1 { other } else { data }, &run, &[]),
        ["process 1 has another set of images", "process 1 has another set of images"],
    );
    // Only the first process writes, and where it cannot, all hear why.
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let below = file.join("run");
    refused(
        &|_| tiny_pretrain(data, &below, &[]),
        ["cannot write", "process 0 has ended: cannot write"],
    );
}
