//! The lock of a run, `lock`: only one process at a time trains in a run folder.
//!
//! Whoever trains locks the file and writes into it who that is. The system gives the lock back when
//! the process ends, however it does; what is left in the file then means nothing. Reading a run needs no
//! lock. The file is never removed: one who waits for a removed file would hold another lock than
//! the next.
//!
//! Linux hands such a lock on to the server of NFS and SMB, so that it holds between machines where the
//! server has locks.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::RunError;
use crate::error::write_error;
use crate::paths::lock_file;

/// A lock that is held until this is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
}

/// What the file says.
#[derive(Debug, Serialize, Deserialize)]
struct Holder {
    host: String,
    process: u32,
}

impl Lock {
    /// Locks the run in `run`, a folder that exists. Where the file system has no locks, the run goes
    /// on without, and there is a sentence that says so.
    ///
    /// # Errors
    /// [`RunError::InUse`] when another process holds the lock, [`RunError::Write`].
    pub(crate) fn take(run: &Path) -> Result<(Lock, Option<String>), RunError> {
        let path = lock_file(run);
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).read(true).write(true);
        let mut file = options.open(&path).map_err(write_error(&path))?;
        let remark = match file.try_lock() {
            Ok(()) => None,
            Err(TryLockError::WouldBlock) => {
                let holder = holder(&mut file);
                return Err(RunError::InUse { run: run.to_owned(), holder });
            }
            Err(TryLockError::Error(error)) => Some(format!(
                "{} cannot be locked ({error}): see to it that no other process trains there",
                run.display()
            )),
        };
        let mut lock = Lock { file };
        lock.write().map_err(write_error(&path))?;
        Ok((lock, remark))
    }

    fn write(&mut self) -> io::Result<()> {
        let host = hostname::get().map(|name| name.to_string_lossy().into_owned());
        let host = host.unwrap_or_else(|_| "an unknown host".to_owned());
        let mut line = serde_json::to_vec(&Holder { host, process: std::process::id() })?;
        line.push(b'\n');
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(&line)?;
        // Other machines are to read it.
        self.file.sync_data()
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // The lock goes with the file; that nobody holds it is worth saying, not worth failing for.
        let _ = self.file.set_len(0);
    }
}

/// Who holds the lock, in words.
fn holder(file: &mut File) -> String {
    // One that has just begun is about to write it.
    for _ in 0..20 {
        if let Ok(Holder { host, process }) = written(file) {
            return format!("process {process} on {host}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    // Windows lets nobody read a locked file.
    "another process".to_owned()
}

fn written(file: &mut File) -> io::Result<Holder> {
    let mut text = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.take(1 << 12).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_held_once_says_by_whom_and_is_free_afterwards() {
        let run = tempfile::tempdir().unwrap();
        let (lock, remark) = Lock::take(run.path()).unwrap();
        assert_eq!(remark, None);
        let refused = Lock::take(run.path()).unwrap_err();
        let host = hostname::get().unwrap().to_string_lossy().into_owned();
        let holder = format!("process {} on {host}", std::process::id());
        assert!(refused.to_string().contains(&holder), "{refused}");
        drop(lock);
        assert_eq!(std::fs::read(lock_file(run.path())).unwrap(), b"");
        drop(Lock::take(run.path()).unwrap());
    }

    #[test]
    fn what_a_killed_process_or_a_copy_left_in_the_file_locks_nothing() {
        let run = tempfile::tempdir().unwrap();
        for left in ["{\"host\":\"elsewhere\",\"process\":1}\n", "{\"host\":", "\u{0}\u{0}"] {
            std::fs::write(lock_file(run.path()), left).unwrap();
            let (_lock, remark) = Lock::take(run.path()).unwrap();
            assert_eq!(remark, None);
        }
    }
}
