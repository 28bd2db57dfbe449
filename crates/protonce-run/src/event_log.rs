//! The log of a run, `events.jsonl`: events are appended as lines, and read at the end or while the file
//! grows.
//!
//! A reader copes with whatever happens to the file meanwhile: a killed run tears its last line, a resumed
//! one cuts the file back to its checkpoint and goes on. Lines that are no event, such as a torn one or
//! one of a later version, are passed over.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::error::{read_error, write_error};
use crate::paths::events_file;
use crate::{Event, RunError};

/// A line longer than this is none of ours.
const LONGEST_LINE: usize = 1 << 20;

/// A log that is written on.
pub(crate) struct EventWriter {
    path: PathBuf,
    file: File,
    length: u64,
    /// Whether what lies beyond `length` is still to be cut off.
    uncut: bool,
}

impl EventWriter {
    /// Opens the log of the run in `run` to go on after its first `length` bytes, or after the whole lines
    /// that there are of these. What lies beyond is cut off by the next event, so that who opens the
    /// log and does nothing loses nothing.
    pub(crate) fn open(run: &Path, length: u64) -> Result<EventWriter, RunError> {
        let path = events_file(run);
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(false).read(true).write(true).open(&path);
        let mut file = file.map_err(write_error(&path))?;
        let length = whole_lines(&mut file, length).map_err(read_error(&path))?;
        Ok(EventWriter { path, file, length, uncut: true })
    }

    pub(crate) fn append(&mut self, event: &Event) -> Result<(), RunError> {
        let mut line = serde_json::to_vec(event).map_err(read_error(&self.path))?;
        line.push(b'\n');
        if self.uncut {
            self.file.set_len(self.length).map_err(write_error(&self.path))?;
            self.file.seek(SeekFrom::Start(self.length)).map_err(write_error(&self.path))?;
            self.uncut = false;
        }
        // In one call, so that a reader never sees half a line.
        self.file.write_all(&line).map_err(write_error(&self.path))?;
        self.length += line.len() as u64;
        Ok(())
    }

    /// Bytes of the file.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Forces what was appended to disk.
    pub(crate) fn sync(&self) -> Result<(), RunError> {
        self.file.sync_data().map_err(write_error(&self.path))
    }
}

/// Bytes of the whole lines among the first `length` of a file.
fn whole_lines(file: &mut File, length: u64) -> io::Result<u64> {
    let mut end = length.min(file.metadata()?.len());
    let mut block = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(1 << 16);
        file.seek(SeekFrom::Start(start))?;
        block.clear();
        Read::by_ref(file).take(end - start).read_to_end(&mut block)?;
        if let Some(newline) = block.iter().rposition(|&byte| byte == b'\n') {
            return Ok(start + newline as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// The events of the run in `run`, so far.
///
/// # Errors
/// When there is no log or it cannot be read.
pub fn read_events(run: &Path) -> Result<Vec<Event>, RunError> {
    let path = events_file(run);
    let mut events = Vec::new();
    let mut follower = EventFollower::new(run);
    let mut file = File::open(&path).map_err(read_error(&path))?;
    follower.read_on(&mut file, &mut |event| events.push(event)).map_err(read_error(&path))?;
    Ok(events)
}

/// Reads a log from where it last stopped.
pub struct EventFollower {
    path: PathBuf,
    offset: u64,
    /// The newest bytes that were read, to notice that they were written anew.
    mark: Vec<u8>,
    /// A line without its end, so far.
    open_line: Vec<u8>,
    /// The rest of an endless line is passed over.
    passing_over: bool,
}

/// What [`EventFollower::read`] tells, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum FollowedEvent {
    /// The file is not what was read before: everything told so far is void, and what follows is told from
    /// the file's start.
    Restarted,
    /// A new event.
    Event(Event),
}

/// What [`EventFollower::read`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogChange {
    /// Nothing new.
    Unchanged,
    /// More lines.
    Grew,
    /// Not the file that was read before: it was read again from its start.
    Restarted,
}

impl EventFollower {
    /// Bytes kept to recognise the file by.
    const MARK: usize = 256;

    /// Will read the log of the run in `run` from its start, whether or not it is there yet.
    pub fn new(run: &Path) -> EventFollower {
        EventFollower {
            path: events_file(run),
            offset: 0,
            mark: Vec::new(),
            open_line: Vec::new(),
            passing_over: false,
        }
    }

    /// Tells what is new. A file that is shorter, replaced, or cut back and written on by a resumed run is
    /// told anew; one that is not there has nothing new.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn read(&mut self, tell: &mut dyn FnMut(FollowedEvent)) -> io::Result<LogChange> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            // A run that is about to start.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(LogChange::Unchanged);
            }
            Err(error) => return Err(error),
        };
        let restarted = !self.is_where_it_was(&mut file)?;
        if restarted {
            tell(FollowedEvent::Restarted);
            self.offset = 0;
            self.mark.clear();
            self.open_line.clear();
            self.passing_over = false;
        }
        let before = self.offset;
        self.read_on(&mut file, &mut |event| tell(FollowedEvent::Event(event)))?;
        Ok(match (restarted, self.offset > before) {
            (true, _) => LogChange::Restarted,
            (false, true) => LogChange::Grew,
            (false, false) => LogChange::Unchanged,
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

    /// Reads from the offset to the end.
    fn read_on(&mut self, file: &mut File, tell: &mut dyn FnMut(Event)) -> io::Result<()> {
        file.seek(SeekFrom::Start(self.offset))?;
        let mut block = vec![0; 1 << 16];
        loop {
            let length = file.read(&mut block)?;
            if length == 0 {
                return Ok(());
            }
            self.take(&block[..length], tell);
        }
    }

    fn take(&mut self, bytes: &[u8], tell: &mut dyn FnMut(Event)) {
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
                if let Ok(event) = serde_json::from_slice(&self.open_line) {
                    tell(event);
                }
                self.open_line.clear();
                self.passing_over = false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Written {
        folder: tempfile::TempDir,
        log: EventFollower,
        /// Epoch, step and loss of the step events that were told and not taken back.
        steps: Vec<(usize, usize, f64)>,
    }

    impl Written {
        fn new() -> Written {
            let folder = tempfile::tempdir().unwrap();
            let log = EventFollower::new(folder.path());
            Written { folder, log, steps: Vec::new() }
        }

        fn path(&self) -> PathBuf {
            events_file(self.folder.path())
        }

        fn append(&mut self, text: &[u8]) -> LogChange {
            let mut file = File::options().create(true).append(true).open(self.path()).unwrap();
            file.write_all(text).unwrap();
            self.read()
        }

        fn read(&mut self) -> LogChange {
            let steps = &mut self.steps;
            let change = self.log.read(&mut |told| match told {
                FollowedEvent::Restarted => steps.clear(),
                FollowedEvent::Event(Event::Step { epoch, step, measures, .. }) => {
                    steps.push((epoch, step, measures.loss));
                }
                FollowedEvent::Event(_) => {}
            });
            change.unwrap()
        }
    }

    fn step(epoch: u32, step: u64, loss: f64) -> String {
        format!(
            "{{\"event\":\"step\",\"epoch\":{epoch},\"step\":{step},\"steps\":10,\"loss\":{loss}}}\n"
        )
    }

    #[test]
    fn a_torn_line_is_passed_over() {
        let mut run = Written::new();
        run.append(step(0, 5, 4.0).as_bytes());
        run.append(
            b"{\"event\":\"step\",\"epoch\":0,\"loss\":\"\xe2\x82{\"event\":\"expectation\"}\n",
        );
        run.append((step(0, 5, 5.0) + "{\"event\":\"weather\"}\n\n{\"event\":\"st").as_bytes());
        assert_eq!(run.steps, [(0, 5, 4.0), (0, 5, 5.0)]);
        assert_eq!(read_events(run.folder.path()).unwrap().len(), 2);
    }

    #[test]
    fn a_line_is_read_once_it_is_whole() {
        let mut run = Written::new();
        let line = step(0, 5, 4.0);
        run.append(&line.as_bytes()[..20]);
        assert_eq!(run.steps, []);
        assert_eq!(run.append(&line.as_bytes()[20..]), LogChange::Grew);
        assert_eq!(run.steps, [(0, 5, 4.0)]);
        assert_eq!(run.append(b""), LogChange::Unchanged);
    }

    #[test]
    fn a_file_cut_back_and_written_on_to_the_same_length_is_read_again() {
        let mut run = Written::new();
        run.append((step(0, 5, 4.0) + &step(0, 6, 3.0) + &step(0, 7, 3.0)).as_bytes());
        let file = File::options().write(true).open(run.path()).unwrap();
        file.set_len(step(0, 5, 4.0).len() as u64).unwrap();
        let change = run.append((step(0, 6, 8.0) + &step(0, 7, 9.0)).as_bytes());
        assert_eq!(change, LogChange::Restarted);
        assert_eq!(run.steps, [(0, 5, 4.0), (0, 6, 8.0), (0, 7, 9.0)]);
        std::fs::remove_file(run.path()).unwrap();
        assert_eq!(run.read(), LogChange::Unchanged);
        assert!(read_events(run.folder.path()).is_err());
    }

    #[test]
    fn an_endless_line_takes_bounded_memory_and_ends() {
        let mut run = Written::new();
        run.append(&vec![b'x'; 3 * LONGEST_LINE]);
        assert!(run.log.open_line.capacity() < 3 * LONGEST_LINE);
        run.append(("\n".to_owned() + &step(0, 1, 1.0)).as_bytes());
        assert_eq!(run.steps.len(), 1);
    }

    #[test]
    fn a_log_is_cut_back_to_where_its_run_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let event = |epoch| Event::Checkpoint { epoch, step: 0, path: String::new() };
        let mut log = EventWriter::open(folder.path(), 0).unwrap();
        log.append(&event(1)).unwrap();
        let kept = log.length();
        log.append(&event(2)).unwrap();
        log.sync().unwrap();
        let mut log = EventWriter::open(folder.path(), kept).unwrap();
        log.append(&event(3)).unwrap();
        assert_eq!(read_events(folder.path()).unwrap(), [event(1), event(3)]);
        assert_eq!(log.length(), std::fs::metadata(events_file(folder.path())).unwrap().len());
    }
}
