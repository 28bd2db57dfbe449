//! What people look at when a run has ended.
//!
//! In go the files a run leaves behind: the prototypes of an expectation step and the log of
//! events. Out come two pictures. [`prototype_grid`] shows what was discovered: the largest
//! prototypes, each with the images nearest to it. [`loss_curve`] shows how training went. Both
//! return pixels; [`save_png`] puts them into a file, and a crash leaves either the old file or
//! the new one.
//!
//! Nothing here needs libtorch, a display or an installed font, so a report can be made wherever
//! the run folder was copied.

mod canvas;
mod cluster_choice;
mod error;
mod events;
mod loss_curve;
mod neighbour_grid;
mod prototype_grid;
mod save;

pub use cluster_choice::{Choice, cluster_choice};
pub use error::ReportError;
pub use loss_curve::loss_curve;
pub use neighbour_grid::{Neighbours, Shown, neighbour_grid};
pub use prototype_grid::{Labels, PrototypeGrid, prototype_grid};
pub use save::save_png;
