//! What shells and `man` are told about the program.

use std::fs;
use std::process::Command;

use crate::{protonce, refuse, succeed};

/// What bash offers for the last of `words`, by the script that the program prints.
fn offered_by_bash(words: &[&str]) -> Vec<String> {
    let script = succeed(protonce(&["completions", "bash"])).stdout;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("protonce.bash");
    fs::write(&file, script).unwrap();
    // As bash itself calls it: the command, the word to be completed, the word before.
    let ask = "source \"$1\"; shift; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); \
               _protonce \"$1\" \"${@: -1}\" \"${@: -2:1}\"; printf '%s\\n' \"${COMPREPLY[@]}\"";
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-euc", ask, "bash"]).arg(&file).arg("protonce").args(words);
    let said = String::from_utf8(succeed(bash).stdout).unwrap();
    said.lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_flags_and_values() {
    assert_eq!(offered_by_bash(&["pre"]), ["pretrain"]);
    assert_eq!(offered_by_bash(&["eval", "li"]), ["linear"]);
    assert_eq!(offered_by_bash(&["pretrain", "--encoder-m"]), ["--encoder-momentum"]);
    assert_eq!(offered_by_bash(&["pretrain", "--method", ""]), ["pcl", "moco"]);
}

#[test]
fn every_shell_gets_completions_and_others_are_refused() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = String::from_utf8(succeed(protonce(&["completions", shell])).stdout).unwrap();
        assert!(script.contains("encoder-momentum"), "{shell}");
    }
    let text = refuse(protonce(&["completions", "cmd"]), 2);
    assert!(text.contains("cmd") && text.contains("fish"), "{text}");
}

#[test]
fn each_command_has_a_manual_page_with_all_its_flags() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("share/man1");
    succeed(protonce(&["man", "--out", out.to_str().unwrap()]));
    let page = |name: &str| fs::read_to_string(out.join(format!("{name}.1"))).unwrap();
    for command in [&["pretrain"][..], &["embed"], &["eval", "knn"], &["data", "pack"]] {
        // In the manual's source, a hyphen that is to be shown as one is escaped.
        let manual = page(&format!("protonce-{}", command.join("-"))).replace('\\', "");
        assert!(manual.contains(".TH protonce-") && manual.contains(".SH OPTIONS"), "{manual}");
        let help = succeed(protonce(&[command, &["--help"]].concat())).stdout;
        let help = String::from_utf8(help).unwrap();
        let flags: Vec<&str> = help
            .split_whitespace()
            .filter(|word| word.starts_with("--"))
            .map(|word| word.trim_end_matches(|c: char| !c.is_alphanumeric()))
            .collect();
        assert!(flags.len() > 3, "{help}");
        for flag in flags {
            assert!(manual.contains(flag), "{flag} is missing in: {manual}");
        }
    }
    assert!(page("protonce").contains("protonce\\-pretrain(1)"));

    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let text = refuse(protonce(&["man", "--out", file.to_str().unwrap()]), 1);
    assert!(text.contains("cannot write manual pages"), "{text}");
}
