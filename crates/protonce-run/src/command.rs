//! The command that makes a run again.

use toml::{Table, Value};

use crate::settings::{Config, ConfigError};

impl Config {
    /// The `protonce pretrain` command that makes this run again in `out`: the preset that is nearest
    /// to these settings, and a flag for every setting that differs from it.
    ///
    /// # Errors
    /// When a value cannot be written as TOML.
    pub fn command(&self, out: &str) -> Result<String, ConfigError> {
        let shown = self.without_secrets();
        let settings = shown.table()?;
        let mut best: Option<(&str, Vec<(String, Value)>)> = None;
        for preset in ["v2", "v1", "small"] {
            let flags = flags(preset, &settings)?;
            if best.as_ref().is_none_or(|(_, least)| flags.len() < least.len()) {
                best = Some((preset, flags));
            }
        }
        let (preset, flags) = best.unwrap_or_default();
        let mut words = vec!["protonce".to_owned(), "pretrain".to_owned(), quoted(&shown.data)];
        words.extend(["--out".to_owned(), quoted(out), "--preset".to_owned(), preset.to_owned()]);
        for (name, value) in flags {
            words.push(format!("--{name}"));
            if value != Value::Boolean(true) {
                words.push(quoted(&text(&value)));
            }
        }
        Ok(words.join(" "))
    }
}

/// What the settings have beyond a preset.
fn flags(preset: &str, settings: &Table) -> Result<Vec<(String, Value)>, ConfigError> {
    // Other settings follow from the image size.
    let image_size = settings.get_key_value("image-size").map(|(k, v)| (k.clone(), v.clone()));
    let layer = Table::from_iter(image_size);
    let mut compared = Config::resolve([Config::preset(preset)?, layer])?.table()?;
    compared.extend(Config::preset(preset)?.remove_entry("image-size"));
    // What runs usually settle where presets leave it open.
    if settings.get("shuffle").and_then(Value::as_str) == Some("full") {
        compared.insert("shuffle".to_owned(), "full".into());
    }
    let differs =
        |(name, value): &(&String, &Value)| *name != "data" && compared.get(*name) != Some(value);
    let flags = settings.iter().filter(differs);
    Ok(flags.map(|(name, value)| (name.clone(), value.clone())).collect())
}

/// A setting as it is typed.
pub fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(text).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// A word for a POSIX shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "_./,:=+@%#-".contains(c);
    if !word.is_empty() && !word.starts_with(['#', '-']) && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(preset: &str, more: &str) -> Config {
        Config::resolve([Config::preset(preset).unwrap(), more.parse().unwrap()]).unwrap()
    }

    #[test]
    fn only_what_differs_from_the_nearest_preset_is_said() {
        let small = config("small", "data = 'cifar10.tar#train'\nepochs = 20\nshuffle = 'full'");
        assert_eq!(
            small.command("run").unwrap(),
            "protonce pretrain cifar10.tar#train --out run --preset small --epochs 20"
        );
        let larger = config("small", "data = 'photos'\nimage-size = 64\nwarm-start = true");
        assert_eq!(
            larger.command("run").unwrap(),
            "protonce pretrain photos --out run --preset small --image-size 64 --warm-start"
        );
        let v1 = config("v1", "data = 'my photos'\nclusters = [5, 10]\nimage-size = 64");
        assert_eq!(
            v1.command("it's").unwrap(),
            "protonce pretrain 'my photos' --out 'it'\\''s' --preset v1 --clusters 5,10 --image-size 64"
        );
    }
}
