//! What a run is made of: settings, events, and every file of a run folder.
//!
//! This crate is the one owner of each format: what trains, what reports and what exports read and write
//! the files through the same types. Enters: settings ([`Config`]), what happened ([`Event`]), tensors
//! ([`TensorData`]). Leaves: a folder ([`RunFolder`]) that is whole at any instant, and whatever of it
//! somebody asks for. It needs no libtorch, so that other programs can read a run in a second's build.
//!
//! ```
//! use protonce_run::{Event, PrototypesFile, RunFolder, prototype_files, read_events};
//!
//! fn tell(run: &std::path::Path) -> Result<(), protonce_run::RunError> {
//!     let settings = RunFolder::settings(run)?;
//!     let last = read_events(run)?.into_iter().rev().find_map(|event| match event {
//!         Event::Epoch { epoch, measures, .. } => Some((epoch, measures.loss)),
//!         _ => None,
//!     });
//!     println!("{} epochs asked for; the last and its loss: {last:?}", settings["epochs"]);
//!     let Some((epoch, newest)) = prototype_files(run).pop() else { return Ok(()) };
//!     for granularity in PrototypesFile::open(&newest)?.read()? {
//!         println!("before epoch {epoch}: {} prototypes", granularity.count());
//!     }
//!     Ok(())
//! }
//! # // A folder made here stands in for yours.
//! # use protonce_run::{Config, Granularity, Measures};
//! # let folder = tempfile::tempdir().unwrap();
//! # let config = Config::resolve([Config::preset("small").unwrap()]).unwrap();
//! # let mut run = RunFolder::create(folder.path(), &config, &()).unwrap().folder;
//! # let (loss, instance_loss, instance_accuracy) = (2.5, 2.5, 9.0);
//! # let (prototype_loss, prototype_accuracy) = (None, None);
//! # let measures =
//! #     Measures { loss, instance_loss, instance_accuracy, prototype_loss, prototype_accuracy };
//! # let event = Event::Epoch { epoch: 0, measures, learning_rate: 0.1, images: 3, seconds: 1.0 };
//! # run.record(&event).unwrap();
//! # let (assignment, concentration) = (vec![0, -1, 0], vec![0.2]);
//! # let one = Granularity { assignment, prototypes: vec![1.0], dim: 1, concentration };
//! # run.save_prototypes(1, &[one]).unwrap();
//! # tell(folder.path()).unwrap();
//! ```
//!
//! | file | type |
//! | --- | --- |
//! | `config.toml` | [`Config`] |
//! | `events.jsonl` | a line per [`Event`] |
//! | `convolutions.json` | whatever the encoder gives, see [`RunFolder::create`] |
//! | `checkpoints/epoch-NNNN/`, `checkpoints/last` | [`Checkpoint`]; the name of the newest |
//! | `lock` | locked by the process that trains, see [`RunFolder`] |
//! | `prototypes/epoch-NNNN.safetensors` | [`PrototypesFile`] |
//! | `prototypes/embeddings.safetensors` | [`write_embeddings`], [`read_embeddings`] |

mod checkpoint;
mod checkpoints;
mod checksums;
mod command;
mod encoder_config;
mod error;
mod event;
mod event_log;
mod file;
mod folder;
mod lock;
mod order;
mod paths;
mod prototypes_file;
mod recommended;
mod settings;
mod tensor_file;

pub use checkpoint::{Checkpoint, CheckpointState, Interval, data_fingerprint};
pub use command::text;
pub use encoder_config::{Architecture, EncoderConfig, Head, Stem};
pub use error::RunError;
pub use event::{Event, Floor, Measures, Observer, Progress, Task};
pub use event_log::{EventFollower, FollowedEvent, LogChange, read_events};
pub use file::{replace, write_file};
pub use folder::{Opened, RunFolder};
pub use order::order;
pub use paths::{
    config_file, embeddings_file, epoch_of, events_file, prototype_files, prototypes_file,
    prototypes_folder, tensorboard_folder,
};
pub use prototypes_file::{
    Granularity, PrototypesFile, read_embeddings, write_clusters, write_embeddings,
};
pub use recommended::{Choice, Machine, Pile};
pub use settings::{
    Clusters, Config, ConfigError, Duplicates, Expectation, Hierarchy, Method, MomentumSchedule,
    NotClusters, Position, PrecisionChoice, Preset, QueueNegatives, Schedule, Shuffle, Stats, Tune,
};
pub use tensor_file::{Dtype, RawTensor, TensorData, TensorFile, TensorFileError, write_tensors};
