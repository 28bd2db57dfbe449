//! The zip archives of `torch.save`: every entry stored as it is, its bytes at a multiple of 64.
//!
//! Our own reader and writer, because a checkpoint's archive is a tiny part of zip, and because the
//! reader must never believe a number that the file has no bytes for. A compressed entry is refused:
//! PyTorch writes none, and without decompression there are no zip bombs.

use std::io::{self, Read, Seek, SeekFrom, Write};

use crate::PthError;
use crate::limits::MAX_DIRECTORY;

const LOCAL: u32 = 0x0403_4b50;
const CENTRAL: u32 = 0x0201_4b50;
const END: u32 = 0x0605_4b50;
const END_64: u32 = 0x0606_4b50;
const LOCATOR_64: u32 = 0x0706_4b50;

/// One file of an archive.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) name: String,
    /// Where its own header begins.
    header: u64,
    pub(crate) length: u64,
    pub(crate) checksum: u32,
}

fn damaged(reason: impl Into<String>) -> PthError {
    PthError::Archive(reason.into())
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes)
}

/// `length` bytes at `offset`, which the caller has seen to lie inside the file.
pub(crate) fn read_at(
    reader: &mut (impl Read + Seek),
    offset: u64,
    length: u64,
) -> Result<Vec<u8>, PthError> {
    reader.seek(SeekFrom::Start(offset))?;
    let length = usize::try_from(length).map_err(|_| damaged("larger than memory"))?;
    let mut bytes = vec![0; length];
    reader.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// The table of contents of an archive of `length` bytes.
pub(crate) fn entries(
    reader: &mut (impl Read + Seek),
    length: u64,
) -> Result<Vec<Entry>, PthError> {
    let (start, size) = directory(reader, length)?;
    if size > MAX_DIRECTORY {
        let what = format!("a table of contents of {size} bytes");
        return Err(PthError::TooLarge { what, limit: MAX_DIRECTORY });
    }
    if start.checked_add(size).is_none_or(|end| end > length) {
        return Err(damaged("its table of contents lies beyond the end: the file was cut short"));
    }
    let bytes = read_at(reader, start, size)?;
    let mut entries = Vec::new();
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let (entry, after) = entry(rest)?;
        entries.push(entry);
        rest = after;
    }
    Ok(entries)
}

/// Start and size of the table of contents.
fn directory(reader: &mut (impl Read + Seek), length: u64) -> Result<(u64, u64), PthError> {
    let cut = || damaged("it has no end record: the file was cut short");
    // The end record has 22 bytes and a comment of at most 65535.
    let tail_length = length.min(22 + 65_535);
    let tail = read_at(reader, length - tail_length, tail_length)?;
    let end = (0..tail.len().saturating_sub(21)).rev().find(|&at| u32_at(&tail, at) == Some(END));
    let end = end.ok_or_else(cut)?;
    let (size, start) = (u32_at(&tail, end + 12), u32_at(&tail, end + 16));
    let (size, start) = (size.ok_or_else(cut)?, start.ok_or_else(cut)?);
    if size != u32::MAX && start != u32::MAX {
        return Ok((start.into(), size.into()));
    }
    let locator = end.checked_sub(20).filter(|&at| u32_at(&tail, at) == Some(LOCATOR_64));
    let locator = locator.ok_or_else(cut)?;
    let at = u64_at(&tail, locator + 8).ok_or_else(cut)?;
    if at.checked_add(56).is_none_or(|end| end > length) {
        return Err(cut());
    }
    let record = read_at(reader, at, 56)?;
    match (u32_at(&record, 0), u64_at(&record, 40), u64_at(&record, 48)) {
        (Some(END_64), Some(size), Some(start)) => Ok((start, size)),
        _ => Err(cut()),
    }
}

/// The first entry of a table of contents, and what follows it.
fn entry(bytes: &[u8]) -> Result<(Entry, &[u8]), PthError> {
    let cut = || damaged("its table of contents is broken");
    if u32_at(bytes, 0) != Some(CENTRAL) || bytes.len() < 46 {
        return Err(cut());
    }
    let short = |at| u16_at(bytes, at).map(usize::from).ok_or_else(cut);
    let long = |at| u32_at(bytes, at).ok_or_else(cut);
    let (name_length, extra_length, comment_length) = (short(28)?, short(30)?, short(32)?);
    let name = bytes.get(46..46 + name_length).ok_or_else(cut)?;
    let name = std::str::from_utf8(name).map_err(|_| damaged("an entry's name is no text"))?;
    let extra_start = 46 + name_length;
    let extra = bytes.get(extra_start..extra_start + extra_length).ok_or_else(cut)?;
    let after = bytes.get(extra_start + extra_length + comment_length..).ok_or_else(cut)?;
    let shown: String = name.escape_debug().take(100).collect();
    if short(8)? & 1 != 0 {
        return Err(damaged(format!("its entry \"{shown}\" is encrypted")));
    }
    if short(10)? != 0 {
        return Err(damaged(format!(
            "its entry \"{shown}\" is compressed, which torch.save never does"
        )));
    }
    let mut sizes = [long(20)?, long(24)?, long(42)?].map(u64::from);
    let mut large = extra_field(extra, 1).unwrap_or_default();
    // In the order of the format: length, stored length, position; each only where 32 bits are too few.
    for which in [1, 0, 2] {
        if sizes[which] == u64::from(u32::MAX) {
            sizes[which] = u64_at(large, 0).ok_or_else(cut)?;
            large = &large[8..];
        }
    }
    let [stored, length, header] = sizes;
    if stored != length {
        return Err(damaged(format!("its entry \"{shown}\" has two lengths")));
    }
    Ok((Entry { name: name.to_owned(), header, length, checksum: long(16)? }, after))
}

/// The data of the extra field with this number.
fn extra_field(mut extra: &[u8], number: u16) -> Option<&[u8]> {
    loop {
        let (found, length) = (u16_at(extra, 0)?, usize::from(u16_at(extra, 2)?));
        let data = extra.get(4..4 + length)?;
        if found == number {
            return Some(data);
        }
        extra = &extra[4 + length..];
    }
}

/// Where the bytes of `entry` begin; all of them lie inside the file of `length` bytes.
pub(crate) fn data_offset(
    reader: &mut (impl Read + Seek),
    length: u64,
    entry: &Entry,
) -> Result<u64, PthError> {
    let beyond = || damaged(format!("its entry {:?} lies beyond the end", entry.name));
    if entry.header.checked_add(30).is_none_or(|end| end > length) {
        return Err(beyond());
    }
    let header = read_at(reader, entry.header, 30)?;
    let (Some(LOCAL), Some(name), Some(extra)) =
        (u32_at(&header, 0), u16_at(&header, 26), u16_at(&header, 28))
    else {
        return Err(damaged(format!("its entry {:?} has no header", entry.name)));
    };
    let start = entry.header + 30 + u64::from(name) + u64::from(extra);
    match start.checked_add(entry.length) {
        Some(end) if end <= length => Ok(start),
        _ => Err(beyond()),
    }
}

/// Writes an archive entry by entry.
pub(crate) struct Writer<W> {
    out: W,
    position: u64,
    directory: Vec<u8>,
    entries: u16,
}

/// What an archive of 32-bit offsets can hold.
fn too_large<E>(_: E) -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, "a checkpoint of more than 4 GiB")
}

impl<W: Write> Writer<W> {
    pub(crate) fn new(out: W) -> Writer<W> {
        Writer { out, position: 0, directory: Vec::new(), entries: 0 }
    }

    pub(crate) fn add(&mut self, name: &str, data: &[u8]) -> io::Result<()> {
        let checksum = crc32fast::hash(data);
        let length = u32::try_from(data.len()).map_err(too_large)?;
        let header = u32::try_from(self.position).map_err(too_large)?;
        let name_length = u16::try_from(name.len()).map_err(too_large)?;
        // PyTorch maps tensors into memory from where they lie, so it wants them aligned.
        let unpadded = self.position + 30 + name.len() as u64 + 4;
        let padding = (unpadded.next_multiple_of(64) - unpadded) as u16;
        // Version 0, UTF-8 names, stored, no time.
        let shared = {
            let mut shared = Vec::new();
            for number in [0_u16, 0x0800, 0, 0, 0] {
                shared.extend(number.to_le_bytes());
            }
            for number in [checksum, length, length] {
                shared.extend(number.to_le_bytes());
            }
            shared.extend(name_length.to_le_bytes());
            shared
        };
        let mut local = LOCAL.to_le_bytes().to_vec();
        local.extend(&shared);
        local.extend((padding + 4).to_le_bytes());
        local.extend(name.as_bytes());
        local.extend(b"FB");
        local.extend(padding.to_le_bytes());
        local.extend(std::iter::repeat_n(b'Z', padding.into()));
        self.out.write_all(&local)?;
        self.out.write_all(data)?;
        self.position += (local.len() + data.len()) as u64;

        self.directory.extend(CENTRAL.to_le_bytes());
        self.directory.extend(0_u16.to_le_bytes());
        self.directory.extend(&shared);
        // No extra field, comment, disk or attributes.
        self.directory.extend([0; 12]);
        self.directory.extend(header.to_le_bytes());
        self.directory.extend(name.as_bytes());
        self.entries = self.entries.checked_add(1).ok_or_else(|| too_large(()))?;
        Ok(())
    }

    pub(crate) fn finish(mut self) -> io::Result<()> {
        let start = u32::try_from(self.position).map_err(too_large)?;
        let size = u32::try_from(self.directory.len()).map_err(too_large)?;
        self.out.write_all(&self.directory)?;
        let mut end = END.to_le_bytes().to_vec();
        end.extend([0; 4]);
        end.extend(self.entries.to_le_bytes());
        end.extend(self.entries.to_le_bytes());
        end.extend(size.to_le_bytes());
        end.extend(start.to_le_bytes());
        end.extend([0; 2]);
        self.out.write_all(&end)?;
        self.out.flush()
    }
}
