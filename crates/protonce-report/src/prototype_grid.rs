//! A picture of the largest prototypes, each with the images nearest to it.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::Path;

use image::RgbImage;

use crate::ReportError;
use crate::canvas::{Align, Canvas, FADED_INK, HAIRLINE, INK, Pen};
use crate::expectation_step::{ExpectationStep, largest_first, members_of, nearest_first};
use crate::thumbnails::{fit, unreadable};

const MARGIN: u32 = 24;
const GAP: u32 = 6;
const ROW_GAP: u32 = 14;
const TITLE_HEIGHT: u32 = 74;
const HEADER_WIDTH: u32 = 176;
/// Three lines of text beside the images need this much.
const LEAST_ROW_HEIGHT: u32 = 58;

/// What [`prototype_grid`] shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrototypeGrid {
    /// Which granularity, counted from 0 in the order of `--clusters`.
    pub granularity: usize,
    /// How many prototypes, at most: the largest ones.
    pub rows: usize,
    /// How many images of each, at most: the nearest ones.
    pub columns: usize,
    /// Side of the square every image is fitted into, in pixels.
    pub thumbnail: u32,
}

impl Default for PrototypeGrid {
    fn default() -> Self {
        PrototypeGrid { granularity: 0, rows: 12, columns: 10, thumbnail: 64 }
    }
}

/// Names for the images, where a dataset has them. Training never saw them.
#[derive(Clone, Copy, Debug)]
pub struct Labels<'a> {
    /// For every image by index, a position in `names`; anything else means that it has none.
    pub of_image: &'a [i64],
    /// The names.
    pub names: &'a [String],
}

/// One prototype and the images assigned to it.
struct Row {
    /// Nearest first where embeddings are at hand, else by index.
    members: Vec<u32>,
    concentration: f32,
}

/// Draws the largest prototypes of one expectation step, a row each: its rank, size and
/// concentration φ, the commonest label among its images with that label's share of them, and the
/// images nearest to it by cosine similarity. Only images assigned to a prototype stand in its
/// row.
///
/// `prototypes` is a file of the run, `prototypes/epoch-NNNN.safetensors`, with `assignment.M`
/// (i64, \[images\], −1 for an image that could not be read), `prototypes.M` (f32,
/// \[prototypes, dim\]) and `concentration.M` (f32, \[prototypes\]) for each granularity M. How
/// near an image is comes from `embeddings.safetensors` in the same folder (`embeddings`, f32,
/// \[images, dim\]). That file belongs to the latest expectation step; where it is missing, or
/// `prototypes` is not the latest, the images of a row stand in order of index, and the title
/// says so.
///
/// `image` gives the pixels of an image by its index, of any size; one that it cannot give is
/// drawn as a grey box.
///
/// # Errors
///
/// [`ReportError::Tensors`] when a file cannot be read or is not as above; [`ReportError::NoPrototypes`] when it holds no granularity (method
/// `moco`, or warm-up epochs only); [`ReportError::NoSuchGranularity`];
/// [`ReportError::LabelCount`]; [`ReportError::Size`] for a picture too large to make.
pub fn prototype_grid<E>(
    prototypes: &Path,
    grid: &PrototypeGrid,
    labels: Option<Labels<'_>>,
    mut image: impl FnMut(usize) -> Result<RgbImage, E>,
) -> Result<RgbImage, ReportError> {
    let step = ExpectationStep::read(prototypes)?;
    let Some(granularity) = step.granularities.get(grid.granularity) else {
        let (path, present) = (prototypes.to_owned(), step.granularities.len());
        return Err(ReportError::NoSuchGranularity { path, asked: grid.granularity, present });
    };
    if let Some(labels) = labels
        && labels.of_image.len() != step.images()
    {
        let (labels, images) = (labels.of_image.len(), step.images());
        return Err(ReportError::LabelCount { labels, images });
    }
    let similarities = step.similarities(|_, _| {})?;
    let mut members = members_of(granularity);
    let mut order = largest_first(&members);
    order.truncate(grid.rows);
    let rows: Vec<Row> = order
        .into_iter()
        .map(|prototype| {
            let mut members = std::mem::take(&mut members[prototype]);
            if let Some(similarities) = &similarities {
                nearest_first(&mut members, &similarities[grid.granularity]);
            }
            Row { members, concentration: granularity.concentration[prototype] }
        })
        .collect();
    let nearest_first = similarities.is_some();

    let columns = grid.columns as u32;
    let row_height = grid.thumbnail.max(LEAST_ROW_HEIGHT);
    let width = (2 * MARGIN + HEADER_WIDTH).saturating_add(
        columns.saturating_mul(grid.thumbnail.saturating_add(GAP)).saturating_sub(GAP),
    );
    let height = (TITLE_HEIGHT + 2 * MARGIN - ROW_GAP)
        .saturating_add((rows.len() as u32).saturating_mul(row_height.saturating_add(ROW_GAP)));
    let mut canvas = Canvas::new(width.max(640), height)?;
    draw_title(&mut canvas, &step, grid, (rows.len(), nearest_first), labels.is_some());

    for (rank, row) in rows.iter().enumerate() {
        let top = MARGIN + TITLE_HEIGHT + rank as u32 * (row_height + ROW_GAP);
        if rank > 0 {
            let y = top as f32 - ROW_GAP as f32 / 2.0;
            let across = [(MARGIN as f32, y), ((width - MARGIN) as f32, y)];
            canvas.line(&across, Pen { colour: HAIRLINE, width: 1.0 });
        }
        draw_header(&mut canvas, rank, row, labels, top as f32 + row_height as f32 / 2.0);
        for (column, &index) in row.members.iter().take(grid.columns).enumerate() {
            let left = MARGIN + HEADER_WIDTH + column as u32 * (grid.thumbnail + GAP);
            let down = top + (row_height - grid.thumbnail) / 2;
            let thumbnail = match image(index as usize) {
                Ok(pixels) => fit(&pixels, grid.thumbnail),
                Err(_) => unreadable(grid.thumbnail),
            };
            canvas.image(&thumbnail, (left, down));
        }
    }
    Ok(canvas.finish())
}

fn draw_title(
    canvas: &mut Canvas,
    step: &ExpectationStep,
    grid: &PrototypeGrid,
    (shown, nearest_first): (usize, bool),
    labelled: bool,
) {
    let left = MARGIN as f32;
    let granularity = &step.granularities[grid.granularity];
    let epoch = step.epoch.map_or(String::new(), |epoch| format!(", epoch {epoch}"));
    let title =
        format!("The {shown} largest of {} prototypes{epoch}", thousands(granularity.count()));
    canvas.text(&title, (left, 42.0), 22.0, INK, Align::Left);

    let order = if nearest_first { "nearest first" } else { "in order of index" };
    let readable = granularity.assignment.iter().filter(|&&prototype| prototype >= 0).count();
    let sizes = format!(
        "Granularity {} of {}, {} images. A row: one prototype and its images, {order}.",
        grid.granularity + 1,
        step.granularities.len(),
        thousands(readable),
    );
    canvas.text(&sizes, (left, 64.0), 14.0, FADED_INK, Align::Left);
    let meaning = if labelled {
        "φ: concentration, small where images lie close. %: share of the commonest label, unseen \
         in training."
    } else {
        "φ: concentration, small where images lie close."
    };
    canvas.text(meaning, (left, 82.0), 14.0, FADED_INK, Align::Left);
}

fn draw_header(
    canvas: &mut Canvas,
    rank: usize,
    row: &Row,
    labels: Option<Labels<'_>>,
    middle: f32,
) {
    let left = MARGIN as f32;
    let indent = left + 34.0;
    let room = (HEADER_WIDTH + MARGIN) as f32 - indent - 12.0;
    canvas.text(&format!("{}", rank + 1), (left, middle + 7.0), 20.0, INK, Align::Left);

    let majority = labels.and_then(|labels| majority(&row.members, labels));
    let size = match row.members.len() {
        1 => "1 image".to_owned(),
        count => format!("{} images", thousands(count)),
    };
    let concentration = format!("φ {:.3}", row.concentration);
    let Some((name, share)) = majority else {
        canvas.text(&size, (indent, middle - 3.0), 15.0, INK, Align::Left);
        canvas.text(&concentration, (indent, middle + 16.0), 15.0, FADED_INK, Align::Left);
        return;
    };
    // The share must survive a long name.
    let share = format!(" {:.0} %", 100.0 * share);
    let name = canvas.fitted(name, 15.0, room - canvas.text_width(&share, 15.0));
    canvas.text(&format!("{name}{share}"), (indent, middle - 14.0), 15.0, INK, Align::Left);
    canvas.text(&size, (indent, middle + 5.0), 15.0, FADED_INK, Align::Left);
    canvas.text(&concentration, (indent, middle + 24.0), 15.0, FADED_INK, Align::Left);
}

/// The commonest label among `members` and its share of them all, the unlabelled included.
fn majority<'a>(members: &[u32], labels: Labels<'a>) -> Option<(&'a str, f64)> {
    let mut counts = BTreeMap::<usize, usize>::new();
    for &member in members {
        let label =
            labels.of_image.get(member as usize).and_then(|&label| usize::try_from(label).ok());
        if let Some(label) = label.filter(|&label| label < labels.names.len()) {
            *counts.entry(label).or_default() += 1;
        }
    }
    // Of labels equally common, the first in order.
    let (label, count) =
        counts.into_iter().max_by_key(|&(label, count)| (count, Reverse(label)))?;
    Some((labels.names.get(label)?, count as f64 / members.len() as f64))
}

/// 3134 → "3 134".
fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;
    use protonce_run::{
        Granularity, PrototypesFile, RawTensor, TensorFileError, embeddings_file, prototypes_file,
        prototypes_folder, write_embeddings,
    };
    use std::convert::Infallible;
    use std::fs;
    use std::path::PathBuf;

    use crate::canvas::WHITE;

    /// Seven images in the plane and three prototypes, of which the second has no image.
    /// Image 4 is unreadable. Prototype 2 has images 0, 1, 2 and 5, prototype 0 has 3 and 6.
    fn run(folder: &Path) -> PathBuf {
        fs::create_dir_all(prototypes_folder(folder)).unwrap();
        let path = prototypes_file(folder, 7);
        let granularity = Granularity {
            assignment: vec![2, 2, 2, 0, -1, 2, 0],
            prototypes: vec![0.0, 1.0, -1.0, 0.0, 1.0, 0.0],
            dim: 2,
            concentration: vec![0.1, 0.2, 0.3],
        };
        PrototypesFile::write(&path, &[granularity]).unwrap();
        path
    }

    #[rustfmt::skip]
    fn embed(folder: &Path) {
        let embeddings = [
            0.6, 0.8,  1.0, 0.0,  0.8, 0.6,  0.0, 1.0,  9.0, 9.0,  f32::NAN, 0.0,  0.6, 0.8,
        ];
        write_embeddings(&embeddings_file(folder), RawTensor::f32s(&[7, 2], &embeddings)).unwrap();
    }

    fn asked(path: &Path, grid: &PrototypeGrid) -> Vec<usize> {
        let mut asked = Vec::new();
        prototype_grid(path, grid, None, |index| {
            asked.push(index);
            Ok::<_, Infallible>(RgbImage::new(8, 8))
        })
        .unwrap();
        asked
    }

    #[test]
    fn largest_prototype_comes_first_with_its_nearest_images_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = run(folder.path());
        embed(folder.path());
        // The image without a finite embedding is last of its row, the unreadable one in none.
        assert_eq!(asked(&path, &PrototypeGrid::default()), [1, 2, 0, 5, 3, 6]);
    }

    #[test]
    fn rows_and_columns_are_limits() {
        let folder = tempfile::tempdir().unwrap();
        let path = run(folder.path());
        embed(folder.path());
        let grid = PrototypeGrid { rows: 1, columns: 2, ..PrototypeGrid::default() };
        assert_eq!(asked(&path, &grid), [1, 2]);
        let none = PrototypeGrid { rows: 0, columns: 0, ..PrototypeGrid::default() };
        assert_eq!(asked(&path, &none), [] as [usize; 0]);
    }

    #[test]
    fn without_embeddings_of_this_step_images_stand_by_index() {
        let folder = tempfile::tempdir().unwrap();
        let path = run(folder.path());
        assert_eq!(asked(&path, &PrototypeGrid::default()), [0, 1, 2, 5, 3, 6]);
        embed(folder.path());
        fs::write(path.with_file_name("epoch-0008.safetensors"), "later").unwrap();
        assert_eq!(asked(&path, &PrototypeGrid::default()), [0, 1, 2, 5, 3, 6]);
    }

    #[test]
    fn an_image_that_fails_is_a_grey_box_in_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = run(folder.path());
        let red = Rgb([200, 0, 0]);
        let grid = PrototypeGrid::default();
        let picture = prototype_grid(&path, &grid, None, |index| {
            if index == 1 { Err("torn") } else { Ok(RgbImage::from_pixel(9, 9, red)) }
        })
        .unwrap();
        let y = MARGIN + TITLE_HEIGHT + 10;
        let x = |column: u32| MARGIN + HEADER_WIDTH + column * (grid.thumbnail + GAP) + 20;
        assert_eq!(*picture.get_pixel(x(0), y), red);
        assert_eq!(picture.get_pixel(x(1), y), unreadable(9).get_pixel(0, 8));
        assert_eq!(*picture.get_pixel(x(2), y), red);
        // Four images only: the rest of the row stays white.
        assert_eq!(*picture.get_pixel(x(4), y), Rgb(WHITE));
    }

    #[test]
    fn majority_counts_the_unlabelled_and_breaks_ties_by_order() {
        let names = ["cat".to_owned(), "dog".to_owned()];
        let labels = Labels { of_image: &[1, 0, -1, 1, 0, 99], names: &names };
        assert_eq!(majority(&[0, 1, 2, 3], labels), Some(("dog", 0.5)));
        assert_eq!(majority(&[0, 1], labels), Some(("cat", 0.5)));
        assert_eq!(majority(&[2, 5], labels), None);
    }

    #[test]
    fn labels_change_the_picture_and_must_fit_the_images() {
        let folder = tempfile::tempdir().unwrap();
        let path = run(folder.path());
        let names = ["cat".to_owned(), "dog".to_owned()];
        let draw = |labels| {
            prototype_grid(&path, &PrototypeGrid::default(), labels, |_| {
                Ok::<_, Infallible>(RgbImage::new(8, 8))
            })
        };
        let labels = Labels { of_image: &[0, 0, 1, 1, 1, 0, 1], names: &names };
        assert_ne!(draw(Some(labels)).unwrap(), draw(None).unwrap());
        let short = Labels { of_image: &[0, 0], names: &names };
        assert!(matches!(draw(Some(short)), Err(ReportError::LabelCount { labels: 2, images: 7 })));
    }

    fn error(path: &Path, granularity: usize) -> ReportError {
        let grid = PrototypeGrid { granularity, ..PrototypeGrid::default() };
        prototype_grid(path, &grid, None, |_| Ok::<_, Infallible>(RgbImage::new(1, 1))).unwrap_err()
    }

    #[test]
    fn a_run_without_prototypes_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("epoch-0001.safetensors");
        PrototypesFile::write(&path, &[]).unwrap();
        assert!(matches!(error(&path, 0), ReportError::NoPrototypes { .. }));
    }

    #[test]
    fn a_granularity_that_is_not_there_names_those_that_are() {
        let folder = tempfile::tempdir().unwrap();
        let message = error(&run(folder.path()), 3).to_string();
        assert!(message.contains("0 to 0, not 3"), "{message}");
    }

    #[test]
    fn damaged_missing_and_misshapen_files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = run(folder.path());
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert!(matches!(error(&path, 0), ReportError::Tensors(TensorFileError::Damaged { .. })));
        fs::remove_file(&path).unwrap();
        assert!(matches!(error(&path, 0), ReportError::Tensors(TensorFileError::Read { .. })));

        run(folder.path());
        let other = RawTensor::f32s(&[7, 3], &[0.0; 21]);
        write_embeddings(&embeddings_file(folder.path()), other).unwrap();
        let message = error(&path, 0).to_string();
        assert!(message.contains("F32 [7, 2]") && message.contains("F32 [7, 3]"), "{message}");
    }

    #[test]
    fn an_assignment_beyond_the_prototypes_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("epoch-0001.safetensors");
        let granularity = Granularity {
            assignment: vec![5],
            prototypes: vec![1.0],
            dim: 1,
            concentration: vec![1.0],
        };
        PrototypesFile::write(&path, &[granularity]).unwrap();
        assert!(matches!(error(&path, 0), ReportError::Tensors(TensorFileError::Tensor { .. })));
    }
}
