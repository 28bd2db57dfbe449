//! `protonce completions` and `protonce man`: what shells and `man` want to know of the commands, out of
//! the definitions that parse them.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

use protonce_cli::commands::Arguments;
use protonce_cli::output::print;

use crate::Definitions;

/// What is typed after `protonce completions`.
#[derive(Args)]
pub struct CompletionsArguments {
    /// The shell: bash reads ~/.local/share/bash-completion/completions/protonce, fish
    /// ~/.config/fish/completions/protonce.fish, and zsh a file _protonce in a folder of its fpath.
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// What is typed after `protonce man`.
#[derive(Args)]
pub struct ManArguments {
    /// Folder for the pages, made where it is missing: ~/.local/share/man/man1, for example.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Prints the completions of one shell.
pub fn completions(arguments: &CompletionsArguments) -> anyhow::Result<()> {
    let mut command = Arguments::<Definitions>::command();
    // Printed in one piece, so that a closed pipe is an error like others and not a panic.
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, "protonce", &mut script);
    Ok(print(String::from_utf8_lossy(&script))?)
}

/// Writes `protonce.1`, `protonce-pretrain.1`, `protonce-eval-knn.1` and so on.
pub fn man(arguments: &ManArguments) -> anyhow::Result<()> {
    let out: &Path = &arguments.out;
    let failed = || format!("cannot write manual pages to {}", out.display());
    std::fs::create_dir_all(out).with_context(failed)?;
    clap_mangen::generate_to(Arguments::<Definitions>::command(), out).with_context(failed)
}
