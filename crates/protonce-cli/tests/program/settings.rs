//! Settings on the command line.

use protonce_run::{Config, Preset};

use crate::{protonce, succeed};

/// The help of a command, with every stretch of white space as one space.
fn help(words: &[&str]) -> String {
    let output = succeed(protonce(&[words, &["--help"]].concat()));
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn help_explains_every_setting() {
    for command in [&["pretrain"][..], &["bench", "step"], &["data", "views"]] {
        let text = help(command);
        for setting in Config::settings() {
            if command == ["data", "views"] && setting.heading != "Views"
                || command == ["bench", "step"] && setting.positional
            {
                continue;
            }
            let name = match setting.positional {
                true => format!("[{}]", setting.placeholder),
                false => format!("--{} ", setting.name),
            };
            assert!(text.contains(&name), "{name} is missing in: {text}");
            let advice = setting.help.strip_suffix('.').unwrap();
            assert!(text.contains(advice), "\"{advice}\" is missing in: {text}");
            for value in setting.names {
                assert!(text.contains(&value), "{value} is missing in: {text}");
            }
        }
        for preset in Preset::ALL {
            assert!(text.contains(preset.name()), "{preset} is missing in: {text}");
        }
    }
    assert!(help(&["bench", "step"]).contains("[DATA] Images as for `pretrain`; JPEGs made"));
}
