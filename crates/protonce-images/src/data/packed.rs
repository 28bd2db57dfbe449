//! A packed file: every image of a data set one after another, with an index and checksums.
//!
//! ```text
//! header   magic, version, where the index is, checksums        64 bytes
//! shard    magic, number of images, bytes, checksum; then for   one after another, each written
//!          each image its length and checksum; then the images  and flushed as a whole
//! index    names, labels, classes, and where each image lies    at the end
//! ```
//!
//! While it is written a file is called `FILE.partial`, and its header says from what and how it is
//! made, so that packing that was interrupted goes on behind the last whole shard. Images are in the
//! order of their index, so that reading neighbouring indices is reading forward.
//!
//! Images are read with positioned reads and not through a memory map: both are served by the page
//! cache, but a map answers a file that is cut short, or a failing disk, by killing the process,
//! where a read returns an error that can be told with the image's name.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::error::some_of;
use super::listing::Listing;
use super::name::first_folder;
use super::source::Source;
use super::storage::{Coding, Extent, Storage, read_exact_at};
use super::{DataError, Dataset};
use protonce_disk as disk;

pub(super) const MAGIC: &[u8; 8] = b"ProtoPak";
const SHARD_MAGIC: &[u8; 8] = b"PackShrd";
const VERSION: u64 = 1;
const HEADER: u64 = 64;
/// Bytes of images after which a shard is written.
const SHARD_BYTES: usize = 64 << 20;
/// More images than a shard ever has: each is at least a few bytes, or nothing at all.
const SHARD_IMAGES: usize = 1 << 20;

/// Lists the images of the packed file at `path`, or of a `subfolder` in it, which then is the root.
pub(super) fn list(
    source: &Source,
    subfolder: Option<&str>,
) -> Result<(Storage, Listing), DataError> {
    let path = source.path();
    let unreadable = |source| DataError::unreadable(path, source);
    let broken =
        |reason: &str| DataError::BrokenPack { path: path.to_owned(), reason: reason.to_owned() };
    let blob = source.open()?;
    let length = blob.length().map_err(unreadable)?;
    let mut header = [0; HEADER as usize];
    blob.read_exact_at(&mut header, 0)
        .map_err(|error| DataError::of_store(error, |_| broken("its header is cut short")))?;
    let header = Header::parse(&header).ok_or_else(|| broken("its header is damaged"))?;
    if header.version != VERSION {
        return Err(broken("it was packed by another version"));
    }
    if header.index_length == 0 {
        return Err(broken("packing it was not finished"));
    }
    let end = header.index_offset.saturating_add(header.index_length);
    if end != length {
        return Err(broken(&format!("it should have {end} bytes and has {length}")));
    }
    let index_length =
        usize::try_from(header.index_length).map_err(|_| broken("its index is too large"))?;
    let mut index = vec![0; index_length];
    blob.read_exact_at(&mut index, header.index_offset).map_err(unreadable)?;
    if crc32fast::hash(&index) != header.index_checksum {
        return Err(broken("its index does not match its checksum"));
    }
    let listing = parse_index(&index, header.index_offset)
        .ok_or_else(|| broken("its index contradicts itself"))?;
    drop(index);
    let storage = Storage::Archives(vec![blob]);
    let Some(subfolder) = subfolder else {
        return Ok((storage, listing));
    };

    // Labels that are folders follow from the part of the file that is asked for.
    let images = || 0..listing.len();
    let by_folder = images().all(|image| listing.label(image) == first_folder(listing.name(image)));
    let prefix = format!("{subfolder}/");
    let mut part = Listing::default();
    for image in images() {
        let Some(name) = listing.name(image).strip_prefix(&prefix) else { continue };
        let label = if by_folder { first_folder(name) } else { listing.label(image) };
        part.push(name, label, Some(listing.extents[image]));
    }
    if part.is_empty() {
        let folder = |image| first_folder(listing.name(image)).map(str::to_owned);
        let mut folders: Vec<String> = images().filter_map(folder).collect();
        folders.dedup();
        return Err(DataError::UnknownSubfolder {
            path: path.to_owned(),
            subfolder: subfolder.to_owned(),
            found: some_of(&folders, "folders"),
        });
    }
    Ok((storage, part))
}

/// The first bytes of a packed file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Header {
    version: u64,
    /// What the images are made from, and how: only the same can be continued.
    origin: u64,
    index_offset: u64,
    /// 0 until the file is finished.
    index_length: u64,
    index_checksum: u32,
}

impl Header {
    fn bytes(&self) -> [u8; HEADER as usize] {
        let mut bytes = [0; HEADER as usize];
        bytes[..8].copy_from_slice(MAGIC);
        let numbers = [
            self.version,
            self.origin,
            self.index_offset,
            self.index_length,
            self.index_checksum.into(),
        ];
        for (field, number) in bytes[8..].chunks_exact_mut(8).zip(numbers) {
            field.copy_from_slice(&number.to_le_bytes());
        }
        let checksum = crc32fast::hash(&bytes[..56]);
        bytes[56..60].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    fn parse(bytes: &[u8; HEADER as usize]) -> Option<Header> {
        let mut numbers = Numbers(&bytes[8..]);
        let header = Header {
            version: numbers.next()?,
            origin: numbers.next()?,
            index_offset: numbers.next()?,
            index_length: numbers.next()?,
            index_checksum: numbers.next()? as u32,
        };
        (header.bytes() == *bytes).then_some(header)
    }
}

/// Reads little-endian numbers and counted bytes.
struct Numbers<'a>(&'a [u8]);

impl<'a> Numbers<'a> {
    fn next(&mut self) -> Option<u64> {
        let (number, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*number))
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = usize::try_from(self.next()?).ok()?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }
}

fn write_number(number: u64, to: &mut Vec<u8>) {
    to.extend_from_slice(&number.to_le_bytes());
}

fn write_text(text: &str, to: &mut Vec<u8>) {
    write_number(text.len() as u64, to);
    to.extend_from_slice(text.as_bytes());
}

/// Classes, then of each image: name, label, offset, length, checksum.
fn parse_index(index: &[u8], data_end: u64) -> Option<Listing> {
    let mut numbers = Numbers(index);
    let mut classes = Vec::new();
    for _ in 0..numbers.next()? {
        classes.push(numbers.text()?);
    }
    let mut listing = Listing::default();
    let mut before = "";
    for _ in 0..numbers.next()? {
        let name = numbers.text()?;
        let label = match numbers.next()? {
            u64::MAX => None,
            label => Some(*classes.get(usize::try_from(label).ok()?)?),
        };
        let (offset, length) = (numbers.next()?, numbers.next()?);
        if before > name || offset.checked_add(length)? > data_end {
            return None;
        }
        before = name;
        listing.push(name, label, Some(checked(offset, length, numbers.next()? as u32)));
    }
    numbers.0.is_empty().then_some(listing)
}

/// Bytes whose checksum is known.
fn checked(offset: u64, length: u64, checksum: u32) -> Extent {
    Extent { checksum, coding: Coding::Checked, ..Extent::plain(offset, length) }
}

/// Writes a packed file; [`PackWriter::finish`] gives it its name.
#[derive(Debug)]
pub struct PackWriter {
    path: PathBuf,
    partial: PathBuf,
    file: File,
    header: Header,
    /// Where the next shard begins.
    end: u64,
    extents: Vec<Extent>,
    /// The images of the shard that is not written yet.
    waiting: Vec<u8>,
    waiting_lengths: Vec<u32>,
}

impl PackWriter {
    /// Begins, or goes on with, the file at `path`.
    ///
    /// `origin` stands for what the images are made from and how: with the same number, what an
    /// earlier writer left at `path` with the ending `.partial` is continued.
    ///
    /// # Errors
    /// When there is a file at `path` already or one cannot be written.
    pub fn open(path: &Path, origin: u64) -> Result<PackWriter, DataError> {
        if path.exists() {
            return Err(DataError::PackExists { path: path.to_owned() });
        }
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".partial");
        let partial = path.with_file_name(name);
        let unwritable = |source| DataError::Unwritable { path: partial.clone(), source };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&partial)
            .map_err(unwritable)?;
        let header = Header { version: VERSION, origin, ..Header::default() };
        let mut writer = PackWriter {
            path: path.to_owned(),
            partial: partial.clone(),
            file,
            header,
            end: HEADER,
            extents: Vec::new(),
            waiting: Vec::new(),
            waiting_lengths: Vec::new(),
        };
        writer.recover().map_err(unwritable)?;
        Ok(writer)
    }

    /// Images that are written already: the next one to add.
    pub fn len(&self) -> usize {
        self.extents.len() + self.waiting_lengths.len()
    }

    /// Whether there is no image yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes over the whole shards of a file that was not finished and cuts off the rest.
    fn recover(&mut self) -> io::Result<()> {
        let length = self.file.metadata()?.len();
        let mut header = [0; HEADER as usize];
        let known = read_exact_at(&self.file, &mut header, 0).is_ok()
            && Header::parse(&header).is_some_and(|found| {
                Header { index_length: 0, index_offset: 0, index_checksum: 0, ..found }
                    == self.header
            });
        if known {
            while let Some(extents) = self.read_shard(length)? {
                self.end =
                    extents.last().map_or(self.end, |last| last.offset + u64::from(last.length));
                self.extents.extend(extents);
            }
        }
        self.file.set_len(self.end)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(&self.header.bytes())?;
        self.file.sync_data()
    }

    /// The images of the shard at the end of what is known, if it is there and whole.
    fn read_shard(&self, length: u64) -> io::Result<Option<Vec<Extent>>> {
        let mut head = [0; 24];
        if self.end + 24 > length {
            return Ok(None);
        }
        read_exact_at(&self.file, &mut head, self.end)?;
        let (magic, mut numbers) = (&head[..8], Numbers(&head[8..]));
        let (Some(count), Some(table_checksum)) = (numbers.next(), numbers.next()) else {
            return Ok(None);
        };
        let table_end = self.end + 24 + count.saturating_mul(8);
        if magic != SHARD_MAGIC || count == 0 || count > SHARD_IMAGES as u64 || table_end > length {
            return Ok(None);
        }
        let mut table = vec![0; count as usize * 8];
        read_exact_at(&self.file, &mut table, self.end + 24)?;
        if u64::from(crc32fast::hash(&table)) != table_checksum {
            return Ok(None);
        }
        let mut offset = table_end;
        let mut extents = Vec::with_capacity(count as usize);
        let mut image = Vec::new();
        let mut reader = io::BufReader::new(&self.file);
        reader.seek(SeekFrom::Start(table_end))?;
        for entry in table.chunks_exact(8) {
            let number =
                |bytes: &[u8]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            let (size, checksum) = (number(&entry[..4]), number(&entry[4..]));
            if offset + u64::from(size) > length {
                return Ok(None);
            }
            image.resize(size as usize, 0);
            reader.read_exact(&mut image)?;
            if crc32fast::hash(&image) != checksum {
                return Ok(None);
            }
            extents.push(checked(offset, size.into(), checksum));
            offset += u64::from(size);
        }
        Ok(Some(extents))
    }

    /// Adds the next image.
    ///
    /// # Errors
    /// When the image has 4 GiB or more, or the file cannot be written.
    pub fn add(&mut self, image: &[u8]) -> Result<(), DataError> {
        let unwritable = |source| DataError::Unwritable { path: self.partial.clone(), source };
        let length = u32::try_from(image.len())
            .map_err(|_| unwritable(io::ErrorKind::FileTooLarge.into()))?;
        self.waiting.extend_from_slice(image);
        self.waiting_lengths.push(length);
        if self.waiting.len() >= SHARD_BYTES || self.waiting_lengths.len() >= SHARD_IMAGES {
            self.flush()?;
        }
        Ok(())
    }

    /// Writes the waiting images as a shard and waits until they are on disk.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn flush(&mut self) -> Result<(), DataError> {
        if self.waiting_lengths.is_empty() {
            return Ok(());
        }
        let unwritable = |source| DataError::Unwritable { path: self.partial.clone(), source };
        let count = self.waiting_lengths.len();
        let mut offset = self.end + 24 + 8 * count as u64;
        let mut table = Vec::with_capacity(8 * count);
        let mut rest = &self.waiting[..];
        for &length in &self.waiting_lengths {
            let (image, after) = rest.split_at(length as usize);
            rest = after;
            let checksum = crc32fast::hash(image);
            table.extend_from_slice(&length.to_le_bytes());
            table.extend_from_slice(&checksum.to_le_bytes());
            self.extents.push(checked(offset, length.into(), checksum));
            offset += u64::from(length);
        }
        let mut head = SHARD_MAGIC.to_vec();
        write_number(count as u64, &mut head);
        write_number(crc32fast::hash(&table).into(), &mut head);
        self.file
            .seek(SeekFrom::Start(self.end))
            .and_then(|_| self.file.write_all(&head))
            .and_then(|()| self.file.write_all(&table))
            .and_then(|()| self.file.write_all(&self.waiting))
            .and_then(|()| self.file.sync_data())
            .map_err(unwritable)?;
        self.end = offset;
        self.waiting.clear();
        self.waiting_lengths.clear();
        Ok(())
    }

    /// Writes the index of the images, which are those of `dataset`, and names the file.
    ///
    /// # Errors
    /// When the number of images differs from that of the data set or the file cannot be written.
    pub fn finish(mut self, dataset: &Dataset) -> Result<(), DataError> {
        self.flush()?;
        let unwritable = |source| DataError::Unwritable { path: self.partial.clone(), source };
        if self.extents.len() != dataset.len() {
            return Err(unwritable(io::ErrorKind::InvalidInput.into()));
        }
        let mut index = Vec::new();
        write_number(dataset.classes().len() as u64, &mut index);
        dataset.classes().iter().for_each(|class| write_text(class, &mut index));
        write_number(dataset.len() as u64, &mut index);
        for (image, extent) in self.extents.iter().enumerate() {
            write_text(dataset.name(image), &mut index);
            let label = dataset.label(image).map_or(u64::MAX, |label| label as u64);
            let (length, checksum) = (extent.length.into(), extent.checksum.into());
            for number in [label, extent.offset, length, checksum] {
                write_number(number, &mut index);
            }
        }
        let header = Header {
            index_offset: self.end,
            index_length: index.len() as u64,
            index_checksum: crc32fast::hash(&index),
            ..self.header
        };
        // The header points to the index only when the index is safely there.
        self.file
            .seek(SeekFrom::Start(self.end))
            .and_then(|_| self.file.write_all(&index))
            .and_then(|()| self.file.sync_data())
            .and_then(|()| self.file.seek(SeekFrom::Start(0)))
            .and_then(|_| self.file.write_all(&header.bytes()))
            .and_then(|()| disk::settle(&self.partial, &self.path))
            .map_err(unwritable)
    }
}
