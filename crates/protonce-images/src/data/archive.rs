//! Tar archives: indexed once by walking their headers, then read in place.
//!
//! Labels are folders, or what `webdataset` writes beside an image: `0001.jpg` with `0001.cls` or with a
//! `0001.json` that has a label.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::thread::ScopedJoinHandle;

use super::DataError;
use super::error::some_of;
use super::folder::OtherFiles;
use super::listing::Listing;
use super::name::{file_name, first_folder, is_image_name, is_skipped_path};
use super::shards::Shard;
use super::source::{Blob, Reader};
use super::storage::{Extent, Storage};

/// Lists the images of the archives, or of a `subfolder` in them, which then is the root.
pub(super) fn list(
    shards: &[Shard],
    subfolder: Option<&str>,
) -> Result<(Storage, Listing), DataError> {
    let mut walk = Walk::new(subfolder);
    let mut archives = Vec::with_capacity(shards.len());
    let list_shard = |number: usize| {
        let Shard { source, prefix } = &shards[number];
        let blob = source.open()?;
        let mut walk = Walk::new(subfolder);
        walk.list_one(&blob, prefix, number as u32)?;
        Ok((walk, blob.held_as(number)))
    };
    // Waiting for headers takes longer than reading them, so some shards are walked at once.
    let at_once = crate::threads(0).max(8);
    for begin in (0..shards.len()).step_by(at_once) {
        let end = (begin + at_once).min(shards.len());
        let walks: Vec<_> = std::thread::scope(|scope| {
            let list_shard = &list_shard;
            let threads: Vec<_> =
                (begin..end).map(|number| scope.spawn(move || list_shard(number))).collect();
            let join = |thread: ScopedJoinHandle<_>| match thread.join() {
                Ok(walk) => walk,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            threads.into_iter().map(join).collect()
        });
        for found in walks {
            let (found, archive) = found?;
            walk.absorb(found);
            archives.push(archive);
        }
    }
    let listing = walk.finish(shards)?;
    Ok((Storage::Archives(archives), listing))
}

/// What is collected while archives are walked; zip files are too.
pub(super) struct Walk<'a> {
    subfolder: Option<&'a str>,
    /// What the names of the part that is asked for begin with.
    part: String,
    pub listing: Listing,
    others: OtherFiles,
    /// Whether there is anything in the part that is asked for, and the folders in which it is not.
    known_part: bool,
    folders: BTreeSet<String>,
}

impl<'a> Walk<'a> {
    pub fn new(subfolder: Option<&'a str>) -> Walk<'a> {
        Walk {
            subfolder,
            part: subfolder.map_or(String::new(), |subfolder| format!("{subfolder}/")),
            listing: Listing::default(),
            others: OtherFiles::default(),
            known_part: subfolder.is_none(),
            folders: BTreeSet::new(),
        }
    }

    /// The name of a member below the part that is asked for, if it is to be looked at.
    pub fn name_in_part<'n>(&mut self, full_name: &'n str) -> Option<&'n str> {
        if self.subfolder.is_some() {
            self.folders.extend(first_folder(full_name).map(str::to_owned));
        }
        let name = full_name.strip_prefix(&self.part)?;
        self.known_part = true;
        (!is_skipped_path(name)).then_some(name)
    }

    /// Adds what another walk has found, which comes behind what this one has.
    fn absorb(&mut self, other: Walk) {
        self.listing.append(other.listing);
        self.others.absorb(other.others);
        self.known_part |= other.known_part;
        self.folders.extend(other.folders);
    }

    /// Notes a member that is no image.
    pub fn pass_over(&mut self, name: &str) {
        self.others.add(name);
    }

    /// What was found in all of `shards`.
    pub fn finish(mut self, shards: &[Shard]) -> Result<Listing, DataError> {
        let path = || match shards {
            [shard] => shard.path().to_owned(),
            shards => {
                super::shards::common_folder(&shards.iter().map(Shard::path).collect::<Vec<_>>())
            }
        };
        if !self.known_part {
            return Err(DataError::UnknownSubfolder {
                path: path(),
                subfolder: self.subfolder.unwrap_or_default().to_owned(),
                found: some_of(&self.folders.into_iter().collect::<Vec<_>>(), "folders"),
            });
        }
        if self.listing.is_empty() {
            let place = match self.subfolder {
                Some(subfolder) => format!("{}#{subfolder}", path().display()),
                None => path().display().to_string(),
            };
            return Err(DataError::NoImages { place, found: self.others.describe() });
        }
        // A name stored twice means the later one, as for tar itself.
        self.listing.sort();
        self.listing.keep_last_of_a_name();
        self.listing.remarks.extend(self.others.remark());
        Ok(self.listing)
    }

    /// Adds the images of one archive.
    fn list_one(&mut self, blob: &Blob, prefix: &str, number: u32) -> Result<(), DataError> {
        let mut links = HashMap::new();
        let mut sample = Sample::default();
        members(blob, |full_name, member| {
            let Some(name) = self.name_in_part(full_name) else { return Ok(()) };
            match member {
                Member::File { extent, contents } => {
                    sample.enter(name, &mut self.listing);
                    if is_image_name(file_name(name)) {
                        self.push(prefix, name, Extent { file: number, ..extent });
                    } else if !sample.take_label(name, contents)? {
                        self.others.add(name);
                    }
                }
                Member::Link { target } => {
                    if is_image_name(file_name(name)) {
                        links.insert(name.to_owned(), target);
                    }
                }
            }
            Ok(())
        })?;
        sample.leave(&mut self.listing);
        for (name, extent) in resolve(blob, links)? {
            self.push(prefix, &name, Extent { file: number, ..extent });
        }
        Ok(())
    }

    /// Adds the image called `name` below the part that is asked for, in a file of a set.
    pub fn push(&mut self, prefix: &str, name: &str, extent: Extent) {
        let label = first_folder(name);
        match prefix {
            "" => self.listing.push(name, label, Some(extent)),
            prefix => self.listing.push(&format!("{prefix}{name}"), label, Some(extent)),
        }
    }
}

/// Neighbouring members whose names are equal up to the first dot, as `webdataset` groups them.
#[derive(Default)]
struct Sample {
    key: String,
    /// Images of the archive that come before this sample's.
    begin: usize,
    label: Option<String>,
}

impl Sample {
    /// Goes on to the next member.
    fn enter(&mut self, name: &str, images: &mut Listing) {
        let key = key(name);
        if key != self.key {
            self.leave(images);
            key.clone_into(&mut self.key);
        }
    }

    /// Gives the images of the sample its label, if it has one.
    fn leave(&mut self, images: &mut Listing) {
        if let Some(label) = self.label.take() {
            images.relabel(self.begin, &label);
        }
        self.begin = images.len();
    }

    /// Takes the label that a member holds; says whether it does.
    fn take_label(&mut self, name: &str, contents: &mut dyn Read) -> Result<bool, io::Error> {
        let Some((_, kind)) = file_name(name).split_once('.') else { return Ok(false) };
        // A label is short; of what claims to be one and is not, no more is read.
        const LONGEST: u64 = 1 << 20;
        let mut text = Vec::new();
        let label = match kind {
            "cls" => {
                contents.take(LONGEST).read_to_end(&mut text)?;
                std::str::from_utf8(&text).ok().map(|text| text.trim().to_owned())
            }
            "json" => {
                contents.take(LONGEST).read_to_end(&mut text)?;
                json_label(&text)
            }
            _ => None,
        };
        let label = label.filter(|label| !label.is_empty());
        let found = label.is_some();
        // What only names a class is as good as its number, and says more.
        if kind == "cls" && self.label.is_some() {
            return Ok(found);
        }
        self.label = label.or(self.label.take());
        Ok(found)
    }
}

/// The name up to the first dot behind the last folder.
fn key(name: &str) -> &str {
    let begin = name.len() - file_name(name).len();
    name[begin..].find('.').map_or(name, |dot| &name[..begin + dot])
}

/// The label in a sample's JSON: the first of these keys that has a text or a whole number.
fn json_label(text: &[u8]) -> Option<String> {
    const KEYS: [&str; 6] = ["class_name", "label_name", "classname", "class", "label", "cls"];
    let value: serde_json::Value = serde_json::from_slice(text).ok()?;
    KEYS.iter().find_map(|key| match value.get(key)? {
        serde_json::Value::String(text) => Some(text.clone()),
        serde_json::Value::Number(number) => number.as_i64().map(|number| number.to_string()),
        _ => None,
    })
}

/// What a member of an archive is, for those that matter.
enum Member<'a> {
    File {
        extent: Extent,
        contents: &'a mut dyn Read,
    },
    /// A link to another member, by its name.
    Link {
        target: String,
    },
}

/// Where links lead: to a file of the archive, by its full name. Those that lead nowhere are left
/// out.
fn resolve(
    blob: &Blob,
    links: HashMap<String, String>,
) -> Result<Vec<(String, Extent)>, DataError> {
    if links.is_empty() {
        return Ok(Vec::new());
    }
    let mut targets: HashMap<&str, Option<Extent>> =
        links.values().map(|target| (target.as_str(), None)).collect();
    members(blob, |name, member| {
        if let Member::File { extent, .. } = member
            && let Some(found) = targets.get_mut(name)
        {
            *found = Some(extent);
        }
        Ok(())
    })?;
    let extent = |target: &String| targets.get(target.as_str()).copied().flatten();
    Ok(links.iter().filter_map(|(name, target)| Some((name.clone(), extent(target)?))).collect())
}

/// Walks the headers, seeking over the contents.
fn members(
    blob: &Blob,
    mut visit: impl FnMut(&str, Member) -> io::Result<()>,
) -> Result<(), DataError> {
    let path = blob.path();
    let broken = |error| {
        DataError::of_store(error, |source| DataError::BrokenArchive {
            path: path.to_owned(),
            source,
        })
    };
    let unreadable = |source| DataError::unreadable(path, source);
    let length = blob.length().map_err(unreadable)?;
    let mut archive = tar::Archive::new(Forward::new(blob).map_err(unreadable)?);
    for entry in archive.entries_with_seek().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let kind = entry.header().entry_type();
        let raw = entry.path_bytes();
        let Ok(name) = std::str::from_utf8(&raw).map(|name| normalise(name).into_owned()) else {
            let lossy = String::from_utf8_lossy(&raw).into_owned();
            if kind.is_dir() || !is_image_name(file_name(&lossy)) {
                continue;
            }
            return Err(DataError::NameNotUnicode { path: path.join(lossy) });
        };
        let sparse = match kind.is_gnu_sparse() {
            true => Some(name.clone()),
            false => pax_sparse(&mut entry, &name).map_err(broken)?,
        };
        if let Some(name) = sparse {
            if !is_image_name(file_name(&name)) {
                continue;
            }
            return Err(DataError::SparseArchive { path: path.to_owned(), name });
        }
        if kind.is_file() || kind.is_contiguous() {
            let end = entry.raw_file_position().saturating_add(entry.size());
            if end > length {
                let path = path.to_owned();
                return Err(DataError::TruncatedArchive {
                    path,
                    name,
                    expected: end,
                    found: length,
                });
            }
            let extent = Extent::plain(entry.raw_file_position(), entry.size());
            visit(&name, Member::File { extent, contents: &mut entry }).map_err(broken)?;
        } else if (kind.is_hard_link() || kind.is_symlink())
            && let Some(target) = entry.link_name_bytes()
            && let Ok(target) = std::str::from_utf8(&target)
        {
            // A hard link names its target from the archive's root, a symbolic one from its folder.
            let target = match name.rsplit_once('/') {
                Some((folder, _)) if kind.is_symlink() => {
                    normalise(&format!("{folder}/{target}")).into_owned()
                }
                _ => normalise(target).into_owned(),
            };
            visit(&name, Member::Link { target }).map_err(broken)?;
        }
    }
    Ok(())
}

/// The name of a sparse file as POSIX archives store one: a regular file, with keys of GNU tar's that
/// say where its pieces go.
fn pax_sparse(entry: &mut tar::Entry<impl Read>, name: &str) -> io::Result<Option<String>> {
    let Some(extensions) = entry.pax_extensions()? else { return Ok(None) };
    let mut sparse = None;
    for extension in extensions.flatten() {
        let Some(key) = extension.key_bytes().strip_prefix(b"GNU.sparse.") else { continue };
        if key == b"name" {
            let name = String::from_utf8_lossy(extension.value_bytes());
            return Ok(Some(normalise(&name).into_owned()));
        }
        sparse = Some(name.to_owned());
    }
    Ok(sparse)
}

/// A file read from its begin on, through a buffer that survives short seeks: the headers of small
/// members come by the hundred with one call.
struct Forward<'a> {
    reader: BufReader<Reader<&'a Blob>>,
    position: u64,
}

impl Forward<'_> {
    fn new(blob: &Blob) -> io::Result<Forward<'_>> {
        let reader = Reader::new(blob, 0)?;
        Ok(Forward { reader: BufReader::with_capacity(8 << 10, reader), position: 0 })
    }
}

impl Read for Forward<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(bytes)?;
        self.position += read as u64;
        Ok(read)
    }
}

impl Seek for Forward<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match to {
            SeekFrom::Current(distance) => {
                self.reader.seek_relative(distance)?;
                self.position = self.position.saturating_add_signed(distance);
            }
            to => self.position = self.reader.seek(to)?,
        }
        Ok(self.position)
    }
}

/// `./a//b/../c` → `a/c`: one spelling for a name, however the archive was made.
pub(super) fn normalise(name: &str) -> Cow<'_, str> {
    if !name.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Cow::from(name);
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    Cow::from(parts.join("/"))
}
