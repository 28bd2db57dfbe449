//! The report of one run: one HTML file that needs nothing else.

use std::path::{Path, PathBuf};

use protonce_run::Method;
use serde::Serialize;

use crate::ReportError;
use crate::analysis::{Analysed, Analysis, Limits, ReportTask, analyse};
use crate::history::{History, HistoryCursor};
use crate::page::{RunContent, Thumbnails, nonce, page};
use crate::reported_run::ReportedRun;
use crate::save::save;
use crate::thumbnails::{SHEET, sheets, side_for};

/// Base64 of thumbnails, in bytes: a page stays below 15 MB.
const SHEETS_BUDGET: usize = 11_500_000;

/// What [`write_report`] is asked for.
#[derive(Debug, Clone, Default)]
pub struct ReportOptions {
    /// The run's images, where they have moved since.
    pub data: Option<String>,
    /// Images in the map, at most.
    pub map: usize,
}

/// What [`write_report`] made.
#[derive(Debug, Clone, Serialize)]
pub struct ReportSummary {
    /// The page.
    pub path: PathBuf,
    /// Its size.
    pub bytes: usize,
    /// Images of the data set that have a thumbnail in it.
    pub thumbnails: usize,
    /// Images in the map.
    pub map: usize,
    /// Why the images could not be shown, if they could not.
    pub without_images: Option<String>,
}

/// Writes the report of the run in `run` to `out`: one HTML file that needs nothing else.
///
/// Its cost is bounded whatever the size of the run: it reads the log once, the newest expectation
/// step once, and decodes no more images than it shows. `progress` is told how much of some work
/// is done.
///
/// # Errors
/// When there is no run, its files or the images asked for cannot be read or are not the run's, or
/// `out` cannot be written.
pub fn write_report(
    run: &Path,
    options: &ReportOptions,
    out: &Path,
    progress: &mut dyn FnMut(ReportTask, usize, usize),
) -> Result<ReportSummary, ReportError> {
    let reported = ReportedRun::open(run, options.data.as_deref())?;
    let history = History::read(run)?;
    let limits = Limits { map: options.map, prototypes: 6000, changes: 64, thumbnails: 14_000 };
    let analysed = match reported.config.method {
        Method::Pcl => analyse(run, reported.dataset.as_ref(), limits, progress)?,
        Method::Moco => None,
    };
    let (analysis, wanted) = match analysed {
        Some(Analysed { analysis, wanted }) => (Some(analysis), wanted),
        None => (None, Vec::new()),
    };
    let (mut drawn, mut thumbnails) = (Vec::new(), None);
    if let (Some(dataset), false) = (&reported.dataset, wanted.is_empty()) {
        let side = side_for(dataset, wanted.len());
        let done = sheets(dataset, &wanted, side, SHEETS_BUDGET, &mut |done| {
            progress(ReportTask::Thumbnails, done, wanted.len());
        })
        .map_err(|error| ReportError::Encode(error.to_string()))?;
        thumbnails = Some(Thumbnails { tiles: done.tiles, side, sheet: SHEET });
        drawn = done.sheets;
    }
    let (update, _) = history.since(HistoryCursor::default());
    let summary_map = analysis.as_ref().map_or(0, Analysis::mapped);
    let tiles = thumbnails.as_ref().map_or(0, |thumbnails| thumbnails.tiles);
    let content =
        RunContent { view: reported.view()?, history: Some(update), analysis, thumbnails };
    let page = page(false, vec![content], &drawn, &nonce())?;
    save(out, page.as_bytes())?;
    Ok(ReportSummary {
        path: out.to_owned(),
        bytes: page.len(),
        thumbnails: tiles,
        map: summary_map,
        without_images: reported.missing,
    })
}
