//! `protonce eval linear`.

use clap::{Args, ValueEnum};
use protonce::transfer::{LinearProbe, Logistic, SupervisedSgd, TopAccuracy, top_accuracy};
use protonce_encoder::{Output, normalise_rows};
use serde_json::{Value, json};

use super::progress::{progress_bar, show_on, warn_of_guessing, with_spinner};
use super::{EvalResult, Figure, Prepared};
use protonce_cli::say;

#[derive(Args)]
pub struct Options {
    /// `exact`: logistic regression on the features of centre crops, solved to the minimum, in
    /// seconds. `sgd`: the published protocol, gradient descent on the features of random crops; every
    /// epoch computes new ones.
    #[arg(long, value_enum, default_value_t = Protocol::Exact)]
    protocol: Protocol,
    #[command(flatten)]
    exact: Exact,
    /// `sgd`: passes over the training images.
    #[arg(long, value_name = "N", default_value_t = 100)]
    epochs: usize,
    /// `sgd`: learning rate of the first epoch.
    #[arg(long, value_name = "LR", default_value_t = 5.0)]
    lr: f64,
    /// `sgd`: the epochs at which the learning rate falls to a tenth.
    #[arg(long, value_name = "E,E", value_delimiter = ',', num_args = 1, default_value = "60,80")]
    milestones: Vec<usize>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Protocol {
    Exact,
    Sgd,
}

/// The options of the exact protocol.
#[derive(Args)]
pub struct Exact {
    /// `exact`: C, the weight of the cross-entropy against ½‖W‖², as in scikit-learn's
    /// LogisticRegression. Of several, a tenth of each class's training images decides; the test
    /// images never do.
    #[arg(
        long,
        value_name = "C,C",
        value_delimiter = ',',
        num_args = 1,
        default_value = "0.0001,0.001,0.01,0.1,1,10"
    )]
    c: Vec<f64>,
    /// `exact`: divide each feature vector by its length first. Then C 10 to 100 is a good start.
    #[arg(long)]
    normalise: bool,
}

impl Default for Exact {
    fn default() -> Exact {
        Exact { c: vec![1e-4, 1e-3, 0.01, 0.1, 1.0, 10.0], normalise: false }
    }
}

pub fn measure(prepared: &Prepared, options: &Options) -> anyhow::Result<EvalResult> {
    match options.protocol {
        Protocol::Exact => exact(prepared, &options.exact),
        Protocol::Sgd => {
            let published = LinearProbe::default();
            let sgd = SupervisedSgd {
                epochs: options.epochs.max(1),
                batch_size: prepared.args.batch_size,
                milestones: options.milestones.clone(),
                seed: prepared.args.seed,
                ..published.sgd
            };
            descend(prepared, &LinearProbe { sgd, lr: options.lr })
        }
    }
}

/// The exact protocol.
pub fn exact(prepared: &Prepared, options: &Exact) -> anyhow::Result<EvalResult> {
    let mut features = prepared.labelled(Output::Features)?;
    if options.normalise {
        features.train = normalise_rows(&features.train);
        features.test = normalise_rows(&features.test);
    }
    let (train, labels, classes) = (&features.train, &features.train_labels, features.classes);
    let logistic = Logistic::default();
    let (c, held_out) =
        with_spinner("choosing C", || logistic.choose(train, labels, classes, &options.c))??;
    let fits = with_spinner("logistic regression", || logistic.sweep(train, labels, classes, &[c]));
    let Some(fit) = fits??.pop() else {
        anyhow::bail!("no strength of regularisation was given: expected --c");
    };
    if !fit.converged {
        say!("warning: not converged after {} passes over the features", fit.passes);
    }
    let accuracy = top_accuracy(&fit.classifier.scores(&features.test), &features.test_labels);
    for (c, top1) in &held_out {
        say!("C {c:>8}: {top1:.2} % of the held-out training images right");
    }
    let held_out: Vec<Value> =
        held_out.iter().map(|(c, top1)| json!({ "c": c, "top1": top1 })).collect();
    Ok(result(
        accuracy,
        json!({
            "protocol": "exact", "c": c, "normalise": options.normalise, "passes": fit.passes,
            "converged": fit.converged, "objective": fit.objective, "held_out": held_out,
        }),
    ))
}

/// The published protocol.
fn descend(prepared: &Prepared, probe: &LinearProbe) -> anyhow::Result<EvalResult> {
    let (train_labels, _) = prepared.split.single_labels()?;
    let train = &prepared.split.train;
    let bar = progress_bar("linear classifier", train.len())?;
    let classes = prepared.split.classes.len();
    let mut losses = Vec::new();
    let classifier = probe.fit(
        &prepared.encoder,
        (train, train_labels),
        classes,
        &mut show_on(&bar, probe.sgd.epochs, &mut losses),
    )?;
    bar.finish_and_clear();
    warn_of_guessing(losses.last().copied(), classes, "--lr");
    let features = prepared.labelled(Output::Features)?;
    let accuracy = top_accuracy(&classifier.scores(&features.test), &features.test_labels);
    Ok(result(accuracy, json!({ "protocol": "sgd", "epochs": probe.sgd.epochs, "losses": losses })))
}

fn result(accuracy: TopAccuracy, mut json: Value) -> EvalResult {
    let TopAccuracy { top1, top5 } = accuracy;
    json["top1"] = json!(top1);
    json["top5"] = json!(top5);
    let figures = vec![Figure::new("linear top-1", top1), Figure::new("linear top-5", top5)];
    EvalResult { name: "linear", figures, json }
}
