//! What an evaluation found, as a table and as JSON.

use std::collections::BTreeMap;

use protonce::transfer::published;
use protonce_images::data::Benchmark;
use serde_json::{Value, json};

use super::Prepared;
use protonce_cli::output::{OutputError, print_line, show};

/// One figure.
pub struct Figure {
    /// The name of the evaluation, the same as in the published figures.
    pub evaluation: String,
    /// In percent, unless the name says otherwise.
    pub value: f64,
    /// Over repetitions.
    pub deviation: Option<f64>,
}

impl Figure {
    pub fn new(evaluation: impl Into<String>, value: f64) -> Figure {
        Figure { evaluation: evaluation.into(), value, deviation: None }
    }

    fn shown(&self) -> String {
        match self.deviation {
            Some(deviation) => format!("{:.2} ± {deviation:.2}", self.value),
            // Between 0 and 1, where two digits say little.
            None if self.value.abs() <= 1.0 => format!("{:.4}", self.value),
            None => format!("{:.2}", self.value),
        }
    }
}

/// The result of a command.
pub struct EvalResult {
    /// The command's name, and the key of its JSON.
    pub name: &'static str,
    pub figures: Vec<Figure>,
    pub json: Value,
}

impl EvalResult {
    /// Prints the table; if asked for JSON, that, and the table on stderr.
    ///
    /// # Errors
    /// When stdout is closed or full.
    pub fn show(&self, prepared: &Prepared) -> Result<(), OutputError> {
        let benchmark = prepared.split.benchmark;
        let json = prepared.args.json;
        show(table(&self.figures, benchmark, &prepared.args.name()), json)?;
        if !json {
            return Ok(());
        }
        let mut object = json!({ self.name: self.json, "benchmark": benchmark });
        let beside = self.figures.iter().flat_map(|ours| published(benchmark, &ours.evaluation));
        let beside: Vec<Value> = beside.map(|figure| json!(figure)).collect();
        if !beside.is_empty() {
            object["published"] = json!(beside);
        }
        let (images, time) = prepared.computed.get();
        if images > 0 {
            let seconds = time.as_secs_f64();
            object["extraction"] = json!({
                "images": images, "seconds": seconds, "images_per_second": images as f64 / seconds,
            });
        }
        print_line(&object)
    }
}

/// A Markdown table of our figures, with those that others have published of the same benchmark
/// beside them, and where these stand.
pub fn table(figures: &[Figure], benchmark: Benchmark, encoder: &str) -> String {
    let mut methods: Vec<&str> = Vec::new();
    let mut sources: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for figure in figures.iter().flat_map(|ours| published(benchmark, &ours.evaluation)) {
        if !methods.contains(&figure.method) {
            methods.push(figure.method);
            sources.entry(figure.source).or_default().push(figure.method);
        }
    }
    let mut cells = vec![vec![benchmark.name().to_owned(), encoder.to_owned()]];
    cells[0].extend(methods.iter().map(|method| (*method).to_owned()));
    for figure in figures {
        let known = published(benchmark, &figure.evaluation);
        let mut line = vec![figure.evaluation.clone(), figure.shown()];
        line.extend(methods.iter().map(|method| {
            let figure = known.iter().find(|figure| figure.method == *method);
            figure.map_or(String::new(), |figure| format!("{:.1}", figure.value))
        }));
        cells.push(line);
    }
    let columns = cells[0].len();
    let width = |column: usize| {
        cells.iter().map(|line| line[column].chars().count()).max().unwrap_or(0).max(3)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (number, line) in cells.iter().enumerate() {
        for (column, cell) in line.iter().enumerate() {
            let padding = " ".repeat(widths[column] - cell.chars().count());
            match column {
                0 => text.push_str(&format!("| {cell}{padding} |")),
                _ => text.push_str(&format!(" {padding}{cell} |")),
            }
        }
        text.push('\n');
        if number == 0 {
            let rule = |(column, &width): (usize, &usize)| match column {
                0 => format!("| {} |", "-".repeat(width)),
                _ => format!(" {}: |", "-".repeat(width - 1)),
            };
            text.extend(widths.iter().enumerate().map(rule));
            text.push('\n');
        }
    }
    for (source, methods) in sources {
        text.push_str(&format!("\n{}: {source}\n", methods.join("; ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_figures_stand_beside_ours_where_the_benchmark_matches() {
        let figures = [Figure::new("SVM full", 80.0), Figure::new("something else", 0.5)];
        let text = table(&figures, Benchmark::Voc07, "run");
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].contains("PCL v2, 200") && lines[2].contains("85.4"), "{text}");
        assert!(lines[3].contains("0.5000") && text.contains("salesforce/PCL"), "{text}");
        // Every line of a table is as wide as the first.
        let width = lines[0].chars().count();
        assert!(lines[..4].iter().all(|line| line.chars().count() == width), "{text}");
        assert!(!table(&figures, Benchmark::Other, "run").contains("PCL"));
    }
}
