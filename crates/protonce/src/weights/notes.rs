//! What the user of an exported file has to know: how to build the model that it loads into.

use super::metadata::Metadata;
use super::{Export, Target};
use protonce_encoder::NORMALISED_WIDTH;
use protonce_run::{EncoderConfig, Head, Stem};

/// One sentence each.
pub(super) fn notes(options: &Export, metadata: &Metadata, training: bool) -> Vec<String> {
    let Metadata { encoder, views, .. } = metadata;
    let EncoderConfig { arch, base_channels, stem, head, dim } = encoder;
    let hidden = NORMALISED_WIDTH;
    let mut notes = Vec::new();
    let mut note = |text: String| notes.push(text);
    let create = match options.target {
        Target::Torchvision => Some(format!("torchvision.models.{arch}")),
        Target::Timm => Some(format!("timm.create_model(\"{arch}\", …)")),
        _ => None,
    };
    if let Some(create) = create {
        match head {
            Head::Linear => note(format!("Load into {create} with num_classes={dim}.")),
            Head::None if options.target == Target::Timm => {
                note(format!("Load into {create} with num_classes=0."));
            }
            Head::None => note(format!("Load into {create} after model.fc = torch.nn.Identity().")),
            Head::Mlp => note(format!(
                "Load into {create} after model.fc = torch.nn.Sequential(Linear(w, w), ReLU(), \
                 Linear(w, {dim})), where w = {}.",
                encoder.width()
            )),
            Head::MlpBn => note(format!(
                "Load into {create} after model.fc = torch.nn.Sequential(Linear(w, {hidden}), \
                 BatchNorm1d({hidden}), ReLU(), Linear({hidden}, {dim})), where w = {}.",
                encoder.width()
            )),
        }
        if *base_channels != 64 {
            note(format!(
                "torchvision has no {arch} of {base_channels} base channels: in Python, protonce.load(FILE) \
                 makes one and loads the file into it."
            ));
        } else if *stem == Stem::Small {
            note(
                "The small stem: before loading, model.conv1 = torch.nn.Conv2d(3, 64, 3, 1, 1, \
                 bias=False) and model.maxpool = torch.nn.Identity()."
                    .to_owned(),
            );
        }
    }
    match options.target {
        Target::Pcl if !training => note(
            "Holds the query encoder alone: the published evaluation scripts read it, resuming \
             published training needs the momentum encoder and queue of a run."
                .to_owned(),
        ),
        Target::Pcl => note(
            "Holds the query encoder and what there is of momentum encoder and queue, but no optimiser \
             state.".to_owned(),
        ),
        Target::Detectron2 => {
            let scaled = |values: [f64; 3]| values.map(|value| (value * 255e3).round() / 1e3);
            note(format!(
                "In the config: MODEL.WEIGHTS this file, INPUT.FORMAT \"RGB\", MODEL.PIXEL_MEAN {:?}, \
                 MODEL.PIXEL_STD {:?}, MODEL.RESNETS.STRIDE_IN_1X1 False; the head is left out.",
                scaled(views.mean),
                scaled(views.std)
            ));
        }
        Target::Onnx => note(
            "Input images [batch, 3, height, width] in float32, normalised as above; outputs features \
             and embedding (of length 1)."
                .to_owned(),
        ),
        _ => {}
    }
    notes
}
