//! What holds for every setting, whichever it is.

use protonce_images::settings::{Kind, Setting};
use protonce_run::Config;
use toml::{Table, Value};

/// A run that evaluates, so that either data set of the evaluation can be another.
fn run() -> Config {
    let more = "eval-train = 'train'\neval-test = 'test'".parse().unwrap();
    Config::resolve([Config::preset("v2").unwrap(), more]).unwrap()
}

/// A value that `setting` can have and `value` is not.
fn another(setting: &Setting, value: &Value) -> Value {
    let smaller = |number: f64| if number == 0.0 { 0.5 } else { number * 0.75 };
    match (setting.kind, value) {
        (Kind::Flag, Value::Boolean(value)) => (!value).into(),
        (Kind::Integer, Value::Integer(value)) => {
            (value + if setting.name == "base-channels" { 16 } else { 1 }).into()
        }
        (Kind::Number, Value::Float(value)) => smaller(*value).into(),
        (Kind::Text, Value::String(value)) => format!("{value} and more").into(),
        (Kind::Name, Value::String(value)) => {
            setting.names.iter().find(|name| *name != value).unwrap().as_str().into()
        }
        (Kind::Integers | Kind::AutoOrIntegers, Value::Array(values)) => {
            values[1..].to_vec().into()
        }
        (Kind::Numbers, Value::Array(values)) => {
            values.iter().map(|value| smaller(value.as_float().unwrap())).collect::<Vec<_>>().into()
        }
        (kind, value) => panic!("{} is {kind:?} and written as {value}", setting.name),
    }
}

#[test]
fn every_setting_is_written_under_its_name_and_explained() {
    let settings = Config::settings();
    let written = toml::to_string(&run()).unwrap();
    let written = written.lines().map(|line| line.split(" = ").next().unwrap());
    assert_eq!(
        settings.iter().map(|setting| setting.name.as_str()).collect::<Vec<_>>(),
        written.collect::<Vec<_>>()
    );
    for setting in settings {
        assert!(setting.help.ends_with('.') && setting.help.len() > 10, "{setting:?}");
        assert_eq!(setting.placeholder.is_empty(), setting.kind == Kind::Flag, "{setting:?}");
        assert_eq!(setting.names.len() > 1, setting.kind == Kind::Name, "{setting:?}");
    }
}

#[test]
fn a_run_goes_on_with_another_value_of_a_changeable_setting_and_of_no_other() {
    let before = run();
    let table = before.table().unwrap();
    for setting in Config::settings() {
        let value = another(&setting, &table[&setting.name]);
        let change = Table::from_iter([(setting.name.clone(), value.clone())]);
        let after = Config::resolve([table.clone(), change]).unwrap();
        let conflict = before.conflict(&after).unwrap();
        let expected = (setting.name.clone(), table[&setting.name].clone(), value);
        assert_eq!(conflict, (!setting.changeable).then_some(expected), "{}", setting.name);
    }
    let changeable = Config::settings().into_iter().filter(|setting| setting.changeable);
    assert_eq!(changeable.count(), 16);
}

#[test]
fn a_name_that_a_setting_cannot_have_is_refused_with_those_it_can() {
    for setting in Config::settings().iter().filter(|setting| setting.kind == Kind::Name) {
        let value = Value::from("no such name");
        let change = Table::from_iter([(setting.name.clone(), value)]);
        let error = Config::resolve([run().table().unwrap(), change]).unwrap_err().to_string();
        for name in setting.names.iter().map(String::as_str).chain(["no such name"]) {
            assert!(error.contains(name), "{name} is missing in: {error}");
        }
    }
}

#[test]
fn values_out_of_range_are_refused_with_what_was_expected() {
    for (line, sentence) in [
        ("epochs = 0", "\"epochs\" is 0: expected more than 0"),
        (
            "base-channels = 40",
            "\"base-channels\" is 40: expected a multiple of 16, from 16 to 1024",
        ),
        ("dim = 0", "\"dim\" is 0: expected more than 0"),
        ("queue = -1", "\"queue\" is -1: expected more than 0"),
        ("bn-splits = 0", "\"bn-splits\" is 0: expected more than 0"),
        ("log-every = 0", "\"log-every\" is 0: expected more than 0"),
        ("save-every = 0", "\"save-every\" is 0: expected more than 0"),
        ("eval-every = 0", "\"eval-every\" is 0: expected more than 0"),
        ("expectation-every = 0", "\"expectation-every\" is 0: expected more than 0"),
        ("head = 'none'", "\"head\" is none: expected linear, mlp or mlp-bn, to be trained"),
        ("batch-size = 1", "\"batch-size\" is 1: expected 2 or more"),
        ("max-bad = 1.5", "\"max-bad\" is 1.5: expected between 0 and 1"),
        ("sgd-momentum = -0.1", "\"sgd-momentum\" is -0.1: expected between 0 and 1"),
        ("encoder-momentum = nan", "\"encoder-momentum\" is NaN: expected between 0 and 1"),
        ("temperature = 0.0", "\"temperature\" is 0: expected more than 0"),
        ("temperature = inf", "\"temperature\" is inf: expected more than 0"),
        ("smoothing = 0.0", "\"smoothing\" is 0: expected more than 0"),
        ("lr = -1.0", "\"lr\" is -1: expected 0 or more"),
        ("lr = inf", "\"lr\" is inf: expected 0 or more"),
        ("weight-decay = nan", "\"weight-decay\" is NaN: expected 0 or more"),
        ("clusters = []", "\"clusters\" is []: expected \"auto\" or numbers above 0"),
        ("clusters = [4, 0]", "\"clusters\" is [4, 0]: expected \"auto\" or numbers above 0"),
        ("image-size = 0", "\"image-size\" is 0: expected between 1 and 4096 pixels"),
        (
            "eval-test = ''",
            "\"eval-train\" is \"train\" with eval-test \"\": \
             expected both eval-train and eval-test, or neither",
        ),
    ] {
        let layers = [run().table().unwrap(), line.parse().unwrap()];
        assert_eq!(Config::resolve(layers).unwrap_err().to_string(), sentence);
    }
}

#[test]
fn an_unknown_setting_is_refused_with_those_there_are() {
    let layers = [run().table().unwrap(), "learning-rate = 1".parse().unwrap()];
    let error = Config::resolve(layers).unwrap_err().to_string();
    assert!(
        error
            .starts_with("unknown setting \"learning-rate\": expected one of arch, base-channels,")
    );
    assert!(error.contains(" lr,"), "{error}");
}

#[test]
fn words_that_are_no_clusters_are_refused() {
    let layers = [run().table().unwrap(), "clusters = 'many'".parse().unwrap()];
    let error = Config::resolve(layers).unwrap_err().to_string();
    assert!(
        error.contains("clusters is \"many\": expected \"auto\" or a list of numbers"),
        "{error}"
    );
}
