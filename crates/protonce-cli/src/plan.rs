//! What `pretrain` chooses where nothing was said: settings that suit the images and the machine, and
//! as many epochs as fit into a time.

use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use indicatif::HumanDuration;
use protonce::pretrain::PretrainError;
use protonce::pretrain::pace::Pace;
use protonce::weights::Weights;
use protonce_images::data::Dataset;
use protonce_images::views::median_side;
use protonce_run::{
    Choice, Config, ConfigError, Head, Machine, Method, Observer, Pile, Preset, Stats, text,
};
use tch::Device;
use toml::{Table, Value};

use crate::weights;

/// The name of the settings that are chosen to suit images and machine.
pub const AUTO: &str = "auto";

/// How long a run may take: a number and `s`, `m`, `h` or `d`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Budget(pub Duration);

/// That of a run of which nothing was said.
const USUAL: Budget = Budget(Duration::from_secs(3600));

/// More epochs teach little; only a budget that was asked for is filled to its end.
const PLENTY: usize = 1000;

/// Passes over the images below which fewer of them are used.
const FEWEST: usize = 10;

impl FromStr for Budget {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Budget, &'static str> {
        const EXPECTED: &str = "expected a time above 0 such as 30m, 2h or 1.5d";
        let seconds = |number: &str, unit: f64| {
            let number: f64 = number.trim().parse().map_err(|_| EXPECTED)?;
            let seconds = number * unit;
            let time = Duration::try_from_secs_f64(seconds).map_err(|_| EXPECTED)?;
            if time.is_zero() { Err(EXPECTED) } else { Ok(Budget(time)) }
        };
        let units = [("s", 1.0), ("m", 60.0), ("h", 3600.0), ("d", 86_400.0)];
        let found = units.iter().find_map(|(name, unit)| {
            text.trim().strip_suffix(name).map(|number| seconds(number, *unit))
        });
        found.unwrap_or(Err(EXPECTED))
    }
}

/// What a run will be.
pub struct Plan {
    pub config: Config,
    /// What was chosen, without what was given.
    pub choices: Vec<Choice>,
    /// How long it will take, where that was measured.
    pub time: Option<Duration>,
}

/// What was said of a run.
pub struct Wishes<'a> {
    /// The name of a preset, or [`AUTO`].
    pub preset: &'a str,
    /// Settings of a file and of flags.
    pub given: &'a Table,
    /// What follows from the weights that the run starts from.
    pub start: Option<Choice>,
    pub budget: Option<Budget>,
    /// Processes that share the run, of which this one measures alone.
    pub processes: usize,
}

/// What follows from the weights to start from that `given` names, if it names some.
pub fn start(given: &Table) -> anyhow::Result<Option<Choice>> {
    let Some(init) = given.get("init").and_then(Value::as_str).filter(|init| !init.is_empty())
    else {
        return Ok(None);
    };
    let Weights { encoder, views, .. } = weights::read(Path::new(init))?;
    let mut settings = Table::new();
    let mut set = |name: &str, value: Value| settings.insert(name.to_owned(), value);
    set("arch", encoder.arch.name().into());
    set("base-channels", encoder.base_channels.into());
    set("stem", encoder.stem.name().into());
    if encoder.head != Head::None {
        set("head", encoder.head.name().into());
        set("dim", encoder.dim.into());
    }
    set("stats", Stats::Given.name().into());
    set("mean", views.mean.to_vec().into());
    set("std", views.std.to_vec().into());
    Ok(Some(Choice::new(settings, format!("as {init} has it"))))
}

impl Wishes<'_> {
    /// The settings as far as they do not depend on the images.
    pub fn without_images(&self) -> Result<Config, ConfigError> {
        self.resolve(&[])
    }

    /// Settings for a run on `dataset`, of which the run may use a part, and on `device`.
    pub fn plan(
        &self,
        dataset: &Arc<Dataset>,
        device: Device,
        observer: &mut Observer,
    ) -> anyhow::Result<Plan> {
        let automatic = self.preset == AUTO;
        let mut images = dataset.len();
        let side = match automatic && !self.given.contains_key("image-size") {
            true => Some(side(dataset)?),
            false => None,
        };
        let recommended = |images: usize, seen: Option<usize>| {
            let (cores, gpu) = (protonce_images::threads(0), device != Device::Cpu);
            let mut choices = match automatic {
                false => Vec::new(),
                true => {
                    let machine = Machine { cores, gpu };
                    Config::recommended(Pile { images, side }, machine, self.given, seen)
                }
            };
            choices.extend(self.start.clone());
            choices
        };
        // A budget wins over the epochs of a file.
        let epochs = self.given.get("epochs").and_then(Value::as_integer);
        if let Some(epochs) = epochs.filter(|_| self.budget.is_none()) {
            let seen = usize::try_from(epochs).unwrap_or(0).saturating_mul(images);
            let mut choices = recommended(images, Some(seen));
            choices.extend(self.follows(epochs as usize, None));
            return self.finished(choices, None);
        }
        if !automatic && self.budget.is_none() {
            return self.finished(recommended(images, None), None);
        }

        let (Budget(budget), start) = (self.budget.unwrap_or(USUAL), Instant::now());
        let first = self.resolve(&recommended(images, None))?;
        let measure = |config: &Config, observer: &mut Observer| {
            let pace = Pace::measure(config, dataset, device, measuring(budget), observer)?;
            Ok::<_, PretrainError>(pace.among(self.processes))
        };
        let mut pace = measure(&first, observer)?;
        // A quarter of the time is for E-steps.
        let an_image = pace.maximization(&first, images) / images as f64;
        let seen = (0.75 * budget.as_secs_f64() / an_image) as usize;
        let mut sample = Vec::new();
        let enough = (seen / FEWEST).max(2 * first.batch_size);
        if automatic && images > enough && !self.given.contains_key("sample") {
            let settings = Table::from_iter([("sample".to_owned(), Value::from(enough as i64))]);
            let because = format!("of {images} images, what can be looked at {FEWEST} times");
            sample.push(Choice::new(settings, because));
            images = enough;
        }
        let mut choices = recommended(images, Some(seen));
        choices.extend(sample);
        let config = self.resolve(&choices)?;
        if config.batch_size != first.batch_size {
            pace = measure(&config, observer)?;
        }
        // What was measured is part of the run's time.
        let budget = budget.saturating_sub(start.elapsed());
        let most = if self.budget.is_none() { PLENTY } else { usize::MAX };
        let completed = |epochs: usize| {
            let mut layers = choices.clone();
            layers.extend(self.follows(epochs, Some((&pace, &config, images))));
            let config = self.resolve(&layers).map(|config| Config { epochs, ..config });
            (layers, config)
        };
        let epochs = pace.epochs_within(budget, images, most, |epochs| completed(epochs).1)?;
        let (mut choices, config) = completed(epochs);
        let config = config?;
        let time = Duration::from_secs_f64(pace.run(&config, images));
        let settings = Table::from_iter([("epochs".to_owned(), Value::from(epochs as i64))]);
        let because = format!(
            "{:.2} s a step, {:.1} s an E-step: {}",
            pace.maximization(&config, images) / config.steps_per_epoch(images) as f64,
            pace.expectation(&config, images),
            HumanDuration(time),
        );
        choices.push(Choice::new(settings, because));
        self.finished(choices, Some(time))
    }

    /// The plan that `choices` make, unless what was given contradicts itself.
    fn finished(&self, choices: Vec<Choice>, time: Option<Duration>) -> anyhow::Result<Plan> {
        let config = self.resolve(&choices)?;
        let (warmup, epochs) = (config.warmup_epochs, config.epochs);
        if config.method == Method::Pcl && warmup > epochs {
            bail!(
                "\"warmup-epochs\" is {warmup}, but the run has {epochs} epochs, so that it would never see \
                 a prototype: give fewer --warmup-epochs or more --epochs, or --method moco to train \
                 without prototypes"
            );
        }
        Ok(Plan { config, choices, time })
    }

    /// Preset ← choices ← what was given.
    fn resolve(&self, choices: &[Choice]) -> Result<Config, ConfigError> {
        let preset = match self.preset {
            AUTO => Config::preset(Preset::V2.name())?,
            name => Config::preset(name)?,
        };
        let chosen = choices.iter().map(|choice| choice.settings.clone());
        Config::resolve([preset].into_iter().chain(chosen).chain([self.given.clone()]))
    }

    /// What follows from the number of epochs and, where it is known, from how long they take.
    fn follows(&self, epochs: usize, pace: Option<(&Pace, &Config, usize)>) -> Option<Choice> {
        // Prototypes of an untrained encoder mean little.
        let warmup = match self.start {
            Some(_) if self.preset == AUTO => 0,
            _ => (epochs / 10).clamp(1, 20).min(epochs.saturating_sub(1)),
        };
        if self.preset != AUTO {
            let preset = Config::preset(self.preset).ok()?.get("warmup-epochs")?.as_integer()?;
            let settings = Table::from_iter([("warmup-epochs".to_owned(), (warmup as i64).into())]);
            let because =
                format!("the preset's {preset} epochs of warm-up are more than the run has");
            return (preset > epochs as i64).then(|| Choice::new(settings, because));
        }
        let mut settings =
            Table::from_iter([("warmup-epochs".to_owned(), Value::from(warmup as i64))]);
        if let Some((pace, config, images)) = pace {
            let maximization = pace.maximization(config, images);
            // Often enough for prototypes to follow the encoder.
            let most = (epochs / 4).max(1);
            let mut every = |name: &str, seconds: f64| {
                let epochs = (seconds / maximization).ceil().clamp(1.0, most as f64);
                settings.insert(name.to_owned(), Value::from(epochs as i64));
            };
            every("expectation-every", 3.0 * pace.expectation(config, images));
            every("eval-every", 10.0 * pace.evaluation);
            every("save-every", 60.0);
        }
        Some(Choice::new(settings, "shares of the whole run"))
    }
}

/// The median side of the images of `dataset`.
fn side(dataset: &Dataset) -> anyhow::Result<usize> {
    median_side(dataset)?.with_context(|| {
        let data = dataset.argument();
        format!(
            "none of the images looked at can be read; see why with: protonce data check {data}"
        )
    })
}

/// How long to measure for a run that may take `budget`.
fn measuring(budget: Duration) -> Duration {
    budget.mul_f64(0.04).clamp(Duration::from_secs(1), Duration::from_secs(20))
}

impl Plan {
    /// What was chosen and not given, in lines.
    pub fn lines(&self, given: &Table) -> Vec<String> {
        let chosen = |choice: &Choice| {
            let kept = choice.settings.iter().filter(|(name, _)| !given.contains_key(*name));
            let words: Vec<String> =
                kept.map(|(name, value)| format!("{name} {}", text(value))).collect();
            (!words.is_empty()).then(|| format!("  {} ({})", words.join(", "), choice.because))
        };
        self.choices.iter().filter_map(chosen).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_a_number_and_a_unit() {
        for (text, seconds) in
            [("90s", 90.0), ("30m", 1800.0), (" 1.5h", 5400.0), ("3d", 259_200.0)]
        {
            assert_eq!(text.parse(), Ok(Budget(Duration::from_secs_f64(seconds))));
        }
        for text in ["", "30", "m", "-1h", "0s", "1w", "nand", "infd", "1e300d"] {
            assert!(text.parse::<Budget>().is_err(), "{text}");
        }
    }
}
