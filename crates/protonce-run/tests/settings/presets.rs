//! What presets say, and how settings are written and read.

use protonce_run::{Config, Expectation, Preset, Shuffle, Stats, Tune};
use toml::Table;

/// The preset as a run writes it when nothing else is set.
fn written(preset: Preset) -> &'static str {
    match preset {
        Preset::V1 => include_str!("presets/v1.toml"),
        Preset::V2 => include_str!("presets/v2.toml"),
        Preset::Small => include_str!("presets/small.toml"),
    }
}

fn resolved(preset: Preset) -> Config {
    Config::resolve([Config::preset(preset.name()).unwrap()]).unwrap()
}

#[test]
fn presets_are_written_as_ever_and_read_back_the_same() {
    for preset in Preset::ALL {
        let config = resolved(preset);
        assert_eq!(toml::to_string(&config).unwrap(), written(preset), "{preset}");
        let read = Config::resolve([written(preset).parse().unwrap()]).unwrap();
        assert_eq!(read, config, "{preset}");
    }
}

#[test]
fn a_preset_leaves_open_what_follows_from_the_image_size() {
    for preset in Preset::ALL {
        let small = "image-size = 48".parse().unwrap();
        let layers = [Config::preset(preset.name()).unwrap(), small];
        let config = Config::resolve(layers).unwrap();
        assert_eq!((config.encoder.stem.name(), config.views.eval_resize), ("small", 48));
    }
}

#[test]
fn a_run_that_is_older_than_a_setting_goes_on_as_it_was() {
    let mut old: Table = written(Preset::V2).parse().unwrap();
    let later = [
        "stats",
        "shuffle",
        "expectation",
        "expectation-every",
        "warm-start",
        "tune",
        "checkpoint-blocks",
        "solarise-probability",
        "solarise-threshold",
        "local-views",
        "local-size",
        "local-crop-scale",
        "lr-warmup",
        "momentum-schedule",
        "queue-negatives",
        "prototype-weight",
        "prototype-ramp",
        "decorrelation",
        "hierarchy",
        "key-views",
        "initial-size",
        "sample",
        "init",
        "freeze-stages",
        "save-minutes",
        "base-channels",
    ];
    for name in later {
        assert!(old.remove(name).is_some(), "{name}");
    }
    let config = Config::resolve([old]).unwrap();
    let expected = Config {
        stats: Stats::Given,
        shuffle: Shuffle::Full,
        expectation: Expectation::Full,
        tune: Tune::Off,
        ..resolved(Preset::V2)
    };
    assert_eq!(config, expected);
}

#[test]
fn a_setting_that_every_run_has_written_must_be_there() {
    let mut torn: Table = written(Preset::V2).parse().unwrap();
    torn.remove("epochs");
    let error = Config::resolve([torn]).unwrap_err().to_string();
    assert!(error.contains("epochs"), "{error}");
}

#[test]
fn an_unknown_preset_is_refused_with_those_there_are() {
    let error = Config::preset("v3").unwrap_err().to_string();
    assert_eq!(error, "unknown preset \"v3\": expected one of v1, v2, small");
}
