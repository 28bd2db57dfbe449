//! An object of a store, read at positions like a file.
//!
//! It is fetched in blocks of some MB, each of which is kept in the cache before anything of it is used.
//! Where one block is asked for after the other, those that follow are fetched meanwhile, twice as many each
//! time: walking the headers of an archive is then as quick as downloading it. Only headers could be fetched
//! too, but one image after another costs the way there and back each time: below some MB an image, which is
//! nearly always, whole blocks are quicker, and are there already when training begins.

use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore};
use sha2::{Digest, Sha256};

use super::address::Address;
use super::cache::Cache;
use super::connection::{Connection, Flight, problem};
use super::{StoreError, StoreProblem};
use crate::data::argument::HEAD;

/// Bytes that are fetched at once: many enough that the way there and back hardly counts, few enough that
/// not much is fetched in vain for a sample of the images.
pub(super) const BLOCK: u64 = 4 << 20;

/// Blocks at most that are fetched before they are asked for, where one was after the other.
const WINDOW: u64 = 8;

/// How long a block is tried for before a reader hears that it cannot be had: training outlasts a store
/// that restarts.
const PATIENCE: Duration = Duration::from_secs(300);

/// An object whose length and version are known.
#[derive(Debug)]
pub(in crate::data) struct Object {
    address: Address,
    name: PathBuf,
    seen: Seen,
    head: Bytes,
    cache: Arc<Cache>,
    /// Where its blocks are kept.
    folder: PathBuf,
    changed: bool,
    patience: Duration,
    sequence: Mutex<Sequence>,
}

/// What a store says of an object that changes when the object does.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    length: u64,
    e_tag: Option<String>,
    modified: i64,
}

/// Blocks that were asked for one after the other.
#[derive(Debug, Default)]
struct Sequence {
    /// The first that was not asked for yet, once one was.
    next: Option<u64>,
    /// How many before it are fetched ahead.
    window: u64,
}

impl Seen {
    fn of(object: &ObjectMeta) -> Seen {
        let modified = object.last_modified.timestamp_millis();
        Seen { length: object.size, e_tag: object.e_tag.clone(), modified }
    }

    /// Where there is an ETag, time says no more: each of several servers may have its own.
    fn is_same(&self, other: &Seen) -> bool {
        let by_time = || self.modified == other.modified;
        self.length == other.length
            && self.e_tag == other.e_tag
            && (self.e_tag.is_some() || by_time())
    }

    fn digest(&self) -> Vec<u8> {
        let modified = if self.e_tag.is_some() { 0 } else { self.modified };
        let text = format!("{} {} {:?} {modified}", BLOCK, self.length, self.e_tag);
        Sha256::digest(text).to_vec()
    }
}

/// The first half of a hash as a name for a folder.
fn hexadecimal(digest: &[u8]) -> String {
    digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

impl Object {
    /// Finds out what is at an address.
    pub(super) async fn find(
        connection: &Connection,
        address: Address,
        cache: Arc<Cache>,
    ) -> Result<Object, StoreProblem> {
        let store = connection.store(&address)?;
        let (head, seen) = match get(&*store, &address, 0..HEAD).await {
            // No byte of an empty object can be asked for.
            Err(StoreProblem::Refused(told)) if told.starts_with("416") => {
                (Bytes::new(), Seen { length: 0, e_tag: None, modified: 0 })
            }
            found => found?,
        };
        let of_address = hexadecimal(&Sha256::digest(address.identity()));
        let unusable = |error: io::Error| StoreProblem::Cache {
            folder: cache.folder().display().to_string(),
            reason: error.to_string(),
        };
        let entered = cache.enter(&of_address, &hexadecimal(&seen.digest()));
        let (folder, changed) = entered.map_err(unusable)?;
        let name = PathBuf::from(&address.name);
        let (patience, sequence) = (PATIENCE, Mutex::default());
        Ok(Object { address, name, seen, head, cache, folder, changed, patience, sequence })
    }

    /// What messages call it.
    pub fn name(&self) -> &Path {
        &self.name
    }

    pub fn length(&self) -> u64 {
        self.seen.length
    }

    /// A number that changes when the object does.
    pub fn version(&self) -> u128 {
        self.seen.digest().iter().take(16).fold(0, |number, &byte| number << 8 | u128::from(byte))
    }

    /// Its first bytes.
    pub fn head(&self) -> &[u8] {
        &self.head
    }

    /// Whether another version of it was in the cache.
    pub fn has_changed(&self) -> bool {
        self.changed
    }

    /// Bytes that the cache holds at most.
    pub fn cache_limit(&self) -> u64 {
        self.cache.limit()
    }

    /// Fills `bytes` from `offset` on, with what is in the cache or else from the store.
    pub fn read_exact_at(self: &Arc<Object>, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(bytes.len() as u64);
        if end.is_none_or(|end| end > self.length()) {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let (mut rest, mut offset) = (bytes, offset);
        while !rest.is_empty() {
            let (block, begin) = (offset / BLOCK, (offset % BLOCK) as usize);
            let length = self.block_length(block);
            let count = rest.len().min(length - begin);
            let (part, after) = rest.split_at_mut(count);
            if !self.cache.read(&self.file(block), length, begin, part) {
                let fetched = self.fetch_in_sequence(block).and_then(|flight| flight.block());
                let fetched = fetched.map_err(io::Error::other)?;
                part.copy_from_slice(&fetched[begin..begin + count]);
            }
            rest = after;
            offset += count as u64;
        }
        Ok(())
    }

    /// Begins to fetch what lies at `range`, unless it is there.
    pub fn fetch(self: &Arc<Object>, range: Range<u64>) -> Vec<Arc<Flight>> {
        let end = range.end.min(self.length()).div_ceil(BLOCK);
        let missing = (range.start / BLOCK..end).filter(|&block| !self.holds(block));
        missing.filter_map(|block| self.fetch_block(block).ok()).collect()
    }

    fn holds(&self, block: u64) -> bool {
        self.cache.holds(&self.file(block), self.block_length(block))
    }

    fn file(&self, block: u64) -> PathBuf {
        self.folder.join(block.to_string())
    }

    fn range(&self, block: u64) -> Range<u64> {
        block * BLOCK..((block + 1) * BLOCK).min(self.length())
    }

    fn block_length(&self, block: u64) -> usize {
        let range = self.range(block);
        range.end.saturating_sub(range.start) as usize
    }

    /// Fetches a block that was asked for, and others if it follows what was asked for before.
    fn fetch_in_sequence(self: &Arc<Object>, block: u64) -> Result<Arc<Flight>, StoreError> {
        let flight = self.fetch_block(block)?;
        let mut sequence = self.sequence.lock().unwrap_or_else(PoisonError::into_inner);
        let under_way = |next: u64| next - sequence.window..next;
        if sequence.next.is_some_and(|next| under_way(next).contains(&block)) {
            return Ok(flight);
        }
        sequence.window = match sequence.next == Some(block) {
            true => (2 * sequence.window).clamp(1, WINDOW),
            false => 0,
        };
        let end = block + sequence.window + 1;
        sequence.next = Some(end);
        drop(sequence);
        let following = block + 1..end.min(self.length().div_ceil(BLOCK));
        for following in following.filter(|&following| !self.holds(following)) {
            self.fetch_block(following)?;
        }
        Ok(flight)
    }

    fn fetch_block(self: &Arc<Object>, block: u64) -> Result<Arc<Flight>, StoreError> {
        let wrong = |problem| StoreError { address: self.address.name.clone(), problem };
        let connection = Connection::current().map_err(wrong)?;
        let store = connection.store(&self.address).map_err(wrong)?;
        let (object, to) = (Arc::clone(self), Arc::clone(&connection));
        Ok(connection.fetch(self.file(block), &self.address.name, || async move {
            let fetched = object.get_patiently(&to, &*store, object.range(block)).await?;
            let write = || object.cache.write(&object.file(block), &fetched);
            tokio::task::block_in_place(write).map_err(|error| StoreProblem::Cache {
                folder: object.cache.folder().display().to_string(),
                reason: error.to_string(),
            })?;
            Ok(fetched)
        }))
    }

    /// Fetches what lies at `range`; what may pass is tried again for a while.
    async fn get_patiently(
        &self,
        connection: &Connection,
        store: &dyn ObjectStore,
        range: Range<u64>,
    ) -> Result<Bytes, StoreProblem> {
        if let Some(problem) = connection.given_up(&self.address, self.patience / 5) {
            return Err(problem);
        }
        let end = Instant::now() + self.patience;
        let mut pause = Duration::from_millis(100);
        loop {
            let problem = match get(store, &self.address, range.clone()).await {
                Ok((bytes, seen)) if self.seen.is_same(&seen) => {
                    let (found, expected) = (bytes.len() as u64, range.end - range.start);
                    if found == expected {
                        return Ok(bytes);
                    }
                    StoreProblem::CutShort(format!("{found} of {expected} bytes"))
                }
                Ok(_) => return Err(StoreProblem::Changed),
                // It has become shorter.
                Err(StoreProblem::Refused(told)) if told.starts_with("416") => {
                    return Err(StoreProblem::Changed);
                }
                Err(problem) => problem,
            };
            let may_pass = matches!(
                problem,
                StoreProblem::CutShort(_) | StoreProblem::NoAnswer(_) | StoreProblem::Refused(_)
            );
            if !may_pass {
                return Err(problem);
            }
            if Instant::now() + pause > end {
                connection.give_up(&self.address, &problem);
                return Err(problem);
            }
            tokio::time::sleep(pause).await;
            pause = (2 * pause).min(Duration::from_secs(15));
        }
    }
}

/// Asks for a part of an object once; where it is shorter, for what there is of it.
async fn get(
    store: &dyn ObjectStore,
    address: &Address,
    range: Range<u64>,
) -> Result<(Bytes, Seen), StoreProblem> {
    let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
    let answer = store.get_opts(&address.key, options).await.map_err(|error| problem(&error))?;
    let seen = Seen::of(&answer.meta);
    let body = answer.bytes().await.map_err(|error| match problem(&error) {
        StoreProblem::NoAnswer(reason) => StoreProblem::CutShort(reason),
        problem => problem,
    })?;
    Ok((body, seen))
}

#[cfg(test)]
mod tests {
    use super::super::address::{Asked, parse};
    use super::super::server::{Behaviour, Fault, Server};
    use super::*;

    /// An object of a thousand ones, with the folder of its cache.
    fn object_of(server: &Server) -> (tempfile::TempDir, Object) {
        let Asked::One(address) = parse(&server.put("/a.tar", vec![1; 1000])).unwrap() else {
            panic!("several objects")
        };
        let folder = tempfile::tempdir().unwrap();
        let cache = Arc::new(Cache::new(folder.path(), 1 << 20));
        let connection = Connection::current().unwrap();
        let to = Arc::clone(&connection);
        let finding = async move { Object::find(&to, address, cache).await };
        (folder, connection.wait(finding).unwrap())
    }

    #[test]
    fn who_comes_after_a_store_was_given_up_does_not_wait_for_it_again() {
        let [server, other] = [(); 2].map(|()| Server::start(Behaviour::default()));
        let [(_folder, object), (_other_folder, elsewhere)] =
            [object_of(&server), object_of(&other)];
        let connection = Connection::current().unwrap();
        connection.give_up(&object.address, &StoreProblem::NoAnswer("it is switched off".into()));
        let mut bytes = [0; 10];
        let error = Arc::new(object).read_exact_at(&mut bytes, 5).unwrap_err().to_string();
        assert!(error.contains("/a.tar: ") && error.contains("switched off"), "{error}");
        Arc::new(elsewhere).read_exact_at(&mut bytes, 5).unwrap();
        assert_eq!(bytes, [1; 10]);
    }

    #[test]
    fn what_does_not_pass_is_given_up_after_a_while_and_can_be_read_later() {
        for (fault, part) in [
            (Fault::Cut, "it is cut short on the way"),
            (Fault::Busy, "the server answers \"503 Service Unavailable, SlowDown\""),
            (Fault::Dropped, "there is no answer"),
        ] {
            let server = Server::start(Behaviour::default());
            let (_folder, found) = object_of(&server);
            let object = Arc::new(Object { patience: Duration::ZERO, ..found });
            server.behave(Behaviour { fault: Some((1, fault)), ..Behaviour::default() });
            let mut bytes = [0; 10];
            let error = object.read_exact_at(&mut bytes, 5).unwrap_err().to_string();
            assert!(error.contains("/a.tar: ") && error.contains(part), "{error}");
            server.behave(Behaviour::default());
            object.read_exact_at(&mut bytes, 5).unwrap();
            assert_eq!(bytes, [1; 10]);
        }
    }
}
