//! Zip files: their directory is read once, images then in place, stored or deflated.

use std::io::{BufReader, ErrorKind};

use zip::CompressionMethod;
use zip::result::ZipError;

use super::DataError;
use super::archive::{Walk, normalise};
use super::listing::Listing;
use super::name::{file_name, is_image_name};
use super::shards::Shard;
use super::source::{Blob, Reader};
use super::storage::{Coding, Extent, Storage};

/// Lists the images of the zip files, or of a `subfolder` in them, which then is the root.
pub(super) fn list(
    shards: &[Shard],
    subfolder: Option<&str>,
) -> Result<(Storage, Listing), DataError> {
    let mut walk = Walk::new(subfolder);
    let mut archives = Vec::with_capacity(shards.len());
    for (number, shard) in shards.iter().enumerate() {
        let blob = shard.source.open()?;
        list_one(&mut walk, &blob, &shard.prefix, number as u32)?;
        archives.push(blob.held_as(number));
    }
    let listing = walk.finish(shards)?;
    Ok((Storage::Archives(archives), listing))
}

fn list_one(walk: &mut Walk, blob: &Blob, prefix: &str, number: u32) -> Result<(), DataError> {
    let path = blob.path();
    let broken = |error: ZipError| match error {
        ZipError::Io(source) if source.kind() != ErrorKind::UnexpectedEof => {
            DataError::unreadable(path, source)
        }
        error => DataError::BrokenZip { path: path.to_owned(), reason: error.to_string() },
    };
    let reader = Reader::new(blob, 0).map_err(|source| DataError::unreadable(path, source))?;
    let mut archive = zip::ZipArchive::new(BufReader::new(reader)).map_err(broken)?;
    for member in 0..archive.len() {
        let member = archive.by_index_raw(member).map_err(broken)?;
        if !member.is_file() {
            continue;
        }
        // Most programs write UTF-8, and few say so. Old ones for Windows put backslashes between
        // folders.
        let raw = std::str::from_utf8(member.name_raw()).unwrap_or(member.name());
        let full_name = raw.replace('\\', "/");
        let full_name = normalise(&full_name);
        let Some(name) = walk.name_in_part(&full_name) else { continue };
        if !is_image_name(file_name(name)) {
            walk.pass_over(name);
            continue;
        }
        let unsupported =
            |how| DataError::UnsupportedZip { path: path.to_owned(), name: name.to_owned(), how };
        if member.encrypted() {
            return Err(unsupported("encrypted"));
        }
        let coding = match member.compression() {
            CompressionMethod::Stored => Coding::Checked,
            CompressionMethod::Deflated => Coding::Deflated,
            _ => return Err(unsupported("compressed otherwise")),
        };
        let Some(begin) = member.data_start() else {
            let reason = format!("\"{name}\" is not where its directory says");
            return Err(DataError::BrokenZip { path: path.to_owned(), reason });
        };
        let place = Extent::plain(begin, member.compressed_size());
        let checksum = member.crc32();
        walk.push(prefix, name, Extent { file: number, checksum, coding, ..place });
    }
    Ok(())
}
