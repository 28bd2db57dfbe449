//! `protonce eval knn`.

use clap::Args;
use protonce::transfer::{Knn, knn_accuracy};

use super::{Features, Images, OutputChoice, Subject};

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    subject: Subject,
    #[command(flatten)]
    images: Images,
    /// Numbers of neighbours, each an evaluation of its own.
    #[arg(long, value_name = "K,K", value_delimiter = ',', num_args = 1, default_value = "20,200")]
    k: Vec<i64>,
    /// A neighbour of cosine similarity s votes with weight exp(s / temperature).
    #[arg(long, value_name = "T", default_value_t = 0.07)]
    temperature: f64,
    /// Backbone features transfer best; embeddings are what training compared.
    #[arg(long, value_enum, default_value_t = OutputChoice::Features)]
    output: OutputChoice,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let features = Features::of(&arguments.subject, &arguments.images, arguments.output.output())?;
    let options = Knn { neighbours: arguments.k.clone(), temperature: arguments.temperature };
    let accuracies = knn_accuracy(
        &options,
        (&features.train, &features.train_labels),
        (&features.test, &features.test_labels),
        features.classes,
    );
    for accuracy in &accuracies {
        let tested = features.test.size()[0];
        eprintln!("k {:>4}: {:.2} % of {tested} right", accuracy.k, accuracy.top1);
    }
    if arguments.subject.json {
        println!("{}", serde_json::json!({ "knn": accuracies }));
    }
    Ok(())
}
