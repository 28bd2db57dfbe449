//! The settings of a run as flags.
//!
//! Every flag is made of its setting's definition in `protonce-run` or `protonce-images`; nothing here
//! names one. What was typed becomes a layer of settings that holds only what was given, so that the
//! layers below show.

use std::path::Path;
use std::str::FromStr;

use anyhow::Context;
use clap::builder::{PossibleValuesParser, StringValueParser, TypedValueParser, ValueParser};
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use protonce_images::settings::{Kind, Setting};
use protonce_run::{Clusters, Config, ConfigError, Preset};
use toml::{Table, Value};

/// Flags for every setting of a run, and its images by position.
pub type RunFlags = SettingFlags<false>;

/// Flags for what a view looks like.
pub type ViewFlags = SettingFlags<true>;

/// What was typed for settings: for all, or for those of views alone.
pub struct SettingFlags<const OF_VIEWS: bool>(pub Table);

impl<const OF_VIEWS: bool> SettingFlags<OF_VIEWS> {
    fn settings() -> impl Iterator<Item = Setting> {
        let wanted = |setting: &Setting| !OF_VIEWS || setting.heading == "Views";
        Config::settings().into_iter().filter(wanted)
    }
}

impl<const OF_VIEWS: bool> Args for SettingFlags<OF_VIEWS> {
    fn augment_args(command: Command) -> Command {
        command.args(Self::settings().map(argument))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<const OF_VIEWS: bool> FromArgMatches for SettingFlags<OF_VIEWS> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = Self::settings().filter_map(|setting| {
            let value = match setting.kind {
                Kind::Flag => matches.get_flag(&setting.name).then_some(Value::Boolean(true)),
                _ => matches.get_one(&setting.name).cloned(),
            };
            value.map(|value| (setting.name, value))
        });
        Ok(SettingFlags(given.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0.extend(Self::from_arg_matches(matches)?.0);
        Ok(())
    }
}

/// The names of presets, for a flag.
pub fn preset_names() -> PossibleValuesParser {
    Preset::ALL.map(Preset::name).into()
}

/// What a file and flags say: file ← flags.
pub fn given(file: Option<&Path>, flags: &RunFlags) -> anyhow::Result<Table> {
    let mut given: Table = match file {
        None => Table::new(),
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read settings from {}", path.display()))?;
            text.parse().map_err(|error| {
                ConfigError::Invalid(format!("{} is not TOML: {error}", path.display()))
            })?
        }
    };
    given.extend(flags.0.clone());
    Ok(given)
}

/// The argument that sets `setting`.
fn argument(setting: Setting) -> Arg {
    let help = setting.help.strip_suffix('.').unwrap_or(&setting.help).to_owned();
    let argument = Arg::new(setting.name.clone()).help(help);
    let argument = match setting.positional {
        true => argument,
        false => argument.long(setting.name).help_heading(setting.heading),
    };
    match setting.kind {
        Kind::Flag => argument.action(ArgAction::SetTrue),
        kind => {
            argument.value_name(setting.placeholder).value_parser(value_parser(kind, setting.names))
        }
    }
}

/// Makes a [`Value`] of what is typed for a setting of `kind`, which may be one of `names`.
fn value_parser(kind: Kind, names: Vec<String>) -> ValueParser {
    match kind {
        Kind::Flag => ValueParser::bool(),
        Kind::Text => StringValueParser::new().map(Value::String).into(),
        Kind::Name => PossibleValuesParser::from(names).map(Value::String).into(),
        Kind::Integer => ValueParser::new(number::<i64>),
        Kind::Number => ValueParser::new(number::<f64>),
        Kind::Integers => ValueParser::new(numbers::<i64>),
        Kind::Numbers => ValueParser::new(numbers::<f64>),
        Kind::AutoOrIntegers => ValueParser::new(auto_or_numbers),
    }
}

fn number<T: FromStr + Into<Value>>(text: &str) -> Result<Value, T::Err> {
    text.parse::<T>().map(Into::into)
}

fn numbers<T: FromStr + Into<Value>>(text: &str) -> Result<Value, T::Err> {
    text.split(',').map(number::<T>).collect::<Result<_, _>>().map(Value::Array)
}

fn auto_or_numbers(text: &str) -> anyhow::Result<Value> {
    Ok(Value::try_from(text.parse::<Clusters>()?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is typed after `program`, as a layer.
    fn typed<const OF_VIEWS: bool>(words: &[&str]) -> Result<Table, String> {
        let command = SettingFlags::<OF_VIEWS>::augment_args(Command::new("program"));
        let words = std::iter::once("program").chain(words.iter().copied());
        let matches = command.try_get_matches_from(words).map_err(|error| error.to_string())?;
        SettingFlags::<OF_VIEWS>::from_arg_matches(&matches)
            .map(|flags| flags.0)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn every_setting_of_every_preset_can_be_typed() {
        for preset in Preset::ALL {
            let config = Config::resolve([Config::preset(preset.name()).unwrap()]).unwrap();
            let table = config.table().unwrap();
            let text = |value: &Value| match value {
                Value::String(text) => text.clone(),
                Value::Array(values) => {
                    values.iter().map(Value::to_string).collect::<Vec<_>>().join(",")
                }
                other => other.to_string(),
            };
            for setting in Config::settings() {
                let (flag, value) = (format!("--{}", setting.name), &table[&setting.name]);
                let (words, expected) = match setting.kind {
                    Kind::Flag => (vec![flag], Value::from(true)),
                    _ if setting.positional => (vec![text(value)], value.clone()),
                    _ => (vec![flag, text(value)], value.clone()),
                };
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                let layer = typed::<false>(&words).unwrap();
                assert_eq!(layer, Table::from_iter([(setting.name, expected)]));
            }
        }
    }

    #[test]
    fn what_is_not_typed_is_not_set() {
        assert_eq!(typed::<false>(&[]).unwrap(), Table::new());
        assert_eq!(typed::<true>(&[]).unwrap(), Table::new());
    }

    #[test]
    fn flags_of_views_are_those_and_no_more() {
        let layer = typed::<true>(&["--stats", "auto", "--jitter", "0,0,0,.5"]).unwrap();
        assert_eq!(layer, "stats = 'auto'\njitter = [0.0, 0.0, 0.0, 0.5]".parse().unwrap());
        assert!(typed::<true>(&["--epochs", "3"]).unwrap_err().contains("--epochs"));
    }

    #[test]
    fn values_of_another_kind_are_refused_with_what_they_should_be() {
        for (words, part) in [
            (["--epochs", "many"], "invalid digit"),
            (["--lr", "fast"], "invalid float"),
            (["--milestones", "1,,2"], "cannot parse integer"),
            (["--crop-scale", "0.2-1"], "invalid float"),
            (["--clusters", "many"], "250,500,1000"),
            (["--arch", "vgg16"], "wide_resnet50_2"),
            (["--head", "none"], "possible values: linear, mlp, mlp-bn]"),
        ] {
            let error = typed::<false>(&words).unwrap_err();
            assert!(error.contains(words[1]) && error.contains(part), "{error}");
        }
    }
}
