//! `protonce eval all`.

use anyhow::bail;
use clap::{Args, ValueEnum};
use protonce_encoder::Output;
use protonce::transfer::Knn;
use serde_json::{Map, Value};

use super::result::table;
use super::split::Labels;
use super::{EvalCommand, EvalResult, cluster, knn, linear, semi, svm};
use crate::output::print;

#[derive(Args)]
pub struct Options {
    /// Leave some out; `semi` takes longest, since it trains the whole network.
    #[arg(long, value_enum, value_name = "EVAL,EVAL", value_delimiter = ',', num_args = 1)]
    skip: Vec<EvalName>,
    /// Print the table on stdout, as Markdown.
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum EvalName {
    Knn,
    Linear,
    Svm,
    Cluster,
    Semi,
}

pub fn run(command: &EvalCommand<Options>) -> anyhow::Result<()> {
    let options = &command.options;
    let prepared = command.args.prepare()?;
    let single = matches!(prepared.split.labels, Labels::Single { .. });
    let chosen: Vec<EvalName> = EvalName::value_variants()
        .iter()
        .copied()
        .filter(|evaluation| !options.skip.contains(evaluation))
        // The others want one class per image.
        .filter(|&evaluation| single || evaluation == EvalName::Svm)
        .collect();
    if chosen.is_empty() {
        bail!("--skip leaves nothing to do: expected one evaluation or more");
    }
    let mut results: Vec<EvalResult> = Vec::new();
    for evaluation in chosen {
        results.push(match evaluation {
            EvalName::Knn => knn::classify(&prepared, &Knn::default(), Output::Features)?,
            EvalName::Linear => linear::exact(&prepared, &linear::Exact::default())?,
            EvalName::Svm => {
                let images = fewest_images(&prepared.split.labels, prepared.split.classes.len());
                svm::measure(&prepared, &svm::Options::for_images(images))?
            }
            EvalName::Cluster => cluster::measure(&prepared, &cluster::Options { clusters: 0 })?,
            EvalName::Semi => semi::measure(&prepared, &semi::Options::default())?,
        });
    }
    let benchmark = prepared.split.benchmark;
    if options.markdown {
        let figures: Vec<_> = results.into_iter().flat_map(|result| result.figures).collect();
        return Ok(print(table(&figures, benchmark, &prepared.args.name()))?);
    }
    let json: Map<String, Value> =
        results.iter().map(|result| (result.name.to_owned(), result.json.clone())).collect();
    let figures = results.into_iter().flat_map(|result| result.figures).collect();
    EvalResult { name: "all", figures, json: Value::Object(json) }.show(&prepared)?;
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
