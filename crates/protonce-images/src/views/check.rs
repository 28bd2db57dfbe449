//! Looks at every image of a data set before a run depends on them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::Serialize;

use super::decode::format_name;
use super::{Decoder, Image};
use crate::data::{DataError, Dataset, StoreError};

/// What a data set is made of.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DataReport {
    /// Images listed.
    pub images: usize,
    /// Images that can be decoded.
    pub readable: usize,
    /// Encoded bytes of all images that can be read.
    pub bytes: u64,
    /// Images of each class, in the order of the classes; empty without labels.
    pub classes: Vec<ClassCount>,
    /// Images without a label.
    pub unlabelled: usize,
    /// Readable images of each format.
    pub formats: BTreeMap<String, usize>,
    /// Sizes of the readable images; none when there are none.
    pub sizes: Option<Sizes>,
    /// Readable images in which every pixel is grey.
    pub grey: usize,
    /// What was passed over when the data set was opened, one sentence each.
    pub remarks: Vec<String>,
    /// Images that cannot be decoded, in order.
    pub broken: Vec<Broken>,
}

/// How many images a class has.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClassCount {
    /// Name of the class.
    pub name: String,
    /// Its images, readable or not.
    pub images: usize,
}

/// Widths and heights in pixels, each on its own.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Sizes {
    /// Of the widths.
    pub width: Spread,
    /// Of the heights.
    pub height: Spread,
}

/// Smallest, middle and largest of many numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// Smallest.
    pub min: usize,
    /// The lower of the two middle ones where their number is even.
    pub median: usize,
    /// Largest.
    pub max: usize,
}

/// An image that cannot be decoded.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Broken {
    /// Its index.
    pub index: usize,
    /// Its name.
    pub name: String,
    /// Why, as a sentence.
    pub reason: String,
}

/// Decodes every image on `threads` threads (0: one per core).
///
/// `progress` is called after each image with the number done so far, from any of the threads.
///
/// # Errors
/// When the object store that the images lie in fails.
pub fn check(
    dataset: &Dataset,
    threads: usize,
    progress: impl Fn(usize) + Sync,
) -> Result<DataReport, StoreError> {
    let threads = crate::threads(threads);
    let next = AtomicUsize::new(0);
    let done = AtomicUsize::new(0);
    let look = || {
        let mut findings = Vec::new();
        let mut bytes = Vec::new();
        let (mut decoder, mut image) = (Decoder::default(), Image::default());
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= dataset.len() {
                return Ok(findings);
            }
            let found = Finding::of(dataset, index, &mut decoder, &mut bytes, &mut image);
            if found.is_err() {
                // Others need not wait for a store that does not answer.
                next.store(dataset.len(), Ordering::Relaxed);
            }
            findings.push((index, found?));
            progress(done.fetch_add(1, Ordering::Relaxed) + 1);
        }
    };
    let found: Result<Vec<Vec<_>>, StoreError> = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(look)).collect();
        let mut found = vec![look()];
        for other in others {
            match other.join() {
                Ok(more) => found.push(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        found.into_iter().collect()
    });
    let mut findings = found?.concat();
    findings.sort_unstable_by_key(|&(index, _)| index);
    Ok(summarise(dataset, findings))
}

/// What was found out about one image.
#[derive(Clone)]
enum Finding {
    Readable { format: &'static str, bytes: usize, width: usize, height: usize, grey: bool },
    Broken(String),
}

impl Finding {
    fn of(
        dataset: &Dataset,
        index: usize,
        decoder: &mut Decoder,
        bytes: &mut Vec<u8>,
        image: &mut Image,
    ) -> Result<Finding, StoreError> {
        match dataset.read(index, bytes) {
            Ok(()) => {}
            // Nothing is wrong with the image.
            Err(DataError::Store(error)) => return Err(error),
            Err(error) => return Ok(Finding::Broken(error.to_string())),
        }
        let decoded = decoder.decode(bytes, image).and_then(|()| format_name(bytes));
        Ok(match decoded {
            Err(error) => Finding::Broken(error.to_string()),
            Ok(format) => Finding::Readable {
                format,
                bytes: bytes.len(),
                width: image.width,
                height: image.height,
                grey: image.pixels.chunks_exact(3).all(|p| p[0] == p[1] && p[1] == p[2]),
            },
        })
    }
}

fn summarise(dataset: &Dataset, findings: Vec<(usize, Finding)>) -> DataReport {
    let mut class_sizes = vec![0; dataset.classes().len()];
    let mut unlabelled = 0;
    for index in 0..dataset.len() {
        match dataset.label(index) {
            Some(label) => class_sizes[label] += 1,
            None => unlabelled += 1,
        }
    }
    let count = |(name, &images): (&String, &usize)| ClassCount { name: name.clone(), images };
    let mut report = DataReport {
        images: dataset.len(),
        readable: 0,
        bytes: 0,
        classes: dataset.classes().iter().zip(&class_sizes).map(count).collect(),
        unlabelled,
        formats: BTreeMap::new(),
        sizes: None,
        grey: 0,
        remarks: dataset.remarks().to_vec(),
        broken: Vec::new(),
    };
    let (mut widths, mut heights) = (Vec::new(), Vec::new());
    for (index, finding) in findings {
        match finding {
            Finding::Readable { format, bytes, width, height, grey } => {
                report.readable += 1;
                report.bytes += bytes as u64;
                *report.formats.entry(format.to_owned()).or_default() += 1;
                widths.push(width);
                heights.push(height);
                report.grey += usize::from(grey);
            }
            Finding::Broken(reason) => {
                let name = dataset.name(index).to_owned();
                report.broken.push(Broken { index, name, reason });
            }
        }
    }
    report.sizes =
        spread(widths).zip(spread(heights)).map(|(width, height)| Sizes { width, height });
    report
}

fn spread(mut numbers: Vec<usize>) -> Option<Spread> {
    numbers.sort_unstable();
    let (&min, &max) = (numbers.first()?, numbers.last()?);
    Some(Spread { min, median: numbers[(numbers.len() - 1) / 2], max })
}
