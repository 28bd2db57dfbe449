//! What a run needs before its first step: who trains on what, where, and with which arithmetic.

use std::path::Path;
use std::sync::Arc;

use protonce_images::data::Dataset;
use protonce_run::{Config, Method, Observer, PrecisionChoice, Progress, Task, Tune};
use tch::Device;

use super::conv_plan;
use super::error::PretrainError;
use crate::prototypes::PrototypeError;
use crate::world::World;
use protonce_encoder::convolution::{ConvAlgorithms, ConvPlan};
use protonce_encoder::{Encoder, Precision};

/// Whether a run folder is begun or continued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// There must be no run yet.
    Fresh,
    /// Goes on from the last checkpoint.
    Resume,
}

/// Everything a run needs to know before it begins.
pub struct Setup<'a> {
    /// The settings.
    pub config: &'a Config,
    /// The images.
    pub dataset: Arc<Dataset>,
    /// The run folder.
    pub out: &'a Path,
    /// Whether it is begun or continued.
    pub start: Start,
    /// Where tensors live.
    pub device: Device,
    /// The processes that train together.
    pub world: World,
}

/// The arithmetic that `config` asks for.
pub(super) fn precision(config: &Config, device: Device) -> Precision {
    match config.precision {
        PrecisionChoice::Auto => Precision::fastest_on(device),
        PrecisionChoice::Float32 => Precision::Float32,
        PrecisionChoice::Bf16 => Precision::BFloat16,
    }
}

/// The algorithm of each convolution of `encoder` on `device`, for a run that begins; empty where the
/// rule is to decide.
pub(super) fn choose_conv_plan(
    config: &Config,
    encoder: &Encoder,
    device: Device,
    observer: &mut Observer,
) -> ConvPlan {
    let measured = match config.tune {
        Tune::Auto => encoder.precision() == Precision::BFloat16,
        Tune::On => true,
        Tune::Off => false,
    };
    if !measured || device != Device::Cpu {
        return ConvPlan::default();
    }
    let images = (config.batch_size as i64 + config.bn_splits - 1) / config.bn_splits;
    let shapes = encoder.convolutions(images, config.views.image_size as i64);
    let (plan, warnings) = conv_plan::fastest(
        &shapes,
        &conv_plan::processor(),
        conv_plan::cache_file().as_deref(),
        &mut ConvAlgorithms::measured,
        &mut |done, total| observer(Progress::Task { task: Task::Tuning, done, total }),
    );
    for warning in &warnings {
        observer(Progress::Warning(warning));
    }
    plan
}

/// Refuses what could only fail later.
pub(super) fn check_sizes(config: &Config, dataset: &Dataset) -> Result<(), PretrainError> {
    let (images, data) = (dataset.len(), dataset.argument().to_owned());
    if images == 1 {
        return Err(PretrainError::OneImage { data });
    }
    if config.batch_size > images {
        return Err(PretrainError::BatchTooLarge { batch: config.batch_size, images, data });
    }
    let most = config.clusters.counts(images).into_iter().max().unwrap_or(0);
    if config.method == Method::Pcl && most > images as i64 {
        return Err(
            PrototypeError::TooManyClusters { clusters: most, images: images as i64 }.into()
        );
    }
    Ok(())
}
