//! Event files for TensorBoard, in the run's folder `tensorboard`.
//!
//! A file is a row of records, each its length, a checksum of the length, a protocol buffer and its
//! checksum (TensorFlow's TFRecord).

mod messages;

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};
use prost::Message;

use protonce_images::data::Dataset;
use protonce_run::{Event, Measures, prototypes_file, tensorboard_folder};

use crate::ReportError;
use crate::expectation_step::{ExpectationStep, members_of};
use crate::history::History;
use crate::prototype_grid::{Labels, PrototypeGrid, prototype_grid};
use crate::thumbnails::pixels;
use messages::{
    EventPayload, EventRecord, Histogram, Image, SessionLog, Summary, Value, ValueKind,
};

/// Writes what happens in a run for TensorBoard: `tensorboard --logdir RUN`.
///
/// Scalars and images stand at the number of steps done; an expectation step stands at the step
/// that it begins. A resumed run begins another file, which tells TensorBoard to forget what the
/// old one has after the checkpoint.
pub struct TensorBoard {
    run: PathBuf,
    dataset: Dataset,
    steps_per_epoch: usize,
    file: Option<File>,
}

impl TensorBoard {
    /// For the run in the folder `run`, whose epochs have `steps_per_epoch` steps over the images
    /// of `dataset`. Nothing is written before the first event.
    pub fn new(run: &Path, dataset: &Dataset, steps_per_epoch: usize) -> TensorBoard {
        TensorBoard { run: run.to_owned(), dataset: dataset.clone(), steps_per_epoch, file: None }
    }

    /// Writes an event that the run's log already has.
    ///
    /// # Errors
    /// When the file cannot be written, or the prototypes of an expectation step not be read.
    pub fn record(&mut self, event: &Event) -> Result<(), ReportError> {
        let done = |epoch: usize, step: usize| (epoch * self.steps_per_epoch + step) as i64;
        let (step, values) = match event {
            Event::Step {
                epoch,
                step,
                measures,
                learning_rate,
                images_per_second,
                seconds,
                waited,
                communicated,
                ..
            } => {
                let mut values = scalars("train", measures);
                values.push(scalar("train/learning_rate", *learning_rate));
                values.push(scalar("speed/images_per_second", *images_per_second));
                values.push(scalar("speed/waiting_percent", 100.0 * waited / seconds));
                if let Some(communicated) = communicated {
                    let share = 100.0 * communicated / seconds;
                    values.push(scalar("speed/communicating_percent", share));
                }
                (done(*epoch, *step), values)
            }
            Event::Epoch { epoch, measures, .. } => {
                (done(epoch + 1, 0), scalars("epoch", measures))
            }
            Event::Evaluation { epoch, knn, chance, .. } => {
                let mut values: Vec<Value> = knn
                    .iter()
                    .map(|(k, top1)| scalar(&format!("evaluation/knn_{k}"), *top1))
                    .collect();
                values.push(scalar("evaluation/chance", *chance));
                (done(*epoch, 0), values)
            }
            Event::Floors { floors, .. } => {
                let accuracies = floors.iter().flat_map(|floor| {
                    let name = floor.name.replace(' ', "_");
                    let tag = move |k| format!("floor/{name}_knn_{k}");
                    floor.knn.iter().map(move |(k, top1)| scalar(&tag(k), *top1))
                });
                (done(0, 0), accuracies.collect())
            }
            Event::Expectation { epoch, granularities, effective_rank, spread, .. } => {
                let mut values = vec![
                    scalar("embeddings/effective_rank", *effective_rank),
                    scalar("embeddings/spread", *spread),
                ];
                for (m, granularity) in granularities.iter().enumerate() {
                    let tag = |name: &str| format!("prototypes_{m}/{name}");
                    values.push(scalar(&tag("objective"), granularity.objective));
                    values.push(scalar(&tag("empty"), granularity.empty as f64));
                    values.push(scalar(&tag("largest"), granularity.largest as f64));
                }
                values.extend(self.prototypes(*epoch)?);
                (done(*epoch, 1), values)
            }
            Event::Loader { .. }
            | Event::World { .. }
            | Event::Skipped { .. }
            | Event::Checkpoint { .. } => {
                return Ok(());
            }
        };
        self.write(step, EventPayload::Summary(Summary { values }))
    }

    /// Histograms of sizes and concentrations and a picture of the largest prototypes, for each
    /// granularity of the expectation step that began `epoch`.
    fn prototypes(&self, epoch: usize) -> Result<Vec<Value>, ReportError> {
        let path = &prototypes_file(&self.run, epoch);
        if !path.exists() {
            return Ok(Vec::new());
        }
        let labels = self.dataset.labels();
        let labels = labels
            .as_ref()
            .map(|labels| Labels { of_image: labels, names: self.dataset.classes() });
        let step = ExpectationStep::read(path)?;
        let mut values = Vec::new();
        for (m, granularity) in step.granularities.iter().enumerate() {
            let members = members_of(granularity);
            let sizes = members.iter().map(|members| members.len() as f64);
            let concentrations = granularity.concentration.iter().map(|&phi| f64::from(phi));
            values.push(histogram(&format!("prototypes_{m}/sizes"), sizes));
            values.push(histogram(&format!("prototypes_{m}/concentrations"), concentrations));
            let grid = PrototypeGrid { granularity: m, ..PrototypeGrid::default() };
            let picture = prototype_grid(path, &grid, labels, |index| {
                pixels(&self.dataset, index).ok_or(())
            })?;
            let (width, height) = picture.dimensions();
            let mut png = Vec::new();
            PngEncoder::new(&mut png)
                .write_image(&picture, width, height, ExtendedColorType::Rgb8)
                .map_err(|error| ReportError::Encode(error.to_string()))?;
            values.push(Value {
                tag: format!("prototypes_{m}/largest_and_nearest"),
                value: Some(ValueKind::Image(Image {
                    height: height as i32,
                    width: width as i32,
                    colorspace: 3,
                    encoded_image_string: png,
                })),
            });
        }
        Ok(values)
    }

    fn write(&mut self, step: i64, payload: EventPayload) -> Result<(), ReportError> {
        let folder = tensorboard_folder(&self.run);
        let failed = |source| ReportError::Write { path: folder.clone(), source };
        if self.file.is_none() {
            // What was logged beyond the checkpoint will happen again; of a fresh run, everything
            // that an earlier attempt may have left.
            let (epoch, within) = History::read(&self.run)?.checkpoint.unwrap_or_default();
            let kept = epoch * self.steps_per_epoch + within;
            let restart = if kept == 0 { 0 } else { kept as i64 + 1 };
            let mut file = create(&folder).map_err(failed)?;
            append(&mut file, 0, EventPayload::FileVersion("brain.Event:2".to_owned()))
                .map_err(failed)?;
            append(
                &mut file,
                restart,
                EventPayload::SessionLog(SessionLog { status: SessionLog::START }),
            )
            .map_err(failed)?;
            self.file = Some(file);
        }
        match &mut self.file {
            Some(file) => append(file, step, payload).map_err(failed),
            None => Ok(()),
        }
    }
}

/// A new file under a name that TensorBoard reads after all earlier ones.
fn create(folder: &Path) -> io::Result<File> {
    fs::create_dir_all(folder)?;
    let earlier = fs::read_dir(folder)?.flatten().filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        name.strip_prefix(PREFIX)?.split('.').next()?.parse::<u64>().ok()
    });
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let number = earlier.max().map_or(now, |newest| now.max(newest + 1));
    let name = format!("{PREFIX}{number:010}.protonce");
    File::options().create_new(true).append(true).open(folder.join(name))
}

const PREFIX: &str = "events.out.tfevents.";

/// Appends one record in one call, so that a reader never sees half of it.
fn append(file: &mut File, step: i64, payload: EventPayload) -> io::Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
    let event = EventRecord { wall_time: now, step, payload: Some(payload) }.encode_to_vec();
    let length = (event.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(event.len() + 16);
    record.extend(length);
    record.extend(masked_checksum(&length).to_le_bytes());
    record.extend(&event);
    record.extend(masked_checksum(&event).to_le_bytes());
    file.write_all(&record)
}

/// CRC-32C, rotated and shifted, so that checksums of data that holds checksums stay strong.
fn masked_checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn scalars(group: &str, measures: &Measures) -> Vec<Value> {
    let Measures { loss, instance_loss, instance_accuracy, prototype_loss, prototype_accuracy } =
        measures;
    let always = [
        ("loss", loss),
        ("instance_loss", instance_loss),
        ("instance_accuracy", instance_accuracy),
    ];
    let sometimes =
        [("prototype_loss", prototype_loss), ("prototype_accuracy", prototype_accuracy)];
    let sometimes = sometimes.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
    always
        .into_iter()
        .chain(sometimes)
        .map(|(name, value)| scalar(&format!("{group}/{name}"), *value))
        .collect()
}

fn scalar(tag: &str, value: f64) -> Value {
    Value { tag: tag.to_owned(), value: Some(ValueKind::Scalar(value as f32)) }
}

/// Thirty equal bars over the values.
fn histogram(tag: &str, values: impl Iterator<Item = f64> + Clone) -> Value {
    const BARS: usize = 30;
    let min = values.clone().fold(f64::INFINITY, f64::min);
    let max = values.clone().fold(f64::NEG_INFINITY, f64::max);
    let width = (max - min).max(1e-9) / BARS as f64;
    let mut bucket = vec![0.0; BARS];
    let (mut count, mut sum, mut sum_squares) = (0.0, 0.0, 0.0);
    for value in values {
        bucket[(((value - min) / width) as usize).min(BARS - 1)] += 1.0;
        count += 1.0;
        sum += value;
        sum_squares += value * value;
    }
    let histogram = Histogram {
        min,
        max,
        num: count,
        sum,
        sum_squares,
        bucket_limit: (1..=BARS).map(|bar| min + width * bar as f64).collect(),
        bucket,
    };
    Value { tag: tag.to_owned(), value: Some(ValueKind::Histogram(histogram)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_format() {
        // The check value of CRC-32C, and what ((c >> 15) | (c << 17)) + 0xa282ead8 makes of it.
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(masked_checksum(b"123456789"), 0xc78a_b0e5);
    }

    #[test]
    fn a_later_file_has_a_later_name() {
        let folder = tempfile::tempdir().unwrap();
        for _ in 0..3 {
            create(folder.path()).unwrap();
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
    }
}
