//! What an evaluation starts from: an encoder, labelled images, and features that are computed when the
//! first evaluation asks for them.

use std::cell::{Cell, OnceCell};
use std::time::{Duration, Instant};

use protonce::transfer::FrozenEncoder;
use protonce_encoder::Output;
use protonce_images::data::Dataset;
use tch::Tensor;

use super::args::EvalArgs;
use super::progress::{progress_bar, skipped};
use super::split::Split;
use protonce_cli::say;

/// What an evaluation starts from.
pub struct Prepared<'a> {
    pub args: &'a EvalArgs,
    pub encoder: FrozenEncoder,
    pub split: Split,
    features: OnceCell<Features>,
    embeddings: OnceCell<Features>,
    /// Images whose features were computed, not found in the cache, and the time that took.
    pub computed: Cell<(usize, Duration)>,
}

/// Features of training and test images, on the encoder's device, and which image each row is of.
pub struct Features {
    pub train: Tensor,
    pub train_images: Vec<i64>,
    pub test: Tensor,
    pub test_images: Vec<i64>,
}

/// Features with one label per image.
pub struct LabelledFeatures {
    pub train: Tensor,
    pub train_labels: Tensor,
    pub test: Tensor,
    pub test_labels: Tensor,
    pub classes: i64,
}

impl<'a> Prepared<'a> {
    pub fn new(args: &'a EvalArgs, encoder: FrozenEncoder, split: Split) -> Prepared<'a> {
        let (features, embeddings) = Default::default();
        Prepared { args, encoder, split, features, embeddings, computed: Cell::default() }
    }

    /// Features or embeddings of all images that can be read; computed once.
    pub fn features(&self, output: Output) -> anyhow::Result<&Features> {
        let cell = match output {
            Output::Features => &self.features,
            Output::Embeddings => &self.embeddings,
        };
        if let Some(features) = cell.get() {
            return Ok(features);
        }
        let (train_images, train) = self.extract("training images", &self.split.train, output)?;
        let (test_images, test) = match self.split.same_images() {
            true => (train_images.clone(), train.shallow_clone()),
            false => self.extract("test images", &self.split.test, output)?,
        };
        Ok(cell.get_or_init(|| Features { train, train_images, test, test_images }))
    }

    /// The same with one label per image.
    pub fn labelled(&self, output: Output) -> anyhow::Result<LabelledFeatures> {
        let (train_labels, test_labels) = self.split.single_labels()?;
        let features = self.features(output)?;
        let of = |images: &[i64], labels: &[i64]| {
            let labels: Vec<i64> = images.iter().map(|&image| labels[image as usize]).collect();
            Tensor::from_slice(&labels).to_device(features.train.device())
        };
        Ok(LabelledFeatures {
            train: features.train.shallow_clone(),
            train_labels: of(&features.train_images, train_labels),
            test: features.test.shallow_clone(),
            test_labels: of(&features.test_images, test_labels),
            classes: self.split.classes.len() as i64,
        })
    }

    fn extract(
        &self,
        what: &str,
        images: &Dataset,
        output: Output,
    ) -> anyhow::Result<(Vec<i64>, Tensor)> {
        let bar = progress_bar(&format!("{what}: features"), images.len())?;
        let (begin, mut last) = (Instant::now(), 0);
        let extracted = self.encoder.extract(
            images,
            output,
            self.args.batch_size,
            self.args.cache().as_ref(),
            &mut |done| {
                last = done;
                bar.set_position(done as u64);
            },
            &mut |warning| bar.suspend(|| say!("warning: {warning}")),
        )?;
        bar.finish_and_clear();
        if last > 0 {
            let (images, time) = self.computed.get();
            self.computed.set((images + last, time + begin.elapsed()));
        }
        extracted.unreadable.iter().for_each(skipped);
        Ok((extracted.images, extracted.rows))
    }
}
