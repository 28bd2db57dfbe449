//! The model card: what a user of the weights would ask.

use std::fmt::Write;
use std::path::Path;

use protonce_pth::Value as PthValue;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use protonce_images::views::ViewConfig;
use protonce_run::{Checkpoint, EncoderConfig, Event, Floor, RunFolder, read_events};

/// Where weights come from. Whatever is not known is left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Card {
    /// What the weights were read from.
    pub origin: String,
    /// The method they were trained by: `pcl` or `moco`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// The weights that training started from, the last part of their path; random ones otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_from: Option<String>,
    /// Epochs trained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epochs: Option<usize>,
    /// The images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<DataSummary>,
    /// Hyper-parameters by name.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub settings: Map<String, Value>,
    /// Means over the last epoch of training.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub training: Map<String, Value>,
    /// What the run measured last.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub evaluation: Map<String, Value>,
    /// What was measured in the same way before training: what the evaluation has to be above.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub floors: Vec<Floor>,
    /// The licence of the weights, as stated when they were exported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
}

/// The images an encoder was trained on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DataSummary {
    /// The last part of the data argument: the folder above it is private.
    pub name: String,
    /// Images of an epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub images: Option<u64>,
    /// Names and labels of the images, as one number.
    pub fingerprint: String,
}

/// Settings that say nothing about the weights, or too much about the machine.
const PRIVATE: [&str; 9] = [
    "data",
    "init",
    "eval-train",
    "eval-test",
    "device",
    "threads",
    "loader-threads",
    "keep",
    "log-every",
];

impl Card {
    pub(super) fn of_file(origin: &str) -> Card {
        Card { origin: origin.to_owned(), ..Card::default() }
    }

    /// What a checkpoint of the published scripts says beside its tensors: everything that is a
    /// number or a short text, at the top and in `args`.
    pub(super) fn of_pth(root: PthValue<'_>) -> Card {
        let mut settings = Map::new();
        let arguments = root.get("args").and_then(PthValue::entries).into_iter().flatten();
        for (name, value) in root.entries().into_iter().flatten().chain(arguments) {
            let Some(name) = name.as_str().filter(|name| !PRIVATE.contains(name)) else { continue };
            let number = value.as_i64().map(Value::from).or(value.as_f64().map(Value::from));
            let text = value.as_str().filter(|text| text.len() <= 60 && !text.contains('/'));
            let value = number.or(value.as_bool().map(Value::from)).or(text.map(Value::from));
            if let Some(value) = value {
                settings.insert(name.to_owned(), value);
            }
        }
        let epochs = settings.remove("epoch").and_then(|epoch| epoch.as_u64());
        Card {
            origin: "a PyTorch checkpoint".to_owned(),
            epochs: epochs.map(|epochs| epochs as usize),
            settings,
            ..Card::default()
        }
    }

    /// What the run that wrote a checkpoint knows. The card is no reason to fail: what cannot be read is
    /// left out.
    pub(super) fn of_run(checkpoint: &Checkpoint) -> Card {
        let (folder, state) = (checkpoint.folder(), &checkpoint.state);
        let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        let run = folder.parent().and_then(Path::parent).unwrap_or(&folder);
        let table = RunFolder::settings(run).unwrap_or_default();
        let settings = serde_json::to_value(table).unwrap_or_default();
        let mut settings = match settings {
            Value::Object(settings) => settings,
            _ => Map::new(),
        };
        // The folders above are private.
        let last_part = |setting: &str| {
            let path = settings.get(setting).and_then(Value::as_str).unwrap_or_default();
            path.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned()
        };
        let name = last_part("data");
        let started_from = Some(last_part("init")).filter(|name| !name.is_empty());
        let method = settings.remove("method").and_then(|name| name.as_str().map(str::to_owned));
        settings.retain(|name, _| !PRIVATE.contains(&name.as_str()));

        let events = read_events(run).unwrap_or_default();
        // Of an earlier checkpoint, only what had happened by then.
        let last = |happened: &dyn Fn(&Event) -> bool| {
            let found = events.iter().rfind(|event| happened(event))?;
            let Value::Object(mut found) = serde_json::to_value(found).ok()? else { return None };
            for unrelated in ["event", "seconds", "waited"] {
                found.remove(unrelated);
            }
            Some(found)
        };
        let epochs = state.epoch;
        let trained =
            |event: &Event| matches!(event, Event::Epoch { epoch, .. } if *epoch < epochs.max(1));
        let evaluated =
            |event: &Event| matches!(event, Event::Evaluation { epoch, .. } if *epoch <= epochs);
        let floors = events.iter().rev().find_map(|event| match event {
            Event::Floors { floors, .. } => Some(floors.clone()),
            _ => None,
        });
        let floors = floors.unwrap_or_default();
        let training = last(&trained).unwrap_or_default();
        let images = training.get("images").and_then(Value::as_u64);
        Card {
            origin: "a protonce run".to_owned(),
            method,
            started_from,
            epochs: Some(epochs),
            data: Some(DataSummary { name, images, fingerprint: state.data_fingerprint.clone() }),
            settings,
            training,
            evaluation: last(&evaluated).unwrap_or_default(),
            floors,
            licence: None,
        }
    }

    /// The card as Markdown, for people.
    pub(super) fn markdown(
        &self,
        encoder: &EncoderConfig,
        views: &ViewConfig,
        parameters: usize,
        checksum: &str,
        notes: &[String],
    ) -> String {
        let mut text = String::new();
        let mut line = |text_line: &str| {
            let _ = writeln!(text, "{text_line}");
        };
        let EncoderConfig { stem, head, dim, .. } = encoder;
        let network = encoder.network();
        line(&format!("# {network}\n"));
        let method = match self.method.as_deref() {
            Some("pcl") => "Prototypical Contrastive Learning (Li et al., ICLR 2021)",
            Some("moco") => "Momentum Contrast (He et al., CVPR 2020)",
            Some(other) => other,
            None => "not stated",
        };
        line(&format!("- method: {method}"));
        line(&format!("- encoder: {network}, {stem} stem, {head} head, {dim} dimensions"));
        line(&format!("- parameters: {parameters}"));
        line(&format!("- checksum: {checksum}"));
        line(&format!("- from: {}", self.origin));
        line(&format!("- written by: protonce {}", env!("CARGO_PKG_VERSION")));
        line(&format!("- licence: {}", self.licence.as_deref().unwrap_or("not stated")));
        if let Some(name) = &self.started_from {
            line(&format!("- started from: {name}"));
        }
        if let Some(epochs) = self.epochs {
            line(&format!("- epochs: {epochs}"));
        }
        if let Some(DataSummary { name, images, fingerprint }) = &self.data {
            let images = images.map_or(String::new(), |images| format!("{images} images, "));
            line(&format!("- data: {name} ({images}fingerprint {fingerprint})"));
        }
        let ViewConfig { image_size, eval_resize, mean, std, .. } = views;
        line("\n## Images\n");
        line(&format!(
            "RGB, short side resized to {eval_resize} px (bilinear with antialiasing), centre crop of \
             {image_size} px, scaled to [0, 1], minus {mean:?}, divided by {std:?}."
        ));
        for note in notes {
            line(&format!("\n{note}"));
        }
        if !self.floors.is_empty() {
            line(
                "\n## Before training, kNN\n\n| | top-1 accuracy by neighbours, % |\n| --- | --- |",
            );
            for Floor { name, knn } in &self.floors {
                let each: Vec<_> = knn.iter().map(|(k, top1)| format!("{k}: {top1:.1}")).collect();
                line(&format!("| {name} | {} |", each.join(", ")));
            }
        }
        for (title, table) in [
            ("Evaluation", &self.evaluation),
            ("Last epoch", &self.training),
            ("Settings", &self.settings),
        ] {
            if !table.is_empty() {
                line(&format!("\n## {title}\n\n| | |\n| --- | --- |"));
                for (name, value) in table {
                    line(&format!("| {name} | {value} |"));
                }
            }
        }
        text
    }
}
