//! Objects in stores (Amazon S3 and what speaks its language, Google Cloud Storage, Azure Blob Storage) and
//! files on web servers.
//!
//! Enters: an address such as `s3://BUCKET/shard-{000..127}.tar`; credentials are in the environment, in the
//! variables that each store's own tools read. Leaves: objects that are read at positions like files, by any
//! number of threads, through a cache on disk. What may pass, such as a connection that breaks, is tried
//! again; what an object has become since it was opened is never mixed with what it was.

mod address;
mod cache;
mod connection;
mod object;
// Its tests use it as others do, and these a part of it.
#[cfg(test)]
#[allow(dead_code, clippy::unwrap_used)]
#[path = "../../../tests/images/store/server.rs"]
mod server;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt};
use glob::{MatchOptions, Pattern};
use object_store::path::Path as Key;

use super::argument::{Container, Location, of_head, without_secrets};
use super::shards::{self, ShardKind};
use super::source::Source;
use super::{DataError, StoreError, StoreProblem};
use address::{Address, Asked};
use cache::Cache;
pub use cache::cache_objects;
use connection::Connection;
pub(super) use connection::Flight;
pub(super) use object::Object;

/// Objects that are looked for at once.
const AT_ONCE: usize = 32;

/// Finds what an address, a pattern of addresses or a folder of a bucket stands for.
pub(super) fn locate(argument: &str) -> Result<Location, DataError> {
    let (address, subfolder) = argument.split_once('#').unwrap_or((argument, ""));
    let subfolder = subfolder.trim_matches('/');
    let subfolder = (!subfolder.is_empty()).then(|| subfolder.to_owned());
    let asked = address::parse(address).map_err(DataError::Store)?;
    let wrong = |problem| {
        let address = without_secrets(address).into_owned();
        DataError::Store(StoreError { address, problem })
    };
    let connection = Connection::current().map_err(wrong)?;
    let (folder, addresses) = match asked {
        Asked::One(address) => {
            let object = find(&connection, vec![address]).map_err(DataError::Store)?.remove(0);
            let (path, remarks) = (object.name().to_owned(), remarks(&[&object]));
            let container = container(object)?;
            return Ok(Location { path, container, subfolder, remarks });
        }
        Asked::Several(addresses) => (None, addresses),
        Asked::Pattern { bucket, patterns } => {
            (None, matching(&connection, &bucket, &patterns).map_err(wrong)?)
        }
        Asked::Folder(folder) => {
            let addresses = of_one_kind(&connection, &folder).map_err(wrong)?;
            (Some(PathBuf::from(&folder.name)), addresses)
        }
    };
    let objects = find(&connection, addresses).map_err(DataError::Store)?;
    let Some(first) = objects.first() else {
        return Err(wrong(StoreProblem::NothingMatches));
    };
    let kind = container(Arc::clone(first))?.shard_kind(first.name())?;
    let names: Vec<&Path> = objects.iter().map(|object| object.name()).collect();
    let path = folder.unwrap_or_else(|| shards::common_folder(&names));
    let remarks = remarks(&objects.iter().collect::<Vec<_>>());
    let container = Container::Shards(kind, objects.into_iter().map(Source::Object).collect());
    Ok(Location { path, container, subfolder, remarks })
}

/// What an object is; images themselves, and lists of them, have to be on a disk.
fn container(object: Arc<Object>) -> Result<Container, DataError> {
    let path = object.name().to_owned();
    match of_head(object.head(), Source::Object(Arc::clone(&object)))? {
        Container::List => Err(DataError::WrongKind {
            path,
            found: "neither an archive nor a table nor a packed file",
            remedy: "only these are read from where it lies; put images into a .tar".to_owned(),
        }),
        container => Ok(container),
    }
}

/// The sentence about objects that were in the cache as something else, if there are any.
fn remarks(objects: &[&Arc<Object>]) -> Vec<String> {
    let changed: Vec<_> = objects.iter().filter(|object| object.has_changed()).collect();
    let remark = |name: &Path, others: String| {
        format!("{}{others} changed since it was last read, and is fetched again", name.display())
    };
    match &changed[..] {
        [] => Vec::new(),
        [one] => vec![remark(one.name(), " has".to_owned())],
        [first, others @ ..] => {
            vec![remark(first.name(), format!(" (and {} others) has", others.len()))]
        }
    }
}

/// Finds the objects at all of these addresses.
fn find(
    connection: &Arc<Connection>,
    addresses: Vec<Address>,
) -> Result<Vec<Arc<Object>>, StoreError> {
    let cache = Cache::chosen();
    let to = Arc::clone(connection);
    let found = move |address: Address| {
        let (connection, cache) = (Arc::clone(&to), Arc::clone(&cache));
        async move {
            let name = address.name.clone();
            let found = Object::find(&connection, address, cache).await;
            found.map(Arc::new).map_err(|problem| StoreError { address: name, problem })
        }
    };
    let finding = futures_util::stream::iter(addresses.into_iter().map(found));
    let all = async move { Ok(finding.buffered(AT_ONCE).try_collect::<Vec<_>>().await) };
    let address = String::new();
    connection.wait(all).map_err(|problem| StoreError { address, problem })?
}

/// The keys in a bucket that begin with the folder `prefix`.
fn list(
    connection: &Arc<Connection>,
    bucket: &Address,
    prefix: &str,
) -> Result<Vec<Key>, StoreProblem> {
    let store = connection.store(bucket)?;
    let prefix = Key::parse(prefix).map_err(|_| StoreProblem::NothingMatches)?;
    connection.wait(async move {
        let keys = store.list(Some(&prefix)).map_ok(|object| object.location);
        keys.try_collect().await.map_err(|error| connection::problem(&error))
    })
}

/// The objects of a bucket that match one of the `patterns`, in which a `*` stays within a folder.
fn matching(
    connection: &Arc<Connection>,
    bucket: &Address,
    patterns: &[String],
) -> Result<Vec<Address>, StoreProblem> {
    const OPTIONS: MatchOptions = MatchOptions {
        case_sensitive: true,
        require_literal_separator: true,
        require_literal_leading_dot: false,
    };
    let mut found = Vec::new();
    for pattern in patterns {
        let literal = pattern.split(['*', '?', '[']).next().unwrap_or_default();
        let folder = literal.rsplit_once('/').map_or("", |(folder, _)| folder);
        let Ok(pattern) = Pattern::new(pattern) else {
            return Err(StoreProblem::Address("a pattern in it cannot be understood"));
        };
        let keys = list(connection, bucket, folder)?;
        let keys = keys.into_iter().filter(|key| pattern.matches_with(key.as_ref(), OPTIONS));
        found.extend(keys.map(|key| bucket.sibling(key)));
    }
    match found.is_empty() {
        true => Err(StoreProblem::NothingMatches),
        false => Ok(found),
    }
}

/// The archives below a folder of a bucket; without any, its tables.
fn of_one_kind(
    connection: &Arc<Connection>,
    folder: &Address,
) -> Result<Vec<Address>, StoreProblem> {
    let keys = list(connection, folder, folder.key.as_ref())?;
    let kind = |key: Key| Some((ShardKind::of_name(key.as_ref())?, key));
    let found: Vec<(ShardKind, Key)> = keys.into_iter().filter_map(kind).collect();
    let (_, keys) = shards::of_one_kind(&found).ok_or(StoreProblem::NothingMatches)?;
    Ok(keys.into_iter().map(|key| folder.sibling(key)).collect())
}
