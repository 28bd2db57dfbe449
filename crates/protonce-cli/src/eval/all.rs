//! `protonce eval all`.

use anyhow::bail;
use clap::{Args, ValueEnum};
use protonce::encoder::Output;
use protonce::transfer::Knn;
use serde_json::{Map, Value};

use super::data_args::Labels;
use super::result::table;
use super::{DataArgs, EncoderArgs, EvalResult, cluster, knn, linear, semi, svm};

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    subject: EncoderArgs,
    #[command(flatten)]
    images: DataArgs,
    /// Leave some out; `semi` takes longest, since it trains the whole network.
    #[arg(long, value_enum, value_name = "EVAL,EVAL", value_delimiter = ',', num_args = 1)]
    skip: Vec<Evaluation>,
    /// Print the table on stdout, as Markdown.
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Evaluation {
    Knn,
    Linear,
    Svm,
    Cluster,
    Semi,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let subject = &arguments.subject;
    let prepared = subject.prepare(&arguments.images)?;
    let single = matches!(prepared.split.labels, Labels::Single { .. });
    let chosen: Vec<Evaluation> = Evaluation::value_variants()
        .iter()
        .copied()
        .filter(|evaluation| !arguments.skip.contains(evaluation))
        // The others want one class an image.
        .filter(|&evaluation| single || evaluation == Evaluation::Svm)
        .collect();
    if chosen.is_empty() {
        bail!("--skip leaves nothing to do: expected one evaluation or more");
    }
    let mut outcomes: Vec<EvalResult> = Vec::new();
    for evaluation in chosen {
        outcomes.push(match evaluation {
            Evaluation::Knn => knn::measure(&prepared, &Knn::default(), Output::Features)?,
            Evaluation::Linear => linear::measure(&prepared, &linear::Exact::default())?,
            Evaluation::Svm => {
                let images = fewest_images(&prepared.split.labels, prepared.split.classes.len());
                svm::measure(&prepared, &svm::Options::for_images(images), subject.seed)?
            }
            Evaluation::Cluster => cluster::measure(&prepared, 0, subject.seed)?,
            Evaluation::Semi => semi::measure(&prepared, &semi::Options::default(), subject)?,
        });
    }
    let benchmark = prepared.split.benchmark;
    if arguments.markdown {
        let rows: Vec<_> = outcomes.into_iter().flat_map(|outcome| outcome.rows).collect();
        print!("{}", table(&rows, benchmark, &subject.name()));
        return Ok(());
    }
    let json: Map<String, Value> =
        outcomes.iter().map(|outcome| (outcome.name.to_owned(), outcome.json.clone())).collect();
    let rows = outcomes.into_iter().flat_map(|outcome| outcome.rows).collect();
    let outcome = EvalResult { name: "all", rows, json: Value::Object(json) };
    outcome.show(&prepared);
    Ok(())
}

/// Training images of the class that has the fewest.
fn fewest_images(labels: &Labels, classes: usize) -> usize {
    let counts: Vec<usize> = match labels {
        Labels::Single { train, .. } => {
            let mut counts = vec![0; classes];
            train.iter().for_each(|&label| counts[label as usize] += 1);
            counts
        }
        Labels::Multiple { train, .. } => {
            train.iter().map(|class| class.iter().filter(|&&there| there).count()).collect()
        }
    };
    counts.into_iter().min().unwrap_or(0)
}
