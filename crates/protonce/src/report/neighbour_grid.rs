//! An image and those nearest to it.

use image::RgbImage;

use super::ReportError;
use super::canvas::{Align, Canvas, FADED_INK, INK};
use super::prototype_grid::{fit, unreadable};

const MARGIN: u32 = 24;
const GAP: u32 = 12;
const TITLE_HEIGHT: u32 = 34;
/// Two lines of text under each image.
const CAPTION_HEIGHT: u32 = 40;
const COLUMNS: u32 = 6;

/// One image of the picture and what is written under it.
pub struct Shown {
    /// Its pixels, of any size; none if it cannot be read.
    pub image: Option<RgbImage>,
    /// Two lines.
    pub caption: [String; 2],
}

/// Draws `query` on the left and `neighbours` beside it, nearest first, `side` pixels each.
///
/// # Errors
/// When a picture of that size cannot be made.
pub fn neighbour_grid(
    title: &str,
    query: &Shown,
    neighbours: &[Shown],
    side: u32,
) -> Result<RgbImage, ReportError> {
    let cell = (side.saturating_add(GAP), side.saturating_add(CAPTION_HEIGHT + GAP));
    let columns = COLUMNS.min(neighbours.len().max(1) as u32);
    let rows = (neighbours.len() as u32).div_ceil(columns).max(1);
    // The query has a column of its own, a little apart.
    let apart = MARGIN;
    let width = (2 * MARGIN + apart).saturating_add(cell.0.saturating_mul(columns + 1));
    let height = (2 * MARGIN + TITLE_HEIGHT).saturating_add(cell.1.saturating_mul(rows));
    let mut canvas = Canvas::new(width, height)?;
    let top = MARGIN + TITLE_HEIGHT;
    let shortened = canvas.fitted(title, 20.0, (width - 2 * MARGIN) as f32);
    canvas.text(&shortened, (MARGIN as f32, (MARGIN + 14) as f32), 20.0, INK, Align::Left);
    draw(&mut canvas, query, side, (MARGIN, top));
    for (number, neighbour) in (0..).zip(neighbours) {
        let left = MARGIN + apart + cell.0 * (1 + number % columns);
        draw(&mut canvas, neighbour, side, (left, top + cell.1 * (number / columns)));
    }
    Ok(canvas.finish())
}

fn draw(canvas: &mut Canvas, shown: &Shown, side: u32, (left, top): (u32, u32)) {
    let thumbnail = match &shown.image {
        Some(image) => fit(image, side),
        None => unreadable(side),
    };
    canvas.image(&thumbnail, (left, top));
    let baseline = (top + side) as f32;
    for (text, down, ink) in [(&shown.caption[0], 16.0, INK), (&shown.caption[1], 33.0, FADED_INK)]
    {
        let text = canvas.fitted(text, 14.0, side as f32);
        canvas.text(&text, (left as f32, baseline + down), 14.0, ink, Align::Left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;

    #[test]
    fn every_image_has_its_place_and_a_missing_one_a_box() {
        let shown = |shade: Option<u8>| Shown {
            image: shade.map(|shade| RgbImage::from_pixel(9, 9, Rgb([shade, 0, 0]))),
            caption: ["cat".to_owned(), "0.93".to_owned()],
        };
        let neighbours = [shown(Some(100)), shown(None), shown(Some(140))];
        let picture = neighbour_grid("q.png", &shown(Some(60)), &neighbours, 64).unwrap();
        let has = |shade: u8| {
            picture.pixels().filter(|pixel| pixel.0 == [shade, 0, 0]).count() == 64 * 64
        };
        assert!(has(60) && has(100) && has(140));
        assert!(picture.pixels().any(|pixel| pixel.0 == [206, 206, 210]));
        assert!(neighbour_grid("q", &shown(None), &[], 16).is_ok());
    }
}
