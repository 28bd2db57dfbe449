//! `protonce eval semi`.

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use protonce::transfer::{FineTune, SupervisedSgd, TopAccuracy, listed, share_of_each_class};
use serde_json::json;

use super::progress::{progress_bar, show_on, warn_of_guessing};
use super::{EvalResult, Figure, Prepared};
use protonce_cli::say;

#[derive(Args)]
pub struct Options {
    /// Shares of the labels, each an evaluation of its own: 0.01 is 1 % of each class.
    #[arg(
        long,
        value_name = "SHARE,SHARE",
        value_delimiter = ',',
        num_args = 1,
        default_value = "0.01,0.1"
    )]
    fraction: Vec<f64>,
    /// Use the training images that a text file names, one file name a line, such as the official
    /// 1percent.txt and 10percent.txt of ImageNet.
    #[arg(long, value_name = "FILE", conflicts_with = "fraction")]
    list: Option<PathBuf>,
    /// Passes over the labelled images.
    #[arg(long, value_name = "N", default_value_t = 20)]
    epochs: usize,
    /// Learning rate of the backbone.
    #[arg(long, value_name = "LR", default_value_t = 0.01)]
    backbone_lr: f64,
    /// Learning rate of the classifier. Default: the paper's 1 for up to 1 % of the labels, 0.1 for
    /// more, which suit the features of a ResNet-50 trained on ImageNet. Those of small images are
    /// larger and want 0.01 or so: the loss should end below that of guessing.
    #[arg(long, value_name = "LR")]
    classifier_lr: Option<f64>,
    /// The epochs at which both learning rates fall to a fifth.
    #[arg(long, value_name = "E,E", value_delimiter = ',', num_args = 1, default_value = "12,16")]
    milestones: Vec<usize>,
}

impl Default for Options {
    fn default() -> Options {
        let FineTune { sgd, backbone_lr, .. } = FineTune::default();
        let SupervisedSgd { epochs, milestones, .. } = sgd;
        let (fraction, list, classifier_lr) = (vec![0.01, 0.1], None, None);
        Options { fraction, list, epochs, backbone_lr, classifier_lr, milestones }
    }
}

pub fn measure(prepared: &Prepared, options: &Options) -> anyhow::Result<EvalResult> {
    if options.epochs == 0 {
        bail!("\"epochs\" is 0: expected 1 or more");
    }
    let (train_labels, _) = prepared.split.single_labels()?;
    let train = &prepared.split.train;
    let mut choices = Vec::new();
    match &options.list {
        Some(list) => choices.push(listed(train, list)?),
        None => {
            for &share in &options.fraction {
                choices.push(share_of_each_class(train_labels, share, prepared.args.seed)?);
            }
        }
    }
    let (mut figures, mut results) = (Vec::new(), Vec::new());
    for chosen in once(choices) {
        let share = chosen.len() as f64 / train.len().max(1) as f64;
        let percent = format!("{:.3}", 100.0 * share);
        let percent = percent.trim_end_matches('0').trim_end_matches('.');
        // 1.0004 % of ImageNet is what the literature calls 1 %.
        let percent = match share {
            share if (share - 0.01).abs() < 2e-4 => "1",
            share if (share - 0.1).abs() < 2e-3 => "10",
            _ => percent,
        };
        let paper = FineTune::default();
        let fine_tune = FineTune {
            sgd: SupervisedSgd {
                epochs: options.epochs,
                batch_size: prepared.args.batch_size,
                milestones: options.milestones.clone(),
                seed: prepared.args.seed,
                ..paper.sgd
            },
            backbone_lr: options.backbone_lr,
            classifier_lr: options.classifier_lr.unwrap_or(if share < 0.02 { 1.0 } else { 0.1 }),
        };
        let labels: Vec<i64> = chosen.iter().map(|&image| train_labels[image]).collect();
        let accuracy = fine_tuned(prepared, &fine_tune, &chosen, &labels)?;
        let TopAccuracy { top1, top5 } = accuracy;
        figures.push(Figure::new(format!("semi {percent} % top-1"), top1));
        figures.push(Figure::new(format!("semi {percent} % top-5"), top5));
        results.push(json!({
            "images": chosen.len(), "share": share, "epochs": fine_tune.sgd.epochs,
            "backbone_lr": fine_tune.backbone_lr, "classifier_lr": fine_tune.classifier_lr,
            "top1": top1, "top5": top5,
        }));
    }
    Ok(EvalResult { name: "semi", figures, json: json!(results) })
}

/// Choices of images without those that are made already: of a few images per class, several shares are
/// the same ones.
fn once(choices: Vec<Vec<usize>>) -> Vec<Vec<usize>> {
    let mut different: Vec<Vec<usize>> = Vec::new();
    for chosen in choices {
        match different.contains(&chosen) {
            true => say!(
                "note: left out: a share of the labels that gives the same {} images as another",
                chosen.len()
            ),
            false => different.push(chosen),
        }
    }
    different
}

fn fine_tuned(
    prepared: &Prepared,
    fine_tune: &FineTune,
    chosen: &[usize],
    labels: &[i64],
) -> anyhow::Result<TopAccuracy> {
    let images = prepared.split.train.select(chosen);
    let what = format!("fine-tuning on {} images", images.len());
    let bar = progress_bar(&what, images.len())?;
    let mut losses = Vec::new();
    let classes = prepared.split.classes.len();
    let network = fine_tune.fit(
        &prepared.encoder,
        (&images, labels),
        classes,
        &mut show_on(&bar, fine_tune.sgd.epochs, &mut losses),
    )?;
    bar.finish_and_clear();
    warn_of_guessing(losses.last().copied(), classes, "--classifier-lr");
    let (_, test_labels) = prepared.split.single_labels()?;
    let test = &prepared.split.test;
    let bar = progress_bar("testing", test.len())?;
    let accuracy = network.test(
        &prepared.encoder,
        (test, test_labels),
        prepared.args.batch_size,
        &mut show_on(&bar, 0, &mut Vec::new()),
    )?;
    bar.finish_and_clear();
    Ok(accuracy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_that_choose_the_same_images_are_trained_on_once() {
        for (images, shares, different) in
            [(5, vec![0.01, 0.1], 1), (14, vec![0.01, 0.1, 0.5, 1.0], 3), (200, vec![0.01, 0.1], 2)]
        {
            let labels: Vec<i64> = (0..3 * images).map(|image| image % 3).collect();
            let choose = |&share: &f64| share_of_each_class(&labels, share, 1).unwrap();
            let found = once(shares.iter().map(choose).collect());
            assert_eq!(found.len(), different, "{images}: {found:?}");
        }
    }
}
