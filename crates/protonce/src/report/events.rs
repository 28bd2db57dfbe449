//! A run's log, `events.jsonl`, as far as pictures need it.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::ReportError;

/// One line of the log. Other events, and other fields of these, are passed over.
#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Event {
    Step {
        epoch: u32,
        step: u64,
        steps: u64,
        #[serde(flatten)]
        losses: LoggedLosses,
    },
    Epoch {
        epoch: u32,
        #[serde(flatten)]
        losses: LoggedLosses,
    },
    Evaluation {
        epoch: u32,
        #[serde(default)]
        knn: BTreeMap<String, Option<f64>>,
    },
    #[serde(other)]
    Other,
}

/// JSON has no word for "not a number"; the log says `null`.
#[derive(Deserialize)]
struct LoggedLosses {
    loss: Option<f64>,
    instance_loss: Option<f64>,
    prototype_loss: Option<f64>,
}

/// The losses at one moment; NaN where one is absent or not a finite number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Losses {
    /// Epochs finished by then, in fractions: 2.5 is half way through the third epoch.
    pub(super) time: f64,
    pub(super) total: f64,
    pub(super) instance: f64,
    pub(super) prototype: f64,
}

/// What the log tells, in order of time.
#[derive(Debug, Default)]
pub(super) struct History {
    /// Every step; of an epoch without logged steps, its mean.
    pub(super) losses: Vec<Losses>,
    /// For each number of neighbours: (epochs finished, top-1 accuracy from 0 to 1).
    pub(super) knn: BTreeMap<u32, Vec<(f64, f64)>>,
}

impl History {
    /// Reads a log.
    ///
    /// A line that is no whole JSON object is passed over: a killed run tears its last line, and
    /// a resumed one goes on after it. What a resumed run repeats replaces what it had logged
    /// before.
    pub(super) fn read(path: &Path) -> Result<History, ReportError> {
        // Bytes, not a string: a tear may fall inside a character.
        let log = std::fs::read(path)
            .map_err(|source| ReportError::Read { path: path.to_owned(), source })?;
        let events = log.split(|&byte| byte == b'\n').filter_map(|line| {
            let event: Option<Event> = serde_json::from_slice(line).ok();
            event
        });

        let mut steps = BTreeMap::new();
        let mut epochs = BTreeMap::new();
        let mut evaluations = BTreeMap::new();
        for event in events {
            match event {
                Event::Step { epoch, step, steps: of, losses } => {
                    let time = f64::from(epoch) + step as f64 / of.max(1) as f64;
                    steps.insert((epoch, step), at(time, &losses));
                }
                Event::Epoch { epoch, losses } => {
                    epochs.insert(epoch, at(f64::from(epoch) + 1.0, &losses));
                }
                Event::Evaluation { epoch, knn } => {
                    evaluations.insert(epoch, knn);
                }
                Event::Other => {}
            }
        }
        if steps.is_empty() && epochs.is_empty() {
            return Err(ReportError::NoSteps { path: path.to_owned() });
        }
        epochs.retain(|&epoch, _| steps.range((epoch, 0)..(epoch + 1, 0)).next().is_none());
        let mut losses: Vec<Losses> = steps.into_values().chain(epochs.into_values()).collect();
        losses.sort_by(|a, b| a.time.total_cmp(&b.time));
        Ok(History { losses, knn: accuracies(evaluations) })
    }
}

fn at(time: f64, losses: &LoggedLosses) -> Losses {
    let finite = |loss: Option<f64>| loss.filter(|loss| loss.is_finite()).unwrap_or(f64::NAN);
    Losses {
        time,
        total: finite(losses.loss),
        instance: finite(losses.instance_loss),
        prototype: finite(losses.prototype_loss),
    }
}

fn accuracies(
    evaluations: BTreeMap<u32, BTreeMap<String, Option<f64>>>,
) -> BTreeMap<u32, Vec<(f64, f64)>> {
    let mut knn = BTreeMap::<u32, Vec<_>>::new();
    for (epoch, accuracies) in evaluations {
        for (neighbours, accuracy) in accuracies {
            let accuracy = accuracy.filter(|accuracy| accuracy.is_finite());
            if let (Ok(neighbours), Some(accuracy)) = (neighbours.parse(), accuracy) {
                knn.entry(neighbours).or_default().push((f64::from(epoch), accuracy / 100.0));
            }
        }
    }
    knn
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(log: &[u8]) -> Result<History, ReportError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        std::fs::write(&path, log).unwrap();
        History::read(&path)
    }

    #[test]
    fn steps_stand_where_in_their_epoch_they_ended() {
        let log = br#"{"event":"step","epoch":0,"step":1,"steps":2,"loss":4,"instance_loss":4,"prototype_loss":null,"seconds":1}
{"event":"step","epoch":0,"step":2,"steps":2,"loss":3,"instance_loss":3}
{"event":"epoch","epoch":0,"loss":3.5,"instance_loss":3.5}
{"event":"step","epoch":1,"step":1,"steps":2,"loss":2,"instance_loss":1.5,"prototype_loss":0.5}
"#;
        let losses = history(log).unwrap().losses;
        let times: Vec<f64> = losses.iter().map(|losses| losses.time).collect();
        assert_eq!(times, [0.5, 1.0, 1.5]);
        assert!(losses[0].prototype.is_nan());
        assert_eq!(losses[2].prototype, 0.5);
    }

    #[test]
    fn a_resumed_run_replaces_what_it_repeats_and_torn_lines_are_passed_over() {
        let log = b"{\"event\":\"step\",\"epoch\":0,\"step\":1,\"steps\":2,\"loss\":4}
{\"event\":\"step\",\"epoch\":0,\"step\":1,\"lo{\"event\":\"expectation\",\"epoch\":0}
{\"event\":\"step\",\"epoch\":0,\"step\":1,\"steps\":2,\"loss\":5}
{\"event\":\"weather\"}
{\"event\":\"step\",\"epoch\":0,\"step\":1,\"loss\":\"\xe2\x82";
        let losses = history(log).unwrap().losses;
        assert_eq!(losses.iter().map(|losses| losses.total).collect::<Vec<_>>(), [5.0]);
    }

    #[test]
    fn epochs_without_steps_give_their_means() {
        let log = br#"{"event":"epoch","epoch":0,"loss":3.5}
{"event":"epoch","epoch":1,"loss":2.5}"#;
        let losses = history(log).unwrap().losses;
        assert_eq!((losses[1].time, losses[1].total), (2.0, 2.5));
    }

    #[test]
    fn evaluations_are_kept_by_number_of_neighbours() {
        let log = br#"{"event":"epoch","epoch":0,"loss":3.5}
{"event":"evaluation","epoch":1,"knn":{"200":25,"20":50,"odd":1,"7":null}}"#;
        let knn = history(log).unwrap().knn;
        assert_eq!(
            knn.into_iter().collect::<Vec<_>>(),
            [(20, vec![(1.0, 0.5)]), (200, vec![(1.0, 0.25)])]
        );
    }

    #[test]
    fn a_log_without_steps_says_so() {
        for log in [&b""[..], b"\n\n", b"{\"event\":\"expectation\",\"epoch\":0}\n", b"{\"eve"] {
            assert!(matches!(history(log), Err(ReportError::NoSteps { .. })));
        }
    }
}
