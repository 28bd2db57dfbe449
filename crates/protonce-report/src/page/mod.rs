//! One page: what was found out about some runs, and the program that shows it.
//!
//! The front end is written by hand: SVG for curves, one canvas for the map, no library. Nothing is
//! bundled or fetched; what is in this folder is what ships. Most of it (galleries, the walk from coarse
//! to fine, a map of 50 000 images) is no chart, so a charting library would have replaced a sixth.
//!
//! Everything that comes from a run or its images (names, labels, settings) goes into the page as
//! JSON in a script element that no browser runs, with `<` escaped, and the program puts it into
//! text nodes only. A content security policy lets no other script run and nothing be fetched from
//! elsewhere.

use std::time::{SystemTime, UNIX_EPOCH};

use rand::RngExt;
use serde::Serialize;

use crate::ReportError;
use crate::analysis::Analysis;
use crate::history::HistoryUpdate;
use crate::reported_run::RunView;

const HTML: &str = include_str!("index.html");
const STYLE: &str = include_str!("style.css");
/// In the order in which they must run.
const SCRIPTS: [&str; 13] = [
    include_str!("start.js"),
    include_str!("charts.js"),
    include_str!("map.js"),
    include_str!("prototypes.js"),
    include_str!("frame.js"),
    include_str!("summary.js"),
    include_str!("training.js"),
    include_str!("clusters.js"),
    include_str!("labels.js"),
    include_str!("standouts.js"),
    include_str!("tables.js"),
    include_str!("draw.js"),
    include_str!("live.js"),
];

/// The data of the page.
#[derive(Debug, Serialize)]
struct Content<'a> {
    /// Whether a server will send more.
    live: bool,
    version: &'static str,
    /// Seconds since 1970.
    made: u64,
    runs: Vec<RunContent<'a>>,
}

/// What the page knows of one run.
#[derive(Debug, Serialize)]
pub(crate) struct RunContent<'a> {
    #[serde(flatten)]
    pub(crate) view: RunView,
    pub(crate) history: Option<HistoryUpdate<'a>>,
    pub(crate) analysis: Option<Analysis>,
    pub(crate) thumbnails: Option<Thumbnails>,
}

/// Where the page finds its thumbnails: number k in sheet k / `sheet`², in reading order.
#[derive(Debug, Serialize)]
pub(crate) struct Thumbnails {
    pub(crate) tiles: usize,
    pub(crate) side: u32,
    pub(crate) sheet: u32,
}

/// The page of runs that a server will tell more about.
#[cfg(feature = "serve")]
pub(crate) fn live_page(views: Vec<RunView>, nonce: &str) -> Result<String, ReportError> {
    let runs = views.into_iter().map(|view| RunContent {
        view,
        history: None,
        analysis: None,
        thumbnails: None,
    });
    page(true, runs.collect(), &[], nonce)
}

/// What marks the page's own scripts: another for every page, so that nothing slipped into one
/// can know it.
pub(crate) fn nonce() -> String {
    format!("{:032x}", rand::rng().random::<u128>())
}

/// What the page may do: run its own scripts and style, show its own pictures, and, live, ask its
/// own server.
pub(crate) fn policy(live: bool, nonce: &str) -> String {
    let (images, connect) =
        if live { ("'self' data: blob:", "'self'") } else { ("data: blob:", "'none'") };
    format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; \
         img-src {images}; connect-src {connect}; base-uri 'none'; form-action 'none'"
    )
}

/// The page of `runs` with its sheets of thumbnails; `live` where a server will tell more about them.
pub(crate) fn page(
    live: bool,
    runs: Vec<RunContent<'_>>,
    sheets: &[String],
    nonce: &str,
) -> Result<String, ReportError> {
    let made = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let content = Content { live, version: env!("CARGO_PKG_VERSION"), made, runs };
    let json = serde_json::to_string(&content)
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
        let page = page(true, Vec::new(), &[], "0123").unwrap();
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
        let run = RunContent { view, history: None, analysis: None, thumbnails: None };
        let empty = page(true, Vec::new(), &[], "0123").unwrap();
        let page = page(true, vec![run], &[], "0123").unwrap();
        let count = |page: &str, what: &str| page.matches(what).count();
        for tag in ["<script", "</script", "<!--"] {
            assert_eq!(count(&page, tag), count(&empty, tag), "{tag}");
        }
        assert!(page.contains("\\u003c/script>") && page.contains("&lt;/script&gt;"));
    }
}
