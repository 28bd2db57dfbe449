//! Long work beside a Python interpreter that stays responsive.
//!
//! The work is done on a thread of its own, without the interpreter's lock. The calling thread waits,
//! and every few hundredths of a second gives Python the chance to raise what a signal asks for:
//! KeyboardInterrupt after Ctrl-C. Progress is told on the calling thread, where notebooks expect it. A
//! panic of the work becomes an exception; Python would not survive it crossing the border.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use pyo3::prelude::*;

use crate::failure::Failure;

/// How long nobody asks whether a signal has arrived.
pub const PATIENCE: Duration = Duration::from_millis(50);

/// Does `work`, which tells how much it has done of how much, and hands that on to `progress`.
///
/// When Python wants to raise something, or `progress` does, `stop` is called, which has to let the
/// work end soon, and that is raised.
///
/// # Errors
/// What the work fails with, what Python raises, or a panic of the work.
pub fn watched<T: Send>(
    py: Python<'_>,
    progress: Option<&Bound<'_, PyAny>>,
    stop: impl Fn(),
    work: impl FnOnce(&mut dyn FnMut(usize, usize)) -> Result<T, Failure> + Send,
) -> Result<T, Failure> {
    let (sender, mut receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        let working = move || {
            let mut tell = |done: usize, total: usize| {
                // The receiver outlives this thread.
                let _ = sender.send((done, total));
            };
            let done = catch_unwind(AssertUnwindSafe(|| work(&mut tell)));
            done.unwrap_or_else(|panic| Err(Failure::from_panic(&*panic)))
        };
        let builder = std::thread::Builder::new().name("protonce".to_owned());
        let worker = builder.spawn_scoped(scope, working).map_err(Failure::Thread)?;
        let mut raised: Option<PyErr> = None;
        loop {
            let waiting = &mut receiver;
            let told = match py.detach(move || waiting.recv_timeout(PATIENCE)) {
                Ok((done, total)) if raised.is_none() => match progress {
                    Some(progress) => progress.call1((done, total)).map(drop),
                    None => Ok(()),
                },
                Ok(_) | Err(RecvTimeoutError::Timeout) => Ok(()),
                // The work is done.
                Err(RecvTimeoutError::Disconnected) => break,
            };
            if let Err(error) = told.and_then(|()| py.check_signals())
                && raised.is_none()
            {
                stop();
                raised = Some(error);
            }
        }
        let done = py.detach(move || worker.join());
        match raised {
            Some(error) => Err(error.into()),
            None => done.unwrap_or_else(|panic| Err(Failure::from_panic(&*panic))),
        }
    })
}

/// Does `work`, which cannot be stopped: when Python wants to raise something, it is left alone and what
/// it comes to is forgotten.
///
/// # Errors
/// What the work fails with, what Python raises, or a panic of the work.
pub fn left_alone<T: Send + 'static>(
    py: Python<'_>,
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let (sender, mut receiver) = mpsc::channel();
    let working = move || {
        let done = catch_unwind(AssertUnwindSafe(work));
        let done = done.unwrap_or_else(|panic| Err(Failure::from_panic(&*panic)));
        // Nobody may be there any more.
        let _ = sender.send(done);
    };
    let builder = std::thread::Builder::new().name("protonce".to_owned());
    builder.spawn(working).map_err(Failure::Thread)?;
    loop {
        let waiting = &mut receiver;
        match py.detach(move || waiting.recv_timeout(PATIENCE)) {
            Ok(done) => return done,
            Err(RecvTimeoutError::Timeout) => py.check_signals()?,
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Failure::Panic("a thread ended without a word".to_owned()));
            }
        }
    }
}

/// Does short work without the interpreter's lock, on the calling thread.
///
/// # Errors
/// What the work fails with, or a panic of the work.
pub fn at_once<T: Send>(
    py: Python<'_>,
    work: impl FnOnce() -> Result<T, Failure> + Send,
) -> Result<T, Failure> {
    let done = py.detach(|| catch_unwind(AssertUnwindSafe(work)));
    done.unwrap_or_else(|panic| Err(Failure::from_panic(&*panic)))
}
