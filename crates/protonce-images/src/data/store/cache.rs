//! What was fetched, kept on disk: a file for each block of an object, with checksums.
//!
//! ```text
//! FOLDER/address/version/block    bytes, then a CRC-32 of every 64 KiB of them
//! ```
//!
//! A read checks the pieces that it touches, so that what was damaged on disk, or cut short by a power cut,
//! is a block that is not there. Nothing is forced to disk, for it can be fetched again. When there is more
//! than the limit, the blocks that nobody has read for longest go. Any number of processes share a folder.

use std::fs::{self, File, FileTimes};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::{Duration, SystemTime};

use crate::data::storage::read_exact_at;

/// Bytes that have a checksum of their own: as few as a small image needs, as many as cost no more to check
/// than to read.
const PIECE: usize = 64 << 10;

/// Share of the limit that is written between two looks at the folder, and that is kept free.
const SLACK: u64 = 16;

/// A block's time of last use is right to so much.
const RECENT: Duration = Duration::from_secs(600);

/// A folder of blocks.
#[derive(Debug)]
pub(super) struct Cache {
    folder: PathBuf,
    /// Bytes that all blocks together may have.
    limit: u64,
    /// Bytes written since the folder was last looked at.
    written: AtomicU64,
    trimming: Mutex<()>,
}

/// Where objects are kept by default; what [`cache_objects`] has set.
static CHOSEN: Mutex<Option<Arc<Cache>>> = Mutex::new(None);

/// Bytes of the cache unless others are asked for.
const USUAL_LIMIT: u64 = 20_000_000_000;

/// Says where what is fetched from object stores and web servers is kept, and how many bytes of it at most:
/// for data sets that are opened from now on, in all of this process.
///
/// Unless this is called they are kept in `protonce/objects` in the user's cache folder, 20 GB of them.
/// Training reads each image once an epoch: with room for the whole data set, it is fetched once.
pub fn cache_objects(folder: Option<&Path>, limit: Option<u64>) {
    let usual = || protonce_disk::cache_folder("objects");
    let folder = folder.map(Path::to_owned).or_else(usual);
    let folder = folder.unwrap_or_else(|| std::env::temp_dir().join("protonce-objects"));
    let cache = Cache::new(&folder, limit.unwrap_or(USUAL_LIMIT));
    *CHOSEN.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(cache));
}

impl Cache {
    pub fn new(folder: &Path, limit: u64) -> Cache {
        // The first block that is written makes it look at what is there.
        let written = AtomicU64::new(limit / SLACK);
        Cache { folder: folder.to_owned(), limit, written, trimming: Mutex::default() }
    }

    /// The one that objects opened now are kept in.
    pub fn chosen() -> Arc<Cache> {
        loop {
            if let Some(cache) = &*CHOSEN.lock().unwrap_or_else(PoisonError::into_inner) {
                return Arc::clone(cache);
            }
            cache_objects(None, None);
        }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Makes the folder of an object at `address` whose version is `version`, in which its blocks are kept.
    /// Says whether those of another version were there, which are removed.
    pub fn enter(&self, address: &str, version: &str) -> io::Result<(PathBuf, bool)> {
        let versions = self.folder.join(address);
        let own = versions.join(version);
        fs::create_dir_all(&own)?;
        let mut changed = false;
        for other in fs::read_dir(&versions)?.flatten() {
            if other.path() != own {
                changed = true;
                // What is in the way of others is no reason not to read.
                let _ = fs::remove_dir_all(other.path());
            }
        }
        Ok((own, changed))
    }

    /// Whether a block of so many bytes is there, as far as can be told without reading it.
    pub fn holds(&self, block: &Path, length: usize) -> bool {
        block.metadata().is_ok_and(|metadata| metadata.len() == file_length(length))
    }

    /// Fills `bytes` from `offset` in a block of `length` bytes on, if it is there and undamaged.
    pub fn read(&self, block: &Path, length: usize, offset: usize, bytes: &mut [u8]) -> bool {
        let mut whole = || -> io::Result<bool> {
            let file = File::open(block)?;
            let metadata = file.metadata()?;
            if metadata.len() != file_length(length) {
                return Ok(false);
            }
            if metadata.modified()?.elapsed().is_ok_and(|elapsed| elapsed > RECENT) {
                // Told by the next look at the folder, and by no other.
                let _ = file.set_times(FileTimes::new().set_modified(SystemTime::now()));
            }
            read_checked(&file, length, offset, bytes)
        };
        whole().unwrap_or(false)
    }

    /// Keeps a block, and removes others where there are too many.
    pub fn write(&self, block: &Path, bytes: &[u8]) -> io::Result<()> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let mut contents = bytes.to_vec();
        for piece in bytes.chunks(PIECE) {
            contents.extend(crc32fast::hash(piece).to_le_bytes());
        }
        // No other writer has this name.
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let scratch = block.with_extension(format!("{}-{number}", std::process::id()));
        let written = fs::write(&scratch, &contents).and_then(|()| fs::rename(&scratch, block));
        if written.is_err() {
            let _ = fs::remove_file(&scratch);
        }
        written?;
        let length = contents.len() as u64;
        if self.written.fetch_add(length, Ordering::Relaxed) + length > self.limit / SLACK {
            self.trim();
        }
        Ok(())
    }

    /// Removes the blocks that were not read for longest until a little less than the limit is left.
    fn trim(&self) {
        let _trimming = match self.trimming.try_lock() {
            Err(TryLockError::WouldBlock) => return,
            lock => lock,
        };
        self.written.store(0, Ordering::Relaxed);
        let mut found = Vec::new();
        // Of what another process removes meanwhile there is nothing to remove.
        for address in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            for version in fs::read_dir(address.path()).into_iter().flatten().flatten() {
                for block in fs::read_dir(version.path()).into_iter().flatten().flatten() {
                    let Ok(metadata) = block.metadata() else { continue };
                    let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                    found.push((used, metadata.len(), block.path()));
                }
            }
        }
        found.sort_unstable();
        let mut total: u64 = found.iter().map(|(_, length, _)| length).sum();
        for (_, length, block) in found {
            if total <= self.limit - self.limit / SLACK {
                return;
            }
            if fs::remove_file(&block).is_ok() {
                total -= length;
            }
        }
    }
}

/// Bytes of the file of a block.
fn file_length(length: usize) -> u64 {
    (length + 4 * length.div_ceil(PIECE)) as u64
}

/// Fills `bytes` from `offset` on; false where a checksum differs.
fn read_checked(file: &File, length: usize, offset: usize, bytes: &mut [u8]) -> io::Result<bool> {
    let pieces: Range<usize> = offset / PIECE..(offset + bytes.len()).div_ceil(PIECE);
    let begin = pieces.start * PIECE;
    let end = (pieces.end * PIECE).min(length);
    let mut contents = vec![0; end - begin];
    read_exact_at(file, &mut contents, begin as u64)?;
    let mut checksums = vec![0; 4 * pieces.len()];
    read_exact_at(file, &mut checksums, (length + 4 * pieces.start) as u64)?;
    for (piece, checksum) in contents.chunks(PIECE).zip(checksums.chunks_exact(4)) {
        if crc32fast::hash(piece).to_le_bytes() != checksum {
            return Ok(false);
        }
    }
    bytes.copy_from_slice(&contents[offset - begin..][..bytes.len()]);
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cache, and the folder of an object in it.
    fn cache(limit: u64) -> (tempfile::TempDir, Cache, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path(), limit);
        let (object, changed) = cache.enter("address", "version").unwrap();
        assert!(!changed);
        (folder, cache, object)
    }

    #[test]
    fn any_part_of_a_block_is_read_as_it_was_written() {
        let (_folder, cache, object) = cache(u64::MAX);
        for length in [1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 7] {
            let bytes: Vec<u8> = (0..length).map(|i| (i * i % 251) as u8).collect();
            let block = object.join(length.to_string());
            assert!(!cache.holds(&block, length));
            cache.write(&block, &bytes).unwrap();
            assert!(cache.holds(&block, length));
            for (begin, end) in [(0, length), (length / 2, length), (0, 1), (length, length)] {
                let mut read = vec![0; end - begin];
                assert!(cache.read(&block, length, begin, &mut read));
                assert_eq!(read, bytes[begin..end], "{begin}..{end} of {length}");
            }
        }
    }

    #[test]
    fn a_damaged_block_is_not_there() {
        let (_folder, cache, object) = cache(u64::MAX);
        let length = 2 * PIECE + 100;
        let block = object.join("0");
        let read = || cache.read(&block, length, PIECE + 3, &mut [0; 50]);
        cache.write(&block, &vec![7; length]).unwrap();
        let whole = fs::read(&block).unwrap();
        // A byte of the piece, its checksum, the length, all of it.
        for damage in 0..4 {
            let mut damaged = whole.clone();
            match damage {
                0 => damaged[PIECE + 60] ^= 1,
                1 => damaged[length + 5] ^= 128,
                2 => damaged.truncate(length),
                _ => damaged.fill(0),
            }
            fs::write(&block, damaged).unwrap();
            assert!(!read(), "{damage}");
        }
        fs::write(&block, whole).unwrap();
        assert!(read());
    }

    #[test]
    fn blocks_beyond_the_limit_go_the_least_recently_read_first() {
        const LENGTH: usize = 1000;
        let (_folder, cache, object) = cache(10 * file_length(LENGTH));
        let block = |number: u64| object.join(number.to_string());
        let age = |number: u64, minutes: u64| {
            let time = SystemTime::now() - Duration::from_secs(60 * minutes);
            let file = File::options().write(true).open(block(number)).unwrap();
            file.set_times(FileTimes::new().set_modified(time)).unwrap();
        };
        for number in 0..9 {
            cache.write(&block(number), &[1; LENGTH]).unwrap();
            age(number, 100 - number);
        }
        // The oldest is read, and so is not the one to go.
        assert!(cache.read(&block(0), LENGTH, 0, &mut [0; LENGTH]));
        for number in 9..12 {
            cache.write(&block(number), &[1; LENGTH]).unwrap();
        }
        let there: Vec<u64> = (0..12).filter(|&n| cache.holds(&block(n), LENGTH)).collect();
        assert_eq!(there, [0, 4, 5, 6, 7, 8, 9, 10, 11]);
    }

    #[test]
    fn another_version_takes_the_place_of_the_one_before() {
        let (_folder, cache, object) = cache(u64::MAX);
        cache.write(&object.join("0"), &[1]).unwrap();
        let (same, changed) = cache.enter("address", "version").unwrap();
        assert!(same == object && !changed);
        let (_, changed) = cache.enter("address", "later").unwrap();
        assert!(changed && !object.exists());
        assert!(!cache.enter("elsewhere", "version").unwrap().1);
    }
}
