//! The page while training goes on: a small server that reads the logs of runs as they grow.
//!
//! It answers four addresses and nothing else: the page, the events, a run's newest analysis and
//! an image as a thumbnail. Runs and images are asked for by number, so that no path ever comes
//! from outside; what is read must lie in the run's folder or the data's, wherever links lead; and
//! images leave as pixels encoded anew, never as the bytes of a file.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path as AxumPath, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::Stream;
use futures_util::stream::unfold;
use serde::Serialize;
use tokio::sync::{Semaphore, watch};

use protonce_images::data::lies_within;
use protonce_run::{EventFollower, LogChange, events_file, prototypes_folder};

use crate::ReportError;
use crate::analysis::{Analysed, Limits, analyse};
use crate::history::{History, HistoryCursor, HistoryUpdate};
use crate::page::{live_page, nonce, policy};
use crate::reported_run::ReportedRun;
use crate::thumbnails::{jpeg, thumbnail};

/// Between two looks at the logs.
const LOOK: Duration = Duration::from_millis(400);
/// Least time between two messages to a page.
const MESSAGE: Duration = Duration::from_millis(300);
/// Side of a thumbnail in pixels.
const THUMBNAIL: u32 = 96;
/// Thumbnails drawn at a time: training needs the processor more.
const DRAWING: usize = 2;

/// What [`serve`] is asked for.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// Run folders, side by side on one page.
    pub runs: Vec<PathBuf>,
    /// The runs' images, where they have moved since.
    pub data: Option<String>,
    /// The address to listen at.
    pub address: SocketAddr,
    /// Images in a run's map, at most.
    pub map: usize,
}

/// Everything that is served.
struct Served {
    runs: Vec<ServedRun>,
    /// Counts what was new.
    news: watch::Sender<u64>,
    drawing: Semaphore,
    /// Whether only this machine can connect.
    local: bool,
}

struct ServedRun {
    reported: ReportedRun,
    history: Mutex<History>,
    analysis: Mutex<NewestAnalysis>,
}

/// The newest analysis of a run.
#[derive(Default)]
struct NewestAnalysis {
    /// Counts analyses; 0 before the first.
    version: u64,
    json: Bytes,
    /// Why the newest could not be made.
    problem: Option<String>,
}

/// Serves the page of some runs, finished or not, until the process ends.
///
/// `ready` is told the address once connections are accepted.
///
/// # Errors
/// When a folder holds no run, images are not the run's, or the address cannot be listened at.
pub fn serve(options: ServeOptions, ready: impl FnOnce(SocketAddr)) -> Result<(), ReportError> {
    let mut runs = Vec::new();
    for run in &options.runs {
        let reported = ReportedRun::open(run, options.data.as_deref())?;
        reported.view()?;
        let (history, analysis) = (Mutex::default(), Mutex::default());
        runs.push(ServedRun { reported, history, analysis });
    }
    let served = Arc::new(Served {
        runs,
        news: watch::Sender::new(0),
        drawing: Semaphore::new(DRAWING),
        local: options.address.ip().is_loopback(),
    });
    let address = options.address;
    let stopped = move |source| ReportError::Serve { address, source };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(stopped)?;
    runtime.block_on(async move {
        let listener = tokio::net::TcpListener::bind(address)
            .await
            .map_err(|source| ReportError::Listen { address, source })?;
        let bound = listener.local_addr().map_err(stopped)?;
        let (watched, mapped) = (served.clone(), served.clone());
        std::thread::spawn(move || watch_logs(&watched));
        std::thread::spawn(move || make_analyses(&mapped, options.map));
        ready(bound);
        axum::serve(listener, routes(served)).await.map_err(stopped)
    })
}

fn routes(served: Arc<Served>) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/events", get(events))
        .route("/runs/{run}/analysis", get(analysis))
        .route("/runs/{run}/images/{image}", get(image))
        .fallback(|| async { StatusCode::NOT_FOUND })
        .layer(from_fn(with_safe_headers))
        .layer(from_fn_with_state(served.clone(), only_own_name))
        .with_state(served)
}

/// Refuses what another site's page asks for under a name of its own that it made to point here.
async fn only_own_name(
    State(served): State<Arc<Served>>,
    request: Request,
    next: Next,
) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    if served.local && !host.is_some_and(names_this_machine) {
        return StatusCode::FORBIDDEN.into_response();
    }
    next.run(request).await
}

/// Whether a `Host` header is `localhost` or an address, with or without a port.
fn names_this_machine(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
}

async fn with_safe_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

async fn page(State(served): State<Arc<Served>>) -> Response {
    let nonce = nonce();
    let views: Result<Vec<_>, _> = served.runs.iter().map(|run| run.reported.view()).collect();
    match views.and_then(|views| live_page(views, &nonce)) {
        Ok(page) => {
            let headers = [
                (header::CONTENT_TYPE, "text/html; charset=utf-8".to_owned()),
                (header::CONTENT_SECURITY_POLICY, policy(true, &nonce)),
                (header::CACHE_CONTROL, "no-store".to_owned()),
            ];
            (headers, page).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// What is new of one run.
#[derive(Serialize)]
struct News<'a> {
    run: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    history: Option<HistoryUpdate<'a>>,
    analysis: u64,
    problem: Option<String>,
}

/// A page that is told what is new, and what it has of each run: the history up to a cursor, a version
/// of the analysis, and the problem with the newest.
struct Reader {
    served: Arc<Served>,
    news: watch::Receiver<u64>,
    known: Vec<(Option<HistoryCursor>, u64, Option<String>)>,
}

impl Reader {
    /// What the page does not have yet, as JSON; none when there is nothing.
    fn next(&mut self) -> Option<String> {
        let mut messages = Vec::new();
        for (number, (run, known)) in self.served.runs.iter().zip(&mut self.known).enumerate() {
            let history = lock(&run.history);
            let made = lock(&run.analysis);
            let (cursor, version, problem) = &*known;
            let end = history.end();
            if *cursor == Some(end) && *version == made.version && *problem == made.problem {
                continue;
            }
            let (update, _) = history.since(cursor.unwrap_or_default());
            let news = News {
                run: number,
                history: (*cursor != Some(end)).then_some(update),
                analysis: made.version,
                problem: made.problem.clone(),
            };
            // Numbers and text always have a JSON form.
            messages.extend(serde_json::to_string(&news).ok());
            *known = (Some(end), made.version, made.problem.clone());
        }
        (!messages.is_empty()).then(|| format!("[{}]", messages.join(",")))
    }
}

async fn events(
    State(served): State<Arc<Served>>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let known = served.runs.iter().map(|_| (None, 0, None)).collect();
    let reader = Reader { news: served.news.subscribe(), served, known };
    let stream = unfold((reader, true), |(mut reader, first)| async move {
        if !first {
            tokio::time::sleep(MESSAGE).await;
        }
        loop {
            reader.news.borrow_and_update();
            if let Some(message) = reader.next() {
                return Some((Ok(Event::default().data(message)), (reader, false)));
            }
            // The sender lives as long as the server.
            reader.news.changed().await.ok()?;
        }
    });
    Sse::new(stream).keep_alive(KeepAlive::default())
}

async fn analysis(State(served): State<Arc<Served>>, AxumPath(run): AxumPath<String>) -> Response {
    let run = run.parse().ok().and_then(|run: usize| served.runs.get(run));
    let json = run.map(|run| lock(&run.analysis).json.clone()).filter(|json| !json.is_empty());
    match json {
        Some(json) => {
            let headers =
                [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
            (headers, Body::from(json)).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn image(
    State(served): State<Arc<Served>>,
    AxumPath((run, image)): AxumPath<(String, String)>,
) -> Response {
    let dataset = run
        .parse()
        .ok()
        .and_then(|run: usize| served.runs.get(run))
        .and_then(|run| run.reported.dataset.clone());
    let (Some(dataset), Ok(index)) = (dataset, image.parse::<usize>()) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    if index >= dataset.len() {
        return StatusCode::NOT_FOUND.into_response();
    }
    let Ok(_permit) = served.drawing.acquire().await else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let drawn = tokio::task::spawn_blocking(move || {
        let picture = dataset.lies_within(index).then(|| thumbnail(&dataset, index, THUMBNAIL));
        picture.and_then(|picture| jpeg(&picture).ok())
    });
    match drawn.await {
        Ok(Some(bytes)) => {
            let headers =
                [(header::CONTENT_TYPE, "image/jpeg"), (header::CACHE_CONTROL, "max-age=86400")];
            (headers, Body::from(bytes)).into_response()
        }
        // A link out of the data's folder, or a file that is gone.
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

/// Reads what is new in the logs for as long as the process lives, and tells the pages when there was something new.
fn watch_logs(served: &Served) {
    let mut logs: Vec<EventFollower> =
        served.runs.iter().map(|run| EventFollower::new(&run.reported.run)).collect();
    loop {
        for (run, log) in served.runs.iter().zip(&mut logs) {
            if !lies_within(&run.reported.run, &events_file(&run.reported.run)) {
                continue;
            }
            let change = lock(&run.history).follow(log);
            // A log that cannot be read now may be there again at the next look.
            if matches!(change, Ok(LogChange::Grew | LogChange::Restarted)) {
                served.news.send_modify(|count| *count += 1);
            }
        }
        std::thread::sleep(LOOK);
    }
}

/// Looks at every new expectation step, one run after another.
fn make_analyses(served: &Served, map: usize) {
    let limits = Limits { map, prototypes: 6000, changes: 64, thumbnails: usize::MAX };
    let mut made: Vec<Option<usize>> = vec![None; served.runs.len()];
    loop {
        for (run, made) in served.runs.iter().zip(&mut made) {
            let newest = lock(&run.history).newest_expectation();
            if newest.is_none() || newest == *made {
                continue;
            }
            *made = newest;
            let found = match is_whole(&run.reported.run) {
                true => analyse(
                    &run.reported.run,
                    run.reported.dataset.as_ref(),
                    limits,
                    &mut |_, _, _| {},
                )
                .map_err(|error| error.to_string()),
                false => Err("the run's prototypes lie outside of its folder".to_owned()),
            };
            let json = match found {
                Ok(None) => continue,
                Ok(Some(Analysed { analysis, .. })) => {
                    serde_json::to_vec(&analysis).map_err(|error| error.to_string())
                }
                Err(problem) => Err(problem),
            };
            let mut kept = lock(&run.analysis);
            match json {
                Ok(json) => {
                    let version = kept.version + 1;
                    *kept = NewestAnalysis { version, json: json.into(), problem: None };
                }
                // What was found before stays on show.
                Err(problem) => kept.problem = Some(problem),
            }
            drop(kept);
            served.news.send_modify(|count| *count += 1);
        }
        std::thread::sleep(LOOK);
    }
}

/// Whether no link leads from the run's prototypes out of its folder.
fn is_whole(run: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(prototypes_folder(run)) else { return false };
    entries.flatten().all(|entry| lies_within(run, &entry.path()))
}

/// A panic while the lock was held has left whole values behind.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machines_names_are_its_names() {
        for host in ["localhost", "localhost:8080", "127.0.0.1:1", "[::1]:80", "[::1]", "10.0.0.1"]
        {
            assert!(names_this_machine(host), "{host}");
        }
        for host in
            ["evil.example", "evil.example:8080", "localhost.evil.example", "", "127.0.0.1.x"]
        {
            assert!(!names_this_machine(host), "{host}");
        }
    }
}
