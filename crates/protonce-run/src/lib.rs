//! What a run is made of: settings, events, and every file of a run folder.
//!
//! This crate is the one owner of each format: what trains, what reports and what exports read and write
//! the files through the same types. Enters: settings ([`Config`]), what happened ([`Event`]), tensors
//! ([`TensorData`]). Leaves: a folder ([`RunFolder`]) that is whole at any instant, and whatever of it
//! somebody asks for. It needs no libtorch, so that other programs can read a run in a second's build.
//!
//! ```
//! # use protonce_run::{Config, Measures};
//! use std::path::Path;
//!
//! use protonce_run::{Event, PrototypesFile, RunError, RunFolder, prototype_files, read_events};
//!
//! /// Epochs asked for, the last loss, and the images of each granularity's first prototype.
//! fn summary(run: &Path) -> Result<(i64, Option<f64>, Vec<usize>), RunError> {
//!     let epochs = RunFolder::settings(run)?["epochs"].as_integer().unwrap_or(0);
//!     let loss = read_events(run)?.into_iter().rev().find_map(|event| match event {
//!         Event::Epoch { measures, .. } => Some(measures.loss),
//!         _ => None,
//!     });
//!     let Some((_, newest)) = prototype_files(run).pop() else { return Ok((epochs, loss, vec![])) };
//!     let found = PrototypesFile::open(&newest)?.read()?.into_iter();
//!     let first = found.map(|one| one.assignment.iter().filter(|&&prototype| prototype == 0).count());
//!     Ok((epochs, loss, first.collect()))
//! }
//! # // A folder made here stands in for yours.
//! # let folder = tempfile::tempdir().unwrap();
//! # let config = Config::resolve([Config::preset("small").unwrap()]).unwrap();
//! # let mut run = RunFolder::create(folder.path(), &config, &()).unwrap();
//! # let measures = Measures {
//! #     loss: 2.5,
//! #     instance_loss: 2.5,
//! #     instance_accuracy: 9.0,
//! #     prototype_loss: None,
//! #     prototype_accuracy: None,
//! # };
//! # run.record(&Event::Epoch { epoch: 0, measures, learning_rate: 0.1, images: 3, seconds: 1.0 }).unwrap();
//! # let assignment = vec![0, -1, 0];
//! # let concentration = vec![0.2];
//! # let one = protonce_run::Granularity { assignment, prototypes: vec![1.0], dim: 1, concentration };
//! # run.save_prototypes(1, &[one]).unwrap();
//! # assert_eq!(summary(folder.path()).unwrap(), (config.epochs as i64, Some(2.5), vec![2]));
//! ```
//!
//! | file | type |
//! | --- | --- |
//! | `config.toml` | [`Config`] |
//! | `events.jsonl` | a line per [`Event`] |
//! | `convolutions.json` | whatever the encoder gives, see [`RunFolder::create`] |
//! | `checkpoints/epoch-NNNN/`, `checkpoints/last` | [`Checkpoint`] |
//! | `prototypes/epoch-NNNN.safetensors` | [`PrototypesFile`] |
//! | `prototypes/embeddings.safetensors` | [`write_embeddings`], [`read_embeddings`] |

mod checkpoint;
mod encoder_config;
mod error;
mod event;
mod event_log;
mod file;
mod folder;
mod paths;
mod prototypes_file;
mod settings;
mod tensor_file;

pub use checkpoint::{Checkpoint, CheckpointState, data_fingerprint};
pub use encoder_config::{Architecture, EncoderConfig, Head, Stem};
pub use error::RunError;
pub use event::{Event, Measures, Observer, Progress, Task};
pub use event_log::{EventFollower, FollowedEvent, LogChange, read_events};
pub use file::{replace, write_file};
pub use folder::RunFolder;
pub use paths::{
    config_file, embeddings_file, epoch_of, events_file, prototype_files, prototypes_file,
    prototypes_folder, tensorboard_folder,
};
pub use prototypes_file::{
    Granularity, PrototypesFile, read_embeddings, write_clusters, write_embeddings,
};
pub use settings::{
    Clusters, Config, ConfigError, Duplicates, Expectation, Method, NotClusters, PrecisionChoice,
    Preset, Schedule, Shuffle, Stats, Tune,
};
pub use tensor_file::{Dtype, RawTensor, TensorData, TensorFile, TensorFileError, write_tensors};
