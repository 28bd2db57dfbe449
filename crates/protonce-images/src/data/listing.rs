//! What a container lists, whichever kind it is: names, labels and places, in a few large vectors.
//!
//! Ten million images are ten million names: one string for all of them, and no allocation for each,
//! keeps an index at about sixty bytes an image.

use std::collections::HashMap;

use super::storage::Extent;

/// Stands for "no label" among the numbers of labels.
pub(super) const UNLABELLED: u32 = u32::MAX;

/// Images in the order in which they were found, until [`Listing::sort`].
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// All names end to end.
    pub names: String,
    /// Where each name ends in `names`.
    pub name_ends: Vec<usize>,
    /// Position in `classes`, or [`UNLABELLED`].
    pub labels: Vec<u32>,
    pub classes: Vec<String>,
    /// Where each image lies, for the storages that address images by position; empty for others.
    pub extents: Vec<Extent>,
    /// What was left out or skipped, one sentence each.
    pub remarks: Vec<String>,
    numbers: HashMap<String, u32>,
}

impl Listing {
    /// Adds an image. Either all images have an extent or none has.
    pub fn push(&mut self, name: &str, label: Option<&str>, extent: Option<Extent>) {
        self.names.push_str(name);
        self.name_ends.push(self.names.len());
        let label = label.map_or(UNLABELLED, |label| self.number(label));
        self.labels.push(label);
        self.extents.extend(extent);
    }

    pub fn len(&self) -> usize {
        self.name_ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.name_ends.is_empty()
    }

    pub fn name(&self, index: usize) -> &str {
        let start = if index == 0 { 0 } else { self.name_ends[index - 1] };
        &self.names[start..self.name_ends[index]]
    }

    /// Label of an image as text.
    pub fn label(&self, index: usize) -> Option<&str> {
        self.classes.get(self.labels[index] as usize).map(String::as_str)
    }

    /// Adds the images of another listing.
    pub fn append(&mut self, other: Listing) {
        if self.is_empty() && self.remarks.is_empty() {
            *self = other;
            return;
        }
        let begin = self.names.len();
        self.names.push_str(&other.names);
        self.name_ends.extend(other.name_ends.iter().map(|end| begin + end));
        let numbers: Vec<u32> = other.classes.iter().map(|class| self.number(class)).collect();
        let number = |&label: &u32| numbers.get(label as usize).copied().unwrap_or(UNLABELLED);
        self.labels.extend(other.labels.iter().map(number));
        self.extents.extend(other.extents);
        self.remarks.extend(other.remarks);
    }

    /// Gives the images from position `begin` on the label `label`.
    pub fn relabel(&mut self, begin: usize, label: &str) {
        if begin < self.len() {
            let number = self.number(label);
            self.labels[begin..].fill(number);
        }
    }

    fn number(&mut self, label: &str) -> u32 {
        // Neighbours are mostly of one class.
        if let Some(&last) = self.labels.last()
            && self.classes.get(last as usize).is_some_and(|class| class == label)
        {
            return last;
        }
        if let Some(&number) = self.numbers.get(label) {
            return number;
        }
        // More than 2³² − 1 classes would need as many images; their names alone fill memory.
        let number = self.classes.len() as u32;
        self.classes.push(label.to_owned());
        self.numbers.insert(label.to_owned(), number);
        number
    }

    /// Orders images by name and classes by theirs, byte by byte. Images of one name keep their order.
    pub fn sort(&mut self) {
        let mut names: Vec<usize> = (0..self.classes.len()).collect();
        names.sort_unstable_by(|&a, &b| self.classes[a].cmp(&self.classes[b]));
        if !names.is_sorted() {
            let mut number = vec![0; names.len()];
            for (rank, &old) in names.iter().enumerate() {
                number[old] = rank as u32;
            }
            for label in self.labels.iter_mut().filter(|label| **label != UNLABELLED) {
                *label = number[*label as usize];
            }
            self.classes.sort_unstable();
        }
        self.numbers = HashMap::new();
        if (1..self.len()).all(|index| self.name(index - 1) <= self.name(index)) {
            return;
        }
        let mut order: Vec<usize> = (0..self.len()).collect();
        order.sort_by(|&a, &b| self.name(a).cmp(self.name(b)));
        *self = self.select(&order);
    }

    /// Of images of one name, which are neighbours once they are sorted, keeps the one found last.
    pub fn keep_last_of_a_name(&mut self) {
        let last =
            |index: usize| index + 1 == self.len() || self.name(index) != self.name(index + 1);
        if (0..self.len()).all(last) {
            return;
        }
        let kept: Vec<usize> = (0..self.len()).filter(|&index| last(index)).collect();
        *self = self.select(&kept);
    }

    /// The images at `indices`, in that order, with the same classes and remarks.
    pub fn select(&self, indices: &[usize]) -> Listing {
        let mut names = String::new();
        let mut name_ends = Vec::with_capacity(indices.len());
        for &index in indices {
            names.push_str(self.name(index));
            name_ends.push(names.len());
        }
        let extents = match self.extents.is_empty() {
            true => Vec::new(),
            false => indices.iter().map(|&index| self.extents[index]).collect(),
        };
        Listing {
            names,
            name_ends,
            labels: indices.iter().map(|&index| self.labels[index]).collect(),
            classes: self.classes.clone(),
            extents,
            remarks: self.remarks.clone(),
            numbers: HashMap::new(),
        }
    }
}
