//! What the system asks of a long command: to stop, or to save and go on.
//!
//! Ctrl-C, and SIGTERM and SIGHUP, by which clusters and rented machines say that time is up, ask for
//! a stop; SIGUSR1 asks a command that can for a save. A second Ctrl-C ends the program at once; the
//! others may well come twice, from more than one sender, and do not. A program that was started under
//! `nohup` lives on when its terminal closes. Where there are no such signals, Ctrl-C alone is heard.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;

/// What was asked for so far.
#[derive(Clone, Default)]
pub struct Signals {
    stop: Arc<AtomicBool>,
    save: Arc<AtomicBool>,
}

/// What a command does when it is told to stop, and to save if it can: what is said then. Nothing is said
/// where it is empty.
#[derive(Clone, Copy)]
pub struct Answers {
    /// To a stop.
    pub stop: &'static str,
    /// To a save; none where there is nothing to save.
    pub save: Option<&'static str>,
}

impl Signals {
    /// Hears signals from now on.
    pub fn listen(answers: Answers) -> anyhow::Result<Signals> {
        let signals = Signals::default();
        signals.clone().hear(answers).context("cannot listen for signals")?;
        Ok(signals)
    }

    /// Whether to stop.
    pub fn stop(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Whether to save, which is told once.
    pub fn take_save(&self) -> bool {
        self.save.swap(false, Ordering::Relaxed)
    }

    #[cfg(unix)]
    fn hear(self, answers: Answers) -> std::io::Result<()> {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};

        let mut heard = vec![SIGINT, SIGTERM];
        if !is_ignored(SIGHUP) {
            heard.push(SIGHUP);
        }
        if answers.save.is_some() {
            heard.push(SIGUSR1);
        }
        let mut signals = signal_hook::iterator::Signals::new(heard)?;
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            let mut interrupted = false;
            for signal in signals.forever() {
                if signal == SIGUSR1 {
                    if let Some(answer) = answers.save.filter(|answer| !answer.is_empty()) {
                        say!("{answer}");
                    }
                    self.save.store(true, Ordering::Relaxed);
                    continue;
                }
                if signal == SIGINT && std::mem::replace(&mut interrupted, true) {
                    std::process::exit(130);
                }
                if !self.stop.swap(true, Ordering::Relaxed) && !answers.stop.is_empty() {
                    say!("\n{}", answers.stop);
                }
            }
        })?;
        Ok(())
    }

    #[cfg(not(unix))]
    fn hear(self, _answers: Answers) -> std::io::Result<()> {
        use signal_hook::{consts::SIGINT, flag};

        // The second Ctrl-C finds the flag of the first.
        flag::register_conditional_shutdown(SIGINT, 130, self.stop.clone())?;
        flag::register(SIGINT, self.stop).map(|_| ())
    }
}

/// Whether whoever started the program had it ignore a signal, as `nohup` does.
#[cfg(unix)]
fn is_ignored(signal: i32) -> bool {
    let mut now = std::mem::MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: with no new action given, sigaction(2) changes nothing and fills in the present one, which is
    // read only where it says that it has done so.
    unsafe {
        libc::sigaction(signal, std::ptr::null(), now.as_mut_ptr()) == 0
            && now.assume_init().sa_sigaction == libc::SIG_IGN
    }
}
