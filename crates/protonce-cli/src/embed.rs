//! `protonce embed`.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, ValueEnum};
use indicatif::ProgressBar;
use protonce::embeddings::{Embed, Neighbour, Summary, embed, embed_image, nearest, read};
use protonce_encoder::Precision;
use protonce_images::data::Dataset;
use protonce_report::{Neighbours, Shown, neighbour_grid, save_png};

use crate::destination;
use crate::eval::OutputChoice;
use crate::pictures::rgb;
use crate::processes::{ProcessFlags, Processes};
use crate::weights;
use protonce_cli::data::open;
use protonce_cli::output::{print_line, show};
use protonce_cli::say;

/// A command that is killed goes on where it was when it is given again.
#[derive(Args)]
pub struct Arguments {
    /// A run folder, one of its checkpoints, a safetensors file or a .pth of PyTorch.
    #[arg(long, value_name = "W")]
    weights: PathBuf,
    /// Images: a folder, a .tar, .zip or .parquet, several of these (`shard-{000..127}.tar`,
    /// `data/*.parquet`), a text list or a packed file, with `#SUBFOLDER` for a part of it; or
    /// the address of such files: s3://BUCKET/KEY, gs://, az:// or https://.
    #[arg(long)]
    data: String,
    /// The file, of a format that its name says: .npy, .safetensors, .parquet or .csv.
    #[arg(long, value_name = "E")]
    out: PathBuf,
    /// Backbone features transfer best; embeddings are what training compared.
    #[arg(long, value_enum, default_value_t = OutputChoice::Features)]
    output: OutputChoice,
    /// Then print the images that are nearest to this one.
    #[arg(long, value_name = "IMAGE")]
    nearest: Option<PathBuf>,
    /// How many of them.
    #[arg(long, value_name = "N", default_value_t = 12, requires = "nearest")]
    count: usize,
    /// Draw them into this picture (PNG).
    #[arg(long, value_name = "PNG", requires = "nearest")]
    draw: Option<PathBuf>,
    /// Images per forward pass. Another number may change the last bits of a row.
    #[arg(long, value_name = "N", default_value_t = 256)]
    batch_size: usize,
    /// Threads that decode; 0: one per core.
    #[arg(long, value_name = "N", default_value_t = 0)]
    loader_threads: usize,
    /// float32 gives the same numbers everywhere; bf16 is faster on machines that multiply it and
    /// changes the third digit; auto takes it there.
    #[arg(long, value_enum, default_value_t = PrecisionChoice::Float32)]
    precision: PrecisionChoice,
    /// `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
    #[arg(long, default_value = "auto")]
    device: String,
    /// Print one JSON object on stdout.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    processes: ProcessFlags,
}

#[derive(Clone, Copy, ValueEnum)]
enum PrecisionChoice {
    Float32,
    Bf16,
    Auto,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    arguments.processes.join()?.together(|processes| embed_all(arguments, processes))
}

fn embed_all(arguments: &Arguments, processes: &mut Processes) -> anyhow::Result<()> {
    let (world, device) = (processes.world.clone(), processes.device(&arguments.device)?);
    if world.is_first() {
        destination::check_file(&arguments.out)?;
        if let Some(picture) = &arguments.draw {
            destination::check_file(picture)?;
        }
    }
    let weights = weights::read(&arguments.weights)?;
    let precision = match arguments.precision {
        PrecisionChoice::Float32 => Precision::Float32,
        PrecisionChoice::Bf16 => Precision::BFloat16,
        PrecisionChoice::Auto => Precision::fastest_on(device),
    };
    let encoder = weights.load(precision, device)?;
    let dataset = open(&arguments.data)?;
    let output = arguments.output.output();
    let options = Embed {
        output,
        batch_size: arguments.batch_size,
        loader_threads: arguments.loader_threads,
    };
    let query = match &arguments.nearest {
        Some(path) => {
            let bytes =
                std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            let row = embed_image(&weights.views, &encoder, output, &bytes);
            let row = row.with_context(|| format!("cannot embed {}", path.display()))?;
            Some((path, bytes, row))
        }
        None => None,
    };

    let bar = match world.is_first() {
        true => ProgressBar::new(dataset.len() as u64),
        false => ProgressBar::hidden(),
    };
    let progress = &mut |done| bar.set_position(done as u64);
    let summary = embed(&weights, &encoder, &dataset, &options, &arguments.out, &world, progress)?;
    bar.finish_and_clear();
    if !world.is_first() {
        return Ok(());
    }
    for bad in &summary.unreadable {
        say!("warning: skipped {}: {}", bad.name, bad.reason);
    }
    let out = arguments.out.display();
    say!(
        "{} rows of {} {}: {out}",
        summary.rows,
        summary.provenance.width,
        summary.provenance.output
    );

    let mut report = serde_json::json!({ "out": arguments.out, "summary": summary });
    if let Some((path, bytes, row)) = query {
        let rows = read(&arguments.out.to_string_lossy())?;
        let found = nearest(rows.values(), &row, arguments.count);
        let found = named(&found, &dataset, &summary);
        for (similarity, image) in &found {
            show(format!("{similarity:.4}  {}\n", dataset.name(*image)), arguments.json)?;
        }
        report["nearest"] = found
            .iter()
            .map(|&(similarity, image)| {
                serde_json::json!({
                    "index": image, "name": dataset.name(image), "similarity": similarity
                })
            })
            .collect();
        if let Some(picture) = &arguments.draw {
            draw(picture, path, &bytes, &dataset, &found)?;
            say!("drawn: {}", picture.display());
        }
    }
    if arguments.json {
        print_line(&report)?;
    }
    Ok(())
}

/// The images of rows.
fn named(found: &[Neighbour], dataset: &Dataset, summary: &Summary) -> Vec<(f32, usize)> {
    let images = summary.indices();
    let image = |neighbour: &Neighbour| {
        let image = *images.get(neighbour.row)?;
        (image < dataset.len()).then_some((neighbour.similarity, image))
    };
    found.iter().filter_map(image).collect()
}

fn draw(
    picture: &Path,
    query: &Path,
    bytes: &[u8],
    dataset: &Dataset,
    found: &[(f32, usize)],
) -> anyhow::Result<()> {
    let name = query.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let title = format!("Nearest to {name}, of {} images", dataset.len());
    let query = Shown { image: rgb(bytes), caption: [name, "query".to_owned()], wrong: false };
    let shown = |&(similarity, image): &(f32, usize)| {
        let mut bytes = Vec::new();
        let read = dataset.read(image, &mut bytes).ok();
        let label = dataset.label(image).map(|label| dataset.classes()[label].clone());
        let label = label.unwrap_or_else(|| dataset.name(image).to_owned());
        Shown {
            image: read.and_then(|()| rgb(&bytes)),
            caption: [label, format!("{similarity:.3}")],
            wrong: false,
        }
    };
    let row = Neighbours { query, nearest: found.iter().map(shown).collect() };
    save_png(picture, &neighbour_grid(&title, &[row], 6, 112)?)?;
    Ok(())
}
