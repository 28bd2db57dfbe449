//! The EM loop: images and settings in, a trained encoder and its prototypes out (PCL, Algorithm 1).
//!
//! Every epoch begins with an E-step, which clusters the momentum embeddings of all images into
//! prototypes, and goes on with an M-step, gradient descent on ProtoNCE. All random choices follow
//! from the seed and from where in the run they are made, never from what happened before, so a
//! run that was killed goes on from its last checkpoint to the same bits.
//!
//! [`pretrain`] is the loop. Its two halves are `expectation` and `maximization`; `run` is what both
//! share, from opening the folder to the checkpoint; the other files each are one thing that they use.

mod batches;
mod conv_plan;
mod error;
mod expectation;
mod groups;
mod loss_sums;
mod maximization;
pub mod measure;
pub mod pace;
mod run;
mod setup;
mod share;
mod stored_prototypes;
mod validation;

use std::cell::Cell;

use protonce_run::{Method, Observer, Position, Task};

pub use error::PretrainError;
use run::Run;
pub use setup::{Setup, Start};

/// What is asked of a run between two steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Request {
    /// To go on.
    GoOn,
    /// To make a checkpoint and go on.
    Save,
    /// To make a checkpoint and end.
    Stop,
}

/// How a run came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All epochs are done.
    Finished,
    /// It was asked to stop, and saved where it was.
    Stopped,
}

/// Pretrains an encoder and leaves everything in the run folder.
///
/// `observer` is told what happens; `request` is asked after every step, and within E-steps whether to stop.
///
/// # Errors
/// Anything named in [`PretrainError`]. What was saved before stays and can be resumed.
///
/// # Panics
/// When libtorch fails, for example for lack of memory.
pub fn pretrain(
    setup: Setup,
    observer: &mut Observer,
    request: &dyn Fn() -> Request,
) -> Result<Outcome, PretrainError> {
    let config = setup.config;
    let mut run = Run::open(setup, observer)?;
    // Within an E-step nothing can be saved: that waits for the next step.
    let waiting = Cell::new(Request::GoOn);
    let stop = || {
        let asked = request();
        waiting.set(waiting.get().max(asked));
        asked == Request::Stop
    };
    let request = || waiting.replace(Request::GoOn).max(request());
    run.measure_floors()?;
    for epoch in run.epoch..config.epochs {
        // E-step: embed all images, cluster them at each granularity (lines 3 to 6).
        if run.expectation_is_due(epoch) && !run.expectation(epoch, &stop)? {
            // As if that had been asked for before.
            run.save_once()?;
            return Ok(Outcome::Stopped);
        }
        // M-step: pull every query towards its key and its prototypes (lines 7 to 14).
        let mut batches = run.batches(epoch)?;
        let steps = batches.steps();
        while let Some(batch) = batches.next()? {
            let position = Position { epoch, step: run.step, steps };
            let share = run.trainer.share(&batch)?;
            run.note_unreadable(&share.unreadable)?;
            // One image alone has nothing to be told apart from in its batch.
            if share.images.len() > 1 {
                let prototypes = run.prototypes.granularities();
                let losses = run.trainer.step(&batch, &share, prototypes, position)?;
                run.since_log += &losses;
            }
            batches.recycle(batch, share.images.len());
            run.step += 1;
            run.progress(Task::Training, run.step, steps);
            let ended = run.step == steps;
            if ended || run.step.is_multiple_of(config.log_every) {
                run.log(position, &mut batches)?;
            }
            // A checkpoint in the middle of an epoch, which leaves no trace in what follows.
            let asked = if ended { Request::GoOn } else { run.agreed(request())? };
            if asked != Request::GoOn || !ended && run.save_is_due() {
                run.save(Some(&batches), true)?;
            }
            if asked == Request::Stop {
                return Ok(Outcome::Stopped);
            }
        }
        run.end_epoch(epoch, &batches)?;
        // What the representation is worth so far, and a checkpoint.
        let (done, finished) = (epoch + 1, epoch + 1 == config.epochs);
        if finished || done.is_multiple_of(config.eval_every) {
            run.validate()?;
        }
        let asked = if finished { Request::GoOn } else { run.agreed(request())? };
        let regular = finished || done.is_multiple_of(config.save_every);
        if regular || asked != Request::GoOn || run.save_is_due() {
            run.save(None, !regular)?;
        }
        if asked == Request::Stop {
            return Ok(Outcome::Stopped);
        }
    }
    // What the finished encoder sees in the images.
    if config.method == Method::Pcl && !run.expectation(config.epochs, &stop)? {
        return Ok(Outcome::Stopped);
    }
    Ok(Outcome::Finished)
}
