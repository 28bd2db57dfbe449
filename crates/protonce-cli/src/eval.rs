//! `protonce eval`.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Subcommand, ValueEnum};
use indicatif::ProgressBar;
use protonce::data::Dataset;
use protonce::device::device;
use protonce::encoder::{Encoder, Output, Precision, extract};
use protonce::transfer::{Knn, common_labels, knn_accuracy};
use protonce::views::{Loader, ViewConfig};
use protonce::weights::Weights;
use tch::Tensor;

#[derive(Subcommand)]
pub enum Command {
    /// Classify test images by their nearest training images (weighted kNN, no training).
    Knn(KnnArguments),
}

#[derive(Args)]
pub struct KnnArguments {
    /// A run folder, one of its checkpoints, a safetensors file or a .pth of PyTorch.
    #[arg(long, value_name = "W")]
    weights: PathBuf,
    /// Labelled images whose nearest neighbours vote.
    #[arg(long, value_name = "DATA")]
    train: String,
    /// Labelled images that are classified.
    #[arg(long, value_name = "DATA")]
    test: String,
    /// Use only the first N training images of each class, by name (0: all).
    #[arg(long, value_name = "N", default_value_t = 0)]
    per_class: usize,
    /// Numbers of neighbours, each an evaluation of its own.
    #[arg(long, value_name = "K,K", value_delimiter = ',', num_args = 1, default_value = "20,200")]
    k: Vec<i64>,
    /// A neighbour of cosine similarity s votes with weight exp(s / temperature).
    #[arg(long, value_name = "T", default_value_t = 0.07)]
    temperature: f64,
    /// Backbone features transfer best; embeddings are what training compared.
    #[arg(long, value_enum, default_value_t = OutputChoice::Features)]
    output: OutputChoice,
    /// Images a forward pass.
    #[arg(long, value_name = "N", default_value_t = 256)]
    batch_size: usize,
    /// `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
    #[arg(long, default_value = "auto")]
    device: String,
    /// Print one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum OutputChoice {
    Features,
    Embeddings,
}

impl From<OutputChoice> for Output {
    fn from(choice: OutputChoice) -> Output {
        match choice {
            OutputChoice::Features => Output::Features,
            OutputChoice::Embeddings => Output::Embeddings,
        }
    }
}

pub fn run(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Knn(arguments) => knn(arguments),
    }
}

fn knn(arguments: &KnnArguments) -> anyhow::Result<()> {
    let device = device(&arguments.device)?;
    let weights = Weights::read(&arguments.weights)?;
    let encoder = weights.load(Precision::fastest_on(device), device)?;
    let train = Dataset::open(&arguments.train)?;
    let train = match arguments.per_class {
        0 => train,
        count => train.per_class(count),
    };
    let test = Dataset::open(&arguments.test)?;
    let (train_labels, test_labels) = common_labels(&train, &test)?;
    let classes = train.classes().len() as i64;
    let (bank, bank_labels) = labelled(&encoder, &weights.views, train, &train_labels, arguments)?;
    let (queries, query_labels) =
        labelled(&encoder, &weights.views, test, &test_labels, arguments)?;
    let options = Knn { neighbours: arguments.k.clone(), temperature: arguments.temperature };
    let accuracies =
        knn_accuracy(&options, (&bank, &bank_labels), (&queries, &query_labels), classes);
    for accuracy in &accuracies {
        eprintln!("k {:>4}: {:.2} % of {} right", accuracy.k, accuracy.top1, queries.size()[0]);
    }
    if arguments.json {
        println!("{}", serde_json::json!({ "knn": accuracies }));
    }
    Ok(())
}

/// Rows and labels of the images that can be read; the others are named on stderr.
fn labelled(
    encoder: &Encoder,
    views: &ViewConfig,
    dataset: Dataset,
    labels: &[i64],
    arguments: &KnnArguments,
) -> anyhow::Result<(Tensor, Tensor)> {
    let output = arguments.output.into();
    let indices: Vec<usize> = (0..dataset.len()).collect();
    let batches = indices.chunks(arguments.batch_size.max(1)).map(<[usize]>::to_vec).collect();
    let bar = ProgressBar::new(indices.len() as u64);
    let mut loader = Loader::evaluation(Arc::new(dataset), views.clone(), batches, 0)?;
    let extracted =
        extract(encoder, &mut loader, output, &mut |done| bar.set_position(done as u64))?;
    bar.finish_and_clear();
    for bad in &extracted.unreadable {
        eprintln!("warning: skipped {}: {}", bad.name, bad.reason);
    }
    let labels: Vec<i64> = extracted.images.iter().map(|&image| labels[image as usize]).collect();
    let labels = Tensor::from_slice(&labels).to_device(extracted.rows.device());
    Ok((extracted.rows, labels))
}
