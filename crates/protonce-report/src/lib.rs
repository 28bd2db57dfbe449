//! What people look at, while a run goes on and when it has ended.
//!
//! In go the files a run leaves behind: its log of events and the prototypes of its expectation
//! steps. Out come a page, [`write_report`], that shows what was discovered and how training went;
//! the same page live while training goes on, [`serve`]; and event files for TensorBoard,
//! [`TensorBoard`]. [`prototype_grid`] is one picture of the largest prototypes.
//!
//! Nothing here needs a display, an installed font or a network, and nothing grows without bound
//! with the run: logs are summed up, images sampled, and the page says so.

mod analysis;
mod canvas;
mod cluster_choice;
mod command;
mod error;
mod expectation;
mod history;
mod live;
mod map;
mod neighbour_grid;
mod page;
mod prototype_grid;
mod save;
mod tensorboard;
mod tensors;
mod thumbnails;

pub use analysis::ReportWork;
pub use cluster_choice::{Choice, cluster_choice};
pub use error::ReportError;
pub use live::{ServeOptions, serve};
pub use neighbour_grid::{Neighbours, Shown, neighbour_grid};
pub use page::{ReportOptions, ReportSummary, write_report};
pub use prototype_grid::{Labels, PrototypeGrid, prototype_grid};
pub use save::save_png;
pub use tensorboard::TensorBoard;
