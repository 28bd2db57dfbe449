//! What the program `protonce` needs before any tensor: commands on files alone, flags, output and
//! exit codes.
//!
//! Results go to stdout, progress and whatever else is said to stderr. With `--json`, one JSON object goes
//! to stdout and nothing else does. Exit status: 0 done, 2 wrong usage, 141 when whoever reads the result
//! wants no more of it, 1 anything else.
//!
//! There are two programs, since loading libtorch takes longer than many commands do. `protonce` answers
//! what needs no tensors and starts `protonce-engine`, which lies beside it, for the rest. The engine
//! knows all commands; run by itself it is the whole program.

#[macro_use]
pub mod output;

pub mod commands;
pub mod data;
pub mod flags;
pub mod objects;
pub mod panics;
pub mod report;
#[cfg(feature = "serve")]
pub mod serve;
pub mod signals;

use std::io::Write;
use std::panic::UnwindSafe;
use std::process::ExitCode;

use output::{CLOSED_PIPE, OutputError};

/// What was typed.
///
/// # Errors
/// When help was asked for and could not be written. Ends the program after help and wrong usage.
pub fn parse<A: clap::Parser>() -> anyhow::Result<A> {
    match A::try_parse() {
        Ok(arguments) => Ok(arguments),
        // What was asked for, such as help, is a result.
        Err(asked) if !asked.use_stderr() => {
            asked.print().map_err(OutputError::from)?;
            std::io::stdout().flush().map_err(OutputError::from)?;
            std::process::exit(0)
        }
        Err(wrong) => wrong.exit(),
    }
}

/// Runs the program, and says in one sentence why it failed if it did.
pub fn execute(run: impl FnOnce() -> anyhow::Result<()> + UnwindSafe) -> ExitCode {
    // A panic ends in one sentence too: libtorch reports errors, such as a lack of memory, that way.
    panics::record();
    let result = std::panic::catch_unwind(run);
    let error = match result {
        Ok(Ok(())) => return ExitCode::SUCCESS,
        Ok(Err(error)) => error,
        Err(panic) => anyhow::anyhow!("{}", explain(&*panic)),
    };
    if let Some(OutputError::Closed) = error.downcast_ref() {
        return ExitCode::from(CLOSED_PIPE);
    }
    say!("protonce: {}", with_place(sentence(&error), panics::place()));
    match error.downcast_ref::<protonce_run::ConfigError>() {
        Some(_) => ExitCode::from(2),
        None => ExitCode::FAILURE,
    }
}

/// An error and its causes, each once: many say their cause within their own sentence.
pub fn sentence(error: &anyhow::Error) -> String {
    let mut said = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !said.contains(&cause) {
            said = format!("{said}: {cause}");
        }
    }
    said
}

/// A sentence that asks for a report says where the panic happened; others have no use for that.
fn with_place(sentence: String, place: Option<String>) -> String {
    match place {
        Some(place) if sentence.contains("please report") => format!("{sentence} (at {place})"),
        _ => sentence,
    }
}

/// One sentence out of a panic's message.
fn explain(panic: &(dyn std::any::Any + Send)) -> String {
    let message = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    // libtorch appends its whole call stack.
    let first = message.split("\\n").next().unwrap_or(message).lines().next().unwrap_or(message);
    if message.contains("out of memory") || message.contains("can't allocate memory") {
        return format!("out of memory; use a smaller --batch-size or --image-size ({first})");
    }
    format!("met a bug, please report it: {first}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bug_is_told_with_its_place_and_a_lack_of_memory_without() {
        let place = || Some("protonce/src/encoder/mod.rs:7".to_owned());
        let said = |message: &'static str| with_place(explain(&message), place());
        let bug = "met a bug, please report it: shapes differ (at protonce/src/encoder/mod.rs:7)";
        assert_eq!(said("shapes differ\nC++ stack"), bug);
        let memory = "out of memory; use a smaller --batch-size or --image-size (DefaultCPUAllocator: \
                      can't allocate memory)";
        assert_eq!(said("DefaultCPUAllocator: can't allocate memory\nC++ stack"), memory);
        assert_eq!(with_place("no such file".to_owned(), place()), "no such file");
    }
}
