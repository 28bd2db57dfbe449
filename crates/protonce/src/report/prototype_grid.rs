//! The largest prototypes, each with the images nearest to it.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use image::imageops::{FilterType, resize};
use image::{Rgb, RgbImage};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::ReportError;
use super::canvas::{Align, Canvas, FADED_INK, HAIRLINE, INK, Pen, WHITE};

const MARGIN: u32 = 24;
const GAP: u32 = 6;
const ROW_GAP: u32 = 14;
const TITLE_HEIGHT: u32 = 74;
const HEADER_WIDTH: u32 = 176;
/// Three lines of text beside the images need this much.
const LEAST_ROW_HEIGHT: u32 = 58;
const UNREADABLE: Rgb<u8> = Rgb([206, 206, 210]);

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
    members: Vec<usize>,
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
/// [`ReportError::Read`], [`ReportError::Damaged`] or [`ReportError::Tensor`] when a file cannot
/// be read or is not as above; [`ReportError::NoPrototypes`] when it holds no granularity (method
/// `moco`, or warm-up epochs only); [`ReportError::NoSuchGranularity`];
/// [`ReportError::LabelCount`]; [`ReportError::Size`] for a picture too large to make.
pub fn prototype_grid<E>(
    prototypes: &Path,
    grid: &PrototypeGrid,
    labels: Option<Labels<'_>>,
    mut image: impl FnMut(usize) -> Result<RgbImage, E>,
) -> Result<RgbImage, ReportError> {
    let step = Step::read(prototypes, grid.granularity)?;
    if let Some(labels) = labels
        && labels.of_image.len() != step.assignment.len()
    {
        let (labels, images) = (labels.of_image.len(), step.assignment.len());
        return Err(ReportError::LabelCount { labels, images });
    }
    let (rows, nearest_first) = step.largest(grid.rows)?;

    let columns = grid.columns as u32;
    let row_height = grid.thumbnail.max(LEAST_ROW_HEIGHT);
    let width = (2 * MARGIN + HEADER_WIDTH).saturating_add(
        columns.saturating_mul(grid.thumbnail.saturating_add(GAP)).saturating_sub(GAP),
    );
    let height = (TITLE_HEIGHT + 2 * MARGIN - ROW_GAP)
        .saturating_add((rows.len() as u32).saturating_mul(row_height.saturating_add(ROW_GAP)));
    let mut canvas = Canvas::new(width.max(640), height)?;
    draw_title(&mut canvas, &step, rows.len(), nearest_first, labels.is_some());

    for (rank, row) in rows.iter().enumerate() {
        let top = MARGIN + TITLE_HEIGHT + rank as u32 * (row_height + ROW_GAP);
        if rank > 0 {
            let y = top as f32 - ROW_GAP as f32 / 2.0;
            let across = [(MARGIN as f32, y), ((width - MARGIN) as f32, y)];
            canvas.line(&across, Pen { colour: HAIRLINE, width: 1.0, dashed: false });
        }
        draw_header(&mut canvas, rank, row, labels, top as f32 + row_height as f32 / 2.0);
        for (column, &index) in row.members.iter().take(grid.columns).enumerate() {
            let left = MARGIN + HEADER_WIDTH + column as u32 * (grid.thumbnail + GAP);
            let down = top + (row_height - grid.thumbnail) / 2;
            let thumbnail = match image(index) {
                Ok(pixels) => fit(&pixels, grid.thumbnail),
                Err(_) => unreadable(grid.thumbnail),
            };
            canvas.image(&thumbnail, (left, down));
        }
    }
    Ok(canvas.finish())
}

fn draw_title(canvas: &mut Canvas, step: &Step, shown: usize, nearest_first: bool, labelled: bool) {
    let left = MARGIN as f32;
    let epoch = step.epoch.map_or(String::new(), |epoch| format!(", epoch {epoch}"));
    let title = format!("The {shown} largest of {} prototypes{epoch}", thousands(step.count));
    canvas.text(&title, (left, 42.0), 22.0, INK, Align::Left);

    let order = if nearest_first { "nearest first" } else { "in order of index" };
    let readable = step.assignment.iter().filter(|&&prototype| prototype >= 0).count();
    let sizes = format!(
        "Granularity {} of {}, {} images. A row: one prototype and its images, {order}.",
        step.granularity + 1,
        step.granularities,
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
fn majority<'a>(members: &[usize], labels: Labels<'a>) -> Option<(&'a str, f64)> {
    let mut counts = BTreeMap::<usize, usize>::new();
    for &member in members {
        let label = labels.of_image.get(member).and_then(|&label| usize::try_from(label).ok());
        if let Some(label) = label.filter(|&label| label < labels.names.len()) {
            *counts.entry(label).or_default() += 1;
        }
    }
    // Of labels equally common, the first in order.
    let (label, count) =
        counts.into_iter().max_by_key(|&(label, count)| (count, Reverse(label)))?;
    Some((labels.names.get(label)?, count as f64 / members.len() as f64))
}

/// The whole image, as large as a square of this side allows, centred on white.
pub(super) fn fit(image: &RgbImage, side: u32) -> RgbImage {
    let longest = image.width().max(image.height());
    if image.width() == 0 || image.height() == 0 {
        return unreadable(side);
    }
    let scaled = |length: u32| {
        let exact = u64::from(length) * u64::from(side) / u64::from(longest);
        (exact as u32).clamp(1, side.max(1))
    };
    let (width, height) = (scaled(image.width()), scaled(image.height()));
    let filter = if longest > side { FilterType::Lanczos3 } else { FilterType::CatmullRom };
    let mut square = RgbImage::from_pixel(side, side, Rgb(WHITE));
    let (left, top) = ((side.max(width) - width) / 2, (side.max(height) - height) / 2);
    let resized = resize(image, width, height, filter);
    image::imageops::replace(&mut square, &resized, i64::from(left), i64::from(top));
    square
}

/// A grey box with a diagonal: an image that could not be read.
pub(super) fn unreadable(side: u32) -> RgbImage {
    RgbImage::from_fn(side, side, |x, y| if x.abs_diff(y) <= 1 { Rgb(WHITE) } else { UNREADABLE })
}

/// 3134 → "3 134".
fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    grouped
}

/// One granularity of one expectation step, as the run's files hold it.
struct Step {
    path: PathBuf,
    epoch: Option<u32>,
    granularity: usize,
    granularities: usize,
    /// Prototype of every image; negative where the image could not be read.
    assignment: Vec<i64>,
    /// How many prototypes there are.
    count: usize,
    dim: usize,
    /// [count, dim]
    prototypes: Vec<f32>,
    /// [count]
    concentration: Vec<f32>,
}

impl Step {
    fn read(path: &Path, granularity: usize) -> Result<Step, ReportError> {
        let bytes = read(path)?;
        let tensors = parse(path, &bytes)?;
        let granularities =
            (0..).take_while(|m| tensors.tensor(&format!("assignment.{m}")).is_ok()).count();
        if granularities == 0 {
            return Err(ReportError::NoPrototypes { path: path.to_owned() });
        }
        if granularity >= granularities {
            let (path, present) = (path.to_owned(), granularities);
            return Err(ReportError::NoSuchGranularity { path, asked: granularity, present });
        }

        let name = format!("assignment.{granularity}");
        let view = tensor(path, &tensors, &name, Dtype::I64, &[None])?;
        let assignment: Vec<i64> =
            view.data().as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect();

        let name = format!("prototypes.{granularity}");
        let view = tensor(path, &tensors, &name, Dtype::F32, &[None, None])?;
        let (count, dim) = (view.shape()[0], view.shape()[1]);
        let prototypes = floats(&view);

        let name = format!("concentration.{granularity}");
        let view = tensor(path, &tensors, &name, Dtype::F32, &[Some(count)])?;
        let concentration = floats(&view);

        if let Some(&largest) = assignment.iter().max()
            && largest >= count as i64
        {
            return Err(ReportError::Tensor {
                path: path.to_owned(),
                name: format!("assignment.{granularity}"),
                expected: format!("positions among the {count} prototypes"),
                found: format!("up to {largest}"),
            });
        }
        let epoch = epoch_of(path);
        let path = path.to_owned();
        #[rustfmt::skip]
        let step = Step {
            path, epoch, granularity, granularities, assignment, count, dim, prototypes, concentration,
        };
        Ok(step)
    }

    /// The `rows` largest prototypes, largest first and of equals the first in order; and whether
    /// their images stand nearest first. Prototypes without images are never among them.
    fn largest(&self, rows: usize) -> Result<(Vec<Row>, bool), ReportError> {
        let mut members = vec![Vec::new(); self.count];
        for (index, &prototype) in self.assignment.iter().enumerate() {
            if let Ok(prototype) = usize::try_from(prototype) {
                members[prototype].push(index);
            }
        }
        let mut order: Vec<usize> = (0..self.count).collect();
        order.retain(|&prototype| !members[prototype].is_empty());
        order.sort_by_key(|&prototype| Reverse(members[prototype].len()));
        order.truncate(rows);

        let embeddings_path = self.path.with_file_name("embeddings.safetensors");
        let nearest_first = embeddings_path.is_file() && self.is_latest()?;
        if nearest_first {
            let bytes = read(&embeddings_path)?;
            let tensors = parse(&embeddings_path, &bytes)?;
            let shape = [Some(self.assignment.len()), Some(self.dim)];
            let view = tensor(&embeddings_path, &tensors, "embeddings", Dtype::F32, &shape)?;
            for &prototype in &order {
                let centre = &self.prototypes[prototype * self.dim..][..self.dim];
                members[prototype].sort_by_cached_key(|&index| farness(&view, index, centre));
            }
        }
        let row = |&prototype: &usize| Row {
            members: std::mem::take(&mut members[prototype]),
            concentration: self.concentration[prototype],
        };
        Ok((order.iter().map(row).collect(), nearest_first))
    }

    /// Whether no later expectation step left a file beside this one: only then do the embeddings
    /// in the folder belong to it.
    fn is_latest(&self) -> Result<bool, ReportError> {
        let Some(epoch) = self.epoch else { return Ok(true) };
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        let failed = |source| ReportError::Read { path: folder.to_owned(), source };
        for entry in fs::read_dir(folder).map_err(failed)? {
            if epoch_of(&entry.map_err(failed)?.path()) > Some(epoch) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// A key that sorts embedding number `index` by falling cosine similarity to `centre`; an
/// embedding that is not finite comes last.
fn farness(embeddings: &TensorView<'_>, index: usize, centre: &[f32]) -> Reverse<i64> {
    let row = &embeddings.data()[index * centre.len() * 4..][..centre.len() * 4];
    let (mut dot, mut square) = (0.0_f64, 0.0_f64);
    for (bytes, &towards) in row.as_chunks().0.iter().zip(centre) {
        let value = f64::from(f32::from_le_bytes(*bytes));
        dot += value * f64::from(towards);
        square += value * value;
    }
    let cosine = dot / square.sqrt();
    // Floats have no total order that keys could use; a billionth is finer than f32 resolves.
    Reverse(if cosine.is_finite() { (cosine * 1e9) as i64 } else { i64::MIN })
}

/// `…/epoch-0020.safetensors` → 20.
fn epoch_of(path: &Path) -> Option<u32> {
    let name = path.file_name()?.to_str()?;
    name.strip_prefix("epoch-")?.strip_suffix(".safetensors")?.parse().ok()
}

fn read(path: &Path) -> Result<Vec<u8>, ReportError> {
    fs::read(path).map_err(|source| ReportError::Read { path: path.to_owned(), source })
}

fn parse<'a>(path: &Path, bytes: &'a [u8]) -> Result<SafeTensors<'a>, ReportError> {
    SafeTensors::deserialize(bytes)
        .map_err(|source| ReportError::Damaged { path: path.to_owned(), source })
}

/// The tensor of that name, its type and shape checked; `None` stands for any length.
fn tensor<'a>(
    path: &Path,
    tensors: &SafeTensors<'a>,
    name: &str,
    dtype: Dtype,
    shape: &[Option<usize>],
) -> Result<TensorView<'a>, ReportError> {
    let expected = || {
        let lengths: Vec<String> =
            shape.iter().map(|length| length.map_or("any".into(), |n| n.to_string())).collect();
        format!("{dtype:?} [{}]", lengths.join(", "))
    };
    let mismatch = |found: String| ReportError::Tensor {
        path: path.to_owned(),
        name: name.to_owned(),
        expected: expected(),
        found,
    };
    let view = tensors.tensor(name).map_err(|_| mismatch("missing".to_owned()))?;
    let fits = view.shape().len() == shape.len()
        && view.shape().iter().zip(shape).all(|(is, should)| should.is_none_or(|n| n == *is));
    if view.dtype() == dtype && fits {
        Ok(view)
    } else {
        Err(mismatch(format!("{:?} {:?}", view.dtype(), view.shape())))
    }
}

fn floats(view: &TensorView<'_>) -> Vec<f32> {
    view.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    type Tensor = (Dtype, Vec<usize>, Vec<u8>);

    fn view(dtype: Dtype, shape: &[usize], bytes: Vec<u8>) -> Tensor {
        (dtype, shape.to_vec(), bytes)
    }

    fn float_bytes(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    fn write(path: &Path, tensors: Vec<(&str, Tensor)>) {
        let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
            (*name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
        });
        fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
    }

    /// Seven images in the plane and three prototypes, of which the second has no image.
    /// Image 4 is unreadable. Prototype 2 has images 0, 1, 2 and 5, prototype 0 has 3 and 6.
    fn run(folder: &Path) -> PathBuf {
        let path = folder.join("epoch-0007.safetensors");
        let assignment = [2_i64, 2, 2, 0, -1, 2, 0];
        write(
            &path,
            vec![
                (
                    "assignment.0",
                    view(
                        Dtype::I64,
                        &[7],
                        assignment.iter().flat_map(|value| value.to_le_bytes()).collect(),
                    ),
                ),
                (
                    "prototypes.0",
                    view(Dtype::F32, &[3, 2], float_bytes(&[0.0, 1.0, -1.0, 0.0, 1.0, 0.0])),
                ),
                ("concentration.0", view(Dtype::F32, &[3], float_bytes(&[0.1, 0.2, 0.3]))),
            ],
        );
        path
    }

    #[rustfmt::skip]
    fn embed(folder: &Path) {
        let embeddings = [
            0.6, 0.8,  1.0, 0.0,  0.8, 0.6,  0.0, 1.0,  9.0, 9.0,  f32::NAN, 0.0,  0.6, 0.8,
        ];
        let tensor = view(Dtype::F32, &[7, 2], float_bytes(&embeddings));
        write(&folder.join("embeddings.safetensors"), vec![("embeddings", tensor)]);
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
        fs::write(folder.path().join("epoch-0008.safetensors"), "later").unwrap();
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
        assert_eq!(*picture.get_pixel(x(1), y), UNREADABLE);
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
        write(&path, vec![]);
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
        assert!(matches!(error(&path, 0), ReportError::Damaged { .. }));
        fs::remove_file(&path).unwrap();
        assert!(matches!(error(&path, 0), ReportError::Read { .. }));

        run(folder.path());
        let tensor = view(Dtype::F32, &[7, 3], float_bytes(&[0.0; 21]));
        write(&folder.path().join("embeddings.safetensors"), vec![("embeddings", tensor)]);
        let message = error(&path, 0).to_string();
        assert!(message.contains("F32 [7, 2]") && message.contains("F32 [7, 3]"), "{message}");
    }

    #[test]
    fn an_assignment_beyond_the_prototypes_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("epoch-0001.safetensors");
        write(
            &path,
            vec![
                ("assignment.0", view(Dtype::I64, &[1], 5_i64.to_le_bytes().to_vec())),
                ("prototypes.0", view(Dtype::F32, &[1, 1], float_bytes(&[1.0]))),
                ("concentration.0", view(Dtype::F32, &[1], float_bytes(&[1.0]))),
            ],
        );
        assert!(matches!(error(&path, 0), ReportError::Tensor { .. }));
    }

    #[test]
    fn images_of_any_shape_are_fitted_whole() {
        for (width, height) in [(1, 1), (300, 2), (2, 300), (64, 64)] {
            let fitted = fit(&RgbImage::new(width, height), 64);
            assert_eq!(fitted.dimensions(), (64, 64));
            assert_eq!(*fitted.get_pixel(31, 31), Rgb([0, 0, 0]), "{width} by {height}");
        }
        assert_eq!(*fit(&RgbImage::new(0, 0), 64).get_pixel(0, 9), UNREADABLE);
    }
}
