//! Settings that suit a pile of images and a machine, each with its reason.
//!
//! What is known before anything is measured enters: how many images there are, how large they are, and
//! what the machine has; afterwards, how many images it can look at in the time there is. Choices leave,
//! as a layer over the preset `v2`. How many epochs fit into a time is measured elsewhere.

use toml::{Table, Value, toml};

use crate::settings::Config;

/// What is known about the images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pile {
    /// How many there are.
    pub images: usize,
    /// The median of their shorter sides, in pixels; none where it plays no part, as their size in views
    /// is settled.
    pub side: Option<usize>,
}

/// What the machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    /// Cores that this process may use.
    pub cores: usize,
    /// Whether there is a GPU.
    pub gpu: bool,
}

/// Settings that were chosen together, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// The settings.
    pub settings: Table,
    /// Why, as the end of a sentence.
    pub because: String,
}

impl Choice {
    /// Settings chosen `because` of something.
    pub fn new(settings: Table, because: impl Into<String>) -> Choice {
        Choice { settings, because: because.into() }
    }
}

impl Config {
    /// Settings for `pile` on `machine`, without the number of epochs, where `given` are settled
    /// already and `seen` images can be looked at (every epoch counts each anew), or, before that is
    /// known, as many as suit a batch of 64.
    pub fn recommended(
        pile: Pile,
        machine: Machine,
        given: &Table,
        seen: Option<usize>,
    ) -> Vec<Choice> {
        let given_init = given.get("init").is_some_and(|init| init.as_str() != Some(""));
        let given = |name: &str| {
            let value = given.get(name).and_then(Value::as_integer);
            value.and_then(|value| usize::try_from(value).ok()).filter(|&value| value > 0)
        };
        let images = pile.images;
        let size = given("image-size").unwrap_or(match pile.side.unwrap_or(0) {
            0..=40 => 32,
            41..=80 => 64,
            81..=160 => 128,
            _ if machine.gpu => 224,
            _ => 128,
        });
        let batch = given("batch-size").unwrap_or_else(|| batch_size(images, seen));
        let steps = seen.unwrap_or(64 * STEPS_OF_A_BATCH) / batch.max(1);
        // What is good already is changed gently.
        let rate = if given_init { 0.01 } else { 0.03 };
        let queue = (images / 4).clamp(batch.max(16), 16_384);

        let about = match size <= 64 {
            true => "images that small have no detail to blur",
            false => "a larger view would cost more time than it teaches",
        };
        let views = table([
            ("image-size", (size as i64).into()),
            ("blur-probability", if size <= 64 { 0.0 } else { 0.5 }.into()),
            ("stats", "auto".into()),
        ]);
        let (arch, stem) = match machine.gpu {
            true if size >= 128 && images >= 50_000 => ("resnet50", "imagenet"),
            true if size <= 64 => ("resnet18", "small"),
            _ => ("resnet18", "imagenet"),
        };
        let encoder = table([("arch", arch.into()), ("stem", stem.into())]);
        let cores = match machine.cores {
            1 => "1 core".to_owned(),
            cores => format!("{cores} cores"),
        };
        let gpu = if machine.gpu { "a GPU" } else { "no GPU" };
        let steps_of = table([
            ("batch-size", (batch as i64).into()),
            ("lr", rounded(rate * (batch as f64 / 64.0).sqrt()).into()),
            (
                "encoder-momentum",
                rounded((1.0 - 20.0 / steps.max(1) as f64).clamp(0.97, 0.996)).into(),
            ),
            ("weight-decay", if images < 100_000 { 5e-4 } else { 1e-4 }.into()),
        ]);
        let clusters = clusters(images).into_iter().map(|count| Value::Integer(count as i64));
        let contrast = table([
            ("queue", (queue as i64).into()),
            ("clusters", Value::Array(clusters.collect())),
        ]);
        let method = toml! {
            head = "mlp-bn"
            temperature = 0.1
            queue-negatives = "other-images"
            duplicates = "mask"
            schedule = "cosine-by-step"
            lr-warmup = 0.05
            momentum-schedule = "cosine"
            decorrelation = 0.3
        };
        vec![
            Choice::new(
                views,
                match pile.side {
                    Some(side) => {
                        format!(
                            "half of the images are {side} px or more on their shorter side; {about}"
                        )
                    }
                    None => about.to_owned(),
                },
            ),
            Choice::new(encoder, format!("{cores} and {gpu}")),
            Choice::new(steps_of, format!("about {steps} steps can be taken")),
            Choice::new(contrast, format!("{images} images")),
            Choice::new(method, "what learned most from small sets"),
        ]
    }
}

/// Steps that a run ought to have before its batches may grow.
const STEPS_OF_A_BATCH: usize = 4000;

/// Batches as large as leave some thousand steps, 32 to 256, and never more than half of the images.
fn batch_size(images: usize, seen: Option<usize>) -> usize {
    let enough = match seen {
        None => 64,
        Some(seen) => {
            let exact = (seen as f64 / STEPS_OF_A_BATCH as f64).max(1.0);
            2f64.powf(exact.log2().round()).clamp(32.0, 256.0) as usize
        }
    };
    enough.min(images / 2).max(2)
}

/// Prototypes from coarse to fine: a few dozen at most, and such of 100 and of 25 images.
fn clusters(images: usize) -> Vec<usize> {
    let coarse = ((images as f64).sqrt() / 4.0).round() as usize;
    let mut counts = [coarse.min(images / 100), images / 100, images / 25]
        .map(|count| count.max(8).min(images / 2).max(1))
        .to_vec();
    counts.dedup();
    counts
}

fn table<const N: usize>(settings: [(&str, Value); N]) -> Table {
    settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// To three significant digits, so that a command can be typed.
fn rounded(value: f64) -> f64 {
    format!("{value:.2e}").parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recommended(pile: Pile, gpu: bool, given: &str, seen: Option<usize>) -> Config {
        let given: Table = given.parse().unwrap();
        let choices = Config::recommended(pile, Machine { cores: 2, gpu }, &given, seen);
        let layers = choices.into_iter().map(|choice| choice.settings);
        let preset = Config::preset("v2").unwrap();
        Config::resolve([preset].into_iter().chain(layers).chain([given])).unwrap()
    }

    #[test]
    fn any_pile_gets_settings_that_its_images_can_fill() {
        for images in [2, 3, 7, 20, 200, 3000, 60_000, 1_300_000, 100_000_000] {
            for side in [1, 32, 72, 375, 5000] {
                for gpu in [false, true] {
                    for seen in [None, Some(1), Some(100_000), Some(usize::MAX)] {
                        let found = recommended(Pile { images, side: Some(side) }, gpu, "", seen);
                        assert!((2..=256).contains(&found.batch_size));
                        assert!(found.batch_size <= images && found.queue > 0);
                        let clusters = found.clusters.counts(images);
                        assert!(clusters.is_sorted_by(|coarse, fine| coarse < fine));
                        assert!(clusters.iter().all(|&count| 1 <= count && count <= images as i64));
                    }
                }
            }
        }
    }

    #[test]
    fn more_images_seen_are_larger_batches_at_a_higher_rate() {
        let with = |seen| {
            let found = recommended(Pile { images: 50_000, side: Some(32) }, false, "", Some(seen));
            (found.batch_size, found.lr)
        };
        assert_eq!(with(100_000), (32, 0.0212));
        assert_eq!(with(256_000), (64, 0.03));
        assert_eq!(with(10_000_000), (256, 0.06));
    }

    #[test]
    fn what_is_given_is_what_the_rest_follows() {
        let pile = Pile { images: 3000, side: Some(375) };
        let found = recommended(pile, true, "image-size = 48\nbatch-size = 16", None);
        assert_eq!((found.encoder.stem.name(), found.views.blur_probability), ("small", 0.0));
        assert_eq!(found.lr, 0.015);
        let init = recommended(pile, true, "init = 'run'\nbatch-size = 64", None);
        assert_eq!(init.lr, 0.01);
    }
}
