//! `docs/settings.md` says what the definitions say.

use std::fmt::Write;
use std::path::Path;

use protonce_images::settings::{Kind, Setting};
use protonce_run::{Config, Preset};
use toml::{Table, Value};

/// Set to write the page instead of comparing it.
const WRITE: &str = "PROTONCE_WRITE_DOCS";

const INTRODUCTION: &str = "# Settings

Every setting is a flag of `protonce pretrain` and, under the same name, a line of a TOML file (`--config`); lists are
typed with commas (`--jitter 0.4,0.4,0.4,0.1`) and written in brackets (`jitter = [0.4, 0.4, 0.4, 0.1]`). Presets ← file
← flags: later ones win. A resumed run may change those marked ↻. Defaults are given for the presets `v1`, `v2` and
`small`, once where they agree; without `--preset`, `pretrain` chooses settings to suit the images and the machine and says
why.

This page is made of the definitions in the program: `PROTONCE_WRITE_DOCS=1 cargo test -p protonce-run --test settings`
writes it.
";

fn page() -> String {
    let presets = Preset::ALL.map(|preset| {
        let layer = Config::preset(preset.name()).unwrap();
        Config::resolve([layer]).unwrap().table().unwrap()
    });
    let settings = Config::settings();
    let mut headings: Vec<&str> = Vec::new();
    for setting in &settings {
        if !headings.contains(&setting.heading) {
            headings.push(setting.heading);
        }
    }
    let mut page = INTRODUCTION.to_owned();
    for heading in headings {
        write!(page, "\n## {heading}\n\n").unwrap();
        page += "| flag | TOML | v1, v2, small | what it does, and why one would change it |\n| --- | --- | --- | --- |\n";
        for setting in settings.iter().filter(|setting| setting.heading == heading) {
            let Setting { name, help, changeable, .. } = setting;
            let flag = flag(setting);
            let defaults = defaults(name, &presets);
            let mark = if *changeable { " ↻" } else { "" };
            let help = help.replace('|', "\\|");
            writeln!(page, "| `{flag}` | `{name}` | {defaults} | {help}{mark} |").unwrap();
        }
    }
    page
}

fn flag(setting: &Setting) -> String {
    let Setting { name, placeholder, .. } = setting;
    match (setting.positional, setting.kind) {
        (true, _) => placeholder.clone(),
        (false, Kind::Flag) => format!("--{name}"),
        (false, Kind::Name) => format!("--{name} {}", setting.names.join("\\|")),
        (false, _) => format!("--{name} {placeholder}"),
    }
}

fn defaults(name: &str, presets: &[Table; 3]) -> String {
    let values = presets.each_ref().map(|preset| default(&preset[name]));
    match values.iter().all(|value| *value == values[0]) {
        true => values[0].clone(),
        false => values.join(", "),
    }
}

fn default(value: &Value) -> String {
    let shortened = |number: f64| format!("{}", (number * 1e4).round() / 1e4);
    match value {
        Value::Boolean(false) => "off".to_owned(),
        Value::String(text) if text.is_empty() => "none".to_owned(),
        Value::String(text) => text.clone(),
        Value::Float(number) => shortened(*number),
        Value::Array(values) => {
            format!("[{}]", values.iter().map(default).collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

#[test]
fn the_page_of_settings_is_up_to_date() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/settings.md");
    let page = page();
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(&file, page).unwrap();
        return;
    }
    let found = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        found == page,
        "docs/settings.md is not what the settings are: write it with \
         {WRITE}=1 cargo test -p protonce-run --test settings"
    );
}
