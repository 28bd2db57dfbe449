//! A checkpoint file: its objects, and its tensors' numbers on demand.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use crate::archive::{self, read_at};
use crate::limits::{MAX_PICKLE, MAX_STORAGE_KEYS};
use crate::pickle::{Inline, Pickle, Value};
use crate::state_dicts::{self, StateDict};
use crate::{Dtype, PthError};

/// How the file is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// A zip archive: PyTorch since 1.6.
    Zip,
    /// Pickles and numbers one after the other: PyTorch until 1.5, and since then on demand.
    Legacy,
    /// One pickle, with numpy arrays in it.
    Bare,
}

/// A tensor of a checkpoint: its type and shape, and where its numbers lie.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// The type of its numbers.
    pub dtype: Dtype,
    /// Its shape.
    pub shape: Vec<u64>,
    /// Numbers from one to the next along each dimension.
    strides: Vec<u64>,
    location: Location,
}

#[derive(Debug, Clone, PartialEq)]
enum Location {
    /// At this number of the storage with this key.
    Storage { key: String, offset: u64 },
    /// In the pickle.
    Inline(Inline),
}

impl Tensor {
    /// How many numbers it has; validated not to overflow.
    pub fn count(&self) -> u64 {
        self.shape.iter().product()
    }

    fn is_contiguous(&self) -> bool {
        let mut expected = 1;
        self.shape.iter().zip(&self.strides).rev().all(|(&length, &stride)| {
            let fits = length == 1 || stride == expected;
            expected *= length;
            fits
        })
    }
}

/// Where a storage lies in the file.
#[derive(Debug, Clone, Copy)]
struct Extent {
    offset: u64,
    bytes: u64,
    /// CRC-32 of all of it, where the layout has one.
    checksum: Option<u32>,
}

/// An open checkpoint file.
#[derive(Debug)]
pub struct Checkpoint<R> {
    reader: R,
    length: u64,
    layout: Layout,
    pickle: Pickle,
    storages: HashMap<String, Extent>,
    /// Bytes of tensors that may still be read.
    left: u64,
}

impl Checkpoint<BufReader<File>> {
    /// Opens a file.
    ///
    /// # Errors
    /// When it is no checkpoint, is damaged, or asks for what runs programs or code.
    pub fn open(path: &Path) -> Result<Checkpoint<BufReader<File>>, PthError> {
        Checkpoint::new(BufReader::new(File::open(path)?))
    }
}

/// The first pickle of the legacy layout: the number 0x1950a86a20f9469cfc6c.
const LEGACY_MAGIC: [u8; 15] = *b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";

impl<R: Read + Seek> Checkpoint<R> {
    /// Opens what `reader` holds.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn new(mut reader: R) -> Result<Checkpoint<R>, PthError> {
        let length = reader.seek(SeekFrom::End(0))?;
        let head = read_at(&mut reader, 0, length.min(512))?;
        let mut checkpoint = if head.starts_with(b"PK\x03\x04") {
            Checkpoint::zip(reader, length)
        } else if is_legacy(&head) {
            Checkpoint::legacy(reader, length)
        } else if matches!(head[..], [0x80, 2..=5, ..]) {
            // The numbers are in the pickle itself, so there is nothing to leave unread.
            let bytes = read_at(&mut reader, 0, length)?;
            let (pickle, _) = Pickle::parse(bytes, 0)?;
            Checkpoint::with(reader, length, Layout::Bare, pickle, HashMap::new())
        } else {
            Err(PthError::OtherFormat { found: guess(&head) })
        }?;
        checkpoint.check()?;
        Ok(checkpoint)
    }

    fn with(
        reader: R,
        length: u64,
        layout: Layout,
        pickle: Pickle,
        storages: HashMap<String, Extent>,
    ) -> Result<Checkpoint<R>, PthError> {
        Ok(Checkpoint { reader, length, layout, pickle, storages, left: length })
    }

    fn zip(mut reader: R, length: u64) -> Result<Checkpoint<R>, PthError> {
        let entries = archive::entries(&mut reader, length)?;
        let find = |name: &str| entries.iter().find(|entry| entry.name == name);
        let main = entries.iter().find(|entry| entry.name.ends_with("/data.pkl"));
        let Some(main) = main else {
            return Err(PthError::OtherFormat { found: "a zip archive without data.pkl" });
        };
        let folder = main.name.trim_end_matches("data.pkl");
        if find(&format!("{folder}constants.pkl")).is_some() {
            return Err(PthError::OtherFormat { found: "a TorchScript program" });
        }
        if main.length > MAX_PICKLE {
            let what = format!("a pickle of {} bytes", main.length);
            return Err(PthError::TooLarge { what, limit: MAX_PICKLE });
        }
        if let Some(order) = find(&format!("{folder}byteorder"))
            && order.length < 16
        {
            let at = archive::data_offset(&mut reader, length, order)?;
            if read_at(&mut reader, at, order.length)? == b"big" {
                return Err(PthError::OtherFormat { found: "a big-endian checkpoint" });
            }
        }
        let at = archive::data_offset(&mut reader, length, main)?;
        let bytes = read_at(&mut reader, at, main.length)?;
        if crc32fast::hash(&bytes) != main.checksum {
            return Err(PthError::Archive("the checksum of data.pkl is wrong".to_owned()));
        }
        let (pickle, _) = Pickle::parse(bytes, 0)?;
        let by_name: HashMap<&str, _> =
            entries.iter().map(|entry| (entry.name.as_str(), entry)).collect();
        let mut storages = HashMap::new();
        for (key, _, _) in pickle.storages() {
            if storages.contains_key(key) {
                continue;
            }
            let missing = || PthError::Archive(format!("it has no entry for storage {key:?}"));
            let entry = by_name.get(format!("{folder}data/{key}").as_str()).ok_or_else(missing)?;
            let offset = archive::data_offset(&mut reader, length, entry)?;
            let extent = Extent { offset, bytes: entry.length, checksum: Some(entry.checksum) };
            storages.insert(key.to_owned(), extent);
        }
        Checkpoint::with(reader, length, Layout::Zip, pickle, storages)
    }

    /// Magic number, protocol, system, objects, keys, then for each key a count and its numbers.
    fn legacy(mut reader: R, length: u64) -> Result<Checkpoint<R>, PthError> {
        let bytes = read_at(&mut reader, 0, length.min(MAX_PICKLE))?;
        let (protocol, end) = Pickle::parse(bytes, LEGACY_MAGIC.len())?;
        if protocol.root().as_i64() != Some(1001) {
            return Err(PthError::OtherFormat { found: "a checkpoint of an unknown version" });
        }
        let (system, end) = Pickle::parse(protocol.into_bytes(), end)?;
        if system.root().get("little_endian").and_then(Value::as_bool) != Some(true) {
            return Err(PthError::OtherFormat { found: "a big-endian checkpoint" });
        }
        let (mut pickle, end) = Pickle::parse(system.into_bytes(), end)?;
        pickle.truncate(end);
        let rest = read_at(&mut reader, end as u64, (length - end as u64).min(MAX_STORAGE_KEYS))?;
        let (keys, keys_end) = Pickle::parse(rest, 0)?;

        let mut sizes = HashMap::new();
        for (key, dtype, count) in pickle.storages() {
            if sizes.insert(key, (dtype, count)).is_some_and(|known| known != (dtype, count)) {
                return Err(PthError::Tensor(format!("storage {key:?} has two sizes")));
            }
        }
        let mut storages = HashMap::new();
        let mut offset = (end + keys_end) as u64;
        let no_keys = || PthError::Tensor("the storages are not listed".to_owned());
        for key in keys.root().items().ok_or_else(no_keys)? {
            let key = key.as_str().ok_or_else(no_keys)?;
            let cut =
                || PthError::Tensor(format!("storage {key:?} lies beyond the end of the file"));
            let &(dtype, count) = sizes.get(key).ok_or_else(|| {
                PthError::Tensor(format!("storage {key:?} is listed but belongs to no tensor"))
            })?;
            let bytes = count.checked_mul(dtype.size()).ok_or_else(cut)?;
            let end = offset.checked_add(8).and_then(|start| start.checked_add(bytes));
            let end = end.filter(|&end| end <= length).ok_or_else(cut)?;
            let written = read_at(&mut reader, offset, 8)?;
            if written != count.to_le_bytes() {
                return Err(PthError::Tensor(format!("storage {key:?} has two sizes")));
            }
            let extent = Extent { offset: offset + 8, bytes, checksum: None };
            storages.insert(key.to_owned(), extent);
            offset = end;
        }
        Checkpoint::with(reader, length, Layout::Legacy, pickle, storages)
    }

    /// Looks at every tensor once, so that a damaged file is refused before any of it is used.
    fn check(&mut self) -> Result<(), PthError> {
        for tensor in self.pickle.tensors() {
            self.tensor(tensor)?;
        }
        Ok(())
    }

    /// How the file is laid out.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The object that was saved.
    pub fn root(&self) -> Value<'_> {
        self.pickle.root()
    }

    /// Classes and functions without a meaning here that the file names, such as those of a trainer's
    /// settings: their objects were passed over, and nothing of them was executed. At most 64.
    pub fn passed_over(&self) -> &[String] {
        self.pickle.passed_over()
    }

    /// The tensors of every dict and of every whole module, wherever in the file they lie.
    pub fn state_dicts(&self) -> Vec<StateDict<'_>> {
        state_dicts::find(self.root())
    }

    /// What tensor `value` is; none if it is something else.
    ///
    /// # Errors
    /// When it claims numbers that the file does not have.
    pub fn tensor(&self, value: Value<'_>) -> Result<Option<Tensor>, PthError> {
        if let Some((dtype, shape, inline)) = value.numpy()? {
            let length = shape.iter().try_fold(dtype.size(), |n, &side| n.checked_mul(side));
            let found = self.pickle.inline(inline).len();
            if length != Some(found as u64) {
                let what = format!("a numpy array {shape:?} has {found} bytes");
                return Err(PthError::Tensor(what));
            }
            let location = Location::Inline(inline);
            return Ok(Some(Tensor { dtype, strides: contiguous(&shape), shape, location }));
        }
        let Some(claim) = value.tensor_claim()? else { return Ok(None) };
        let (key, shape, strides) = (claim.key, claim.shape, claim.strides);
        let wrong = |what: &str| {
            PthError::Tensor(format!(
                "{what}: shape {shape:?}, strides {strides:?}, offset {} in storage {key:?} of {} numbers",
                claim.offset, claim.count
            ))
        };
        let extent = self.storages.get(key).ok_or_else(|| wrong("no such storage"))?;
        if claim.count.checked_mul(claim.dtype.size()).is_none_or(|bytes| bytes > extent.bytes) {
            return Err(wrong("the storage has fewer bytes than it says"));
        }
        if shape.len() != strides.len() {
            return Err(wrong("as many strides as dimensions are needed"));
        }
        let count = shape.iter().try_fold(1_u64, |n, &side| n.checked_mul(side));
        let bytes = count.and_then(|count| count.checked_mul(claim.dtype.size()));
        if bytes.is_none_or(|bytes| bytes > self.length) {
            return Err(wrong("larger than the file"));
        }
        if count != Some(0) {
            let last =
                shape.iter().zip(&strides).try_fold(claim.offset, |last, (&side, &stride)| {
                    last.checked_add((side - 1).checked_mul(stride)?)
                });
            if last.is_none_or(|last| last >= claim.count) {
                return Err(wrong("it reaches beyond its storage"));
            }
        }
        let location = Location::Storage { key: key.to_owned(), offset: claim.offset };
        Ok(Some(Tensor { dtype: claim.dtype, shape, strides, location }))
    }

    /// The numbers of a tensor of this checkpoint: little-endian, in row order.
    ///
    /// # Errors
    /// When they cannot be read, their checksum is wrong, or more was read than the file has.
    pub fn read(&mut self, tensor: &Tensor) -> Result<Vec<u8>, PthError> {
        let size = tensor.dtype.size();
        let count = tensor.count();
        let bytes = count * size;
        self.left = self.left.checked_sub(bytes).ok_or_else(|| {
            PthError::Tensor("tensors overlap: together they are larger than the file".to_owned())
        })?;
        let (key, offset) = match &tensor.location {
            Location::Inline(inline) => return Ok(self.pickle.inline(*inline).to_vec()),
            Location::Storage { key, offset } => (key, *offset),
        };
        if count == 0 {
            return Ok(Vec::new());
        }
        let extent = self.storages.get(key).copied();
        let extent =
            extent.ok_or_else(|| PthError::Tensor(format!("there is no storage {key:?}")))?;
        // Of a view only what lies between its first and last number.
        let span = tensor.shape.iter().zip(&tensor.strides);
        let span = span.map(|(&side, &stride)| (side - 1) * stride).sum::<u64>() + 1;
        let stored = read_at(&mut self.reader, extent.offset + offset * size, span * size)?;
        if let Some(checksum) = extent.checksum
            && stored.len() as u64 == extent.bytes
            && crc32fast::hash(&stored) != checksum
        {
            let what = format!("the checksum of storage {key:?} is wrong, the file is damaged");
            return Err(PthError::Archive(what));
        }
        if tensor.is_contiguous() {
            return Ok(stored);
        }
        Ok(gather(&stored, tensor))
    }
}

fn is_legacy(head: &[u8]) -> bool {
    head.starts_with(&LEGACY_MAGIC)
}

fn contiguous(shape: &[u64]) -> Vec<u64> {
    let mut stride = 1;
    let mut strides: Vec<u64> = shape
        .iter()
        .rev()
        .map(|&length| {
            let this = stride;
            stride *= length;
            this
        })
        .collect();
    strides.reverse();
    strides
}

/// The numbers of a view in row order, out of the stretch that it spans.
fn gather(stored: &[u8], tensor: &Tensor) -> Vec<u8> {
    let size = tensor.dtype.size() as usize;
    let mut gathered = Vec::with_capacity(tensor.count() as usize * size);
    let mut index = vec![0; tensor.shape.len()];
    let mut position = 0;
    for _ in 0..tensor.count() {
        gathered.extend_from_slice(&stored[position as usize * size..][..size]);
        for dimension in (0..index.len()).rev() {
            index[dimension] += 1;
            position += tensor.strides[dimension];
            if index[dimension] < tensor.shape[dimension] {
                break;
            }
            position -= index[dimension] * tensor.strides[dimension];
            index[dimension] = 0;
        }
    }
    gathered
}

/// What a file that is no checkpoint may be.
fn guess(head: &[u8]) -> &'static str {
    match head {
        [] => "an empty file",
        [0x1f, 0x8b, ..] => "a gzip file",
        [b'<', ..] => "an HTML or XML page, as a failed download leaves",
        _ if head.get(257..262) == Some(b"ustar") => {
            "a tar archive, as PyTorch wrote before 0.1.10"
        }
        _ if head.iter().all(|byte| byte.is_ascii() && *byte != 0) => "a text file",
        _ => "a file of another kind",
    }
}
