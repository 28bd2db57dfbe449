//! What a run is made of: settings, events, and every file of a run folder.

mod encoder_config;
mod event;
mod settings;

pub use encoder_config::{Architecture, EncoderConfig, Head, Stem, UnknownName};
pub use event::{Event, Measures, Observer, Progress, Task};
pub use settings::{
    Auto, Clusters, Config, ConfigError, Duplicates, Expectation, Method, PrecisionChoice,
    Schedule, Shuffle, Stats, Tune,
};
