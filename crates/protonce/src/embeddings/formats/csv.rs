//! Comma-separated values: `index`, `name`, `label`, then one column per number.

use std::fs::File;
use std::io::{self, BufWriter, Write};

use crate::embeddings::table::{EmbeddingTable, RowReader};

/// The images of the rows, for a format that has no room for them.
pub fn write_images(table: &EmbeddingTable<'_>, out: File) -> io::Result<()> {
    let mut csv = ::csv::Writer::from_writer(BufWriter::new(out));
    csv.write_record(["index", "name", "label"])?;
    for &image in &table.indices {
        let index = image.to_string();
        let label = table.label(image).unwrap_or_default();
        csv.write_record([&index, table.dataset.name(image), label])?;
    }
    csv.flush()
}

/// Everything in one table.
pub(super) fn write(
    table: &EmbeddingTable<'_>,
    mut rows: RowReader,
    out: &mut impl Write,
) -> io::Result<()> {
    let mut csv = ::csv::Writer::from_writer(out);
    let columns = ["index", "name", "label"].map(str::to_owned).into_iter();
    csv.write_record(columns.chain((0..rows.width).map(|number| number.to_string())))?;
    for &image in &table.indices {
        let index = image.to_string();
        csv.write_field(&index)?;
        csv.write_field(table.dataset.name(image))?;
        csv.write_field(table.label(image).unwrap_or_default())?;
        // The shortest text that reads back to the same number.
        csv.write_record(rows.next()?.iter().map(f32::to_string))?;
    }
    csv.flush()
}
