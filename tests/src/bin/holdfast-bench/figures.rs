//! Figures by name: a table for people, JSON for programs.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};

/// What a bench found.
#[derive(Default)]
pub struct Figures {
    rows: Vec<Row>,
}

struct Row {
    name: String,
    value: f64,
    meaning: String,
    /// The figure to reach, as it stands in the README.
    goal: Option<&'static str>,
}

impl Figures {
    /// Adds one; `goal` is what it must reach, in words.
    pub fn add(&mut self, name: &str, value: f64, meaning: &str, goal: Option<&'static str>) {
        let (name, meaning) = (name.to_owned(), meaning.to_owned());
        self.rows.push(Row { name, value, meaning, goal });
    }

    /// Prints the table.
    pub fn print(&self) {
        println!("{:<28} {:>12}  {:<8} figure", "name", "value", "goal");
        for Row { name, value, meaning, goal } in &self.rows {
            println!("{name:<28} {value:>12.3}  {:<8} {meaning}", goal.unwrap_or(""));
        }
    }

    /// Writes `{"name": value, …}`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, file: Option<&Path>) -> Result<()> {
        let Some(file) = file else { return Ok(()) };
        let values: BTreeMap<&str, f64> =
            self.rows.iter().map(|row| (row.name.as_str(), row.value)).collect();
        std::fs::write(file, serde_json::to_vec_pretty(&values)?)
            .with_context(|| format!("write {}", file.display()))
    }
}

/// The middle of a list, the mean of the two middle ones when it is even. 0 for an empty list.
pub fn median(values: &[f64]) -> f64 {
    percentile(values, 0.5)
}

/// The value below which this part of the list lies.
pub fn percentile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index of a short list"
    )]
    let (low, high) = ((last as f64 * part).floor() as usize, (last as f64 * part).ceil() as usize);
    f64::midpoint(sorted[low], sorted[high])
}
