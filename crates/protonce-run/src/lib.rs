//! What a run is made of: settings, events, and every file of a run folder.

mod encoder_config;
mod event;
mod settings;
mod tensor_file;

pub use encoder_config::{Architecture, EncoderConfig, Head, Stem};
pub use event::{Event, Measures, Observer, Progress, Task};
pub use settings::{
    Clusters, Config, ConfigError, Duplicates, Expectation, Method, NotClusters, PrecisionChoice,
    Preset, Schedule, Shuffle, Stats, Tune,
};
pub use tensor_file::{Dtype, RawTensor, TensorData, TensorFile, TensorFileError, write_tensors};
