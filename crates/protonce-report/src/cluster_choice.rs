//! A picture of how many clusters to choose: objective and silhouette against their number.

use image::RgbImage;

use crate::ReportError;
use crate::canvas::{Align, Canvas, Colour, FADED_INK, HAIRLINE, INK, Pen};

const WIDTH: u32 = 900;
const LEFT: f32 = 110.0;
const RIGHT: f32 = 860.0;
const PANEL_HEIGHT: f32 = 220.0;
/// Tops of the two panels.
const TOPS: [f32; 2] = [80.0, 380.0];
const BLUE: Colour = [0, 114, 178];
const VERMILION: Colour = [213, 94, 0];

/// One clustering of the same embeddings.
#[derive(Debug, Clone, Copy)]
pub struct ClusterCount {
    /// Clusters.
    pub clusters: i64,
    /// Mean squared distance to the centroid.
    pub objective: f64,
    /// How much nearer embeddings are to those of their own cluster than to those of the next; none
    /// where there is no other cluster.
    pub silhouette: Option<f64>,
}

/// Which of the numbers.
type Value = fn(&ClusterCount) -> Option<f64>;

/// Draws `choices`, given by growing number of clusters, on a logarithmic axis: the objective always
/// falls, and bends where clusters begin to be cut in two; the silhouette peaks there. Where one has none,
/// there is no dot.
///
/// # Errors
/// [`ReportError::Size`] or [`ReportError::Font`] when nothing can be drawn.
pub fn cluster_choice(choices: &[ClusterCount]) -> Result<RgbImage, ReportError> {
    let mut canvas = Canvas::new(WIDTH, 660)?;
    canvas.text("Number of clusters", (LEFT, 40.0), 26.0, INK, Align::Left);
    let panels: [(&str, Colour, Value); 2] = [
        ("mean squared distance", BLUE, |choice| Some(choice.objective)),
        ("silhouette", VERMILION, |choice| choice.silhouette),
    ];
    for (top, (name, colour, value)) in TOPS.into_iter().zip(panels) {
        draw_panel(&mut canvas, top, name, colour, choices, value);
    }
    Ok(canvas.finish())
}

fn draw_panel(
    canvas: &mut Canvas,
    top: f32,
    name: &str,
    colour: Colour,
    choices: &[ClusterCount],
    value: Value,
) {
    let bounds = |numbers: &mut dyn Iterator<Item = f64>| {
        let (low, high) = numbers
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), n| (low.min(n), high.max(n)));
        // A range of nothing cannot be divided by.
        (low, if high > low { high } else { low + 1.0 })
    };
    let across = bounds(&mut choices.iter().map(|choice| (choice.clusters as f64).ln()));
    let known: Vec<(&ClusterCount, f64)> =
        choices.iter().filter_map(|choice| Some((choice, value(choice)?))).collect();
    canvas.text(name, (LEFT, top - 14.0), 17.0, colour, Align::Left);
    if known.is_empty() {
        canvas.text("none", (LEFT, top + 20.0), 15.0, FADED_INK, Align::Left);
        return;
    }
    let (low, high) = bounds(&mut known.iter().map(|&(_, number)| number));
    let bottom = top + PANEL_HEIGHT;
    let x = |choice: &ClusterCount| {
        let share = ((choice.clusters as f64).ln() - across.0) / (across.1 - across.0);
        LEFT + share as f32 * (RIGHT - LEFT)
    };
    let y = |number: f64| bottom - ((number - low) / (high - low)) as f32 * PANEL_HEIGHT;
    for number in [low, (low + high) / 2.0, high] {
        let pen = Pen { colour: HAIRLINE, width: 1.0 };
        canvas.line(&[(LEFT, y(number)), (RIGHT, y(number))], pen);
        let label = format!("{number:.4}");
        canvas.text(&label, (LEFT - 12.0, y(number) + 5.0), 15.0, FADED_INK, Align::Right);
    }
    let points: Vec<(f32, f32)> =
        known.iter().map(|&(choice, number)| (x(choice), y(number))).collect();
    canvas.line(&points, Pen { colour, width: 3.0 });
    for ((choice, _), &point) in known.iter().zip(&points) {
        canvas.dot(point, 5.0, colour);
        let label = choice.clusters.to_string();
        canvas.text(&label, (point.0, bottom + 26.0), 15.0, FADED_INK, Align::Centre);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_choice_is_a_dot_in_both_panels() {
        let choice = |clusters| ClusterCount {
            clusters,
            objective: 1.0 / clusters as f64,
            silhouette: Some(0.5 - (clusters as f64 - 8.0).abs() / 100.0),
        };
        for choices in [vec![choice(4)], vec![choice(4), choice(8), choice(16)]] {
            let picture = cluster_choice(&choices).unwrap();
            for colour in [BLUE, VERMILION] {
                let drawn = picture.pixels().filter(|pixel| pixel.0 == colour).count();
                assert!(drawn > 40 * choices.len(), "{drawn}");
            }
        }
        for known in [0, 1, 2] {
            let mut choices = [choice(2), choice(4), choice(8)];
            choices[known..].iter_mut().for_each(|choice| choice.silhouette = None);
            let picture = cluster_choice(&choices).unwrap();
            let drawn = picture.pixels().filter(|pixel| pixel.0 == VERMILION).count();
            let only_the_name = cluster_choice(&[]).unwrap();
            let name = only_the_name.pixels().filter(|pixel| pixel.0 == VERMILION).count();
            assert!(drawn >= name + 40 * known && (known > 0 || drawn == name), "{drawn}, {name}");
        }
    }
}
