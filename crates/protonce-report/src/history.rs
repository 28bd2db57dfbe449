//! A run's log, `events.jsonl`, read as it grows and kept in bounded memory.
//!
//! [`Log`] turns bytes into events, whatever happens to the file meanwhile: a killed run tears its
//! last line, a resumed one cuts the file back to its checkpoint and goes on. [`History`] sums the
//! events up into curves of at most [`MOST_POINTS`] points: when there are more, neighbours
//! are merged. A run of a week takes as much memory as one of an hour.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::ReportError;

/// Most points of a curve. More than a screen has columns for.
pub(super) const MOST_POINTS: usize = 2048;

/// Most evaluations, expectation steps and skipped images that are listed one by one.
const MOST_ENTRIES: usize = 1024;

/// A line longer than this is none of ours.
const LONGEST_LINE: usize = 1 << 20;

/// One line of the log. Other events, and other fields of these, are passed over.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum LoggedEvent {
    Step {
        epoch: u32,
        step: u64,
        steps: u64,
        #[serde(flatten)]
        progress: Progress,
    },
    Epoch {
        epoch: u32,
        #[serde(flatten)]
        progress: Progress,
    },
    Expectation {
        epoch: u32,
        #[serde(default)]
        images: u64,
        #[serde(default)]
        granularities: Vec<Granularity>,
        #[serde(default)]
        embedding_seconds: Option<f64>,
        #[serde(default)]
        clustering_seconds: Option<f64>,
    },
    Evaluation {
        epoch: u32,
        #[serde(default)]
        knn: BTreeMap<String, Option<f64>>,
        #[serde(default)]
        chance: Option<f64>,
        #[serde(default)]
        seconds: Option<f64>,
    },
    Skipped {
        #[serde(default)]
        name: String,
        #[serde(default)]
        reason: String,
    },
    Checkpoint {
        epoch: u32,
        #[serde(default)]
        step: u64,
    },
    #[serde(other)]
    Other,
}

/// What a step or an epoch measured. JSON has no word for "not a number"; the log says `null`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Progress {
    loss: Option<f64>,
    instance_loss: Option<f64>,
    prototype_loss: Option<f64>,
    instance_accuracy: Option<f64>,
    prototype_accuracy: Option<f64>,
    learning_rate: Option<f64>,
    images: Option<f64>,
    seconds: Option<f64>,
    waited: Option<f64>,
}

/// What the log says of one granularity of an expectation step.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Granularity {
    clusters: u64,
    objective: Option<f64>,
    empty: u64,
    largest: u64,
}

/// Reads a log from where it last stopped.
pub(super) struct Log {
    path: PathBuf,
    offset: u64,
    /// The newest bytes that were read, to notice that they were written anew.
    mark: Vec<u8>,
    /// A line without its end, so far.
    open_line: Vec<u8>,
    /// The rest of an endless line is passed over.
    passing_over: bool,
}

/// What [`Log::read`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing new.
    None,
    /// More lines.
    Grew,
    /// Not the file that was read before: it was read again from its start.
    Restarted,
}

impl Log {
    /// Bytes kept to recognise the file by.
    const MARK: usize = 256;

    pub(super) fn new(path: &Path) -> Log {
        Log {
            path: path.to_owned(),
            offset: 0,
            mark: Vec::new(),
            open_line: Vec::new(),
            passing_over: false,
        }
    }

    /// Reads what is new and hands every event to `history`, which is emptied first when the file
    /// is no longer what it was: shorter, replaced, or cut back and written on by a resumed run.
    pub(super) fn read(&mut self, history: &mut History) -> io::Result<Change> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            // A run that is about to start.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Change::None),
            Err(error) => return Err(error),
        };
        let restarted = !self.is_where_it_was(&mut file)?;
        if restarted {
            let generation = history.generation + 1;
            *history = History { generation, ..History::default() };
            *self = Log::new(&self.path);
        }
        file.seek(SeekFrom::Start(self.offset))?;
        let mut block = vec![0; 1 << 16];
        let before = self.offset;
        loop {
            let length = file.read(&mut block)?;
            if length == 0 {
                break;
            }
            self.take(&block[..length], history);
        }
        Ok(match (restarted, self.offset > before) {
            (true, _) => Change::Restarted,
            (false, true) => Change::Grew,
            (false, false) => Change::None,
        })
    }

    /// Whether the bytes before the offset are still those that were read.
    fn is_where_it_was(&self, file: &mut File) -> io::Result<bool> {
        if file.metadata()?.len() < self.offset {
            return Ok(false);
        }
        let mut now = vec![0; self.mark.len()];
        file.seek(SeekFrom::Start(self.offset - self.mark.len() as u64))?;
        match file.read_exact(&mut now) {
            Ok(()) => Ok(now == self.mark),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn take(&mut self, bytes: &[u8], history: &mut History) {
        self.offset += bytes.len() as u64;
        self.mark.extend_from_slice(&bytes[bytes.len().saturating_sub(Self::MARK)..]);
        let surplus = self.mark.len().saturating_sub(Self::MARK);
        self.mark.drain(..surplus);
        for part in bytes.split_inclusive(|&byte| byte == b'\n') {
            let ends = part.ends_with(b"\n");
            if !self.passing_over {
                self.open_line.extend_from_slice(part);
            }
            if self.open_line.len() > LONGEST_LINE {
                self.open_line.clear();
                self.passing_over = true;
            }
            if ends {
                // Bytes, not a string: a tear may fall inside a character.
                let event: Option<LoggedEvent> = serde_json::from_slice(&self.open_line).ok();
                if let Some(event) = event {
                    history.record(event);
                }
                self.open_line.clear();
                self.passing_over = false;
            }
        }
    }
}

/// Sums over a stretch of steps, from which means are made; weighted by images.
#[derive(Debug, Clone, Copy, Default)]
struct Stretch {
    /// Epochs finished at its end, in fractions: 2.5 is half way through the third epoch.
    time: f64,
    images: f64,
    seconds: f64,
    waited: f64,
    learning_rate: f64,
    loss: f64,
    instance_loss: f64,
    instance_accuracy: f64,
    /// Images for which there was a prototype term.
    prototype_images: f64,
    prototype_loss: f64,
    prototype_accuracy: f64,
}

impl Stretch {
    fn of(time: f64, progress: &Progress) -> Option<Stretch> {
        let finite = |value: Option<f64>| value.filter(|value| value.is_finite());
        let loss = finite(progress.loss)?;
        // Logs without this count weigh all lines alike.
        let images = finite(progress.images).filter(|images| *images > 0.0).unwrap_or(1.0);
        let prototype = finite(progress.prototype_loss);
        Some(Stretch {
            time,
            images,
            seconds: finite(progress.seconds).unwrap_or(0.0),
            waited: finite(progress.waited).unwrap_or(0.0),
            learning_rate: images * finite(progress.learning_rate).unwrap_or(f64::NAN),
            loss: images * loss,
            instance_loss: images * finite(progress.instance_loss).unwrap_or(loss),
            instance_accuracy: images * finite(progress.instance_accuracy).unwrap_or(f64::NAN),
            prototype_images: prototype.map_or(0.0, |_| images),
            prototype_loss: images * prototype.unwrap_or(0.0),
            prototype_accuracy: prototype
                .map_or(0.0, |_| images * finite(progress.prototype_accuracy).unwrap_or(f64::NAN)),
        })
    }

    fn merge(&mut self, later: &Stretch) {
        self.time = later.time;
        self.images += later.images;
        self.seconds += later.seconds;
        self.waited += later.waited;
        self.learning_rate += later.learning_rate;
        self.loss += later.loss;
        self.instance_loss += later.instance_loss;
        self.instance_accuracy += later.instance_accuracy;
        self.prototype_images += later.prototype_images;
        self.prototype_loss += later.prototype_loss;
        self.prototype_accuracy += later.prototype_accuracy;
    }

    /// The means, as [`COLUMNS`] names them; what there is not is NaN, which JSON calls null.
    fn means(&self) -> [f32; COLUMNS.len()] {
        let mean = |sum: f64| (sum / self.images) as f32;
        let prototype_mean = |sum: f64| (sum / self.prototype_images) as f32;
        [
            self.time as f32,
            mean(self.loss),
            mean(self.instance_loss),
            prototype_mean(self.prototype_loss),
            mean(self.instance_accuracy),
            prototype_mean(self.prototype_accuracy),
            mean(self.learning_rate),
            (self.images / self.seconds) as f32,
            (100.0 * self.waited / self.seconds) as f32,
        ]
    }
}

/// What the numbers of a point are, in order. Accuracies and waiting are percentages, time is in
/// epochs, `rate` in images a second.
pub(super) const COLUMNS: [&str; 9] = [
    "time",
    "loss",
    "instance_loss",
    "prototype_loss",
    "instance_accuracy",
    "prototype_accuracy",
    "learning_rate",
    "rate",
    "waiting",
];

/// One kNN evaluation.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Evaluation {
    pub(super) epoch: u32,
    /// Top-1 accuracy in percent by number of neighbours.
    pub(super) knn: BTreeMap<u32, f64>,
    /// Accuracy of guessing the most frequent class, in percent.
    chance: Option<f64>,
}

/// One expectation step.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Expectation {
    pub(super) epoch: u32,
    images: u64,
    granularities: Vec<Granularity>,
}

/// What a log tells, in order of time. What a resumed run repeats replaces what it had logged
/// before.
#[derive(Debug, Default)]
pub(super) struct History {
    points: Vec<Stretch>,
    /// Events that a full point stands for; a power of two.
    stride: u32,
    /// Events in the last point.
    in_last: u32,
    /// Grows when points that were final change.
    generation: u64,
    /// Events so far.
    events: u64,
    evaluations: Vec<Evaluation>,
    expectations: Vec<Expectation>,
    /// The best accuracy of any number of neighbours: (percent, neighbours, epoch).
    best: Option<(f64, u32, u32)>,
    skipped: u64,
    skipped_first: Vec<(String, String)>,
    /// The epoch of the newest step line; none when epochs were logged without steps.
    stepped: Option<u32>,
    /// Seconds of embedding and clustering, and of evaluating.
    expectation_seconds: f64,
    evaluation_seconds: f64,
    /// Epochs and steps of the newest checkpoint.
    pub(super) checkpoint: Option<(u32, u64)>,
}

/// A reader's place in a [`History`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Place {
    generation: u64,
    points: usize,
    events: u64,
}

/// The part of a history that a reader does not have yet. Points from `from` on replace the
/// reader's; everything else replaces what it had.
#[derive(Debug, Serialize)]
pub(super) struct Update<'a> {
    columns: [&'static str; COLUMNS.len()],
    from: usize,
    points: Vec<[f32; COLUMNS.len()]>,
    /// Log lines that a point sums up, at most.
    stride: u32,
    evaluations: &'a [Evaluation],
    expectations: &'a [Expectation],
    best: Option<(f64, u32, u32)>,
    skipped: u64,
    skipped_first: &'a [(String, String)],
    training_seconds: f64,
    expectation_seconds: f64,
    evaluation_seconds: f64,
}

impl History {
    /// Reads the log of the run in `run`.
    pub(super) fn read(run: &Path) -> Result<History, ReportError> {
        let path = run.join("events.jsonl");
        let mut history = History::default();
        Log::new(&path).read(&mut history).map_err(|source| ReportError::Read { path, source })?;
        Ok(history)
    }

    pub(super) fn record(&mut self, event: LoggedEvent) {
        self.events += 1;
        match event {
            LoggedEvent::Step { epoch, step, steps, progress } => {
                let time = f64::from(epoch) + step as f64 / steps.max(1) as f64;
                self.stepped = Some(epoch);
                self.point(Stretch::of(time, &progress));
            }
            LoggedEvent::Epoch { epoch, progress } => {
                if self.stepped != Some(epoch) {
                    self.point(Stretch::of(f64::from(epoch) + 1.0, &progress));
                }
            }
            LoggedEvent::Expectation {
                epoch,
                images,
                granularities,
                embedding_seconds,
                clustering_seconds,
            } => {
                self.expectation_seconds +=
                    embedding_seconds.unwrap_or(0.0) + clustering_seconds.unwrap_or(0.0);
                self.expectations.retain(|earlier| earlier.epoch < epoch);
                thin(&mut self.expectations);
                self.expectations.push(Expectation { epoch, images, granularities });
            }
            LoggedEvent::Evaluation { epoch, knn, chance, seconds } => {
                self.evaluation_seconds += seconds.unwrap_or(0.0);
                let knn: BTreeMap<u32, f64> = knn
                    .into_iter()
                    .filter_map(|(k, top1)| {
                        Some((k.parse().ok()?, top1.filter(|top1| top1.is_finite())?))
                    })
                    .collect();
                for (&k, &top1) in &knn {
                    if self.best.is_none_or(|(best, ..)| top1 > best) {
                        self.best = Some((top1, k, epoch));
                    }
                }
                self.evaluations.retain(|earlier| earlier.epoch < epoch);
                thin(&mut self.evaluations);
                self.evaluations.push(Evaluation { epoch, knn, chance });
            }
            LoggedEvent::Skipped { name, reason } => {
                self.skipped += 1;
                if self.skipped_first.len() < 50 {
                    self.skipped_first.push((name, reason));
                }
            }
            LoggedEvent::Checkpoint { epoch, step } => self.checkpoint = Some((epoch, step)),
            LoggedEvent::Other => {}
        }
    }

    fn point(&mut self, stretch: Option<Stretch>) {
        let Some(stretch) = stretch else { return };
        self.stride = self.stride.max(1);
        if self.points.last().is_some_and(|last| last.time >= stretch.time) {
            // Back in time: what comes was lost with a kill and happens again.
            self.points.retain(|point| point.time < stretch.time);
            self.generation += 1;
            self.in_last = self.stride;
        }
        match self.points.last_mut() {
            Some(last) if self.in_last < self.stride => {
                last.merge(&stretch);
                self.in_last += 1;
                return;
            }
            _ => {}
        }
        if self.points.len() == MOST_POINTS {
            let merged = self.points.chunks(2).map(|pair| {
                let mut first = pair[0];
                pair[1..].iter().for_each(|second| first.merge(second));
                first
            });
            self.points = merged.collect();
            self.stride *= 2;
            self.generation += 1;
        }
        self.points.push(stretch);
        self.in_last = 1;
    }

    /// The newest expectation step that was logged: the epoch that it began.
    pub(super) fn newest_expectation(&self) -> Option<u32> {
        self.expectations.last().map(|expectation| expectation.epoch)
    }

    /// What is new since `place`, and the place after it.
    pub(super) fn since(&self, place: Place) -> (Update<'_>, Place) {
        // The last point that the reader has may have been growing still.
        let from = match place.generation == self.generation {
            true => place.points.saturating_sub(1).min(self.points.len()),
            false => 0,
        };
        let update = Update {
            columns: COLUMNS,
            from,
            points: self.points[from..].iter().map(Stretch::means).collect(),
            stride: self.stride,
            evaluations: &self.evaluations,
            expectations: &self.expectations,
            best: self.best,
            skipped: self.skipped,
            skipped_first: &self.skipped_first,
            training_seconds: self.points.iter().map(|point| point.seconds).sum(),
            expectation_seconds: self.expectation_seconds,
            evaluation_seconds: self.evaluation_seconds,
        };
        (update, self.end())
    }

    /// The place after everything.
    pub(super) fn end(&self) -> Place {
        Place { generation: self.generation, points: self.points.len(), events: self.events }
    }
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
    use std::io::Write;

    struct Written {
        folder: tempfile::TempDir,
        log: Log,
        history: History,
    }

    impl Written {
        fn new() -> Written {
            let folder = tempfile::tempdir().unwrap();
            let log = Log::new(&folder.path().join("events.jsonl"));
            Written { folder, log, history: History::default() }
        }

        fn append(&mut self, text: &[u8]) -> Change {
            let path = self.folder.path().join("events.jsonl");
            let mut file = File::options().create(true).append(true).open(path).unwrap();
            file.write_all(text).unwrap();
            self.log.read(&mut self.history).unwrap()
        }

        fn points(&self) -> Vec<(f64, f64)> {
            let (update, _) = self.history.since(Place::default());
            update.points.iter().map(|p| (f64::from(p[0]), f64::from(p[1]))).collect()
        }
    }

    fn step(epoch: u32, step: u64, loss: f64) -> String {
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
        let (update, _) = run.history.since(Place::default());
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
    fn a_line_is_read_once_it_is_whole() {
        let mut run = Written::new();
        let line = step(0, 5, 4.0);
        run.append(&line.as_bytes()[..20]);
        assert_eq!(run.points(), []);
        assert_eq!(run.append(&line.as_bytes()[20..]), Change::Grew);
        assert_eq!(run.points(), [(0.5, 4.0)]);
        assert_eq!(run.append(b""), Change::None);
    }

    #[test]
    fn a_file_cut_back_and_written_on_to_the_same_length_is_read_again() {
        let mut run = Written::new();
        run.append((step(0, 5, 4.0) + &step(0, 6, 3.0) + &step(0, 7, 3.0)).as_bytes());
        let path = run.folder.path().join("events.jsonl");
        let file = File::options().write(true).open(&path).unwrap();
        file.set_len(step(0, 5, 4.0).len() as u64).unwrap();
        let change = run.append((step(0, 6, 8.0) + &step(0, 7, 9.0)).as_bytes());
        assert_eq!(change, Change::Restarted);
        let losses: Vec<f64> = run.points().into_iter().map(|(_, loss)| loss).collect();
        assert_eq!(losses, [4.0, 8.0, 9.0]);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(run.log.read(&mut run.history).unwrap(), Change::None);
    }

    #[test]
    fn an_endless_line_takes_bounded_memory_and_ends() {
        let mut run = Written::new();
        run.append(&vec![b'x'; 3 * LONGEST_LINE]);
        assert!(run.log.open_line.capacity() < 3 * LONGEST_LINE);
        run.append(("\n".to_owned() + &step(0, 1, 1.0)).as_bytes());
        assert_eq!(run.points().len(), 1);
    }

    #[test]
    fn any_number_of_events_gives_a_bounded_curve_with_the_same_means() {
        let mut history = History::default();
        let count = 100_000;
        for number in 0..count {
            let line = step(number / 10, u64::from(number % 10) + 1, f64::from(number % 7));
            history.record(serde_json::from_str(&line).unwrap());
            let evaluation = format!(
                "{{\"event\":\"evaluation\",\"epoch\":{number},\"knn\":{{\"20\":{}}}}}",
                number % 97
            );
            history.record(serde_json::from_str(&evaluation).unwrap());
        }
        assert!(
            history.points.len() <= MOST_POINTS && history.points.capacity() <= MOST_POINTS * 2
        );
        assert!(history.evaluations.len() <= MOST_ENTRIES);
        assert_eq!(history.best, Some((96.0, 20, 96)));
        let images: f64 = history.points.iter().map(|point| point.images).sum();
        assert_eq!(images, 4.0 * f64::from(count));
        let (update, _) = history.since(Place::default());
        assert!(update.points[1..].iter().all(|point| (point[1] - 3.0).abs() < 0.2));
    }

    #[test]
    fn updates_add_up_to_the_whole() {
        let mut history = History::default();
        let (mut place, mut copy) = (Place::default(), Vec::new());
        for number in 0..9000 {
            let time = if number < 5000 { number } else { number - 700 };
            let line = step(time / 10, u64::from(time % 10) + 1, f64::from(number % 7));
            history.record(serde_json::from_str(&line).unwrap());
            if number % 13 == 0 {
                let (update, next) = history.since(place);
                copy.truncate(update.from);
                copy.extend(update.points);
                place = next;
                let (whole, _) = history.since(Place::default());
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
