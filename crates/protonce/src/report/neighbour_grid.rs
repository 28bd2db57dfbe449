//! Queries with their nearest images, one row a query.

use image::RgbImage;

use super::ReportError;
use super::canvas::{Align, Canvas, FADED_INK, INK, Pen};
use super::prototype_grid::fit;

/// A query and what was found.
#[derive(Debug)]
pub struct Retrieved {
    /// The query and the name of its class.
    pub query: (RgbImage, String),
    /// The images found, the most similar first, with their cosine similarities and whether they are of
    /// the query's class.
    pub neighbours: Vec<(RgbImage, f64, bool)>,
}

/// Draws each query to the left of its neighbours. A neighbour of another class is framed in red.
///
/// # Errors
/// When there is nothing to draw, or too much for one picture.
pub fn neighbour_grid(rows: &[Retrieved]) -> Result<RgbImage, ReportError> {
    const TILE: u32 = 72;
    const GAP: u32 = 6;
    const MARGIN: u32 = 24;
    const TOP: u32 = 58;
    const ROW: u32 = TILE + 22;
    const WRONG: Pen = Pen { colour: [205, 45, 45], width: 3.0, dashed: false };
    let columns = rows.iter().map(|row| row.neighbours.len() as u32).max().unwrap_or(0);
    let first = MARGIN + TILE + 4 * GAP;
    let width = first + columns * (TILE + GAP) + MARGIN;
    let height = TOP + rows.len() as u32 * ROW + MARGIN / 2;
    let mut canvas = Canvas::new(width, height)?;
    canvas.text("query", (MARGIN as f32, 40.0), 15.0, INK, Align::Left);
    let heading = "nearest images and their similarity; framed: of another class";
    canvas.text(heading, (first as f32, 40.0), 15.0, INK, Align::Left);
    for (number, row) in rows.iter().enumerate() {
        let top = TOP + number as u32 * ROW;
        let caption = (top + TILE + 14) as f32;
        let (query, class) = &row.query;
        canvas.image(&fit(query, TILE), (MARGIN, top));
        let name = canvas.fitted(class, 12.0, (TILE + 3 * GAP) as f32);
        canvas.text(&name, (MARGIN as f32, caption), 12.0, INK, Align::Left);
        for (column, (image, similarity, same)) in row.neighbours.iter().enumerate() {
            let left = first + column as u32 * (TILE + GAP);
            canvas.image(&fit(image, TILE), (left, top));
            if !same {
                let (l, t) = (left as f32, top as f32);
                let (r, b) = (l + TILE as f32, t + TILE as f32);
                canvas.line(&[(l, t), (r, t), (r, b), (l, b), (l, t)], WRONG);
            }
            let middle = left as f32 + TILE as f32 / 2.0;
            let text = format!("{similarity:.2}");
            canvas.text(&text, (middle, caption), 12.0, FADED_INK, Align::Centre);
        }
    }
    Ok(canvas.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_image_of_another_class_is_framed() {
        let grey = || RgbImage::from_pixel(9, 9, image::Rgb([90, 90, 90]));
        let row = |same| Retrieved {
            query: (grey(), "ship".to_owned()),
            neighbours: vec![(grey(), 0.5, same)],
        };
        let red = |picture: &RgbImage| {
            picture.pixels().filter(|pixel| pixel[0] > 150 && pixel[1] < 90).count()
        };
        assert_eq!(red(&neighbour_grid(&[row(true)]).unwrap()), 0);
        assert!(red(&neighbour_grid(&[row(true), row(false)]).unwrap()) > 400);
        assert!(neighbour_grid(&[]).is_ok());
    }
}
