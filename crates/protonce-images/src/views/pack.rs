//! Makes a packed file out of any data set.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageEncoder};
use serde::Serialize;

use super::check::Broken;
use super::{CropBox, Decoder, Image, Planes, Resizer, pnm};
use crate::data::{DataError, Dataset, PackWriter, StoreError};

/// How images are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// As they are; what has to be made smaller becomes a JPEG of quality 95.
    Jpeg,
    /// As pixels, which need no decoding and the most room: 3 bytes each.
    Raw,
}

/// What a packed file is to hold.
#[derive(Clone, Copy, Debug)]
pub struct PackOptions {
    /// Longest side in pixels; larger images are made smaller. None: as large as they are.
    pub max_side: Option<usize>,
    /// How images are stored.
    pub encoding: Encoding,
    /// Threads that decode and encode; 0: one per core.
    pub threads: usize,
}

/// What was packed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PackReport {
    /// Images in the file.
    pub images: usize,
    /// Images of these that an earlier, interrupted attempt had packed.
    pub resumed: usize,
    /// Bytes of the images.
    pub bytes: u64,
    /// Images that cannot be read or decoded. They keep their index, and a run will name them again.
    pub broken: Vec<Broken>,
}

/// Quality of the JPEGs that are made: artefacts stay below what the views' own rounding loses.
const QUALITY: u8 = 95;

/// Images that a thread prepares between two appends to the file.
const WAVE: usize = 64;

/// Packs `dataset` into the file `out`, going on where an interrupted attempt stopped.
///
/// `progress` is told how many images are packed; when it returns false, packing stops and can be
/// continued by the same call. Returns none then.
///
/// # Errors
/// When `out` exists or cannot be written, or an object store fails; the same call goes on then too.
pub fn pack(
    dataset: &Dataset,
    out: &Path,
    options: PackOptions,
    mut progress: impl FnMut(usize) -> bool,
) -> Result<Option<PackReport>, DataError> {
    let threads = crate::threads(options.threads);
    let mut writer = PackWriter::open(out, origin(dataset, options))?;
    let resumed = writer.len();
    let mut report = PackReport { images: dataset.len(), resumed, bytes: 0, broken: Vec::new() };
    let mut packers: Vec<Packer> = (0..threads).map(|_| Packer::new(options)).collect();
    while writer.len() < dataset.len() {
        let begin = writer.len();
        let end = (begin + WAVE * threads).min(dataset.len());
        let next = AtomicUsize::new(begin);
        let packed: Mutex<BTreeMap<usize, Result<Packed, StoreError>>> = Mutex::default();
        std::thread::scope(|scope| {
            for packer in &mut packers {
                let (next, packed) = (&next, &packed);
                scope.spawn(move || {
                    loop {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        if index >= end {
                            return;
                        }
                        let one = packer.pack(dataset, index);
                        if one.is_err() {
                            // Others need not wait for a store that does not answer.
                            next.store(end, Ordering::Relaxed);
                        }
                        packed.lock().unwrap_or_else(|error| error.into_inner()).insert(index, one);
                    }
                });
            }
        });
        let packed = packed.into_inner().unwrap_or_else(|error| error.into_inner());
        for (index, one) in packed {
            let (bytes, reason) = match one {
                Ok(one) => one,
                Err(error) => {
                    writer.flush()?;
                    return Err(DataError::Store(error));
                }
            };
            writer.add(&bytes)?;
            report.bytes += bytes.len() as u64;
            if let Some(reason) = reason {
                let name = dataset.name(index).to_owned();
                report.broken.push(Broken { index, name, reason });
            }
        }
        if !progress(writer.len()) {
            writer.flush()?;
            return Ok(None);
        }
    }
    writer.finish(dataset)?;
    Ok(Some(report))
}

/// A number that differs as soon as a packed file would.
fn origin(dataset: &Dataset, options: PackOptions) -> u64 {
    let fingerprint = u64::from_str_radix(&dataset.fingerprint(), 16).unwrap_or_default();
    let encoding = match options.encoding {
        Encoding::Jpeg => 1,
        Encoding::Raw => 2,
    };
    let side = options.max_side.unwrap_or(0) as u64;
    fingerprint ^ (side << 8 | encoding).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The bytes to store, and what is wrong with the image.
type Packed = (Vec<u8>, Option<String>);

/// The working memory of one thread.
struct Packer {
    options: PackOptions,
    decoder: Decoder,
    resizer: Resizer,
    image: Image,
    planes: Planes,
}

impl Packer {
    fn new(options: PackOptions) -> Packer {
        Packer {
            options,
            decoder: Decoder::default(),
            resizer: Resizer::default(),
            image: Image::default(),
            planes: Planes::default(),
        }
    }

    fn pack(&mut self, dataset: &Dataset, index: usize) -> Result<Packed, StoreError> {
        let mut bytes = Vec::new();
        match dataset.read(index, &mut bytes) {
            Ok(()) => Ok(self.pack_bytes(bytes)),
            // Nothing is wrong with the image.
            Err(DataError::Store(error)) => Err(error),
            Err(error) => Ok((Vec::new(), Some(error.to_string()))),
        }
    }

    fn pack_bytes(&mut self, mut bytes: Vec<u8>) -> Packed {
        if let Err(error) = self.decoder.decode(&bytes, &mut self.image) {
            return (bytes, Some(error.to_string()));
        }
        let (width, height) = (self.image.width, self.image.height);
        let longest = width.max(height);
        let smaller = self.options.max_side.filter(|&side| side > 0 && side < longest);
        if let Some(side) = smaller {
            let scaled = |length: usize| ((length * side + longest / 2) / longest).max(1);
            let size = (scaled(width), scaled(height));
            let whole = CropBox::whole(&self.image);
            self.resizer.resize(&self.image, whole, size, &mut self.planes);
            self.image = self.planes.to_image();
        }
        match (self.options.encoding, smaller) {
            (Encoding::Jpeg, None) => (bytes, None),
            (Encoding::Jpeg, Some(_)) => {
                bytes.clear();
                let encoder = JpegEncoder::new_with_quality(&mut bytes, QUALITY);
                let (width, height) = (self.image.width as u32, self.image.height as u32);
                let kind = ExtendedColorType::Rgb8;
                let made = encoder.write_image(&self.image.pixels, width, height, kind);
                (bytes, made.err().map(|error| error.to_string()))
            }
            (Encoding::Raw, _) => {
                bytes.clear();
                pnm::write(&self.image, &mut bytes);
                (bytes, None)
            }
        }
    }
}
