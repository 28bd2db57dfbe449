//! `protonce report`.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use image::RgbImage;
use protonce::data::Dataset;
use protonce::pretrain::{Config, Method, RunFolder};
use protonce::report::{Labels, PrototypeGrid, loss_curve, prototype_grid, save_png};
use protonce::views::decode;

#[derive(Args)]
pub struct Arguments {
    /// A run folder, finished or not.
    run: PathBuf,
    /// The run's images, if they have moved since.
    #[arg(long, value_name = "DATA")]
    data: Option<String>,
    /// Which granularity to show: 0 is the coarsest that was asked for first.
    #[arg(long, value_name = "M", default_value_t = 0)]
    granularity: usize,
    /// Prototypes to show, the largest first.
    #[arg(long, value_name = "N", default_value_t = PrototypeGrid::default().rows)]
    rows: usize,
    /// Nearest images of each prototype.
    #[arg(long, value_name = "N", default_value_t = PrototypeGrid::default().columns)]
    columns: usize,
    /// Side of a thumbnail in pixels.
    #[arg(long, value_name = "PIXELS", default_value_t = PrototypeGrid::default().thumbnail)]
    thumbnail: u32,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let run = &arguments.run;
    let config = Config::resolve([RunFolder::settings(run)?])?;
    let curve = run.join("loss.png");
    save_png(&curve, &loss_curve(&run.join("events.jsonl"))?)?;
    eprintln!("losses over the epochs: {}", curve.display());
    if config.method == Method::Moco {
        return Ok(());
    }
    let Some(prototypes) = latest_prototypes(run)? else {
        eprintln!("no prototypes yet: the first E-step begins epoch {}", config.warmup_epochs + 1);
        return Ok(());
    };
    let dataset = Dataset::open(arguments.data.as_ref().unwrap_or(&config.data))?;
    let dataset = match config.per_class {
        0 => dataset,
        count => dataset.per_class(count),
    };
    let labels = dataset.labels();
    let labels =
        labels.as_ref().map(|labels| Labels { of_image: labels, names: dataset.classes() });
    let grid = PrototypeGrid {
        granularity: arguments.granularity,
        rows: arguments.rows,
        columns: arguments.columns,
        thumbnail: arguments.thumbnail,
    };
    let picture = prototype_grid(&prototypes, &grid, labels, |index| pixels(&dataset, index))?;
    let path = run.join("prototypes.png");
    save_png(&path, &picture)?;
    eprintln!("the largest prototypes and their nearest images: {}", path.display());
    Ok(())
}

fn pixels(dataset: &Dataset, index: usize) -> anyhow::Result<RgbImage> {
    let mut bytes = Vec::new();
    dataset.read(index, &mut bytes)?;
    let image = decode(&bytes)?;
    match RgbImage::from_raw(image.width as u32, image.height as u32, image.pixels) {
        Some(image) => Ok(image),
        None => bail!("{} has fewer pixels than it says", dataset.name(index)),
    }
}

/// The newest `prototypes/epoch-NNNN.safetensors` of a run.
fn latest_prototypes(run: &std::path::Path) -> anyhow::Result<Option<PathBuf>> {
    let folder = run.join("prototypes");
    let entries = std::fs::read_dir(&folder)
        .with_context(|| format!("cannot look into {}", folder.display()))?;
    let files = entries.flatten().map(|entry| entry.path()).filter(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("epoch-") && name.ends_with(".safetensors")
    });
    Ok(files.max())
}
