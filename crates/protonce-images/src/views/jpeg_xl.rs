//! JPEG XL → 8-bit RGB pixels.

use jxl_oxide::{AllocTracker, EnumColourEncoding, JxlImage, RenderingIntent};

use super::decode::{DecodeError, Image, MAX_ALLOCATION, check_size, over_white};

/// Decodes the first frame, turned as the file asks and with its colours as sRGB.
pub(super) fn decode(bytes: &[u8], image: &mut Image) -> Result<(), DecodeError> {
    let malformed =
        |reason: &str| DecodeError::Malformed { format: "JPEG XL", reason: reason.to_owned() };
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| malformed(&error.to_string());
    let limit = AllocTracker::with_limit(MAX_ALLOCATION as usize);
    let mut decoder = JxlImage::builder().alloc_tracker(limit).read(bytes).map_err(failed)?;
    check_size(decoder.width().into(), decoder.height().into())?;
    if decoder.pixel_format().has_black() {
        let reason = "CMYK".to_owned();
        return Err(DecodeError::Unsupported { format: "JPEG XL", reason });
    }
    decoder.request_color_encoding(EnumColourEncoding::srgb(RenderingIntent::Relative));
    if decoder.num_loaded_keyframes() == 0 {
        return Err(malformed("it is cut short"));
    }
    let frame = decoder.render_frame(0).map_err(failed)?;
    let mut stream = frame.stream();
    let (width, height) = (stream.width() as usize, stream.height() as usize);
    let channels = stream.channels() as usize;
    let mut samples = vec![0u8; width * height * channels];
    stream.write_to_buffer(&mut samples);
    let colors = match channels {
        1 | 2 => [0, 0, 0],
        _ => [0, 1, 2],
    };
    let alpha = matches!(channels, 2 | 4).then_some(channels - 1);
    image.width = width;
    image.height = height;
    image.pixels.clear();
    for pixel in samples.chunks_exact(channels) {
        let color = colors.map(|channel| pixel[channel]);
        image.pixels.extend(match alpha {
            Some(alpha) => color.map(|value| over_white(value, pixel[alpha])),
            None => color,
        });
    }
    Ok(())
}
