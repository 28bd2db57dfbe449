//! A run that is reported: its settings and its images, opened and compared, and what the page says of
//! it before anything happened.

use std::path::{Path, PathBuf};

use protonce_images::data::Dataset;
use protonce_run::{Config, Method, RunFolder, data_fingerprint, text};
use serde::Serialize;

use crate::ReportError;

/// A run and what it was made of.
pub(crate) struct ReportedRun {
    pub(crate) run: PathBuf,
    pub(crate) config: Config,
    pub(crate) dataset: Option<Dataset>,
    /// Why there is no data set.
    pub(crate) missing: Option<String>,
}

impl ReportedRun {
    /// Opens the run in `run`. Images that cannot be found where the run says do not stop a report;
    /// those that `data` names must be there.
    pub(crate) fn open(run: &Path, data: Option<&str>) -> Result<ReportedRun, ReportError> {
        let config = Config::resolve([RunFolder::settings(run)?])?;
        let opened = Dataset::open(data.unwrap_or(&config.data));
        let (dataset, missing) = match opened {
            Ok(dataset) => (Some(dataset), None),
            Err(error) if data.is_some() => return Err(error.into()),
            Err(error) => (None, Some(error.to_string())),
        };
        let dataset = dataset.map(|dataset| config.chosen(dataset));
        if let (Some(dataset), Some(expected)) = (&dataset, data_fingerprint(run))
            && dataset.fingerprint() != expected
        {
            return Err(ReportError::OtherNames { data: dataset.argument().to_owned() });
        }
        Ok(ReportedRun { run: run.to_owned(), config, dataset, missing })
    }

    /// The part of the page that is known before anything happened.
    pub(crate) fn view(&self) -> Result<RunView, ReportError> {
        let table = self.config.table()?;
        let run = self.run.canonicalize().unwrap_or_else(|_| self.run.clone());
        let name = run.file_name().unwrap_or(run.as_os_str()).to_string_lossy().into_owned();
        Ok(RunView {
            command: self.config.command(&self.run.to_string_lossy())?,
            path: self.run.to_string_lossy().into_owned(),
            name,
            method: match self.config.method {
                Method::Pcl => "PCL",
                Method::Moco => "MoCo",
            },
            arch: self.config.encoder.network(),
            image_size: self.config.views.image_size,
            epochs: self.config.epochs,
            warmup_epochs: self.config.warmup_epochs,
            data: self.config.data.clone(),
            images: self.dataset.as_ref().map(Dataset::len),
            missing: self.missing.clone(),
            settings: table.iter().map(|(name, value)| (name.clone(), text(value))).collect(),
        })
    }
}

/// What the page says of a run without its events.
#[derive(Debug, Serialize)]
pub(crate) struct RunView {
    pub(crate) name: String,
    pub(crate) path: String,
    pub(crate) command: String,
    pub(crate) method: &'static str,
    pub(crate) arch: String,
    pub(crate) image_size: usize,
    pub(crate) epochs: usize,
    pub(crate) warmup_epochs: usize,
    pub(crate) data: String,
    pub(crate) images: Option<usize>,
    pub(crate) missing: Option<String>,
    pub(crate) settings: Vec<(String, String)>,
}
