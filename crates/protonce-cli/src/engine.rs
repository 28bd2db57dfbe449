//! The engine of the program `protonce`: every command. The work is done by the library; here are
//! argument structs and progress bars of what needs tensors.

mod bench;
mod cluster;
mod destination;
mod embed;
mod eval;
mod manual;
mod pictures;
mod plan;
mod pretrain;
mod processes;
mod progress;
mod threads;
mod weights;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use protonce_cli::commands::{Arguments, Command, Engine};
#[cfg(feature = "serve")]
use protonce_cli::serve;
use protonce_cli::{data, report};

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

/// The definitions of what commands take.
struct Definitions;

impl Engine for Definitions {
    type Pretrain = pretrain::Arguments;
    type Eval = OneOf<eval::Command>;
    type Embed = embed::Arguments;
    type Weights = OneOf<weights::Command>;
    type Cluster = cluster::Arguments;
    type Bench = OneOf<bench::Command>;
    type Completions = manual::CompletionsArguments;
    type Man = manual::ManArguments;
}

/// One of the commands within a command.
#[derive(Args)]
struct OneOf<C: Subcommand> {
    #[command(subcommand)]
    command: C,
}

fn main() -> ExitCode {
    protonce_cli::execute(run)
}

fn run() -> anyhow::Result<()> {
    let arguments: Arguments<Definitions> = protonce_cli::parse()?;
    arguments.objects.apply();
    match arguments.command {
        Command::Pretrain(arguments) => pretrain::run(&arguments),
        Command::Eval(arguments) => eval::run(&arguments.command),
        Command::Embed(arguments) => embed::run(&arguments),
        Command::Weights(arguments) => weights::run(&arguments.command),
        Command::Cluster(arguments) => cluster::run(&arguments),
        Command::Report(arguments) => report::run(&arguments),
        #[cfg(feature = "serve")]
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments.command),
        Command::Data(command) => data::run(&command),
        Command::Completions(arguments) => manual::completions(&arguments),
        Command::Man(arguments) => manual::man(&arguments),
    }
}
