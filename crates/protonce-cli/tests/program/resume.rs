//! A run survives being killed.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use protonce_run::PrototypesFile;

use crate::images::write_classes;
use crate::{checkpoint, refuse, succeed, tiny_pretrain};

const EPOCHS: &str = "14";

/// Every file of the last checkpoint that training depends on.
pub fn last_checkpoint(run: &Path) -> [Vec<u8>; 2] {
    ["encoder.safetensors", "training.safetensors"]
        .map(|file| std::fs::read(checkpoint(run).join(file)).unwrap())
}

/// Events of a run, without how long things took and on how many threads, and without the checkpoints in
/// the middle of an epoch, which depend on that.
pub fn events(run: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(run.join("events.jsonl")).unwrap();
    let timings = ["seconds", "images_per_second", "waited", "communicated", "embedding_seconds"];
    text.lines()
        .map(|line| {
            let mut event: serde_json::Value = serde_json::from_str(line).unwrap();
            let fields = event.as_object_mut().unwrap();
            fields.retain(|name, _| !timings.contains(&name.as_str()));
            fields.remove("clustering_seconds");
            fields.remove("threads");
            event
        })
        .filter(|event| event["event"] != "checkpoint" || event["step"] == 0)
        .collect()
}

#[test]
fn resume_after_kill_is_bit_identical() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    write_classes(&data, &["a", "b", "c"], 13);
    let data = data.to_str().unwrap();
    let (whole, killed) = (folder.path().join("whole"), folder.path().join("killed"));

    let start = SystemTime::now();
    succeed(tiny_pretrain(data, &whole, &["--epochs", EPOCHS]));
    let whole_run = start.elapsed().unwrap();

    // Moments anywhere in the life of a process: while it starts, trains, writes a checkpoint. None
    // lives past its first checkpoint for long, so that ten of them do not reach the end of the run.
    let mut random = start.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64 | 1;
    for kill in 0..10 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let moment = whole_run.mul_f64((random % 1000) as f64 / 1000.0 * 0.2);
        let resume: &[&str] = match killed.join("config.toml").exists() {
            true => &["--epochs", EPOCHS, "--resume"],
            false => &["--epochs", EPOCHS],
        };
        let last = || std::fs::read_to_string(killed.join("checkpoints/last")).ok();
        let before = last();
        let mut command = tiny_pretrain(data, &killed, resume);
        let mut child = command.stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let born = Instant::now();
        while born.elapsed() < moment && last() == before {
            std::thread::sleep(Duration::from_millis(2));
        }
        // SIGKILL: nothing in the process can soften it.
        child.kill().unwrap();
        let status = child.wait().unwrap();
        println!("kill {kill} after {:?}, last checkpoint {:?}: {status}", born.elapsed(), last());
        assert!(!status.success(), "the run was over before its kill");
    }
    if killed.join("config.toml").exists() {
        succeed(tiny_pretrain(data, &killed, &["--epochs", EPOCHS, "--resume"]));
    } else {
        succeed(tiny_pretrain(data, &killed, &["--epochs", EPOCHS]));
    }

    assert!(last_checkpoint(&whole) == last_checkpoint(&killed), "the weights differ");
    assert_eq!(events(&whole), events(&killed));
}

/// Has a command write no file beyond 1 MB, as on a disk that is nearly full: events and prototypes
/// still fit, a checkpoint does not.
#[cfg(unix)]
fn nearly_full(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    let limit = libc::rlimit { rlim_cur: 1_000_000, rlim_max: 1_000_000 };
    let limited = move || {
        // SAFETY: both calls take plain values and may be made between fork and exec. Ignored, the
        // signal leaves an error of the write, as a full disk does.
        let failed = unsafe {
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN) == libc::SIG_ERR
                || libc::setrlimit(libc::RLIMIT_FSIZE, &limit) != 0
        };
        if failed { Err(std::io::Error::last_os_error()) } else { Ok(()) }
    };
    // SAFETY: what runs in the child allocates nothing and takes no lock.
    unsafe { command.pre_exec(limited) };
}

#[cfg(unix)]
#[test]
fn a_full_disk_ends_in_one_sentence_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    write_classes(&data, &["a", "b", "c"], 13);
    let data = data.to_str().unwrap();
    let (whole, full) = (folder.path().join("whole"), folder.path().join("full"));
    succeed(tiny_pretrain(data, &whole, &["--epochs", "4"]));

    let without_room = |more: &[&str]| {
        let mut command = tiny_pretrain(data, &full, more);
        nearly_full(&mut command);
        let sentence = refuse(command, 1);
        assert!(sentence.contains("cannot write"), "{sentence}");
        assert_eq!(sentence.matches("File too large").count(), 1, "{sentence}");
        for entry in std::fs::read_dir(full.join("checkpoints")).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap().to_string_lossy().starts_with('.') {
                let left = std::fs::read_dir(&path).unwrap().count();
                assert_eq!(left, 0, "{} takes the room that lacks", path.display());
            }
        }
    };
    without_room(&["--epochs", "4"]);

    let resume = ["--epochs", "4", "--resume"];
    let mut command = tiny_pretrain(data, &full, &resume);
    let mut child = command.stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    while !full.join("checkpoints/last").exists() {
        assert_eq!(child.try_wait().unwrap(), None, "the run ended before its first checkpoint");
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();

    let before = last_checkpoint(&full);
    without_room(&resume);
    assert!(before == last_checkpoint(&full), "the last checkpoint changed");
    succeed(tiny_pretrain(data, &full, &resume));
    assert!(last_checkpoint(&whole) == last_checkpoint(&full), "the weights differ");
    assert_eq!(events(&whole), events(&full));
}

/// What the published settings leave off, all at once.
const EVERY_OPTION: &str = "--head mlp-bn --queue-negatives other-prototypes --duplicates mask \
    --local-views 2 --local-size 8 --decorrelation 0.05 --schedule cosine-by-step \
    --lr-warmup 0.2 --momentum-schedule cosine --prototype-weight 0.5 --initial-size 8 \
    --bn-splits 2 --solarise-probability 0.2 --key-views weak --hierarchy tree --prototype-ramp 1 \
    --expectation bank --warm-start --freeze-stages 1 --shuffle local --log-every 3 --epochs 4";

#[test]
fn every_option_at_once_resumes_to_the_same_bits_on_any_loader_threads() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    write_classes(&data, &["a", "b", "c"], 13);
    let data = data.to_str().unwrap();
    let run = |name: &str| folder.path().join(name);
    let options: Vec<&str> = EVERY_OPTION.split_whitespace().collect();
    let with = |more: &[&'static str]| [&options[..], more].concat();

    succeed(tiny_pretrain(data, &run("whole"), &with(&["--loader-threads", "1"])));
    // 5 steps an epoch: stopped in the third, whose images are larger than those of the first.
    let stopped = with(&["--loader-threads", "3", "--max-steps", "12"]);
    succeed(tiny_pretrain(data, &run("stopped"), &stopped));
    succeed(tiny_pretrain(data, &run("stopped"), &with(&["--loader-threads", "2", "--resume"])));
    assert!(
        last_checkpoint(&run("whole")) == last_checkpoint(&run("stopped")),
        "the weights differ"
    );
    assert_eq!(events(&run("whole")), events(&run("stopped")));

    // With a checkpoint at every step, killed after one in the middle of the first epoch, of one with
    // prototypes, and of the last.
    let killed = run("killed");
    let last = || std::fs::read_to_string(killed.join("checkpoints/last")).unwrap_or_default();
    for (attempt, epoch) in
        ["epoch-0000-step", "epoch-0002-step", "epoch-0003-step"].iter().enumerate()
    {
        let mut every_step = with(&["--loader-threads", "2", "--save-minutes", "1e-9"]);
        if attempt > 0 {
            every_step.push("--resume");
        }
        let mut command = tiny_pretrain(data, &killed, &every_step);
        let mut child = command.stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        while !last().starts_with(epoch) {
            assert_eq!(child.try_wait().unwrap(), None, "the run ended before its kill");
            std::thread::sleep(Duration::from_millis(2));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        println!("killed at {}", last());
    }
    succeed(tiny_pretrain(data, &killed, &with(&["--resume"])));
    assert!(last_checkpoint(&run("whole")) == last_checkpoint(&killed), "the weights differ");
    assert_eq!(events(&run("whole")), events(&killed));
    let left = std::fs::read_dir(killed.join("checkpoints")).unwrap().flatten();
    let left: Vec<_> = left.map(|entry| entry.file_name().into_string().unwrap()).collect();
    assert!(!left.iter().any(|name| name.contains("step")), "{left:?}");

    // The prototypes of a tree: images that share a fine one share a coarse one.
    let prototypes = run("whole").join("prototypes/epoch-0003.safetensors");
    let mut prototypes = PrototypesFile::open(&prototypes).unwrap().read().unwrap();
    prototypes.sort_by_key(|granularity| granularity.count());
    for level in prototypes.windows(2) {
        let [coarser, finer] = level else { panic!("two levels") };
        let mut parents = vec![None; finer.count()];
        for (&fine, &coarse) in finer.assignment.iter().zip(&coarser.assignment) {
            assert_eq!(*parents[fine as usize].get_or_insert(coarse), coarse);
        }
    }
}
