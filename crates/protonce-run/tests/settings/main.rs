//! Settings are defined once: presets, files, checks, resumed runs and documentation follow.

mod definitions;
mod page;
mod presets;
