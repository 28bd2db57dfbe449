//! Settings of views, by the names they have everywhere in protonce: a preset with changes in, the
//! whole out.

use std::path::Path;

use protonce_images::views::ViewConfig;
use protonce_run::{Config, ConfigError, RunFolder};
use pyo3::prelude::*;
use toml::Table;

use crate::failure::Failure;

/// Settings that say nothing of views and yet are the loader's.
const OF_THE_LOADER: [&str; 5] = ["stats", "per-class", "sample", "seed", "shuffle"];

/// The settings of `preset` with `changes` laid over them: an object of JSON.
///
/// # Errors
/// When there is no such preset or setting, or a value is out of range.
pub fn resolved(preset: &str, changes: &str) -> Result<Config, Failure> {
    let changes: Table = serde_json::from_str(changes).map_err(|error| {
        Failure::Argument(format!("a setting has a value that it cannot have: {error}"))
    })?;
    let views = ViewConfig::settings().into_iter().map(|setting| setting.name);
    let mut known: Vec<String> = views.chain(OF_THE_LOADER.map(str::to_owned)).collect();
    if let Some(name) = changes.keys().find(|&name| !known.contains(name)) {
        known.sort();
        let (name, known) = (name.clone(), known.join(", "));
        return Err(ConfigError::UnknownSetting { name, known }.into());
    }
    Ok(Config::resolve([Config::preset(preset)?, changes])?)
}

/// The settings of views as JSON.
///
/// # Errors
/// When a value cannot be written.
pub fn written(views: &ViewConfig) -> Result<String, Failure> {
    serde_json::to_string(views).map_err(|error| Failure::Argument(error.to_string()))
}

/// The settings of views of `preset` with `changes` laid over them, both sides as objects of JSON.
#[pyfunction]
pub fn view_settings(preset: &str, changes: &str) -> Result<String, Failure> {
    written(&resolved(preset, changes)?.views)
}

/// Every setting of the run in a folder, as JSON.
#[pyfunction]
pub fn run_settings(run: &str) -> Result<String, Failure> {
    let settings = RunFolder::settings(Path::new(run))?;
    serde_json::to_string(&settings).map_err(|error| Failure::Argument(error.to_string()))
}
