//! `protonce eval all`.

use anyhow::bail;
use clap::{Args, ValueEnum};
use protonce::transfer::Knn;
use protonce_encoder::Output;
use serde_json::{Map, Value};

use super::result::table;
use super::split::Labels;
use super::{EvalCommand, EvalResult, cluster, knn, linear, semi, svm};
use protonce_cli::output::print;
use protonce_cli::say;

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
            EvalName::Knn => {
                let images = prepared.features(Output::Features)?.train_images.len();
                let neighbours = once(&Knn::default().neighbours, images as i64);
                let knn = Knn { neighbours, ..Knn::default() };
                knn::classify(&prepared, &knn, Output::Features)?
            }
            EvalName::Linear => linear::exact(&prepared, &linear::Exact::default())?,
            EvalName::Svm => svm::measure(&prepared, &svm::Options::default())?,
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

/// Numbers of neighbours without those that mean the same as another, since there are only so many images.
fn once(neighbours: &[i64], images: i64) -> Vec<i64> {
    let mut done: Vec<i64> = Vec::new();
    for &k in neighbours {
        match done.iter().find(|&&done| done.min(images) == k.min(images)) {
            Some(same) => say!(
                "note: left out: kNN with {k} neighbours, which with {images} training images is that with {same}"
            ),
            None => done.push(k),
        }
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_beyond_all_images_vote_once() {
        assert_eq!(once(&[20, 200], 1000), [20, 200]);
        assert_eq!(once(&[20, 200], 100), [20, 200]);
        assert_eq!(once(&[20, 200], 20), [20]);
        assert_eq!(once(&[20, 200], 7), [20]);
    }
}
