//! One page: what was found out about some runs, and the program that shows it.
//!
//! The front end is written by hand: SVG for curves, one canvas for the map, no library. Nothing is
//! bundled or fetched; what is in `page/` is what ships. Most of it (galleries, the walk from coarse
//! to fine, a map of 50 000 images) is no chart, so a charting library would have replaced a sixth.
//!
//! Everything that comes from a run or its images (names, labels, settings) goes into the page as
//! JSON in a script element that no browser runs, with `<` escaped, and the program puts it into
//! text nodes only. A content security policy lets no other script run and nothing be fetched from
//! elsewhere.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rand::RngExt;
use serde::Serialize;

use super::ReportError;
use super::analysis::{Analysis, Discovered, Limits, ReportWork, discover};
use super::command::{command, text};
use super::history::{History, Place, Update};
use super::save::save;
use super::thumbnails::{SHEET, sheets, side_for};
use crate::pretrain::{RunFolder, data_fingerprint};
use protonce_images::data::Dataset;
use protonce_run::{Config, Method};

const HTML: &str = include_str!("page/index.html");
const STYLE: &str = include_str!("page/style.css");
/// In the order in which they must run.
const SCRIPTS: [&str; 5] = [
    include_str!("page/start.js"),
    include_str!("page/charts.js"),
    include_str!("page/map.js"),
    include_str!("page/prototypes.js"),
    include_str!("page/page.js"),
];

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

/// A run and what it was made of.
pub(super) struct Source {
    pub(super) run: PathBuf,
    pub(super) config: Config,
    pub(super) dataset: Option<Dataset>,
    /// Why there is no data set.
    pub(super) missing: Option<String>,
}

impl Source {
    /// Opens the run in `run`. Images that cannot be found where the run says do not stop a report;
    /// those that `data` names must be there.
    pub(super) fn open(run: &Path, data: Option<&str>) -> Result<Source, ReportError> {
        let config = Config::resolve([RunFolder::settings(run)?])?;
        let opened = Dataset::open(data.unwrap_or(&config.data));
        let (dataset, missing) = match opened {
            Ok(dataset) => (Some(dataset), None),
            Err(error) if data.is_some() => return Err(error.into()),
            Err(error) => (None, Some(error.to_string())),
        };
        let dataset = dataset.map(|dataset| match config.per_class {
            0 => dataset,
            count => dataset.per_class(count),
        });
        if let (Some(dataset), Some(expected)) = (&dataset, data_fingerprint(run))
            && dataset.fingerprint() != expected
        {
            return Err(ReportError::OtherNames { data: dataset.argument().to_owned() });
        }
        Ok(Source { run: run.to_owned(), config, dataset, missing })
    }

    /// The part of the page that is known before anything happened.
    pub(super) fn view(&self) -> Result<RunView, ReportError> {
        let table = self.config.table()?;
        let run = self.run.canonicalize().unwrap_or_else(|_| self.run.clone());
        let name = run.file_name().unwrap_or(run.as_os_str()).to_string_lossy().into_owned();
        Ok(RunView {
            command: command(&self.config, &self.run.to_string_lossy())?,
            path: self.run.to_string_lossy().into_owned(),
            name,
            method: match self.config.method {
                Method::Pcl => "PCL",
                Method::Moco => "MoCo",
            },
            arch: self.config.encoder.arch.to_string(),
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
pub(super) struct RunView {
    name: String,
    path: String,
    command: String,
    method: &'static str,
    arch: String,
    image_size: usize,
    epochs: usize,
    warmup_epochs: usize,
    data: String,
    images: Option<usize>,
    missing: Option<String>,
    settings: Vec<(String, String)>,
}

/// The data of the page.
#[derive(Debug, Serialize)]
pub(super) struct Content<'a> {
    /// Whether a server will send more.
    live: bool,
    version: &'static str,
    /// Seconds since 1970.
    made: u64,
    runs: Vec<RunContent<'a>>,
}

#[derive(Debug, Serialize)]
struct RunContent<'a> {
    #[serde(flatten)]
    view: RunView,
    history: Option<Update<'a>>,
    analysis: Option<Analysis>,
    thumbnails: Option<Thumbnails>,
}

/// Where the page finds its thumbnails: number k in sheet k / `sheet`², in reading order.
#[derive(Debug, Serialize)]
struct Thumbnails {
    tiles: usize,
    side: u32,
    sheet: u32,
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
    progress: &mut dyn FnMut(ReportWork, usize, usize),
) -> Result<ReportSummary, ReportError> {
    let source = Source::open(run, options.data.as_deref())?;
    let history = History::read(run)?;
    let limits = Limits { map: options.map, prototypes: 6000, changes: 64, thumbnails: 14_000 };
    let discovered = match source.config.method {
        Method::Pcl => discover(run, source.dataset.as_ref(), limits, progress)?,
        Method::Moco => None,
    };
    let (analysis, wanted) = match discovered {
        Some(Discovered { analysis, wanted }) => (Some(analysis), wanted),
        None => (None, Vec::new()),
    };
    let (mut drawn, mut thumbnails) = (Vec::new(), None);
    if let (Some(dataset), false) = (&source.dataset, wanted.is_empty()) {
        let side = side_for(dataset, wanted.len());
        let done = sheets(dataset, &wanted, side, SHEETS_BUDGET, &mut |done| {
            progress(ReportWork::Thumbnails, done, wanted.len());
        })
        .map_err(|error| ReportError::Encode(error.to_string()))?;
        thumbnails = Some(Thumbnails { tiles: done.tiles, side, sheet: SHEET });
        drawn = done.sheets;
    }
    let (update, _) = history.since(Place::default());
    let summary_map = analysis.as_ref().map_or(0, Analysis::mapped);
    let tiles = thumbnails.as_ref().map_or(0, |thumbnails| thumbnails.tiles);
    let content = content(
        false,
        vec![RunContent { view: source.view()?, history: Some(update), analysis, thumbnails }],
    );
    let page = page(&content, &drawn, &nonce())?;
    save(out, page.as_bytes())?;
    Ok(ReportSummary {
        path: out.to_owned(),
        bytes: page.len(),
        thumbnails: tiles,
        map: summary_map,
        without_images: source.missing,
    })
}

/// The page of runs that a server will tell more about.
pub(super) fn live_page(views: Vec<RunView>, nonce: &str) -> Result<String, ReportError> {
    let runs = views.into_iter().map(|view| RunContent {
        view,
        history: None,
        analysis: None,
        thumbnails: None,
    });
    page(&content(true, runs.collect()), &[], nonce)
}

fn content(live: bool, runs: Vec<RunContent<'_>>) -> Content<'_> {
    let made = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Content { live, version: env!("CARGO_PKG_VERSION"), made, runs }
}

/// What marks the page's own scripts: another for every page, so that nothing slipped into one
/// can know it.
pub(super) fn nonce() -> String {
    format!("{:032x}", rand::rng().random::<u128>())
}

/// What the page may do: run its own scripts and style, show its own pictures, and, live, ask its
/// own server.
pub(super) fn policy(live: bool, nonce: &str) -> String {
    let (images, connect) =
        if live { ("'self' data: blob:", "'self'") } else { ("data: blob:", "'none'") };
    format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; \
         img-src {images}; connect-src {connect}; base-uri 'none'; form-action 'none'"
    )
}

fn page(content: &Content, sheets: &[String], nonce: &str) -> Result<String, ReportError> {
    let json = serde_json::to_string(content)
        .map_err(|error| ReportError::Encode(error.to_string()))?
        // Inside of a script element only `</script` and `<!--` mean anything.
        .replace('<', "\\u003c");
    let title = escaped(content.runs.first().map_or("protonce", |run| &run.view.name));
    let policy = policy(content.live, nonce);
    let mut page =
        String::with_capacity(json.len() + sheets.iter().map(String::len).sum::<usize>());
    // Piece by piece, so that nothing in the data is ever taken for a placeholder.
    let mut rest = HTML;
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((name, after)) = after.split_once("}}") else { break };
        page.push_str(before);
        match name {
            "title" => page.push_str(&title),
            "nonce" => page.push_str(nonce),
            "policy" => page.push_str(&policy),
            "style" => page.push_str(STYLE),
            "script" => SCRIPTS.iter().for_each(|script| page.push_str(script)),
            "content" => page.push_str(&json),
            "sheets" => {
                for (number, sheet) in sheets.iter().enumerate() {
                    page.push_str("<script type=\"text/plain\" id=\"sheet-");
                    page.push_str(&number.to_string());
                    page.push_str("\">");
                    page.push_str(sheet);
                    page.push_str("</script>\n");
                }
            }
            _ => {}
        }
        rest = after;
    }
    page.push_str(rest);
    Ok(page)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_no_placeholder_left_and_fetches_nothing() {
        let page = live_page(Vec::new(), "0123").unwrap();
        assert!(!page.contains("{{") && page.contains("nonce-0123"));
        for source in [HTML, STYLE].into_iter().chain(SCRIPTS) {
            for foreign in ["http://", "https://", "innerHTML", "document.write", "eval("] {
                let own = source.replace("http://www.w3.org/2000/svg", "");
                assert!(!own.contains(foreign), "{foreign}");
            }
        }
    }

    #[test]
    fn what_is_data_stays_data() {
        let hostile = "</script><script>alert(1)</script><!--{{script}}\"&";
        let view = RunView {
            name: hostile.to_owned(),
            path: hostile.to_owned(),
            command: hostile.to_owned(),
            method: "PCL",
            arch: "resnet18".to_owned(),
            image_size: 32,
            epochs: 1,
            warmup_epochs: 0,
            data: hostile.to_owned(),
            images: None,
            missing: None,
            settings: vec![(hostile.to_owned(), hostile.to_owned())],
        };
        let page = live_page(vec![view], "0123").unwrap();
        let empty = live_page(Vec::new(), "0123").unwrap();
        let count = |page: &str, what: &str| page.matches(what).count();
        for tag in ["<script", "</script", "<!--"] {
            assert_eq!(count(&page, tag), count(&empty, tag), "{tag}");
        }
        assert!(page.contains("\\u003c/script>") && page.contains("&lt;/script&gt;"));
    }
}
