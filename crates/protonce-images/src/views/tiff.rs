//! TIFF → 8-bit RGB pixels, to those that Pillow makes of it.
//!
//! The `tiff` crate unpacks samples: strips and tiles, most compressions, predictors, both byte orders,
//! BigTIFF. What samples mean is said here: grey, RGB, palette, CMYK, YCbCr, L*a*b*, with or without
//! transparency, of 1 to 64 bits.

use std::io::{self, Cursor, Read};

use image::metadata::Orientation;
use lzma_rust2::XzReader;
use ruzstd::decoding::StreamingDecoder;
use tiff::TiffError;
use tiff::decoder::{Decoder, DecodingResult, Limits};
use tiff::tags::{CompressionMethod, Tag};

use super::decode::{DecodeError, Image, MAX_ALLOCATION, check_size, over_white};

/// Decodes the first image of a file; also says how it is to be turned.
pub(super) fn decode(bytes: &[u8], image: &mut Image) -> Result<Orientation, DecodeError> {
    // The crate refuses some meanings of samples before it unpacks them. "Grey" it always unpacks.
    let (bytes, meaning) = prepared(bytes)?;
    let mut limits = Limits::default();
    limits.decoding_buffer_size = MAX_ALLOCATION as usize;
    limits.intermediate_buffer_size = MAX_ALLOCATION as usize;
    limits.ifd_value_size = MAX_ALLOCATION as usize;
    let mut decoder = Decoder::new(Cursor::new(&bytes[..])).map_err(error)?.with_limits(limits);
    let (width, height) = decoder.dimensions().map_err(error)?;
    check_size(width.into(), height.into())?;
    let layout = Layout::read(&mut decoder, meaning)?;
    let mut samples = DecodingResult::U8(Vec::new());
    decoder.read_image_to_buffer(&mut samples).map_err(error)?;

    let (width, height) = (width as usize, height as usize);
    let samples = Samples { samples, layout: &layout, width, pixels: width * height };
    if samples.len() < samples.pixels * layout.samples {
        return Err(malformed("it has fewer pixels than it says"));
    }
    image.width = width;
    image.height = height;
    image.pixels.clear();
    image.pixels.reserve(3 * width * height);
    let color = samples.reader()?;
    for pixel in 0..width * height {
        let color = color(pixel);
        let color = match layout.alpha {
            None => color,
            Some(Alpha { sample, premultiplied: false }) => {
                let alpha = samples.byte(pixel, sample);
                color.map(|value| over_white(value, alpha))
            }
            Some(Alpha { sample, premultiplied: true }) => {
                let alpha = samples.byte(pixel, sample);
                color.map(|value| value.saturating_add(255 - alpha))
            }
        };
        image.pixels.extend_from_slice(&color);
    }
    let orientation = decoder.find_tag_unsigned::<u8>(Tag::Orientation).ok().flatten();
    Ok(orientation.and_then(Orientation::from_exif).unwrap_or(Orientation::NoTransforms))
}

fn malformed(reason: &str) -> DecodeError {
    DecodeError::Malformed { format: "TIFF", reason: reason.to_owned() }
}

fn unsupported(reason: impl ToString) -> DecodeError {
    DecodeError::Unsupported { format: "TIFF", reason: reason.to_string() }
}

fn error(error: TiffError) -> DecodeError {
    match error {
        TiffError::UnsupportedError(error) => unsupported(error),
        error => malformed(&error.to_string()),
    }
}

/// What samples mean: the values of the tag PhotometricInterpretation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    WhiteIsZero,
    Grey,
    Rgb,
    Palette,
    Cmyk,
    YCbCr,
    /// With a and b around 0 (8) or around 128 (9).
    Lab {
        signed: bool,
    },
    Other(u16),
}

impl Meaning {
    fn of(number: u16) -> Meaning {
        match number {
            0 => Meaning::WhiteIsZero,
            1 => Meaning::Grey,
            2 => Meaning::Rgb,
            3 => Meaning::Palette,
            5 => Meaning::Cmyk,
            6 => Meaning::YCbCr,
            8 => Meaning::Lab { signed: true },
            9 => Meaning::Lab { signed: false },
            other => Meaning::Other(other),
        }
    }

    /// Samples of a colour.
    fn colors(self) -> usize {
        match self {
            Meaning::WhiteIsZero | Meaning::Grey | Meaning::Palette | Meaning::Other(_) => 1,
            Meaning::Rgb | Meaning::YCbCr | Meaning::Lab { .. } => 3,
            Meaning::Cmyk => 4,
        }
    }
}

/// A copy of a file as the decoder takes it, and what its samples mean: the first directory says
/// "grey", and strips or tiles whose compression the decoder does not know are unpacked.
fn prepared(bytes: &[u8]) -> Result<(Vec<u8>, Meaning), DecodeError> {
    let mut directory =
        Directory::read(bytes).ok_or_else(|| malformed("its directory is damaged"))?;
    // A tag that is missing the decoder will miss.
    let meaning = directory.numbers(262).first().map_or(Meaning::Grey, |&n| Meaning::of(n as u16));
    directory.set(262, &[1]);
    let unpack: fn(&[u8]) -> Box<dyn Read + '_> = match directory.numbers(259).first() {
        Some(34925) => |packed| Box::new(XzReader::new(packed, true)),
        Some(50000) => |packed| match StreamingDecoder::new(packed) {
            Ok(decoder) => Box::new(decoder),
            Err(_) => Box::new(io::empty()),
        },
        _ => return Ok((directory.bytes, meaning)),
    };
    let (offsets, counts) = if directory.entry(324).is_some() { (324, 325) } else { (273, 279) };
    let (mut begins, mut lengths) = (Vec::new(), Vec::new());
    let mut left = MAX_ALLOCATION;
    for (begin, length) in directory.numbers(offsets).into_iter().zip(directory.numbers(counts)) {
        let begin = usize::try_from(begin).unwrap_or(usize::MAX);
        let end = begin.saturating_add(usize::try_from(length).unwrap_or(usize::MAX));
        let packed = bytes.get(begin..end).ok_or_else(|| malformed("it is cut short"))?;
        begins.push(directory.bytes.len() as u64);
        let unpacked = unpack(packed).take(left).read_to_end(&mut directory.bytes);
        let unpacked = unpacked.map_err(|error| malformed(&error.to_string()))? as u64;
        lengths.push(unpacked);
        left -= unpacked;
    }
    directory.set(offsets, &begins);
    directory.set(counts, &lengths);
    directory.set(259, &[1]);
    Ok((directory.bytes, meaning))
}

/// The first directory of a copy of a file.
struct Directory {
    bytes: Vec<u8>,
    little: bool,
    /// BigTIFF.
    big: bool,
    /// Where its entries begin.
    begin: usize,
    entries: usize,
}

impl Directory {
    fn read(bytes: &[u8]) -> Option<Directory> {
        let (little, bytes) = (bytes.starts_with(b"II"), bytes.to_vec());
        let mut directory = Directory { bytes, little, big: false, begin: 0, entries: 0 };
        directory.big = directory.number(2, 2)? == 43;
        let (offset, count) = if directory.big { ((8, 8), 8) } else { ((4, 4), 2) };
        let begin = usize::try_from(directory.number(offset.0, offset.1)?).ok()?;
        directory.entries = usize::try_from(directory.number(begin, count)?).ok()?;
        directory.begin = begin + count;
        let end = directory.entries.checked_mul(directory.stride())?;
        (directory.begin.checked_add(end)? <= directory.bytes.len()).then_some(directory)
    }

    /// Bytes of an entry.
    fn stride(&self) -> usize {
        if self.big { 20 } else { 12 }
    }

    /// Bytes of a position in the file, and of what an entry itself can hold.
    fn word(&self) -> usize {
        if self.big { 8 } else { 4 }
    }

    fn number(&self, offset: usize, length: usize) -> Option<u64> {
        let bytes = self.bytes.get(offset..offset.checked_add(length)?)?;
        let add = |sum: u64, &byte: &u8| sum << 8 | u64::from(byte);
        Some(match self.little {
            true => bytes.iter().rev().fold(0, add),
            false => bytes.iter().fold(0, add),
        })
    }

    fn write(&mut self, offset: usize, length: usize, number: u64) {
        let (little, big) = (number.to_le_bytes(), number.to_be_bytes());
        let number = if self.little { &little[..length] } else { &big[8 - length..] };
        self.bytes[offset..offset + length].copy_from_slice(number);
    }

    /// Where the entry of a tag is.
    fn entry(&self, tag: u64) -> Option<usize> {
        let entries = (0..self.entries).map(|entry| self.begin + entry * self.stride());
        entries.into_iter().find(|&entry| self.number(entry, 2) == Some(tag))
    }

    /// The whole numbers of a tag; none where it is missing or damaged.
    fn numbers(&self, tag: u64) -> Vec<u64> {
        let read = || {
            let entry = self.entry(tag)?;
            let length = match self.number(entry + 2, 2)? {
                3 => 2,
                4 => 4,
                16 => 8,
                _ => return None,
            };
            let count = usize::try_from(self.number(entry + 4, self.word())?).ok()?;
            let inside = entry + 4 + self.word();
            let begin = match count.checked_mul(length)? <= self.word() {
                true => inside,
                false => usize::try_from(self.number(inside, self.word())?).ok()?,
            };
            let end = begin.checked_add(count * length)?;
            (end <= self.bytes.len()).then(|| {
                (begin..end).step_by(length).filter_map(|at| self.number(at, length)).collect()
            })
        };
        read().unwrap_or_default()
    }

    /// Gives a tag that is there these numbers, behind the end of the file if they are several.
    fn set(&mut self, tag: u64, numbers: &[u64]) {
        let Some(entry) = self.entry(tag) else { return };
        let word = self.word();
        self.write(entry + 2, 2, if self.big { 16 } else { 4 });
        self.write(entry + 4, word, numbers.len() as u64);
        let inside = entry + 4 + word;
        if let &[number] = numbers {
            return self.write(inside, word, number);
        }
        let begin = self.bytes.len();
        self.write(inside, word, begin as u64);
        self.bytes.resize(begin + numbers.len() * word, 0);
        for (position, &number) in numbers.iter().enumerate() {
            self.write(begin + position * word, word, number);
        }
    }
}

struct Alpha {
    sample: usize,
    premultiplied: bool,
}

/// What the tags say about samples.
struct Layout {
    meaning: Meaning,
    bits: usize,
    /// Per pixel.
    samples: usize,
    alpha: Option<Alpha>,
    planar: bool,
    /// Of a palette: all reds, all greens, all blues.
    colors: Vec<u16>,
}

impl Layout {
    fn read(decoder: &mut Decoder<Cursor<&[u8]>>, meaning: Meaning) -> Result<Layout, DecodeError> {
        let mut tag = |tag| -> Result<Vec<u16>, DecodeError> {
            let values = decoder.find_tag_unsigned_vec::<u16>(tag).map_err(error)?;
            Ok(values.unwrap_or_default())
        };
        let first = |values: Vec<u16>, default| values.first().copied().unwrap_or(default);
        let samples = usize::from(first(tag(Tag::SamplesPerPixel)?, 1));
        let extra = tag(Tag::ExtraSamples)?;
        let needed = meaning.colors();
        if samples < needed {
            return Err(malformed("it has fewer samples than its colours need"));
        }
        let premultiplied = match extra.first() {
            Some(1) => Some(true),
            Some(2) => Some(false),
            // Files without the tag that have a fourth sample mean transparency.
            None if meaning == Meaning::Rgb && samples == 4 => Some(false),
            _ => None,
        };
        let alpha = premultiplied.filter(|_| samples > needed);
        let alpha = alpha.map(|premultiplied| Alpha { sample: needed, premultiplied });
        let jpeg = first(tag(Tag::Compression)?, 1) == CompressionMethod::ModernJPEG.to_u16();
        if meaning == Meaning::YCbCr && !jpeg {
            let subsampling = tag(Tag::ChromaSubsampling)?;
            if !subsampling.iter().all(|&step| step == 1) || subsampling.is_empty() {
                return Err(unsupported("its colours have fewer pixels than its brightness"));
            }
        }
        if let Meaning::Other(number) = meaning {
            return Err(unsupported(format!("photometric interpretation {number}")));
        }
        let bits = usize::from(first(tag(Tag::BitsPerSample)?, 1));
        let colors = match meaning {
            Meaning::Palette => tag(Tag::ColorMap)?,
            _ => Vec::new(),
        };
        if meaning == Meaning::Palette && (bits > 8 || colors.len() < 3 << bits) {
            return Err(match bits > 8 {
                true => unsupported("a palette of more than 256 colours"),
                false => malformed("its palette is cut short"),
            });
        }
        let planar = first(tag(Tag::PlanarConfiguration)?, 1) == 2;
        Ok(Layout { meaning, bits, samples, alpha, planar, colors })
    }
}

/// The unpacked samples of an image.
struct Samples<'a> {
    samples: DecodingResult,
    layout: &'a Layout,
    width: usize,
    pixels: usize,
}

type Color<'a> = Box<dyn Fn(usize) -> [u8; 3] + 'a>;

impl Samples<'_> {
    /// How many samples there are.
    fn len(&self) -> usize {
        match &self.samples {
            DecodingResult::U8(samples) if self.layout.bits < 8 => {
                samples.len() / self.packed_row().max(1) * self.row_samples()
            }
            DecodingResult::U8(samples) => samples.len(),
            DecodingResult::I8(samples) => samples.len(),
            DecodingResult::U16(samples) => samples.len(),
            DecodingResult::I16(samples) => samples.len(),
            DecodingResult::F16(samples) => samples.len(),
            DecodingResult::U32(samples) => samples.len(),
            DecodingResult::I32(samples) => samples.len(),
            DecodingResult::F32(samples) => samples.len(),
            DecodingResult::U64(samples) => samples.len(),
            DecodingResult::I64(samples) => samples.len(),
            DecodingResult::F64(samples) => samples.len(),
        }
    }

    /// Samples in a row of a plane.
    fn row_samples(&self) -> usize {
        self.width * if self.layout.planar { 1 } else { self.layout.samples }
    }

    /// Bytes in a row of samples of less than 8 bits.
    fn packed_row(&self) -> usize {
        (self.row_samples() * self.layout.bits).div_ceil(8)
    }

    fn position(&self, pixel: usize, sample: usize) -> usize {
        match self.layout.planar {
            true => sample * self.pixels + pixel,
            false => pixel * self.layout.samples + sample,
        }
    }

    /// A sample as it is stored, of those with less than 8 bits.
    fn packed(&self, samples: &[u8], position: usize) -> u8 {
        let (row, column) = (position / self.row_samples(), position % self.row_samples());
        let bits = self.layout.bits;
        let byte = samples[row * self.packed_row() + column * bits / 8];
        let shift = 8 - bits - column * bits % 8;
        byte >> shift & ((1 << bits) - 1)
    }

    /// A sample of 0 to 255: wider ones are rounded to it, narrower ones spread, floats are from 0 to 1.
    fn byte(&self, pixel: usize, sample: usize) -> u8 {
        let position = self.position(pixel, sample);
        let wide = |value: u64, bits: u32| {
            let most = u128::from(u64::MAX >> (64 - bits));
            ((u128::from(value) * 255 + most / 2) / most) as u8
        };
        let unit = |value: f64| (value.clamp(0.0, 1.0) * 255.0).round() as u8;
        match &self.samples {
            DecodingResult::U8(samples) if self.layout.bits < 8 => {
                let most = (1u16 << self.layout.bits) - 1;
                (u16::from(self.packed(samples, position)) * 255 / most) as u8
            }
            DecodingResult::U8(samples) => samples[position],
            DecodingResult::I8(samples) => samples[position] as u8,
            DecodingResult::U16(samples) => ((u32::from(samples[position]) + 128) / 257) as u8,
            DecodingResult::U32(samples) => wide(samples[position].into(), 32),
            DecodingResult::U64(samples) => wide(samples[position], 64),
            DecodingResult::I16(samples) => samples[position].clamp(0, 255) as u8,
            DecodingResult::I32(samples) => samples[position].clamp(0, 255) as u8,
            DecodingResult::I64(samples) => samples[position].clamp(0, 255) as u8,
            DecodingResult::F16(samples) => unit(samples[position].to_f64()),
            DecodingResult::F32(samples) => unit(samples[position].into()),
            DecodingResult::F64(samples) => unit(samples[position]),
        }
    }

    /// What makes a pixel's colour of its samples.
    fn reader(&self) -> Result<Color<'_>, DecodeError> {
        let three = |pixel| [0, 1, 2].map(|sample| self.byte(pixel, sample));
        Ok(match self.layout.meaning {
            Meaning::Grey | Meaning::WhiteIsZero => {
                let inverted = self.layout.meaning == Meaning::WhiteIsZero;
                let grey = self.grey();
                Box::new(move |pixel| match inverted {
                    true => [255 - grey(pixel); 3],
                    false => [grey(pixel); 3],
                })
            }
            Meaning::Rgb => Box::new(three),
            Meaning::Palette => {
                let DecodingResult::U8(samples) = &self.samples else {
                    return Err(unsupported("a palette of numbers other than bytes"));
                };
                let layout = self.layout;
                let size = 1 << layout.bits;
                Box::new(move |pixel| {
                    let position = self.position(pixel, 0);
                    let entry = match layout.bits {
                        8 => samples[position],
                        _ => self.packed(samples, position),
                    };
                    [0, 1, 2].map(|channel| {
                        (layout.colors[channel * size + usize::from(entry)] >> 8) as u8
                    })
                })
            }
            Meaning::Cmyk => Box::new(move |pixel| {
                let [cyan, magenta, yellow, black] =
                    [0, 1, 2, 3].map(|sample| u32::from(self.byte(pixel, sample)));
                let white = 255 - black;
                // Pillow's division by 255.
                [cyan, magenta, yellow].map(|ink| {
                    let product = ink * white + 128;
                    (white - (((product >> 8) + product) >> 8).min(white)) as u8
                })
            }),
            Meaning::YCbCr => Box::new(move |pixel| ycbcr(three(pixel))),
            Meaning::Lab { signed } => Box::new(move |pixel| {
                let [lightness, a, b] = three(pixel);
                let around_zero = |value: u8| match signed {
                    true => f64::from(value as i8),
                    false => f64::from(value) - 128.0,
                };
                lab(f64::from(lightness) / 2.55, around_zero(a), around_zero(b))
            }),
            Meaning::Other(number) => {
                return Err(unsupported(format!("photometric interpretation {number}")));
            }
        })
    }

    /// Grey of one sample. Numbers without a natural range are cut to 0 to 255, as Pillow does: whole
    /// numbers of 32 bits or with a sign, and floats unless all are within 0 to 1.
    fn grey(&self) -> Box<dyn Fn(usize) -> u8 + '_> {
        let within_one = match &self.samples {
            DecodingResult::F16(samples) => {
                samples.iter().all(|value| (0.0..=1.0).contains(&value.to_f32()))
            }
            DecodingResult::F32(samples) => samples.iter().all(|value| (0.0..=1.0).contains(value)),
            DecodingResult::F64(samples) => samples.iter().all(|value| (0.0..=1.0).contains(value)),
            DecodingResult::U32(_) | DecodingResult::U64(_) => false,
            _ => true,
        };
        if within_one {
            return Box::new(|pixel| self.byte(pixel, 0));
        }
        Box::new(|pixel| {
            let position = self.position(pixel, 0);
            // Towards zero, and not a number is zero.
            match &self.samples {
                DecodingResult::F16(samples) => samples[position].to_f32() as u8,
                DecodingResult::F32(samples) => samples[position] as u8,
                DecodingResult::F64(samples) => samples[position] as u8,
                DecodingResult::U32(samples) => samples[position].min(255) as u8,
                DecodingResult::U64(samples) => samples[position].min(255) as u8,
                _ => self.byte(pixel, 0),
            }
        })
    }
}

/// The conversion of JPEG, in the fixed-point arithmetic of libjpeg.
fn ycbcr([luma, blue, red]: [u8; 3]) -> [u8; 3] {
    let (luma, blue, red) = (i32::from(luma), i32::from(blue) - 128, i32::from(red) - 128);
    let half = 1 << 15;
    [
        luma + ((91881 * red + half) >> 16),
        luma + ((-22554 * blue - 46802 * red + half) >> 16),
        luma + ((116130 * blue + half) >> 16),
    ]
    .map(|value| value.clamp(0, 255) as u8)
}

/// CIE L*a*b* under the light of printing (D50) as sRGB.
fn lab(lightness: f64, a: f64, b: f64) -> [u8; 3] {
    let y = (lightness + 16.0) / 116.0;
    let cubed = |t: f64| match t > 6.0 / 29.0 {
        true => t.powi(3),
        false => 3.0 * (6.0_f64 / 29.0).powi(2) * (t - 4.0 / 29.0),
    };
    let (x, y, z) = (0.9642 * cubed(y + a / 500.0), cubed(y), 0.8249 * cubed(y - b / 200.0));
    // sRGB's primaries, adapted to that light.
    [
        3.1338561 * x - 1.6168667 * y - 0.4906146 * z,
        -0.9787684 * x + 1.9161415 * y + 0.0334540 * z,
        0.0719453 * x - 0.2289914 * y + 1.4052427 * z,
    ]
    .map(|linear: f64| {
        let value = match linear <= 0.003_130_8 {
            true => 12.92 * linear,
            false => 1.055 * linear.powf(1.0 / 2.4) - 0.055,
        };
        (value.clamp(0.0, 1.0) * 255.0).round() as u8
    })
}
