//! `protonce eval cluster`.

use clap::Args;
use protonce::prototypes::Points;
use protonce::tensors::values;
use protonce_encoder::{Output, normalise_rows};
use protonce_kmeans::{Agreement, KMeans, Metric, SingleProcess, Threads, agreement};
use serde_json::json;

use super::progress::with_spinner;
use super::{EvalResult, Figure, Prepared};

#[derive(Args)]
pub struct Options {
    /// How many clusters; 0: as many as there are classes, which accuracy by matching clusters to
    /// classes asks for. More clusters raise purity and NMI by themselves, AMI and ARI not.
    #[arg(long, value_name = "K", default_value_t = 0)]
    pub clusters: i64,
}

/// Clusters the test images; the training images are not looked at.
pub fn measure(prepared: &Prepared, options: &Options) -> anyhow::Result<EvalResult> {
    let features = prepared.labelled(Output::Features)?;
    let clusters = if options.clusters == 0 { features.classes } else { options.clusters };
    let points = Points::from_tensor(&normalise_rows(&features.test), Metric::Euclidean)?;
    let (seed, threads) = (prepared.args.seed, prepared.args.threads);
    let kmeans = KMeans { seed, ..KMeans::default() };
    let threads = Threads::new(threads)?;
    let clustering = with_spinner("k-means", || {
        let count = usize::try_from(clusters).unwrap_or(0);
        points.fit(&kmeans, count, None, &SingleProcess, &threads, &mut |_, _| ())
    })??;
    let labels = values(&features.test_labels)?;
    let found = agreement(&labels, &clustering.assignment);
    let Agreement { ami, nmi, ari, purity, hungarian_accuracy } = found;
    let figures = [
        ("AMI (of 1)", ami),
        ("NMI (of 1)", nmi),
        ("ARI (of 1)", ari),
        ("purity (of 1)", purity),
        ("Hungarian accuracy (of 1)", hungarian_accuracy),
    ];
    let figures =
        figures.map(|(name, value)| Figure::new(format!("{clusters} clusters, {name}"), value));
    let mut json = json!(found);
    json["clusters"] = json!(clusters);
    Ok(EvalResult { name: "cluster", figures: figures.into(), json })
}
