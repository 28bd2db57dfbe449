//! `protonce eval cluster`.

use clap::Args;
use protonce::encoder::{Output, normalise_rows};
use protonce::prototypes::Points;
use protonce_kmeans::{Agreement, KMeans, Metric, SingleProcess, agreement};
use serde_json::json;

use super::encoder_args::while_turning;
use super::{DataArgs, EncoderArgs, EvalResult, Prepared, Row};

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    subject: EncoderArgs,
    #[command(flatten)]
    images: DataArgs,
    /// How many clusters; 0: as many as there are classes, which accuracy by matching clusters to
    /// classes asks for. More clusters raise purity and NMI by themselves, AMI and ARI not.
    #[arg(long, value_name = "K", default_value_t = 0)]
    clusters: i64,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let prepared = arguments.subject.prepare(&arguments.images)?;
    let outcome = measure(&prepared, arguments.clusters, arguments.subject.seed)?;
    outcome.show(&prepared);
    Ok(())
}

/// Clusters the test images; the training images are not looked at.
pub fn measure(prepared: &Prepared, clusters: i64, seed: u64) -> anyhow::Result<EvalResult> {
    let features = prepared.labelled(Output::Features)?;
    let clusters = if clusters == 0 { features.classes } else { clusters };
    let points = Points::from_tensor(&normalise_rows(&features.test), Metric::Euclidean)?;
    let options = KMeans { seed, threads: prepared.subject.threads, ..KMeans::default() };
    let clustering = while_turning("k-means", || {
        let count = usize::try_from(clusters).unwrap_or(0);
        points.fit(&options, count, None, &SingleProcess, &mut |_, _| ())
    })??;
    let labels = Vec::<i64>::try_from(&features.test_labels)?;
    let found = agreement(&labels, &clustering.assignment);
    let Agreement { ami, nmi, ari, purity, hungarian_accuracy } = found;
    let rows = [
        ("AMI (of 1)", ami),
        ("NMI (of 1)", nmi),
        ("ARI (of 1)", ari),
        ("purity (of 1)", purity),
        ("Hungarian accuracy (of 1)", hungarian_accuracy),
    ];
    let rows = rows.map(|(name, value)| Row::new(format!("{clusters} clusters, {name}"), value));
    let mut json = json!(found);
    json["clusters"] = json!(clusters);
    Ok(EvalResult { name: "cluster", rows: rows.into(), json })
}
