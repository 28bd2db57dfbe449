//! Encoded bytes → 8-bit RGB pixels.
//!
//! Plain JPEGs, which nearly all are, have their own reader ([`super::jpeg`]: twice as fast, and to
//! the pixels of libjpeg). Other JPEGs go to `zune-jpeg`, TIFF to [`super::tiff`], PNM (which packed
//! files use) to [`super::pnm`], other formats through `image`.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, RgbImage};
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

use super::{CropBox, jpeg, png_text, pnm, tiff};

/// Most pixels an image may have: a file of a few bytes can claim billions.
pub const MAX_PIXELS: u64 = 1 << 27;

/// Most bytes a decoder other than JPEG's may ask for.
pub(super) const MAX_ALLOCATION: u64 = 512 << 20;

/// The formats that can be read, for errors.
#[cfg(not(feature = "jpeg-xl"))]
const READABLE: &str = "JPEG, PNG, WebP, BMP, GIF, TIFF or PNM";
/// The formats that can be read, for errors.
#[cfg(feature = "jpeg-xl")]
const READABLE: &str = "JPEG, PNG, WebP, BMP, GIF, TIFF, PNM or JPEG XL";

/// A decoded image: 8-bit RGB, interleaved, row by row from the top left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// Pixels per row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `height` × `width` × 3 bytes.
    pub pixels: Vec<u8>,
}

/// Bytes that are no image, or one that is damaged or too large.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// A file of zero bytes.
    #[error("the file is empty: expected an image; copy or download it again")]
    Empty,
    /// Not one of the formats that can be read.
    #[error("not an image that can be read: expected {READABLE}; convert it")]
    UnknownFormat,
    /// One of the formats that cannot be read, or no image at all.
    #[error("it is {found}: expected {READABLE}; {remedy}")]
    OtherFormat {
        /// What the file is.
        found: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// A variant of a format that is not supported. The file may be whole.
    #[error("this kind of {format} is not supported ({reason}): expected {READABLE}; convert it")]
    Unsupported {
        /// Name of the format.
        format: &'static str,
        /// What is special about it.
        reason: String,
    },
    /// The file ends before the image does.
    #[error("the JPEG is cut short: expected an end-of-image marker; copy or download it again")]
    Truncated,
    /// More pixels than [`MAX_PIXELS`].
    #[error("the image is {width}x{height}: expected at most {MAX_PIXELS} pixels; make it smaller")]
    TooLarge {
        /// Claimed width in pixels.
        width: u64,
        /// Claimed height in pixels.
        height: u64,
    },
    /// Damaged.
    #[error("the {format} cannot be decoded ({reason}): expected an undamaged file; save it again")]
    Malformed {
        /// Name of the format.
        format: &'static str,
        /// What the decoder said.
        reason: String,
    },
}

/// Decodes JPEG (grey, RGB, CMYK and YCCK, baseline and progressive), PNG (also 16-bit and
/// palette), WebP, BMP, GIF (first frame), TIFF (first page; also BigTIFF, palettes, CMYK, YCbCr,
/// L*a*b*, 16-bit and floating-point), PBM, PGM and PPM, and with the feature `jpeg-xl` JPEG XL.
///
/// The orientation in EXIF metadata is applied. 16-bit channels are rounded to 8; grey whole numbers
/// of 32 bits are cut to 0 to 255 as Pillow does, and so are floating-point ones unless all are
/// within 0 to 1, which then is black to white. Transparent pixels are laid over white, the
/// background most images with transparency are made for. Four-channel JPEGs are read as Adobe
/// writes them, inverted, as Pillow does.
///
/// # Errors
/// When the bytes are empty, of no format or variant that can be read, damaged, cut short or of too
/// many pixels.
pub fn decode(bytes: &[u8]) -> Result<Image, DecodeError> {
    let mut image = Image::default();
    Decoder::default().decode(bytes, &mut image)?;
    Ok(image)
}

/// Decodes one image after another, with the same working memory.
#[derive(Debug, Default)]
pub struct Decoder {
    jpeg: jpeg::Reader,
}

impl Decoder {
    /// [`decode`] into an existing image, whose memory is reused where possible.
    ///
    /// # Errors
    /// As [`decode`]; the image's contents are then unspecified.
    pub fn decode(&mut self, bytes: &[u8], image: &mut Image) -> Result<(), DecodeError> {
        let whole = |width, height| CropBox { left: 0, top: 0, width, height };
        self.decode_part(bytes, image, whole)
    }

    /// The same where only a part will be looked at: `part` is told width and height of the image
    /// and says which. Pixels elsewhere are then unspecified, while whether an image can be read
    /// does not depend on the part.
    ///
    /// # Errors
    /// As [`decode`]; the image's contents are then unspecified.
    pub fn decode_part(
        &mut self,
        bytes: &[u8],
        image: &mut Image,
        part: impl FnOnce(usize, usize) -> CropBox,
    ) -> Result<(), DecodeError> {
        if bytes.is_empty() {
            return Err(DecodeError::Empty);
        }
        let format = Format::of(bytes)?;
        if format == Format::Jpeg
            && let Some(header) = self.jpeg.read_header(bytes)
            && header.orientation.is_none_or(|turn| turn == Orientation::NoTransforms)
            && check_size(header.width as u64, header.height as u64).is_ok()
        {
            let part = part(header.width, header.height);
            return match self.jpeg.decode(bytes, &header, part, image) {
                Some(()) => Ok(()),
                None => decode_with_library(bytes, format, image),
            };
        }
        decode_with_library(bytes, format, image)?;
        part(image.width, image.height);
        Ok(())
    }
}

fn decode_with_library(bytes: &[u8], format: Format, image: &mut Image) -> Result<(), DecodeError> {
    // Decoders are other people's code fed with other people's files. A panic in one is a damaged
    // image, not the end of a run of several days.
    let decoded = catch_unwind(AssertUnwindSafe(|| match format {
        Format::Jpeg => decode_jpeg(bytes, image),
        Format::Tiff => {
            let orientation = tiff::decode(bytes, image)?;
            orient(image, orientation);
            Ok(())
        }
        Format::Pnm => pnm::decode(bytes, image),
        #[cfg(feature = "jpeg-xl")]
        Format::JpegXl => super::jpeg_xl::decode(bytes, image),
        Format::Png => decode_other(bytes, format, ImageFormat::Png, image),
        Format::WebP => decode_other(bytes, format, ImageFormat::WebP, image),
        Format::Bmp => decode_other(bytes, format, ImageFormat::Bmp, image),
        Format::Gif => decode_other(bytes, format, ImageFormat::Gif, image),
    }));
    decoded.unwrap_or_else(|_| Err(malformed(format, "the decoder panicked")))
}

/// Name of the format of encoded bytes.
///
/// # Errors
/// When it is none that can be read.
pub(super) fn format_name(bytes: &[u8]) -> Result<&'static str, DecodeError> {
    Format::of(bytes).map(Format::name)
}

/// A format that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Jpeg,
    Png,
    WebP,
    Bmp,
    Gif,
    Tiff,
    Pnm,
    #[cfg(feature = "jpeg-xl")]
    JpegXl,
}

impl Format {
    /// The format of a file, by its first bytes: names say little.
    fn of(bytes: &[u8]) -> Result<Format, DecodeError> {
        if bytes.starts_with(b"II+\0") || bytes.starts_with(b"MM\0+") {
            return Ok(Format::Tiff);
        }
        if pnm::is_pnm(bytes) {
            return Ok(Format::Pnm);
        }
        #[cfg(feature = "jpeg-xl")]
        if JPEG_XL.iter().any(|magic| bytes.starts_with(magic)) {
            return Ok(Format::JpegXl);
        }
        match image::guess_format(bytes) {
            Ok(ImageFormat::Jpeg) => Ok(Format::Jpeg),
            Ok(ImageFormat::Png) => Ok(Format::Png),
            Ok(ImageFormat::WebP) => Ok(Format::WebP),
            Ok(ImageFormat::Bmp) => Ok(Format::Bmp),
            Ok(ImageFormat::Gif) => Ok(Format::Gif),
            Ok(ImageFormat::Tiff) => Ok(Format::Tiff),
            _ => Err(other_format(bytes)),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Format::Jpeg => "JPEG",
            Format::Png => "PNG",
            Format::WebP => "WebP",
            Format::Bmp => "BMP",
            Format::Gif => "GIF",
            Format::Tiff => "TIFF",
            Format::Pnm => "PNM",
            #[cfg(feature = "jpeg-xl")]
            Format::JpegXl => "JPEG XL",
        }
    }
}

/// How JPEG XL begins, bare and in a container.
const JPEG_XL: [&[u8]; 2] = [b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"];

/// What else is often found in place of an image.
fn other_format(bytes: &[u8]) -> DecodeError {
    let convert = "convert it";
    let found = |found, remedy| DecodeError::OtherFormat { found, remedy };
    if JPEG_XL.iter().any(|magic| bytes.starts_with(magic)) {
        return found("JPEG XL, which this program was built without", convert);
    }
    // The brand of a file in ISO's container for media.
    match (bytes.get(4..8), bytes.get(8..12)) {
        (Some(b"ftyp"), Some(b"avif" | b"avis")) => return found("an AVIF image", convert),
        (
            Some(b"ftyp"),
            Some(b"heic" | b"heix" | b"hevc" | b"heim" | b"heis" | b"mif1" | b"msf1"),
        ) => {
            return found("a HEIC image", convert);
        }
        (Some(b"ftyp"), _) => return found("a video or another ISO media file", "remove it"),
        (Some(b"jP  "), _) => return found("a JPEG 2000 image", convert),
        _ => {}
    }
    const SIGNATURES: [(&[u8], &str, &str); 11] = [
        (b"\xff\x4f\xff\x51", "a JPEG 2000 image", "convert it"),
        (b"8BPS", "a Photoshop document", "export it"),
        (b"\x76\x2f\x31\x01", "an OpenEXR image", "convert it"),
        (b"#?RADIANCE", "a Radiance HDR image", "convert it"),
        (b"DDS ", "a DDS texture", "convert it"),
        (b"qoif", "a QOI image", "convert it"),
        (b"\0\0\x01\0", "an icon", "convert it"),
        (b"%PDF", "a PDF document", "export its pictures"),
        (b"version https://git-lfs", "a pointer of Git LFS", "fetch the file with `git lfs pull`"),
        (b"PK\x03\x04", "a zip file", "unpack it"),
        (b"\x1f\x8b", "a gzip file", "unpack it"),
    ];
    if let Some(&(_, what, remedy)) = SIGNATURES.iter().find(|(magic, ..)| bytes.starts_with(magic))
    {
        return found(what, remedy);
    }
    let start = bytes[..bytes.len().min(512)].trim_ascii_start().to_ascii_lowercase();
    if start.starts_with(b"<svg") || start.starts_with(b"<?xml") {
        return found("SVG or other XML", "convert it");
    }
    if start.starts_with(b"<!doctype html") || start.starts_with(b"<html") {
        return found("a web page", "download the image again");
    }
    DecodeError::UnknownFormat
}

fn malformed(format: Format, reason: impl ToString) -> DecodeError {
    DecodeError::Malformed { format: format.name(), reason: reason.to_string() }
}

pub(super) fn check_size(width: u64, height: u64) -> Result<(), DecodeError> {
    match width * height {
        0 => Err(DecodeError::Malformed { format: "image", reason: "it has no pixels".to_owned() }),
        1..=MAX_PIXELS => Ok(()),
        _ => Err(DecodeError::TooLarge { width, height }),
    }
}

fn decode_jpeg(bytes: &[u8], image: &mut Image) -> Result<(), DecodeError> {
    if !reaches_end_of_image(bytes) {
        return Err(DecodeError::Truncated);
    }
    let jpeg = |error: zune_jpeg::errors::DecodeErrors| {
        // The decoder quotes its static messages.
        malformed(Format::Jpeg, error.to_string().trim_matches('"'))
    };
    // Not strict: the strict decoder refuses padding and unknown markers that cameras do write.
    // In return it fills what is missing with grey, hence the check above.
    let options = DecoderOptions::default()
        .set_strict_mode(false)
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX))
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(jpeg)?;
    let (width, height) = decoder.dimensions().unwrap_or_default();
    check_size(width as u64, height as u64)?;
    image.width = width;
    image.height = height;
    image.pixels.resize(width * height * 3, 0);
    decoder.decode_into(&mut image.pixels).map_err(jpeg)?;

    let orientation = decoder.exif().and_then(|exif| Orientation::from_exif_chunk(exif));
    orient(image, orientation.unwrap_or(Orientation::NoTransforms));
    Ok(())
}

/// Whether a JPEG's segments and scans lead to an end-of-image marker.
///
/// Searching for the marker's bytes is not enough: a thumbnail in the metadata has one of its own.
fn reaches_end_of_image(bytes: &[u8]) -> bool {
    let mut position = 0;
    let mut scan_seen = false;
    while let Some(marker) = memchr::memchr(0xff, &bytes[position..]) {
        position += marker + 1;
        match bytes.get(position) {
            None => return false,
            // A fill byte; the next may be the marker.
            Some(0xff) => {}
            // An escaped 0xff inside a scan, and the markers without a length.
            Some(0x00 | 0x01 | 0xd0..=0xd8) => position += 1,
            Some(0xd9) => return scan_seen,
            Some(&kind) => {
                scan_seen |= kind == 0xda;
                let Some(length) = bytes.get(position + 1..position + 3) else { return false };
                position += 1 + usize::from(u16::from_be_bytes([length[0], length[1]]));
            }
        }
        if position >= bytes.len() {
            return false;
        }
    }
    false
}

fn decode_other(
    bytes: &[u8],
    format: Format,
    known_as: ImageFormat,
    image: &mut Image,
) -> Result<(), DecodeError> {
    let failed = |error: ImageError| match error {
        ImageError::Unsupported(error) => {
            DecodeError::Unsupported { format: format.name(), reason: error.to_string() }
        }
        error => malformed(format, error),
    };
    let mut reader = ImageReader::with_format(Cursor::new(bytes), known_as);
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_ALLOCATION);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(failed)?;
    let (width, height) = decoder.dimensions();
    check_size(width.into(), height.into())?;
    // Metadata that cannot be read says nothing about the pixels.
    let exif = decoder.exif_metadata().ok().flatten();
    let orientation = match exif {
        Some(exif) => Orientation::from_exif_chunk(&exif),
        None if format == Format::Png => png_text::orientation(bytes),
        None => None,
    };
    let decoded = DynamicImage::from_decoder(decoder).map_err(failed)?;

    let rgb = match decoded.color().has_alpha() {
        true => all_over_white(decoded),
        false => decoded.into_rgb8(),
    };
    image.width = rgb.width() as usize;
    image.height = rgb.height() as usize;
    image.pixels = rgb.into_raw();
    orient(image, orientation.unwrap_or(Orientation::NoTransforms));
    Ok(())
}

/// Composites an image with transparency over white.
fn all_over_white(image: DynamicImage) -> RgbImage {
    let rgba = image.into_rgba8();
    let mut rgb = RgbImage::new(rgba.width(), rgba.height());
    for (to, from) in rgb.pixels_mut().zip(rgba.pixels()) {
        let [red, green, blue, alpha] = from.0;
        to.0 = [red, green, blue].map(|value| over_white(value, alpha));
    }
    rgb
}

/// A channel of a pixel over white.
pub(super) fn over_white(value: u8, alpha: u8) -> u8 {
    let alpha = u32::from(alpha);
    let sum = u32::from(value) * alpha + 255 * (255 - alpha);
    ((sum + 127) / 255) as u8
}

/// Turns and mirrors an image as its metadata asks.
fn orient(image: &mut Image, orientation: Orientation) {
    if orientation == Orientation::NoTransforms {
        return;
    }
    let pixels = std::mem::take(&mut image.pixels);
    // Both sides were checked to fit; the constructor refuses only buffers that are too short.
    if let Some(rgb) = RgbImage::from_raw(image.width as u32, image.height as u32, pixels) {
        let mut turned = DynamicImage::ImageRgb8(rgb);
        turned.apply_orientation(orientation);
        image.width = turned.width() as usize;
        image.height = turned.height() as usize;
        image.pixels = turned.into_bytes();
    }
}
