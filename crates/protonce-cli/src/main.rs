//! The `protonce` program: argument structs, progress bars and exit codes. The work is done by the
//! library.
//!
//! Results go to stdout, progress and whatever else is said to stderr. With `--json`, one JSON object goes
//! to stdout and nothing else does. Exit status: 0 done, 2 wrong usage, 141 when whoever reads the result
//! wants no more of it, 1 anything else.

#[macro_use]
mod output;

mod bench;
mod cluster;
mod data;
mod destination;
mod embed;
mod eval;
mod flags;
mod manual;
mod objects;
mod panics;
mod pictures;
mod plan;
mod pretrain;
mod processes;
mod progress;
mod report;
#[cfg(feature = "serve")]
mod serve;
mod signals;
mod threads;
mod weights;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use output::{CLOSED_PIPE, OutputError};

/// jemalloc, for libtorch as well: it overrides `malloc` in the whole process.
///
/// Activations come and go by the gigabyte each step. glibc hands such blocks back to the system as
/// soon as they are freed, and getting them again costs a page fault for every 4 KiB: 640 000 a step
/// of ResNet-18 at batch 256, a sixth of the step on two AVX2 cores. glibc can be told to keep them,
/// but then leaves more holes than jemalloc.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Huge pages, and memory that was freed is kept for the next step. A C string under a thin pointer,
/// which is what jemalloc looks for under this name.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(non_upper_case_globals)]
// SAFETY: jemalloc declares the symbol `const char *malloc_conf`; nothing else has that name.
#[unsafe(export_name = "malloc_conf")]
pub static malloc_conf: &[u8; 65] =
    b"thp:always,metadata_thp:auto,dirty_decay_ms:-1,muzzy_decay_ms:-1\0";

/// Learns image representations without labels, by prototypical contrastive learning (PCL).
#[derive(Parser)]
#[command(name = "protonce", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    objects: objects::CacheFlags,
}

#[derive(Subcommand)]
enum Command {
    /// Pretrain an encoder on a pile of images.
    Pretrain(Box<pretrain::Arguments>),
    /// Measure what a pretrained encoder is worth.
    #[command(subcommand)]
    Eval(Box<eval::Command>),
    /// Write the features or embeddings of images to a file, and find the nearest ones.
    Embed(Box<embed::Arguments>),
    /// Take weights over from other tools and hand them on.
    #[command(subcommand)]
    Weights(weights::Command),
    /// Group any embeddings by k-means, and compare the groups with labels.
    Cluster(cluster::Arguments),
    /// Write a page that shows what a run discovered and how it went.
    Report(report::Arguments),
    /// Show the same page live while runs go on.
    #[cfg(feature = "serve")]
    Serve(serve::Arguments),
    /// Measure this machine.
    #[command(subcommand)]
    Bench(bench::Command),
    /// Look at a pile of images, or pack it into one fast file.
    #[command(subcommand)]
    Data(data::Command),
    /// Print what makes a shell complete this program's commands, flags and values.
    Completions(manual::CompletionsArguments),
    /// Write the manual pages: one of each command.
    Man(manual::ManArguments),
}

fn main() -> ExitCode {
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

fn run() -> anyhow::Result<()> {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        // What was asked for, such as help, is a result.
        Err(asked) if !asked.use_stderr() => {
            asked.print().map_err(OutputError::from)?;
            return Ok(std::io::stdout().flush().map_err(OutputError::from)?);
        }
        Err(wrong) => wrong.exit(),
    };
    arguments.objects.apply();
    match arguments.command {
        Command::Pretrain(arguments) => pretrain::run(&arguments),
        Command::Eval(command) => eval::run(&command),
        Command::Embed(arguments) => embed::run(&arguments),
        Command::Weights(command) => weights::run(&command),
        Command::Cluster(arguments) => cluster::run(&arguments),
        Command::Report(arguments) => report::run(&arguments),
        #[cfg(feature = "serve")]
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Bench(command) => bench::run(&command),
        Command::Data(command) => data::run(&command),
        Command::Completions(arguments) => manual::completions(&arguments),
        Command::Man(arguments) => manual::man(&arguments),
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
