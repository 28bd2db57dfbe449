//! The program `protonce`: does what needs no tensors, and becomes the engine for the rest.

use std::env::{args_os, consts::EXE_SUFFIX, current_exe};
use std::ffi::OsString;
use std::process::{Command as Process, ExitCode};

use anyhow::Context;
use clap::Args;
use protonce_cli::commands::{Arguments, Command, Engine};
#[cfg(feature = "serve")]
use protonce_cli::serve;
use protonce_cli::{data, report};

/// Words that the engine understands.
#[derive(Args)]
#[command(disable_help_flag = true)]
struct HandedOn {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    _words: Vec<OsString>,
}

struct Elsewhere;

impl Engine for Elsewhere {
    type Pretrain = HandedOn;
    type Eval = HandedOn;
    type Embed = HandedOn;
    type Weights = HandedOn;
    type Cluster = HandedOn;
    type Bench = HandedOn;
    type Completions = HandedOn;
    type Man = HandedOn;
}

fn main() -> ExitCode {
    // The engine has the help of every command.
    let helps = args_os().nth(1).is_some_and(|first| first == "help");
    protonce_cli::execute(|| if helps { become_engine() } else { run(protonce_cli::parse()?) })
}

fn run(arguments: Arguments<Elsewhere>) -> anyhow::Result<()> {
    arguments.objects.apply();
    match arguments.command {
        Command::Data(command) => data::run(&command),
        Command::Report(arguments) => report::run(&arguments),
        #[cfg(feature = "serve")]
        Command::Serve(arguments) => serve::run(&arguments),
        _ => become_engine(),
    }
}

/// Gives this process, with everything that was typed, to the engine, which lies beside this program.
fn become_engine() -> anyhow::Result<()> {
    let own =
        current_exe().and_then(|own| own.canonicalize()).context("cannot find this program")?;
    let path = own.with_file_name(format!("protonce-engine{EXE_SUFFIX}"));
    let mut words = args_os();
    let name = words.next().unwrap_or_else(|| "protonce".into());
    let mut engine = Process::new(&path);
    engine.args(words);
    #[cfg(unix)]
    let error = {
        use std::os::unix::process::CommandExt;
        engine.arg0(name).exec()
    };
    #[cfg(not(unix))]
    let error = match engine.status() {
        Ok(status) => std::process::exit(status.code().unwrap_or(1)),
        Err(error) => error,
    };
    Err(error).with_context(|| {
        format!("cannot start {}, which belongs beside {}", path.display(), own.display())
    })
}
