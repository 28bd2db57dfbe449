//! What the system says before it ends a process is heeded.
#![cfg(unix)]

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::images::write_classes;
use crate::resume::{events, last_checkpoint};
use crate::{stderr, succeed, tiny_pretrain};

/// Has a command begin with SIGHUP ignored, as under nohup, or not, whatever the tests were begun with.
fn hang_up(command: &mut Command, ignored: bool) {
    let action = if ignored { libc::SIG_IGN } else { libc::SIG_DFL };
    let set = move || {
        // SAFETY: signal(2) takes plain values and may be called between fork and exec.
        match unsafe { libc::signal(libc::SIGHUP, action) } {
            libc::SIG_ERR => Err(std::io::Error::last_os_error()),
            _ => Ok(()),
        }
    };
    // SAFETY: what runs in the child allocates nothing and takes no lock.
    unsafe { command.pre_exec(set) };
}

fn send(child: &Child, signal: i32) {
    // SAFETY: kill(2) takes plain numbers; the process is our child and not yet waited for.
    assert_eq!(unsafe { libc::kill(child.id() as i32, signal) }, 0);
}

/// Starts a run, or goes on with it, until it has taken a step.
fn at_a_step(mut command: Command, run: &Path) -> Child {
    let steps = || {
        let text = std::fs::read_to_string(run.join("events.jsonl")).unwrap_or_default();
        text.lines()
            .filter(|line| line.contains("\"event\":\"step\""))
            .map(str::to_owned)
            .next_back()
    };
    let before = steps();
    let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    while steps().is_none() || steps() == before {
        assert_eq!(child.try_wait().unwrap(), None, "the run ended before its signal");
        std::thread::sleep(Duration::from_millis(2));
    }
    child
}

#[test]
fn signals_that_announce_an_end_save_and_resume_is_bit_identical() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    write_classes(&data, &["a", "b", "c"], 13);
    let data = data.to_str().unwrap();
    let [whole, stopped, saved] =
        ["whole", "stopped", "saved"].map(|name| folder.path().join(name));
    let settings = ["--epochs", "4", "--log-every", "1"];
    succeed(tiny_pretrain(data, &whole, &settings));

    for (attempt, signal) in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP].into_iter().enumerate() {
        let more: &[&str] = if attempt == 0 { &[] } else { &["--resume"] };
        let mut command = tiny_pretrain(data, &stopped, &[&settings[..], more].concat());
        hang_up(&mut command, false);
        let child = at_a_step(command, &stopped);
        send(&child, signal);
        if signal == libc::SIGTERM {
            // From another sender: it means the same.
            send(&child, signal);
        }
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "signal {signal}: {}", stderr(&output));
        assert!(stderr(&output).contains("--resume"), "signal {signal}: {}", stderr(&output));
    }
    succeed(tiny_pretrain(data, &stopped, &[&settings[..], &["--resume"]].concat()));
    assert!(last_checkpoint(&whole) == last_checkpoint(&stopped), "the weights differ");
    assert_eq!(events(&whole), events(&stopped));

    // Saved between two steps without being stopped, and not stopped by a terminal that closes.
    let mut command = tiny_pretrain(data, &saved, &settings);
    hang_up(&mut command, true);
    let mut child = at_a_step(command, &saved);
    send(&child, libc::SIGHUP);
    let log = || std::fs::read_to_string(saved.join("events.jsonl")).unwrap();
    let within = || {
        let mut lines = log().lines().map(str::to_owned).collect::<Vec<_>>().into_iter();
        lines.any(|line| line.contains("\"event\":\"checkpoint\"") && line.contains("-step-"))
    };
    // Again where it came at the end of an epoch, which is saved anyway.
    while !within() {
        assert_eq!(child.try_wait().unwrap(), None, "the run ended without having saved");
        send(&child, libc::SIGUSR1);
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("saving after this step"), "{}", stderr(&output));
    assert!(stderr(&output).contains("epoch 4/4"), "{}", stderr(&output));
    assert!(last_checkpoint(&whole) == last_checkpoint(&saved), "the weights differ");
    assert_eq!(events(&whole), events(&saved));
}
