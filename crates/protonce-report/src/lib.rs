//! What people look at, while a run goes on and when it has ended. It needs no libtorch, no display, no
//! installed font and no network.
//!
//! Enters: the files that a run leaves behind, its log of events and the prototypes of its expectation
//! steps. Leaves: a page, [`write_report`], that shows what was discovered and how training went; the
//! same page live while training goes on, [`serve`]; event files for TensorBoard, [`TensorBoard`]; and
//! pictures: [`prototype_grid`], [`neighbour_grid`], [`cluster_choice`].
//!
//! Nothing grows without bound with the run: logs are summed up, images sampled, and the page says so.
//!
//! ```
//! use std::path::Path;
//!
//! use protonce_report::{ReportError, ReportOptions, write_report};
//!
//! fn report(run: &Path) -> Result<(), ReportError> {
//!     let options = ReportOptions { data: None, map: 50_000 };
//!     let out = run.join("report.html");
//!     let summary = write_report(run, &options, &out, &mut |task, done, total| {
//!         println!("{task:?}: {done} of {total}");
//!     })?;
//!     println!("{} bytes, {} images in the map", summary.bytes, summary.map);
//!     Ok(())
//! }
//! # // A folder made here stands in for yours.
//! # let folder = tempfile::tempdir().unwrap();
//! # let config = protonce_run::Config::preset("small").unwrap();
//! # let config = protonce_run::Config::resolve([config]).unwrap();
//! # protonce_run::RunFolder::create(folder.path(), &config, &()).unwrap();
//! # report(folder.path()).unwrap();
//! # assert!(std::fs::read_to_string(folder.path().join("report.html")).unwrap().contains("<html"));
//! ```
//!
//! # Features
//! - `serve`: the live page, with axum and tokio.
//! - `map`: the map of the images in the page, with `protonce-map`.

mod analysis;
mod canvas;
mod cluster_choice;
mod curve;
mod error;
mod expectation_step;
mod history;
#[cfg(feature = "serve")]
mod live;
mod neighbour_grid;
mod neighbours;
mod page;
mod prototype_grid;
mod report;
mod reported_run;
mod save;
mod tensorboard;
mod thumbnails;

pub use analysis::ReportTask;
pub use cluster_choice::{ClusterCount, cluster_choice};
pub use error::ReportError;
#[cfg(feature = "serve")]
pub use live::{ServeOptions, serve};
pub use neighbour_grid::{Neighbours, Shown, neighbour_grid};
pub use prototype_grid::{Labels, PrototypeGrid, prototype_grid};
pub use report::{ReportOptions, ReportSummary, write_report};
pub use save::save_png;
pub use tensorboard::TensorBoard;
