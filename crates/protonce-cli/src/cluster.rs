//! `protonce cluster`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use protonce::embeddings::{read, read_labels};
use protonce::prototypes::Points;
use protonce_kmeans::{
    Agreement, Clustering, ConcentrationOptions, Init, Iteration, KMeans, Metric, Quality, Source,
    Threads, agreement, concentration,
};
use protonce_report::{ClusterCount, cluster_choice, save_png};
use protonce_run::{Clusters, write_clusters};
use serde::Serialize;

use crate::destination;
use crate::processes::{ProcessFlags, Processes};
use protonce_cli::output::{print_line, show};
use protonce_cli::say;

#[derive(Args)]
pub struct Arguments {
    /// Embeddings, `FILE[#NAME]`: an .npy array, a tensor of a .safetensors file or a .parquet column;
    /// float32 arrays are mapped, not read, and may be larger than memory.
    #[arg(long, value_name = "FILE")]
    embeddings: String,
    /// Clusters of each granularity, or `auto`: n/50, n/25, n/12.5.
    #[arg(long, value_name = "K,K,…", default_value = "auto")]
    clusters: Clusters,
    /// Try 2, 4, 8, … clusters, up to a quarter of the embeddings and 4096, and draw objective and
    /// silhouette against their number into `suggest.png`.
    #[arg(long, conflicts_with = "clusters")]
    suggest: bool,
    /// Folder for `clusters.safetensors` (of each granularity M: assignment.M, centroids.M,
    /// concentration.M, medoids.M) and `clusters.json`.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Labels, one per embedding, that are only compared with: .npy, .safetensors, or text with one a
    /// line.
    #[arg(long, value_name = "FILE")]
    labels: Option<String>,
    /// `l2`, or `spherical` to compare directions alone.
    #[arg(long, value_enum, default_value_t = MetricChoice::L2)]
    metric: MetricChoice,
    /// First centroids: `random` rows; `parallel` (k-means||) and `plus-plus` spread them, which pays
    /// where clusters are few and apart.
    #[arg(long = "start", value_name = "START", value_enum, default_value_t = InitChoice::Random)]
    init: InitChoice,
    /// Starts, of which the best is kept.
    #[arg(long, value_name = "N", default_value_t = 5)]
    redo: usize,
    /// Iterations of each start; fewer if nothing changes any more.
    #[arg(long, value_name = "N", default_value_t = 20)]
    iterations: usize,
    /// Embeddings per cluster that training uses at most; the rest is only assigned.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    max_points: usize,
    /// Mean of the concentrations.
    #[arg(long, value_name = "T", default_value_t = 0.2)]
    temperature: f64,
    /// Smoothing α of the concentrations: keeps small clusters from looking too sure.
    #[arg(long, value_name = "A", default_value_t = 10.0)]
    smoothing: f64,
    /// What the random starts follow from.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Threads; 0: one per core.
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,
    /// `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: String,
    /// Print one JSON object on stdout.
    #[arg(long)]
    json: bool,
    /// No progress, only warnings and errors.
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    processes: ProcessFlags,
}

#[derive(Clone, Copy, ValueEnum)]
enum MetricChoice {
    L2,
    Spherical,
}

#[derive(Clone, Copy, ValueEnum)]
enum InitChoice {
    Random,
    PlusPlus,
    Parallel,
}

/// What `clusters.json` and `--json` hold.
#[derive(Serialize)]
struct Summary {
    embeddings: String,
    rows: usize,
    dim: usize,
    granularities: Vec<Granularity>,
}

#[derive(Serialize)]
struct Granularity {
    #[serde(flatten)]
    quality: Quality,
    /// Sum of squared distances.
    total: f64,
    /// Null where fewer than two clusters have any embeddings.
    silhouette: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<Agreement>,
    iterations: Vec<Iteration>,
    seconds: f64,
}

/// What `clusters.safetensors` holds: each granularity, and the row nearest to each of its centroids.
type Found = Vec<(protonce_run::Granularity, Vec<i64>)>;

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    arguments.processes.join()?.together(|processes| cluster(arguments, processes))
}

fn cluster(arguments: &Arguments, processes: &mut Processes) -> anyhow::Result<()> {
    let (world, device) = (processes.world.clone(), processes.device(&arguments.device)?);
    let quiet = arguments.quiet || !world.is_first();
    if world.is_first() {
        destination::check_folder(&arguments.out)?;
    }
    let embeddings = read(&arguments.embeddings)?;
    let (values, dim) = (embeddings.values(), embeddings.dim());
    let labels = match &arguments.labels {
        None => None,
        Some(file) => {
            let labels = read_labels(file)?;
            let (found, expected) = (labels.len(), values.len() / dim);
            if found != expected {
                bail!("{file} has {found} labels: expected {expected}, one per embedding");
            }
            Some(labels)
        }
    };
    let metric = match arguments.metric {
        MetricChoice::L2 => Metric::Euclidean,
        MetricChoice::Spherical => Metric::Spherical,
    };
    // Every process has a stretch of the rows.
    let rows = values.len() / dim;
    world.agree(&[
        ("version of protonce", env!("CARGO_PKG_VERSION").to_owned()),
        ("number of rows and of values in each", format!("{rows} × {dim}")),
    ])?;
    let bound = |process: usize| rows * process / world.size();
    let (first, last) = (bound(world.rank()), bound(world.rank() + 1));
    let points = Points::from_values(&values[first * dim..last * dim], dim, metric, device);
    let points = points.map_err(|error| error.counted_from(first))?;
    let options = KMeans {
        iterations: arguments.iterations,
        starts: arguments.redo,
        max_points_per_centroid: arguments.max_points,
        init: match arguments.init {
            InitChoice::Random => Init::Random,
            InitChoice::PlusPlus => Init::PlusPlus,
            InitChoice::Parallel => Init::Parallel,
        },
        seed: arguments.seed,
        ..KMeans::default()
    };
    let threads = Threads::new(protonce_images::threads(arguments.threads))?;
    let mut found = Found::new();
    let mut granularities = Vec::new();
    let counts = match arguments.suggest {
        true => ladder(rows as i64),
        false => arguments.clusters.counts(rows),
    };
    for (m, clusters) in counts.into_iter().enumerate() {
        let clusters = usize::try_from(clusters).unwrap_or(0);
        let start = Instant::now();
        let bar = progress(quiet, clusters);
        let options = KMeans { seed: arguments.seed + m as u64, ..options };
        let clustering =
            points.fit(&options, clusters, None, &world, &threads, &mut |done, total| {
                bar.set_length(total as u64);
                bar.set_position(done as u64);
            })?;
        bar.finish_and_clear();
        let seconds = start.elapsed().as_secs_f64();
        if !world.is_first() {
            continue;
        }
        // Every point counts for how well clusters stand apart.
        let of_several = world.size() > 1;
        let all =
            of_several.then(|| Points::from_values(values, dim, metric, device)).transpose()?;
        let all = all.as_ref().unwrap_or(&points);
        let labels = labels.as_deref();
        let granularity = describe(arguments, all, clustering, labels, seconds, &mut found)?;
        if !arguments.quiet {
            show(sentence(&granularity) + "\n", arguments.json)?;
        }
        if let Some(warning) = &granularity.quality.warning {
            say!("warning: {warning}");
        }
        granularities.push(granularity);
    }
    if !world.is_first() {
        return Ok(());
    }
    let embeddings = arguments.embeddings.clone();
    let summary = Summary { embeddings, rows, dim, granularities };
    save(&arguments.out, &summary, &found)?;
    if arguments.suggest {
        suggest(arguments, &summary)?;
    }
    if arguments.json {
        print_line(serde_json::to_string(&summary)?)?;
    }
    Ok(())
}

/// Numbers of clusters to choose from.
fn ladder(rows: i64) -> Vec<i64> {
    let most = (rows / 4).min(4096);
    let ladder: Vec<i64> =
        std::iter::successors(Some(2), |k| Some(2 * k)).take_while(|&k| k <= most).collect();
    if ladder.is_empty() { vec![1] } else { ladder }
}

/// Draws the choice, and names the number of clusters that stand apart best.
fn suggest(arguments: &Arguments, summary: &Summary) -> anyhow::Result<()> {
    let choices: Vec<ClusterCount> = summary
        .granularities
        .iter()
        .map(|granularity| ClusterCount {
            clusters: granularity.quality.clusters,
            objective: granularity.quality.objective,
            silhouette: granularity.silhouette,
        })
        .collect();
    let picture = arguments.out.join("suggest.png");
    save_png(&picture, &cluster_choice(&choices)?)?;
    if arguments.quiet {
        return Ok(());
    }
    let picture = picture.display();
    let line = match best(&choices) {
        Some(clusters) => {
            format!("{clusters} clusters stand apart best (highest silhouette); see {picture}\n")
        }
        None => format!(
            "no number of clusters stands apart: at each, one cluster has all embeddings; see {picture}\n"
        ),
    };
    Ok(show(line, arguments.json)?)
}

/// The number of clusters with the highest silhouette; of equals, the fewest.
fn best(choices: &[ClusterCount]) -> Option<i64> {
    let known = choices.iter().filter_map(|choice| Some((choice.clusters, choice.silhouette?)));
    // Of equals, `max_by` takes the last.
    known.rev().max_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(clusters, _)| clusters)
}

/// Puts a granularity in numbers, and adds what is stored of it to `found`.
fn describe(
    arguments: &Arguments,
    points: &Points,
    clustering: Clustering,
    labels: Option<&[i64]>,
    seconds: f64,
    found: &mut Found,
) -> anyhow::Result<Granularity> {
    let options =
        ConcentrationOptions { temperature: arguments.temperature, smoothing: arguments.smoothing };
    let concentration = concentration(&clustering, options);
    let granularity = Granularity {
        quality: Quality::new(&clustering, &concentration, None, Source::Given),
        total: clustering.objective,
        silhouette: points.silhouette(&clustering, arguments.threads)?,
        labels: labels.map(|labels| agreement(labels, &clustering.assignment)),
        iterations: clustering.history.clone(),
        seconds,
    };
    let medoids = clustering.medoids();
    let Clustering { centroids, dim, assignment, .. } = clustering;
    let stored =
        protonce_run::Granularity { assignment, prototypes: centroids, dim, concentration };
    found.push((stored, medoids));
    Ok(granularity)
}

fn progress(quiet: bool, clusters: usize) -> ProgressBar {
    let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::new(0) };
    let template =
        format!("{clusters} clusters {{bar:30}} {{pos}}/{{len}} iterations, {{eta}} left");
    if let Ok(style) = ProgressStyle::with_template(&template) {
        bar.set_style(style);
    }
    bar
}

fn sentence(granularity: &Granularity) -> String {
    let Granularity { quality, silhouette, labels, seconds, .. } = granularity;
    let Quality { clusters, objective, empty, singletons, largest, .. } = quality;
    let labels = match labels {
        None => String::new(),
        Some(Agreement { ami, nmi, ari, purity, hungarian_accuracy }) => format!(
            "; with the labels: AMI {ami:.4}, NMI {nmi:.4}, ARI {ari:.4}, purity {purity:.4}, Hungarian accuracy {hungarian_accuracy:.4}"
        ),
    };
    let silhouette = silhouette.map_or("none".to_owned(), |number| format!("{number:.3}"));
    format!(
        "{clusters} clusters in {seconds:.1} s: mean squared distance {objective:.5}, silhouette {silhouette}, largest {largest}, {singletons} of one, {empty} empty{labels}"
    )
}

fn save(out: &Path, summary: &Summary, found: &Found) -> anyhow::Result<()> {
    std::fs::create_dir_all(out)
        .with_context(|| format!("cannot make the folder {}", out.display()))?;
    write_clusters(&out.join("clusters.safetensors"), found)?;
    protonce_run::write_file(&out.join("clusters.json"), &serde_json::to_vec_pretty(summary)?)?;
    Ok(())
}
