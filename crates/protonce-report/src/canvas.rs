//! A picture being drawn: text, lines, dots and images on white.

use ab_glyph::{Font, FontRef, ScaleFont, point};
use image::RgbImage;
use tiny_skia::{Color, LineCap, LineJoin, Paint, PathBuilder, Pixmap, Stroke, Transform};

use crate::ReportError;

/// Red, green and blue, 0 to 255.
pub(crate) type Colour = [u8; 3];

pub(crate) const WHITE: Colour = [255, 255, 255];
pub(crate) const INK: Colour = [28, 28, 30];
pub(crate) const FADED_INK: Colour = [96, 96, 102];
pub(crate) const HAIRLINE: Colour = [222, 222, 226];

/// Which point of a text `x` is.
#[derive(Clone, Copy)]
pub(crate) enum Align {
    Left,
    Centre,
    Right,
}

/// How a line is stroked.
#[derive(Clone, Copy)]
pub(crate) struct Pen {
    pub(crate) colour: Colour,
    /// Pixels.
    pub(crate) width: f32,
}

/// A white picture to draw on. Places and sizes are in pixels, from the top left corner.
pub(crate) struct Canvas {
    // Every pixel stays opaque, so premultiplied and plain colours are the same thing.
    pixels: Pixmap,
    font: FontRef<'static>,
}

impl Canvas {
    pub(crate) fn new(width: u32, height: u32) -> Result<Canvas, ReportError> {
        let mut pixels = Pixmap::new(width, height).ok_or(ReportError::Size { width, height })?;
        pixels.fill(Color::WHITE);
        let font = FontRef::try_from_slice(epaint_default_fonts::UBUNTU_LIGHT)
            .map_err(|_| ReportError::Font)?;
        Ok(Canvas { pixels, font })
    }

    /// The finished picture.
    pub(crate) fn finish(self) -> RgbImage {
        let (width, height) = (self.pixels.width(), self.pixels.height());
        RgbImage::from_fn(width, height, |x, y| {
            let pixel = self.pixels.pixel(x, y);
            image::Rgb(pixel.map_or(WHITE, |pixel| [pixel.red(), pixel.green(), pixel.blue()]))
        })
    }

    /// How many pixels `text` takes across.
    pub(crate) fn text_width(&self, text: &str, size: f32) -> f32 {
        let font = self.font.as_scaled(size);
        let mut previous = None;
        let mut width = 0.0;
        for glyph in text.chars().map(|character| font.glyph_id(character)) {
            width += previous.map_or(0.0, |previous| font.kern(previous, glyph));
            width += font.h_advance(glyph);
            previous = Some(glyph);
        }
        width
    }

    /// `text`, or its beginning and an ellipsis where it is wider than `width` pixels.
    pub(crate) fn fitted(&self, text: &str, size: f32, width: f32) -> String {
        if self.text_width(text, size) <= width {
            return text.to_owned();
        }
        let mut kept = text.to_owned();
        while kept.pop().is_some() {
            let shortened = format!("{}…", kept.trim_end());
            if self.text_width(&shortened, size) <= width {
                return shortened;
            }
        }
        String::new()
    }

    /// Writes one line of text; `y` is its baseline.
    pub(crate) fn text(
        &mut self,
        text: &str,
        (x, y): (f32, f32),
        size: f32,
        colour: Colour,
        align: Align,
    ) {
        let mut x = match align {
            Align::Left => x,
            Align::Centre => x - self.text_width(text, size) / 2.0,
            Align::Right => x - self.text_width(text, size),
        };
        let font = self.font.as_scaled(size);
        let mut previous = None;
        let (width, height) = (self.pixels.width() as i32, self.pixels.height() as i32);
        for character in text.chars() {
            let glyph = font.glyph_id(character);
            x += previous.map_or(0.0, |previous| font.kern(previous, glyph));
            let placed = glyph.with_scale_and_position(size, point(x, y));
            if let Some(outline) = font.outline_glyph(placed) {
                let corner = outline.px_bounds().min;
                let data = self.pixels.data_mut();
                outline.draw(|across, down, coverage| {
                    let (column, row) =
                        (corner.x as i32 + across as i32, corner.y as i32 + down as i32);
                    if (0..width).contains(&column) && (0..height).contains(&row) {
                        let start = (row * width + column) as usize * 4;
                        // A light face, thinned further by black on white: lift the edges.
                        let share = coverage.clamp(0.0, 1.0).powf(0.7);
                        for (pixel, ink) in data[start..start + 3].iter_mut().zip(colour) {
                            let mixed = f32::from(*pixel) * (1.0 - share) + f32::from(ink) * share;
                            *pixel = mixed.round() as u8;
                        }
                    }
                });
            }
            x += font.h_advance(glyph);
            previous = Some(glyph);
        }
    }

    /// Joins points by straight lines; a single point becomes a dot.
    pub(crate) fn line(&mut self, points: &[(f32, f32)], pen: Pen) {
        let Some((&first, rest)) = points.split_first() else { return };
        if rest.is_empty() {
            self.dot(first, pen.width, pen.colour);
            return;
        }
        let mut path = PathBuilder::new();
        path.move_to(first.0, first.1);
        for &(x, y) in rest {
            path.line_to(x, y);
        }
        let stroke = Stroke {
            width: pen.width,
            line_cap: LineCap::Round,
            line_join: LineJoin::Round,
            ..Stroke::default()
        };
        if let Some(path) = path.finish() {
            let identity = Transform::identity();
            self.pixels.stroke_path(&path, &paint(pen.colour), &stroke, identity, None);
        }
    }

    /// Fills a circle.
    pub(crate) fn dot(&mut self, (x, y): (f32, f32), radius: f32, colour: Colour) {
        if let Some(circle) = PathBuilder::from_circle(x, y, radius) {
            self.pixels.fill_path(
                &circle,
                &paint(colour),
                tiny_skia::FillRule::Winding,
                Transform::identity(),
                None,
            );
        }
    }

    /// Copies an image with its top left corner at `(x, y)`; what hangs over the edge is cut.
    pub(crate) fn image(&mut self, image: &RgbImage, (x, y): (u32, u32)) {
        let (width, height) = (self.pixels.width(), self.pixels.height());
        let data = self.pixels.data_mut();
        for (across, down, pixel) in image.enumerate_pixels() {
            let (column, row) = (x + across, y + down);
            if column < width && row < height {
                let start = (row as usize * width as usize + column as usize) * 4;
                data[start..start + 3].copy_from_slice(&pixel.0);
            }
        }
    }
}

fn paint([red, green, blue]: Colour) -> Paint<'static> {
    let mut paint = Paint::default();
    paint.set_color_rgba8(red, green, blue, 255);
    paint.anti_alias = true;
    paint
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ink(picture: &RgbImage) -> usize {
        picture.pixels().filter(|pixel| pixel.0 != WHITE).count()
    }

    #[test]
    fn the_built_in_font_has_every_sign_the_pictures_use() {
        let canvas = Canvas::new(1, 1).unwrap();
        for character in "φ%…·–×0123456789.,=()".chars() {
            assert_ne!(canvas.font.glyph_id(character).0, 0, "no glyph for {character}");
        }
    }

    #[test]
    fn text_marks_pixels_only_beside_its_anchor() {
        let mut canvas = Canvas::new(200, 40).unwrap();
        canvas.text("prototypes", (100.0, 25.0), 15.0, INK, Align::Right);
        let picture = canvas.finish();
        assert!(ink(&picture) > 100);
        assert!(picture.enumerate_pixels().all(|(x, _, pixel)| x <= 101 || pixel.0 == WHITE));
    }

    #[test]
    fn text_beyond_the_edge_is_cut_not_fatal() {
        let mut canvas = Canvas::new(20, 20).unwrap();
        canvas.text("far too long for this", (-30.0, 4.0), 30.0, INK, Align::Left);
        canvas.image(&RgbImage::new(50, 50), (10, 10));
        assert!(ink(&canvas.finish()) > 100);
    }

    #[test]
    fn long_text_is_shortened_to_fit() {
        let canvas = Canvas::new(1, 1).unwrap();
        let short = canvas.fitted("musical-instrument", 15.0, 60.0);
        assert!(short.starts_with("mus") && short.ends_with('…'), "{short}");
        assert!(canvas.text_width(&short, 15.0) <= 60.0);
        assert_eq!(canvas.fitted("fits", 15.0, 60.0), "fits");
    }

    #[test]
    fn a_size_that_cannot_be_is_an_error() {
        assert!(matches!(Canvas::new(0, 5), Err(ReportError::Size { .. })));
    }
}
