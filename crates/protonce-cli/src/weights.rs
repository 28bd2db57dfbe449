//! `protonce weights`: encoders taken over, handed on, shown and compared.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use protonce::weights::{
    Export, Exported, Hints, Target, TensorChange, Weights, checksum, diff, export,
    parameter_count, training_state,
};

use crate::destination;
use protonce_cli::output::print_line;
use protonce_cli::say;

#[derive(Subcommand)]
pub enum Command {
    /// Take over weights of PyTorch, PCL, MoCo, torchvision, timm or detectron2.
    Import(ImportArguments),
    /// Hand weights on, with a card beside them that says what they are.
    Export(ExportArguments),
    /// Say what is in a file of weights or a run.
    Show(ShowArguments),
    /// Say where two encoders differ.
    Diff(DiffArguments),
}

#[derive(Args)]
pub struct ImportArguments {
    /// A .pth, .pth.tar or .safetensors file. It is parsed, never executed.
    file: PathBuf,
    /// The safetensors file to write.
    #[arg(long, value_name = "OUT")]
    out: PathBuf,
    /// What the names of the wanted encoder begin with, where the file holds several; of a dict within
    /// the file the keys that lead to it come first, as in `student.module.backbone`.
    #[arg(long)]
    prefix: Option<String>,
    /// Side in pixels of the images it was trained on, where the file does not say [default: 224, and
    /// 32 for a 3×3 stem].
    #[arg(long, value_name = "PIXELS")]
    image_size: Option<usize>,
    /// The licence of the weights, for the card.
    #[arg(long, value_name = "NAME")]
    licence: Option<String>,
    /// Print one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub struct ExportArguments {
    /// A run folder, one of its checkpoints, a safetensors file or a .pth of PyTorch.
    weights: PathBuf,
    /// torchvision, timm, detectron2 (backbone alone, no small stem), pcl (the published scripts'
    /// layout), safetensors or onnx.
    #[arg(long, value_name = "TARGET")]
    to: Target,
    /// The file to write.
    #[arg(long, value_name = "OUT")]
    out: PathBuf,
    /// Leave the projection head out: the backbone is what transfers.
    #[arg(long)]
    without_head: bool,
    /// ONNX: fold batch norm into the convolutions, for a smaller and faster graph.
    #[arg(long)]
    fold: bool,
    /// The licence of the weights, for the card.
    #[arg(long, value_name = "NAME")]
    licence: Option<String>,
    /// Print one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub struct ShowArguments {
    /// A run folder, one of its checkpoints, a safetensors file or a .pth of PyTorch.
    weights: PathBuf,
    /// Print one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub struct DiffArguments {
    /// A run folder, one of its checkpoints, a safetensors file or a .pth of PyTorch.
    before: PathBuf,
    /// Another.
    after: PathBuf,
    /// Print one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

pub fn run(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Import(arguments) => import(arguments),
        Command::Export(arguments) => hand_on(arguments),
        Command::Show(arguments) => show(arguments),
        Command::Diff(arguments) => compare(arguments),
    }
}

/// The weights in `path`, with what there is to say about them on stderr.
pub fn read(path: &Path) -> anyhow::Result<Weights> {
    read_with(path, &Hints::default())
}

fn read_with(path: &Path, hints: &Hints) -> anyhow::Result<Weights> {
    let weights = Weights::read_with(path, hints)?;
    for note in &weights.notes {
        say!("note: {}: {note}", path.display());
    }
    Ok(weights)
}

fn import(arguments: &ImportArguments) -> anyhow::Result<()> {
    destination::check_file(&arguments.out)?;
    let hints = Hints { prefix: arguments.prefix.clone(), image_size: arguments.image_size };
    let weights = read_with(&arguments.file, &hints)?;
    say!("{}", in_words(&weights));
    if !weights.left_out.is_empty() {
        let some: Vec<&str> = weights.left_out.iter().take(3).map(String::as_str).collect();
        let more = if weights.left_out.len() > some.len() { ", …" } else { "" };
        say!("left out: {} tensors ({}{more})", weights.left_out.len(), some.join(", "));
    }
    let options = Export {
        target: Target::Safetensors,
        head: true,
        fold: false,
        licence: arguments.licence.clone(),
    };
    tell(&export(&weights, &Vec::new(), &options, &arguments.out)?, arguments.json)
}

fn hand_on(arguments: &ExportArguments) -> anyhow::Result<()> {
    destination::check_file(&arguments.out)?;
    let weights = read(&arguments.weights)?;
    let training = match arguments.to {
        Target::Pcl => training_state(&arguments.weights)?,
        _ => Vec::new(),
    };
    let options = Export {
        target: arguments.to,
        head: !arguments.without_head,
        fold: arguments.fold,
        licence: arguments.licence.clone(),
    };
    tell(&export(&weights, &training, &options, &arguments.out)?, arguments.json)
}

fn tell(exported: &Exported, json: bool) -> anyhow::Result<()> {
    for note in &exported.notes {
        say!("{note}");
    }
    let files: Vec<String> =
        exported.files.iter().map(|path: &PathBuf| Path::display(path).to_string()).collect();
    say!("wrote {}", files.join(", "));
    if json {
        print_line(serde_json::to_string(exported)?)?;
    }
    Ok(())
}

/// The encoder and the images that it wants, in two lines.
fn in_words(weights: &Weights) -> String {
    let (encoder, views) = (&weights.encoder, &weights.views);
    format!(
        "{}, {} stem, {} head, {} dimensions, from {}\n\
         images of {} px (short side {} px first), mean {:?}, std {:?}",
        encoder.network(),
        encoder.stem,
        encoder.head,
        encoder.dim,
        weights.card.origin,
        views.image_size,
        views.eval_resize,
        views.mean,
        views.std
    )
}

fn show(arguments: &ShowArguments) -> anyhow::Result<()> {
    let weights = read(&arguments.weights)?;
    let checksum = checksum(&weights.tensors)?;
    let parameters = parameter_count(&weights.tensors);
    if arguments.json {
        let table: Vec<serde_json::Value> = weights
            .tensors
            .iter()
            .map(|(name, tensor)| serde_json::json!({"name": name, "shape": tensor.size()}))
            .collect();
        let report = serde_json::json!({
            "encoder": weights.encoder, "views": weights.views, "card": weights.card,
            "checksum": checksum, "parameters": parameters, "tensors": table,
            "left_out": weights.left_out, "notes": weights.notes,
        });
        return Ok(print_line(&report)?);
    }
    let mut lines = vec![in_words(&weights)];
    for (name, tensor) in &weights.tensors {
        lines.push(format!("{:>12}  {name} {:?}", tensor.numel(), tensor.size()));
    }
    for name in &weights.left_out {
        lines.push(format!("{:>12}  {name} (no part of the encoder)", ""));
    }
    lines.push(format!("{parameters:>12}  parameters"));
    if let Some(epochs) = weights.card.epochs {
        lines.push(format!("epochs: {epochs}"));
    }
    for (title, table) in [
        ("setting", &weights.card.settings),
        ("last epoch", &weights.card.training),
        ("evaluation", &weights.card.evaluation),
    ] {
        for (name, value) in table {
            lines.push(format!("{title}: {name} = {value}"));
        }
    }
    if let Some(licence) = &weights.card.licence {
        lines.push(format!("licence: {licence}"));
    }
    lines.push(format!("sha256 of the tensors: {checksum}"));
    Ok(print_line(lines.join("\n"))?)
}

fn compare(arguments: &DiffArguments) -> anyhow::Result<()> {
    let (before, after) = (read(&arguments.before)?, read(&arguments.after)?);
    let difference = diff(&before, &after);
    if arguments.json {
        let mut report = serde_json::to_value(&difference)?;
        report["same"] = difference.is_empty().into();
        return Ok(print_line(&report)?);
    }
    let mut lines = Vec::new();
    for (name, old, new) in &difference.settings {
        lines.push(format!("{name}: {old} → {new}"));
    }
    for (name, change) in &difference.changed {
        lines.push(match change {
            TensorChange::Removed => format!("{name}: only in the first"),
            TensorChange::Added => format!("{name}: only in the second"),
            TensorChange::Shape { before, after } => format!("{name}: {before:?} → {after:?}"),
            TensorChange::Numbers { largest, relative, cosine } => format!(
                "{name}: differs by {:.2} % of its length, by {largest:.2e} at most; cosine {cosine:.6}",
                100.0 * relative
            ),
        });
    }
    lines.push(match difference.is_empty() {
        true => format!("the same: {} tensors are equal, bit for bit", difference.equal),
        false => {
            format!("{} tensors differ, {} are equal", difference.changed.len(), difference.equal)
        }
    });
    Ok(print_line(lines.join("\n"))?)
}
