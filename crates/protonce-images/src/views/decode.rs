//! Encoded bytes → 8-bit RGB pixels.
//!
//! Plain JPEGs, which nearly all are, have their own reader ([`super::jpeg`]: twice as fast, and to
//! the pixels of libjpeg). Other JPEGs go to `zune-jpeg`, other formats through `image`; pixels
//! that were stored as they are (binary PPM, which packed files use) need no decoder.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage};
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

use super::{CropBox, jpeg};

/// Most pixels an image may have: a file of a few bytes can claim billions.
pub const MAX_PIXELS: u64 = 1 << 27;

/// Most bytes a decoder other than JPEG's may ask for.
const MAX_ALLOCATION: u64 = 512 << 20;

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
    #[error(
        "not an image that can be read: expected JPEG, PNG, WebP, BMP, GIF or TIFF; convert it"
    )]
    UnknownFormat,
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
    /// Damaged, or a variant of the format that is not supported.
    #[error("the {format} cannot be decoded ({reason}): expected an undamaged file; save it again")]
    Malformed {
        /// Name of the format.
        format: &'static str,
        /// What the decoder said.
        reason: String,
    },
}

/// Decodes JPEG (grey, RGB, CMYK and YCCK, baseline and progressive), PNG (also 16-bit and
/// palette), WebP, BMP, GIF (first frame) or TIFF.
///
/// The orientation in EXIF metadata is applied. 16-bit channels are rounded to 8. Transparent
/// pixels are laid over white, the background most images with transparency are made for.
/// Four-channel JPEGs are read as Adobe writes them, inverted, as Pillow does.
///
/// # Errors
/// When the bytes are empty, of no known format, damaged, cut short or of too many pixels.
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
        if bytes.starts_with(PIXELS) {
            read_pixels(bytes, image)?;
            part(image.width, image.height);
            return Ok(());
        }
        let format = guess_format(bytes)?;
        if format == ImageFormat::Jpeg
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

fn decode_with_library(
    bytes: &[u8],
    format: ImageFormat,
    image: &mut Image,
) -> Result<(), DecodeError> {
    // Decoders are other people's code fed with other people's files. A panic in one is a damaged
    // image, not the end of a run of several days.
    let decoded = catch_unwind(AssertUnwindSafe(|| match format {
        ImageFormat::Jpeg => decode_jpeg(bytes, image),
        _ => decode_other(bytes, format, image),
    }));
    decoded.unwrap_or_else(|_| Err(malformed(format, "the decoder panicked")))
}

/// How pixels that are stored as they are begin: a binary PPM, in the one spelling that
/// [`write_pixels`] has.
const PIXELS: &[u8] = b"P6\n";

/// Appends an image as it is: width, height, then its pixels.
pub(super) fn write_pixels(image: &Image, bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(PIXELS);
    bytes.extend_from_slice(format!("{} {}\n255\n", image.width, image.height).as_bytes());
    bytes.extend_from_slice(&image.pixels);
}

fn read_pixels(bytes: &[u8], image: &mut Image) -> Result<(), DecodeError> {
    let malformed =
        |reason: &str| DecodeError::Malformed { format: "PPM", reason: reason.to_owned() };
    let mut lines = bytes[PIXELS.len()..].splitn(3, |&byte| byte == b'\n');
    let (size, depth, pixels) = (lines.next(), lines.next(), lines.next());
    let size = size.and_then(|size| std::str::from_utf8(size).ok()?.split_once(' '));
    let number = |text: &str| text.parse::<u32>().ok().map(u64::from);
    let size = size.and_then(|(width, height)| number(width).zip(number(height)));
    let (Some((width, height)), Some(b"255"), Some(pixels)) = (size, depth, pixels) else {
        return Err(malformed("expected a width, a height and 255"));
    };
    check_size(width, height)?;
    if pixels.len() as u64 != width * height * 3 {
        return Err(malformed("the number of pixels is not width times height"));
    }
    image.width = width as usize;
    image.height = height as usize;
    image.pixels.clear();
    image.pixels.extend_from_slice(pixels);
    Ok(())
}

/// Name of the format of encoded bytes.
///
/// # Errors
/// When it is none that can be read.
pub(super) fn format_name(bytes: &[u8]) -> Result<&'static str, DecodeError> {
    match bytes.starts_with(PIXELS) {
        true => Ok("PPM"),
        false => guess_format(bytes).map(name),
    }
}

fn guess_format(bytes: &[u8]) -> Result<ImageFormat, DecodeError> {
    match image::guess_format(bytes) {
        Ok(format) if format.reading_enabled() => Ok(format),
        _ => Err(DecodeError::UnknownFormat),
    }
}

fn name(format: ImageFormat) -> &'static str {
    match format {
        ImageFormat::Jpeg => "JPEG",
        ImageFormat::Png => "PNG",
        ImageFormat::WebP => "WebP",
        ImageFormat::Bmp => "BMP",
        ImageFormat::Gif => "GIF",
        ImageFormat::Tiff => "TIFF",
        _ => "image",
    }
}

fn malformed(format: ImageFormat, reason: impl ToString) -> DecodeError {
    DecodeError::Malformed { format: name(format), reason: reason.to_string() }
}

fn check_size(width: u64, height: u64) -> Result<(), DecodeError> {
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
        malformed(ImageFormat::Jpeg, error.to_string().trim_matches('"'))
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

fn decode_other(bytes: &[u8], format: ImageFormat, image: &mut Image) -> Result<(), DecodeError> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_ALLOCATION);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(|error| malformed(format, error))?;
    let (width, height) = decoder.dimensions();
    check_size(width.into(), height.into())?;
    // Metadata that cannot be read says nothing about the pixels.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let decoded = DynamicImage::from_decoder(decoder).map_err(|error| malformed(format, error))?;

    let rgb = match decoded.color().has_alpha() {
        true => over_white(decoded),
        false => decoded.into_rgb8(),
    };
    image.width = rgb.width() as usize;
    image.height = rgb.height() as usize;
    image.pixels = rgb.into_raw();
    orient(image, orientation);
    Ok(())
}

/// Composites an image with transparency over white.
fn over_white(image: DynamicImage) -> RgbImage {
    let rgba = image.into_rgba8();
    let mut rgb = RgbImage::new(rgba.width(), rgba.height());
    for (to, from) in rgb.pixels_mut().zip(rgba.pixels()) {
        let [red, green, blue, alpha] = from.0;
        let alpha = u32::from(alpha);
        let over = |value: u8| {
            let sum = u32::from(value) * alpha + 255 * (255 - alpha);
            ((sum + 127) / 255) as u8
        };
        to.0 = [over(red), over(green), over(blue)];
    }
    rgb
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
