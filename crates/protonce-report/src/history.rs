//! What the log of a run tells, summed up in bounded memory.
//!
//! Events go in as they are read; a curve and lists of evaluations, expectation steps and skipped images
//! come out, whole or as what is new since a [`HistoryCursor`].

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use protonce_kmeans::Quality;
use protonce_run::{Event, EventFollower, Floor, FollowedEvent, LogChange, events_file};
use serde::Serialize;

use crate::ReportError;
use crate::curve::{COLUMNS, Curve, CurvePoint, LoggedMeans};

/// Most evaluations, expectation steps and skipped images that are listed one by one.
const MOST_ENTRIES: usize = 1024;

/// What the page says of one granularity of an expectation step.
#[derive(Debug, Clone, Serialize)]
struct LoggedGranularity {
    clusters: i64,
    objective: f64,
    empty: i64,
    largest: i64,
}

impl From<&Quality> for LoggedGranularity {
    fn from(quality: &Quality) -> LoggedGranularity {
        let &Quality { clusters, objective, empty, largest, .. } = quality;
        LoggedGranularity { clusters, objective, empty, largest }
    }
}

/// One kNN evaluation.
#[derive(Debug, Clone, Serialize)]
struct LoggedEvaluation {
    epoch: usize,
    /// Top-1 accuracy in percent by number of neighbours.
    knn: BTreeMap<i64, f64>,
    /// Accuracy of guessing the most frequent class, in percent.
    chance: f64,
}

/// One expectation step.
#[derive(Debug, Clone, Serialize)]
struct LoggedExpectation {
    epoch: usize,
    images: usize,
    granularities: Vec<LoggedGranularity>,
    effective_rank: f64,
}

/// What a log tells, in order of time. What a resumed run repeats replaces what it had logged
/// before.
#[derive(Debug, Default)]
pub(crate) struct History {
    curve: Curve,
    /// Events so far.
    events: u64,
    evaluations: Vec<LoggedEvaluation>,
    /// What accuracies are to be compared with.
    floors: Vec<Floor>,
    expectations: Vec<LoggedExpectation>,
    /// The best accuracy of any number of neighbours: (percent, neighbours, epoch).
    best: Option<(f64, i64, usize)>,
    skipped: u64,
    skipped_first: Vec<(String, String)>,
    /// The epoch of the newest step line; none when epochs were logged without steps.
    stepped: Option<usize>,
    /// Seconds of embedding and clustering, and of evaluating.
    expectation_seconds: f64,
    evaluation_seconds: f64,
    /// Epochs and steps of the newest checkpoint.
    pub(crate) checkpoint: Option<(usize, usize)>,
}

/// How much of a [`History`] a reader has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct HistoryCursor {
    generation: u64,
    points: usize,
    events: u64,
}

/// The part of a history that a reader does not have yet. Points from `from` on replace the
/// reader's; everything else replaces what it had.
#[derive(Debug, Serialize)]
pub(crate) struct HistoryUpdate<'a> {
    columns: [&'static str; COLUMNS.len()],
    from: usize,
    points: Vec<[f32; COLUMNS.len()]>,
    /// Log lines that a point sums up, at most.
    stride: u32,
    evaluations: &'a [LoggedEvaluation],
    floors: &'a [Floor],
    expectations: &'a [LoggedExpectation],
    best: Option<(f64, i64, usize)>,
    skipped: u64,
    skipped_first: &'a [(String, String)],
    training_seconds: f64,
    expectation_seconds: f64,
    evaluation_seconds: f64,
}

impl History {
    /// Reads the log of the run in `run`.
    pub(crate) fn read(run: &Path) -> Result<History, ReportError> {
        let mut history = History::default();
        history
            .follow(&mut EventFollower::new(run))
            .map_err(|source| ReportError::Read { path: events_file(run), source })?;
        Ok(history)
    }

    /// Takes up what is new in a log, or all of it where the log was begun anew.
    pub(crate) fn follow(&mut self, log: &mut EventFollower) -> io::Result<LogChange> {
        log.read(&mut |told| match told {
            FollowedEvent::Restarted => {
                *self = History { curve: self.curve.restarted(), ..History::default() };
            }
            FollowedEvent::Event(event) => self.record(event),
        })
    }

    fn record(&mut self, event: Event) {
        self.events += 1;
        match event {
            Event::Step {
                epoch,
                step,
                steps,
                measures,
                learning_rate,
                images,
                seconds,
                waited,
                ..
            } => {
                let time = epoch as f64 + step as f64 / steps.max(1) as f64;
                self.stepped = Some(epoch);
                let logged = LoggedMeans { measures, learning_rate, images, seconds, waited };
                self.point(time, logged);
            }
            Event::Epoch { epoch, measures, learning_rate, images, seconds } => {
                if self.stepped != Some(epoch) {
                    let waited = f64::NAN;
                    let logged = LoggedMeans { measures, learning_rate, images, seconds, waited };
                    self.point(epoch as f64 + 1.0, logged);
                }
            }
            Event::Expectation {
                epoch,
                images,
                granularities,
                effective_rank,
                embedding_seconds,
                clustering_seconds,
                ..
            } => {
                self.expectation_seconds +=
                    seconds_or_none(embedding_seconds) + seconds_or_none(clustering_seconds);
                self.expectations.retain(|earlier| earlier.epoch < epoch);
                thin(&mut self.expectations);
                let granularities = granularities.iter().map(LoggedGranularity::from).collect();
                let logged = LoggedExpectation { epoch, images, granularities, effective_rank };
                self.expectations.push(logged);
            }
            Event::Evaluation { epoch, knn, chance, seconds } => {
                self.evaluation_seconds += seconds_or_none(seconds);
                for (&k, &top1) in &knn {
                    if self.best.is_none_or(|(best, ..)| top1 > best) {
                        self.best = Some((top1, k, epoch));
                    }
                }
                self.evaluations.retain(|earlier| earlier.epoch < epoch);
                thin(&mut self.evaluations);
                self.evaluations.push(LoggedEvaluation { epoch, knn, chance });
            }
            Event::Floors { floors, .. } => self.floors = floors,
            Event::Skipped { name, reason, .. } => {
                self.skipped += 1;
                if self.skipped_first.len() < 50 {
                    self.skipped_first.push((name, reason));
                }
            }
            Event::Checkpoint { epoch, step, .. } => self.checkpoint = Some((epoch, step)),
            Event::Loader { .. } | Event::World { .. } => {}
        }
    }

    fn point(&mut self, time: f64, logged: LoggedMeans) {
        if let Some(point) = CurvePoint::of(time, &logged) {
            self.curve.push(point);
        }
    }

    /// The newest expectation step that was logged: the epoch that it began.
    #[cfg(feature = "serve")]
    pub(crate) fn newest_expectation(&self) -> Option<usize> {
        self.expectations.last().map(|expectation| expectation.epoch)
    }

    /// What is new since `cursor`, and the cursor after it.
    pub(crate) fn since(&self, cursor: HistoryCursor) -> (HistoryUpdate<'_>, HistoryCursor) {
        let points = self.curve.points();
        // The last point that the reader has may have been growing still.
        let from = match cursor.generation == self.curve.generation() {
            true => cursor.points.saturating_sub(1).min(points.len()),
            false => 0,
        };
        let update = HistoryUpdate {
            columns: COLUMNS,
            from,
            points: points[from..].iter().map(CurvePoint::means).collect(),
            stride: self.curve.stride(),
            evaluations: &self.evaluations,
            floors: &self.floors,
            expectations: &self.expectations,
            best: self.best,
            skipped: self.skipped,
            skipped_first: &self.skipped_first,
            training_seconds: points.iter().map(|point| point.seconds).sum(),
            expectation_seconds: self.expectation_seconds,
            evaluation_seconds: self.evaluation_seconds,
        };
        (update, self.end())
    }

    /// The cursor after everything.
    pub(crate) fn end(&self) -> HistoryCursor {
        HistoryCursor {
            generation: self.curve.generation(),
            points: self.curve.points().len(),
            events: self.events,
        }
    }
}

/// Seconds that a log line tells; 0 where it does not.
fn seconds_or_none(seconds: f64) -> f64 {
    if seconds.is_finite() { seconds } else { 0.0 }
}

/// Makes room for one more: of too many entries, every second one goes.
fn thin<T>(entries: &mut Vec<T>) {
    if entries.len() >= MOST_ENTRIES {
        let mut keep = false;
        entries.retain(|_| {
            keep = !keep;
            keep
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Write;

    use crate::curve::MOST_POINTS;

    struct Written {
        folder: tempfile::TempDir,
        log: EventFollower,
        history: History,
    }

    impl Written {
        fn new() -> Written {
            let folder = tempfile::tempdir().unwrap();
            let log = EventFollower::new(folder.path());
            Written { folder, log, history: History::default() }
        }

        fn append(&mut self, text: &[u8]) -> LogChange {
            let path = self.folder.path().join("events.jsonl");
            let mut file = File::options().create(true).append(true).open(path).unwrap();
            file.write_all(text).unwrap();
            self.history.follow(&mut self.log).unwrap()
        }

        fn points(&self) -> Vec<(f64, f64)> {
            let (update, _) = self.history.since(HistoryCursor::default());
            update.points.iter().map(|p| (f64::from(p[0]), f64::from(p[1]))).collect()
        }
    }

    fn step(epoch: usize, step: usize, loss: f64) -> String {
        format!(
            "{{\"event\":\"step\",\"epoch\":{epoch},\"step\":{step},\"steps\":10,\"loss\":{loss},\
             \"instance_loss\":{loss},\"prototype_loss\":null,\"images\":4,\"seconds\":2,\
             \"waited\":0.5,\"learning_rate\":0.1}}\n"
        )
    }

    #[test]
    fn steps_stand_where_in_their_epoch_they_ended() {
        let mut run = Written::new();
        run.append((step(0, 5, 4.0) + &step(0, 10, 3.0) + &step(1, 5, 2.0)).as_bytes());
        assert_eq!(run.points(), [(0.5, 4.0), (1.0, 3.0), (1.5, 2.0)]);
        let (update, _) = run.history.since(HistoryCursor::default());
        assert_eq!(update.points[0][7..], [2.0, 25.0], "images a second, percent waited");
        assert!(update.points[0][3].is_nan(), "no prototypes yet");
    }

    #[test]
    fn epochs_without_steps_give_their_means() {
        let mut run = Written::new();
        run.append(b"{\"event\":\"epoch\",\"epoch\":0,\"loss\":3.5}\n");
        run.append(b"{\"event\":\"epoch\",\"epoch\":1,\"loss\":2.5}\n");
        run.append((step(2, 5, 2.0) + "{\"event\":\"epoch\",\"epoch\":2,\"loss\":9}\n").as_bytes());
        assert_eq!(run.points(), [(1.0, 3.5), (2.0, 2.5), (2.5, 2.0)]);
    }

    #[test]
    fn a_torn_line_is_passed_over_and_what_is_repeated_replaces() {
        let mut run = Written::new();
        run.append(step(0, 5, 4.0).as_bytes());
        run.append(
            b"{\"event\":\"step\",\"epoch\":0,\"loss\":\"\xe2\x82{\"event\":\"expectation\"}\n",
        );
        run.append((step(0, 5, 5.0) + "{\"event\":\"weather\"}\n\n").as_bytes());
        assert_eq!(run.points(), [(0.5, 5.0)]);
    }

    #[test]
    fn a_file_cut_back_and_written_on_to_the_same_length_is_read_again() {
        let mut run = Written::new();
        run.append((step(0, 5, 4.0) + &step(0, 6, 3.0) + &step(0, 7, 3.0)).as_bytes());
        let path = run.folder.path().join("events.jsonl");
        let file = File::options().write(true).open(&path).unwrap();
        file.set_len(step(0, 5, 4.0).len() as u64).unwrap();
        let change = run.append((step(0, 6, 8.0) + &step(0, 7, 9.0)).as_bytes());
        assert_eq!(change, LogChange::Restarted);
        let losses: Vec<f64> = run.points().into_iter().map(|(_, loss)| loss).collect();
        assert_eq!(losses, [4.0, 8.0, 9.0]);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(run.history.follow(&mut run.log).unwrap(), LogChange::Unchanged);
    }

    #[test]
    fn any_number_of_events_gives_a_bounded_curve_with_the_same_means() {
        let mut history = History::default();
        let count = 100_000usize;
        for number in 0..count {
            let line = step(number / 10, number % 10 + 1, (number % 7) as f64);
            history.record(serde_json::from_str(&line).unwrap());
            let evaluation = format!(
                "{{\"event\":\"evaluation\",\"epoch\":{number},\"knn\":{{\"20\":{}}}}}",
                number % 97
            );
            history.record(serde_json::from_str(&evaluation).unwrap());
        }
        assert!(
            history.curve.points().len() <= MOST_POINTS
                && history.curve.capacity() <= MOST_POINTS * 2
        );
        assert!(history.evaluations.len() <= MOST_ENTRIES);
        assert_eq!(history.best, Some((96.0, 20, 96)));
        let images: f64 = history.curve.points().iter().map(|point| point.images).sum();
        assert_eq!(images, 4.0 * count as f64);
        let (update, _) = history.since(HistoryCursor::default());
        assert!(update.points[1..].iter().all(|point| (point[1] - 3.0).abs() < 0.2));
    }

    #[test]
    fn updates_add_up_to_the_whole() {
        let mut history = History::default();
        let (mut cursor, mut copy) = (HistoryCursor::default(), Vec::new());
        for number in 0..9000usize {
            let time = if number < 5000 { number } else { number - 700 };
            let line = step(time / 10, time % 10 + 1, (number % 7) as f64);
            history.record(serde_json::from_str(&line).unwrap());
            if number % 13 == 0 {
                let (update, next) = history.since(cursor);
                copy.truncate(update.from);
                copy.extend(update.points);
                cursor = next;
                let (whole, _) = history.since(HistoryCursor::default());
                // NaN is not equal to itself; its bits are.
                let bits = |points: &[[f32; 9]]| -> Vec<[u32; 9]> {
                    points.iter().map(|point| point.map(f32::to_bits)).collect()
                };
                assert_eq!(bits(&copy), bits(&whole.points));
            }
        }
    }

    #[test]
    fn evaluations_are_kept_by_number_of_neighbours() {
        let mut run = Written::new();
        run.append(b"{\"event\":\"evaluation\",\"epoch\":1,\"knn\":{\"200\":25,\"20\":50,\"odd\":1,\"7\":null}}\n");
        let knn = &run.history.evaluations[0].knn;
        assert_eq!(knn.iter().collect::<Vec<_>>(), [(&20, &50.0), (&200, &25.0)]);
    }
}
