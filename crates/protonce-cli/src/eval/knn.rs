//! `protonce eval knn`.

use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::Args;
use image::RgbImage;
use protonce::transfer::{Knn, knn_accuracy, neighbours, recall};
use protonce_encoder::Output;
use protonce_images::data::Dataset;
use protonce_report::{Neighbours, Shown, neighbour_grid, save_png};
use serde_json::json;

use super::progress::with_spinner;
use super::{EvalResult, Figure, OutputChoice, Prepared};
use crate::destination;
use crate::pictures::rgb;
use protonce_cli::say;

#[derive(Args)]
pub struct Options {
    /// Numbers of neighbours, each an evaluation of its own.
    #[arg(long, value_name = "K,K", value_delimiter = ',', num_args = 1, default_value = "20,200")]
    k: Vec<i64>,
    /// A neighbour of cosine similarity s votes with weight exp(s / temperature).
    #[arg(long, value_name = "T", default_value_t = 0.07)]
    temperature: f64,
    /// Backbone features transfer best; embeddings are what training compared.
    #[arg(long, value_enum, default_value_t = OutputChoice::Features)]
    output: OutputChoice,
    /// Retrieve instead of classify: how often one of the first 1, 2, 4, 8 training images found is of
    /// the query's class.
    #[arg(long)]
    retrieval: bool,
    /// Draw some test images with the training images nearest to them.
    #[arg(long, value_name = "FILE.png")]
    picture: Option<PathBuf>,
    /// Test images in the picture, spread evenly over all.
    #[arg(long, value_name = "N", default_value_t = 10, requires = "picture")]
    queries: usize,
}

pub fn measure(prepared: &Prepared, options: &Options) -> anyhow::Result<EvalResult> {
    if let Some(k) = options.k.iter().find(|&&k| k < 1) {
        bail!("\"k\" is {k}: expected 1 or more neighbours");
    }
    if options.temperature <= 0.0 {
        bail!("\"temperature\" is {}: expected more than 0", options.temperature);
    }
    if let Some(file) = &options.picture {
        destination::check_file(file)?;
    }
    let output = options.output.output();
    let result = match options.retrieval {
        true => retrieve(prepared, output)?,
        false => {
            let Options { k, temperature, .. } = options;
            let knn = Knn { neighbours: k.clone(), temperature: *temperature };
            classify(prepared, &knn, output)?
        }
    };
    if let Some(file) = &options.picture {
        draw(prepared, output, options.queries, file)?;
    }
    Ok(result)
}

pub fn classify(prepared: &Prepared, knn: &Knn, output: Output) -> anyhow::Result<EvalResult> {
    let features = prepared.labelled(output)?;
    let bank = (&features.train, &features.train_labels);
    let queries = (&features.test, &features.test_labels);
    let accuracies =
        with_spinner("nearest neighbours", || knn_accuracy(knn, bank, queries, features.classes))?;
    let figures =
        accuracies.iter().map(|found| Figure::new(format!("kNN k {}", found.k), found.top1));
    Ok(EvalResult { name: "knn", figures: figures.collect(), json: json!(accuracies) })
}

fn retrieve(prepared: &Prepared, output: Output) -> anyhow::Result<EvalResult> {
    let features = prepared.labelled(output)?;
    let recalls = recall(
        &[1, 2, 4, 8],
        (&features.train, &features.train_labels),
        (&features.test, &features.test_labels),
    );
    let figures =
        recalls.iter().map(|found| Figure::new(format!("recall at {}", found.k), found.recall));
    Ok(EvalResult { name: "retrieval", figures: figures.collect(), json: json!(recalls) })
}

fn draw(prepared: &Prepared, output: Output, queries: usize, file: &Path) -> anyhow::Result<()> {
    const FOUND: i64 = 10;
    let (train_labels, test_labels) = prepared.split.single_labels()?;
    let features = prepared.features(output)?;
    let available = features.test_images.len();
    let queries = queries.clamp(1, available);
    let name_of = |class: i64| prepared.split.classes[class as usize].clone();
    let mut rows = Vec::new();
    for query in (0..queries).map(|number| number * available / queries) {
        let row = features.test.narrow(0, query as i64, 1);
        let (similarities, found) = neighbours(&features.train, &row, FOUND);
        let image = features.test_images[query] as usize;
        let class = test_labels[image];
        let mut nearest = Vec::new();
        for rank in 0..found.size()[1] {
            let neighbour = found.int64_value(&[0, rank]) as usize;
            let neighbour = features.train_images[neighbour] as usize;
            let similarity = similarities.double_value(&[0, rank]);
            nearest.push(Shown {
                image: image_of(&prepared.split.train, neighbour),
                caption: [name_of(train_labels[neighbour]), format!("{similarity:.3}")],
                wrong: train_labels[neighbour] != class,
            });
        }
        let query = Shown {
            image: image_of(&prepared.split.test, image),
            caption: [name_of(class), "query".to_owned()],
            wrong: false,
        };
        rows.push(Neighbours { query, nearest });
    }
    let title = "Test images and the training images nearest to them; framed: of another class";
    save_png(file, &neighbour_grid(title, &rows, FOUND as u32, 72)?)?;
    say!("{queries} test images with their neighbours: {}", file.display());
    Ok(())
}

/// None where it cannot be read: the picture has a gap there.
fn image_of(dataset: &Dataset, index: usize) -> Option<RgbImage> {
    let mut bytes = Vec::new();
    dataset.read(index, &mut bytes).ok()?;
    rgb(&bytes)
}
