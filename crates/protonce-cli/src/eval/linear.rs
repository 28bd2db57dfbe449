//! `protonce eval linear`.

use clap::Args;
use protonce::encoder::{Output, normalise_rows};
use protonce::transfer::{Logistic, top_accuracy};
use serde_json::json;

use super::{Features, Images, Subject};

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    subject: Subject,
    #[command(flatten)]
    images: Images,
    /// C, the weight of the cross-entropy against ½‖W‖², as in scikit-learn's LogisticRegression.
    /// Of several, a tenth of each class's training images decides; the test images never do.
    #[arg(
        long,
        value_name = "C,C",
        value_delimiter = ',',
        num_args = 1,
        default_value = "0.0001,0.001,0.01,0.1,1,10"
    )]
    c: Vec<f64>,
    /// Divide each feature vector by its length first. Then C 10 to 100 is a good start.
    #[arg(long)]
    normalise: bool,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut features = Features::of(&arguments.subject, &arguments.images, Output::Features)?;
    if arguments.normalise {
        features.train = normalise_rows(&features.train);
        features.test = normalise_rows(&features.test);
    }
    let Features { train, train_labels, test, test_labels, classes } = &features;
    let options = Logistic::default();
    let (c, held_out) = options.choose(train, train_labels, *classes, &arguments.c)?;
    let fits = options.sweep(train, train_labels, *classes, &[c]);
    let Some(fit) = fits.last() else { return Ok(()) };
    if !fit.converged {
        eprintln!("warning: not converged after {} passes over the features", fit.passes);
    }
    let accuracy = top_accuracy(&fit.classifier.scores(test), test_labels);
    for (c, top1) in &held_out {
        eprintln!("C {c:>8}: {top1:.2} % of the held-out training images right");
    }
    eprintln!(
        "C {c}: top-1 {:.2} %, top-5 {:.2} % of {} test images",
        accuracy.top1,
        accuracy.top5,
        test.size()[0]
    );
    if arguments.subject.json {
        println!(
            "{}",
            json!({ "linear": {
                "c": c, "top1": accuracy.top1, "top5": accuracy.top5,
                "passes": fit.passes, "converged": fit.converged,
                "held_out": held_out.iter().map(|(c, top1)| json!({ "c": c, "top1": top1 })).collect::<Vec<_>>(),
            } })
        );
    }
    Ok(())
}
