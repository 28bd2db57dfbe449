//! Images and those nearest to them.

use image::RgbImage;

use crate::ReportError;
use crate::canvas::{Align, Canvas, FADED_INK, INK, Pen};
use crate::thumbnails::{fit, unreadable};

const MARGIN: u32 = 24;
const GAP: u32 = 12;
const TITLE_HEIGHT: u32 = 34;
/// Two lines of text under each image.
const CAPTION_HEIGHT: u32 = 40;
const WRONG: Pen = Pen { colour: [205, 45, 45], width: 3.0 };

/// One image of the picture and what is written under it.
#[derive(Debug)]
pub struct Shown {
    /// Its pixels, of any size; none if it cannot be read.
    pub image: Option<RgbImage>,
    /// Two lines.
    pub caption: [String; 2],
    /// Whether it is framed in red: it is not what the query is.
    pub wrong: bool,
}

/// An image and those nearest to it.
#[derive(Debug)]
pub struct Neighbours {
    /// The image.
    pub query: Shown,
    /// Nearest first.
    pub nearest: Vec<Shown>,
}

/// Draws each query on the left and its neighbours beside it, `columns` in a row at most and `side`
/// pixels each.
///
/// # Errors
/// When a picture of that size cannot be made.
pub fn neighbour_grid(
    title: &str,
    queries: &[Neighbours],
    columns: u32,
    side: u32,
) -> Result<RgbImage, ReportError> {
    let cell = (side.saturating_add(GAP), side.saturating_add(CAPTION_HEIGHT + GAP));
    let most = queries.iter().map(|query| query.nearest.len() as u32).max().unwrap_or(0);
    let columns = columns.min(most).max(1);
    let rows_of = |query: &Neighbours| (query.nearest.len() as u32).div_ceil(columns).max(1);
    let rows = queries.iter().map(rows_of).fold(0, u32::saturating_add);
    // The query has a column of its own, a little apart.
    let apart = MARGIN;
    let width = (2 * MARGIN + apart).saturating_add(cell.0.saturating_mul(columns + 1));
    let height = (2 * MARGIN + TITLE_HEIGHT).saturating_add(cell.1.saturating_mul(rows));
    let mut canvas = Canvas::new(width, height)?;
    let shortened = canvas.fitted(title, 20.0, (width - 2 * MARGIN) as f32);
    canvas.text(&shortened, (MARGIN as f32, (MARGIN + 14) as f32), 20.0, INK, Align::Left);
    let mut top = MARGIN + TITLE_HEIGHT;
    for query in queries {
        draw(&mut canvas, &query.query, side, (MARGIN, top));
        for (number, neighbour) in (0..).zip(&query.nearest) {
            let left = MARGIN + apart + cell.0 * (1 + number % columns);
            draw(&mut canvas, neighbour, side, (left, top + cell.1 * (number / columns)));
        }
        top += cell.1 * rows_of(query);
    }
    Ok(canvas.finish())
}

fn draw(canvas: &mut Canvas, shown: &Shown, side: u32, (left, top): (u32, u32)) {
    let thumbnail = match &shown.image {
        Some(image) => fit(image, side),
        None => unreadable(side),
    };
    canvas.image(&thumbnail, (left, top));
    if shown.wrong {
        let [l, t, r, b] = [left, top, left + side, top + side].map(|edge| edge as f32);
        canvas.line(&[(l, t), (r, t), (r, b), (l, b), (l, t)], WRONG);
    }
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

    fn shown(shade: Option<u8>, wrong: bool) -> Shown {
        Shown {
            image: shade.map(|shade| RgbImage::from_pixel(9, 9, Rgb([shade, 0, 0]))),
            caption: ["cat".to_owned(), "0.93".to_owned()],
            wrong,
        }
    }

    #[test]
    fn every_image_has_its_place_and_a_missing_one_a_box() {
        let first = Neighbours {
            query: shown(Some(60), false),
            nearest: vec![shown(Some(100), false), shown(None, false), shown(Some(140), false)],
        };
        let second = Neighbours { query: shown(Some(80), false), nearest: Vec::new() };
        let picture = neighbour_grid("q.png", &[first, second], 2, 64).unwrap();
        let has = |shade: u8| {
            picture.pixels().filter(|pixel| pixel.0 == [shade, 0, 0]).count() == 64 * 64
        };
        assert!(has(60) && has(100) && has(140) && has(80));
        assert!(picture.pixels().any(|pixel| pixel.0 == [206, 206, 210]));
        assert!(neighbour_grid("nothing", &[], 6, 16).is_ok());
    }

    #[test]
    fn only_what_is_wrong_is_framed() {
        let red = |wrong| {
            let nearest = vec![shown(Some(90), wrong)];
            let row = Neighbours { query: shown(Some(90), false), nearest };
            let picture = neighbour_grid("q", &[row], 6, 64).unwrap();
            picture.pixels().filter(|pixel| pixel[0] > 150 && pixel[1] < 90).count()
        };
        assert_eq!(red(false), 0);
        assert!(red(true) > 400);
    }
}
