//! How training went: losses over time and, where it was measured, kNN accuracy.

use std::path::Path;

use image::RgbImage;

use super::ReportError;
use super::canvas::{Align, Canvas, Colour, FADED_INK, HAIRLINE, INK, Pen};
use super::events::{History, Losses};

const WIDTH: u32 = 1000;
const LEFT: f32 = 74.0;
/// Leaves room for the names at the ends of the lines.
const RIGHT: f32 = 830.0;
const LOSS_TOP: f32 = 104.0;
const LOSS_HEIGHT: f32 = 360.0;
const KNN_TOP: f32 = 584.0;
const KNN_HEIGHT: f32 = 200.0;
/// Below a panel: its ticks and the name of its axis.
const FOOT: f32 = 64.0;

// From Okabe and Ito's set, told apart under every common colour blindness; total and prototype
// loss differ in stroke as well.
const BLUE: Colour = [0, 114, 178];
const VERMILION: Colour = [213, 94, 0];
const GREEN: Colour = [0, 128, 96];
const PURPLE: Colour = [170, 80, 140];

/// Smoothing takes in this many stretches of steps on either side.
const REACH: usize = 4;

/// A stretch of points without a gap: (time, value).
type Segment = Vec<(f64, f64)>;

/// Which of the losses.
type Loss = fn(&Losses) -> f64;

struct Series {
    name: String,
    pen: Pen,
    /// Mean over short stretches of steps, drawn pale.
    raw: Vec<Segment>,
    /// `raw` without its noise, drawn strong.
    smooth: Vec<Segment>,
}

/// Draws a run's log `events.jsonl`: total, instance and prototype loss over epochs and, when
/// the run evaluated itself, top-1 kNN accuracy below.
///
/// Each loss is drawn twice: pale, the mean over stretches of steps (1/400 of the run), and
/// strong, smoothed over nine such stretches. Smoothing stops at the first expectation step,
/// where the prototype terms join the total.
///
/// Epochs count from 0 in the log; the axis shows epochs finished. Lines torn by a kill and
/// events of other kinds are passed over; steps whose loss is not a finite number leave a gap, and
/// a line of text says how many there were.
///
/// # Errors
///
/// [`ReportError::Read`] when the log cannot be read; [`ReportError::NoSteps`] when it has no step
/// and no epoch yet; [`ReportError::NoFiniteLoss`] when no loss in it is a number.
pub fn loss_curve(events: &Path) -> Result<RgbImage, ReportError> {
    let history = History::read(events)?;
    let losses = loss_series(&history.losses);
    if losses.iter().all(|series| series.smooth.is_empty()) {
        let (path, steps) = (events.to_owned(), history.losses.len());
        return Err(ReportError::NoFiniteLoss { path, steps });
    }
    let knn = knn_series(&history);
    let bottom = if knn.is_empty() { LOSS_TOP + LOSS_HEIGHT } else { KNN_TOP + KNN_HEIGHT };
    let mut canvas = Canvas::new(WIDTH, (bottom + FOOT) as u32)?;

    let times = history.losses.iter().map(|losses| losses.time);
    let evaluated = knn.iter().flat_map(|series| series.smooth.iter().flatten()).map(|at| at.0);
    let end = times.chain(evaluated).fold(0.0, f64::max);
    let start = history.losses.first().map_or(0.0, |losses| (losses.time - 1e-9).floor().max(0.0));
    // A run resumed from elsewhere may be a single moment long.
    let time = (start, if end > start { end } else { start + 1.0 });

    draw_title(&mut canvas, &history.losses);
    let (low, high) = range(&losses);
    let space = 0.06 * (high - low).max(1e-3);
    let panel = Panel {
        top: LOSS_TOP,
        height: LOSS_HEIGHT,
        time,
        value: (low - space, high + space),
        percent: false,
    };
    panel.draw_axes(&mut canvas, "loss");
    draw_first_expectation(&mut canvas, &panel, &history.losses);
    panel.draw_series(&mut canvas, &losses);

    if !knn.is_empty() {
        let (low, high) = range(&knn);
        let space = 0.15 * (high - low).max(0.02);
        let value = ((low - space).max(0.0), (high + space).min(1.0));
        let panel = Panel { top: KNN_TOP, height: KNN_HEIGHT, time, value, percent: true };
        panel.draw_axes(&mut canvas, "kNN top-1 accuracy");
        panel.draw_series(&mut canvas, &knn);
    }
    Ok(canvas.finish())
}

fn loss_series(losses: &[Losses]) -> Vec<Series> {
    let pen = |colour, dashed| Pen { colour, width: 2.5, dashed };
    let kinds: [(&str, Pen, Loss); 3] = [
        ("total", pen(INK, false), |losses| losses.total),
        ("instance", pen(BLUE, false), |losses| losses.instance),
        ("prototype", pen(VERMILION, true), |losses| losses.prototype),
    ];
    let mut series: Vec<Series> = kinds
        .into_iter()
        .map(|(name, pen, value)| {
            let raw = binned(losses, value);
            let smooth = raw.iter().map(|segment| smoothed(segment, REACH)).collect();
            Series { name: name.to_owned(), pen, raw, smooth }
        })
        .filter(|series| !series.smooth.is_empty())
        .collect();
    // Without prototypes the total *is* the instance loss; one line says it better than two.
    if series.iter().all(|series| series.name != "prototype")
        && series.iter().any(|series| series.name == "total")
    {
        series.retain(|series| series.name != "instance");
    }
    series
}

fn knn_series(history: &History) -> Vec<Series> {
    let colours = [GREEN, PURPLE, BLUE, VERMILION, INK];
    history
        .knn
        .iter()
        .zip(colours.into_iter().cycle())
        .enumerate()
        .map(|(place, ((neighbours, points), colour))| Series {
            name: format!("k = {neighbours}"),
            pen: Pen { colour, width: 2.5, dashed: place % 2 == 1 },
            raw: Vec::new(),
            smooth: vec![points.clone()],
        })
        .collect()
}

/// Means over 1/400 of the steps at a time, in segments that end where the loss is no finite
/// number and where the prototype terms come or go.
fn binned(losses: &[Losses], value: Loss) -> Vec<Segment> {
    let size = losses.len().div_ceil(400).max(1);
    losses
        .chunk_by(|a, b| {
            a.prototype.is_finite() == b.prototype.is_finite()
                && value(a).is_finite() == value(b).is_finite()
        })
        .filter(|stretch| stretch.first().is_some_and(|losses| value(losses).is_finite()))
        .map(|stretch| {
            let mean = |bin: &[Losses]| {
                let count = bin.len() as f64;
                let time = bin.iter().map(|losses| losses.time).sum::<f64>() / count;
                (time, bin.iter().map(value).sum::<f64>() / count)
            };
            stretch.chunks(size).map(mean).collect()
        })
        .collect()
}

/// Each point on the straight line fitted to it and up to `reach` neighbours on either side.
///
/// Within the segment that is their mean. At its ends, where one side is missing, a mean would
/// pull a falling line inwards, and fewer neighbours would make a hook of the last few steps.
fn smoothed(segment: &Segment, reach: usize) -> Segment {
    let fitted = |(place, &(time, _)): (usize, &(f64, f64))| {
        let window = &segment[place.saturating_sub(reach)..segment.len().min(place + reach + 1)];
        let count = window.len() as f64;
        let mean_time = window.iter().map(|point| point.0).sum::<f64>() / count;
        let mean = window.iter().map(|point| point.1).sum::<f64>() / count;
        let spread: f64 = window.iter().map(|point| (point.0 - mean_time).powi(2)).sum();
        let joint: f64 = window.iter().map(|point| (point.0 - mean_time) * (point.1 - mean)).sum();
        let slope = if spread > 0.0 { joint / spread } else { 0.0 };
        (time, mean + slope * (time - mean_time))
    };
    segment.iter().enumerate().map(fitted).collect()
}

/// Least and greatest value of what is drawn.
fn range(series: &[Series]) -> (f64, f64) {
    let segments = series.iter().flat_map(|series| series.raw.iter().chain(&series.smooth));
    segments.flatten().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &(_, value)| {
        (low.min(value), high.max(value))
    })
}

fn draw_title(canvas: &mut Canvas, losses: &[Losses]) {
    canvas.text("Training", (24.0, 42.0), 22.0, INK, Align::Left);
    let broken = losses.iter().filter(|losses| !losses.total.is_finite()).count();
    if broken == 0 {
        let legend = "pale: as logged · strong: smoothed";
        canvas.text(legend, (24.0, 64.0), 14.0, FADED_INK, Align::Left);
    } else {
        let steps = if broken == 1 { "1 step" } else { &format!("{broken} steps") };
        let warning = format!("{steps} without a finite loss: gaps in the line");
        canvas.text(&warning, (24.0, 64.0), 14.0, VERMILION, Align::Left);
    }
}

/// Marks where the prototype terms join the total, which makes it jump.
fn draw_first_expectation(canvas: &mut Canvas, panel: &Panel, losses: &[Losses]) {
    let Some(first) = losses.iter().position(|losses| losses.prototype.is_finite()) else { return };
    let Some(before) = first.checked_sub(1).map(|before| losses[before]) else { return };
    let x = panel.x(before.time);
    let (top, bottom) = (panel.top, panel.top + panel.height);
    canvas.line(&[(x, top), (x, bottom)], Pen { colour: FADED_INK, width: 1.0, dashed: true });
    let text = "prototypes join";
    let (at, align) = if x + canvas.text_width(text, 14.0) + 12.0 < RIGHT {
        (x + 6.0, Align::Left)
    } else {
        (x - 6.0, Align::Right)
    };
    canvas.text(text, (at, top + 14.0), 14.0, FADED_INK, align);
}

/// A pair of axes.
struct Panel {
    top: f32,
    height: f32,
    /// Epochs at the left and right end.
    time: (f64, f64),
    /// Values at the bottom and the top.
    value: (f64, f64),
    percent: bool,
}

impl Panel {
    fn x(&self, time: f64) -> f32 {
        let share = (time - self.time.0) / (self.time.1 - self.time.0);
        LEFT + share as f32 * (RIGHT - LEFT)
    }

    fn y(&self, value: f64) -> f32 {
        let share = (value - self.value.0) / (self.value.1 - self.value.0);
        self.top + (1.0 - share as f32) * self.height
    }

    fn draw_axes(&self, canvas: &mut Canvas, name: &str) {
        let thin = Pen { colour: HAIRLINE, width: 1.0, dashed: false };
        let bottom = self.top + self.height;
        canvas.text(name, (24.0, self.top - 14.0), 15.0, INK, Align::Left);

        let step = nice_step(self.value, 5.0);
        for value in ticks(self.value, step) {
            // On the half pixel a thin line is one sharp row.
            let y = self.y(value).floor() + 0.5;
            canvas.line(&[(LEFT, y), (RIGHT, y)], thin);
            let text = if self.percent {
                format!("{:.*} %", decimals(step * 100.0), value * 100.0)
            } else {
                format!("{value:.*}", decimals(step))
            };
            canvas.text(&text, (LEFT - 10.0, y + 5.0), 14.0, FADED_INK, Align::Right);
        }

        let strong = Pen { colour: FADED_INK, ..thin };
        let axis = bottom.floor() + 0.5;
        canvas.line(&[(LEFT, axis), (RIGHT, axis)], strong);
        let step = nice_step(self.time, 8.0).max(1.0);
        for time in ticks(self.time, step) {
            let x = self.x(time).floor() + 0.5;
            canvas.line(&[(x, axis), (x, axis + 5.0)], strong);
            canvas.text(&format!("{time:.0}"), (x, axis + 22.0), 14.0, FADED_INK, Align::Centre);
        }
        let middle = (LEFT + RIGHT) / 2.0;
        canvas.text("epochs", (middle, axis + 44.0), 14.0, FADED_INK, Align::Centre);
    }

    fn draw_series(&self, canvas: &mut Canvas, series: &[Series]) {
        let place = |segment: &Segment| -> Vec<(f32, f32)> {
            segment.iter().map(|&(time, value)| (self.x(time), self.y(value))).collect()
        };
        for series in series {
            let pen = Pen { colour: paler(series.pen.colour), width: 1.0, dashed: false };
            for segment in &series.raw {
                canvas.line(&place(segment), pen);
            }
        }
        // The total last, on top of its parts.
        for series in series.iter().rev() {
            for segment in &series.smooth {
                canvas.line(&place(segment), series.pen);
                if self.percent {
                    for point in place(segment) {
                        canvas.dot(point, 3.5, series.pen.colour);
                    }
                }
            }
        }
        self.name_series(canvas, series);
    }

    /// Names each line where it ends, with its last value; names too close are moved apart.
    fn name_series(&self, canvas: &mut Canvas, series: &[Series]) {
        const LINE: f32 = 21.0;
        let mut ends: Vec<(f32, f64, &Series)> = series
            .iter()
            .filter_map(|series| {
                let &(_, value) = series.smooth.last()?.last()?;
                Some((self.y(value), value, series))
            })
            .collect();
        ends.sort_by(|a, b| a.0.total_cmp(&b.0));
        // Push down from the top, then up again from the lower edge.
        let mut free = f32::NEG_INFINITY;
        for end in &mut ends {
            end.0 = end.0.max(free);
            free = end.0 + LINE;
        }
        let mut limit = self.top + self.height;
        for end in ends.iter_mut().rev() {
            end.0 = end.0.min(limit);
            limit = end.0 - LINE;
        }
        for (y, value, series) in ends {
            let left = RIGHT + 14.0;
            canvas.line(&[(left, y), (left + 22.0, y)], series.pen);
            let value = if self.percent {
                format!("{:.1} %", 100.0 * value)
            } else {
                format!("{value:.2}")
            };
            canvas.text(&series.name, (left + 30.0, y + 5.0), 15.0, INK, Align::Left);
            canvas.text(&value, (WIDTH as f32 - 20.0, y + 5.0), 15.0, INK, Align::Right);
        }
    }
}

fn paler(colour: Colour) -> Colour {
    colour.map(|channel| 255 - (255 - channel) / 3)
}

/// 1, 2 or 5 times a power of ten, such that about `count` of them fill the range.
fn nice_step((low, high): (f64, f64), count: f64) -> f64 {
    let rough = (high - low) / count;
    let power = 10.0_f64.powf(rough.log10().floor());
    [1.0, 2.0, 5.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|&step| step >= rough)
        .unwrap_or(10.0 * power)
}

/// The multiples of `step` within the range.
fn ticks((low, high): (f64, f64), step: f64) -> impl Iterator<Item = f64> {
    let first = (low / step - 1e-6).ceil() as i64;
    let last = (high / step + 1e-6).floor() as i64;
    (first..=last).map(move |multiple| multiple as f64 * step)
}

/// Digits after the point that tell multiples of `step` apart.
fn decimals(step: f64) -> usize {
    (-step.log10().floor()).clamp(0.0, 9.0) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(log: &str) -> Result<RgbImage, ReportError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        std::fs::write(&path, log).unwrap();
        loss_curve(&path)
    }

    fn count(picture: &RgbImage, colour: Colour) -> usize {
        picture.pixels().filter(|pixel| pixel.0 == colour).count()
    }

    fn step(epoch: u32, step: u32, loss: &str, prototype: &str) -> String {
        format!(
            "{{\"event\":\"step\",\"epoch\":{epoch},\"step\":{step},\"steps\":10,\"loss\":{loss},\
             \"instance_loss\":{loss},\"prototype_loss\":{prototype}}}\n"
        )
    }

    #[test]
    fn all_three_losses_are_drawn_and_named() {
        let log: String = (0..40)
            .map(|at| step(at / 10, at % 10, &format!("{}", 9.0 - 0.1 * f64::from(at)), "2.5"))
            .collect();
        let picture = curve(&log).unwrap();
        assert_eq!(picture.height(), (LOSS_TOP + LOSS_HEIGHT + FOOT) as u32);
        for colour in [INK, VERMILION] {
            assert!(count(&picture, colour) > 300, "{colour:?} is missing");
        }
    }

    #[test]
    fn without_prototypes_there_is_one_line() {
        let log: String = (0..10).map(|at| step(0, at, "5.0", "null")).collect();
        let picture = curve(&log).unwrap();
        assert_eq!(count(&picture, VERMILION), 0);
        assert_eq!(count(&picture, BLUE), 0);
        assert!(count(&picture, INK) > 300);
    }

    #[test]
    fn evaluations_add_a_panel() {
        let log = step(0, 0, "5.0", "null")
            + "{\"event\":\"evaluation\",\"epoch\":1,\"knn\":{\"20\":50,\"200\":40}}\n";
        let picture = curve(&log).unwrap();
        assert_eq!(picture.height(), (KNN_TOP + KNN_HEIGHT + FOOT) as u32);
        assert!(count(&picture, GREEN) > 20 && count(&picture, PURPLE) > 20);
    }

    #[test]
    fn a_loss_that_is_no_number_leaves_a_gap_and_a_warning() {
        let losses = |middle: &str| -> String {
            (0..30).map(|at| step(0, at, if at == 15 { middle } else { "5.0" }, "null")).collect()
        };
        let (whole, broken) = (curve(&losses("5.0")).unwrap(), curve(&losses("null")).unwrap());
        let reddish = |picture: &RgbImage| {
            let red = |pixel: &&image::Rgb<u8>| pixel.0[0] > pixel.0[2].saturating_add(60);
            picture.pixels().filter(red).count()
        };
        assert_eq!(reddish(&whole), 0);
        assert!(reddish(&broken) > 100);
    }

    #[test]
    fn segments_end_at_gaps_and_where_prototypes_join() {
        let losses = |time: f64, total: f64, prototype: f64| Losses {
            time,
            total,
            instance: total,
            prototype,
        };
        let nan = f64::NAN;
        let steps = [
            losses(0.1, 5.0, nan),
            losses(0.2, nan, nan),
            losses(0.3, 4.0, nan),
            losses(0.4, 3.0, nan),
            losses(0.5, 9.0, 6.0),
        ];
        assert_eq!(
            binned(&steps, |losses| losses.total),
            [vec![(0.1, 5.0)], vec![(0.3, 4.0), (0.4, 3.0)], vec![(0.5, 9.0)],]
        );
        assert_eq!(binned(&steps, |losses| losses.prototype), [vec![(0.5, 6.0)]]);
    }

    #[test]
    fn smoothing_leaves_a_straight_line_straight() {
        let line: Segment = (0..20).map(|at| (f64::from(at), 3.0 - f64::from(at))).collect();
        for (point, smooth) in line.iter().zip(smoothed(&line, 4)) {
            assert!((point.1 - smooth.1).abs() < 1e-12);
        }
        assert_eq!(smoothed(&vec![(0.0, 1.0), (1.0, 4.0), (2.0, 1.0)], 4)[1].1, 2.0);
    }

    #[test]
    fn a_run_that_never_had_a_finite_loss_says_so() {
        let error = curve(&step(0, 0, "null", "null")).unwrap_err();
        assert!(matches!(error, ReportError::NoFiniteLoss { steps: 1, .. }));
    }

    #[test]
    fn an_empty_or_missing_log_is_an_error() {
        assert!(matches!(curve(""), Err(ReportError::NoSteps { .. })));
        assert!(matches!(loss_curve(Path::new("no/such/log")), Err(ReportError::Read { .. })));
    }

    #[test]
    fn ticks_are_round_numbers_that_span_the_range() {
        assert_eq!(nice_step((0.0, 20.0), 8.0), 5.0);
        assert_eq!(nice_step((0.31, 0.36), 5.0), 0.01);
        assert_eq!(ticks((0.9, 5.1), 1.0).collect::<Vec<_>>(), [1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!((decimals(5.0), decimals(0.5), decimals(0.02)), (0, 1, 2));
    }
}
