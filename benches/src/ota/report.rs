//! What came of it: a table, and the same as JSON.

use serde_json::{Map, Value, json};

use crate::behind::Back;
use crate::cpu;

/// A figure.
pub(super) struct Row {
    /// What it is, its unit included.
    pub(super) name: &'static str,
    /// How many.
    pub(super) value: f64,
    /// The run has failed by it.
    pub(super) is_wrong: bool,
}

impl Row {
    pub(super) const fn new(name: &'static str, value: f64) -> Self {
        Self { name, value, is_wrong: false }
    }

    /// What there must be none of.
    pub(super) const fn none(name: &'static str, count: u64) -> Self {
        Self { name, value: count as f64, is_wrong: count > 0 }
    }

    pub(super) fn says(&self) -> String {
        format!("{}: {}", self.name, self.shown())
    }

    fn shown(&self) -> String {
        let decimals = if self.value.fract() == 0.0 || self.value >= 1000.0 { 0 } else { 2 };
        format!("{:.decimals$}", self.value)
    }
}

pub(super) fn print(part: &str, rows: &[Row]) {
    println!("| {part} | |\n|---|---|");
    for row in rows {
        println!("| {} | {} |", row.name, row.shown());
    }
    println!();
}

/// All parts that are done.
pub(super) fn json(parts: &[(String, Vec<Row>)], back: Back) -> anyhow::Result<String> {
    let mut all = Map::new();
    all.insert("machine".to_owned(), cpu::machine().into());
    all.insert("load".to_owned(), back.to_string().into());
    for (part, rows) in parts {
        let figures: Map<String, Value> = rows.iter().map(|row| (row.name.to_owned(), json!(row.value))).collect();
        all.insert(part.clone(), figures.into());
    }
    Ok(serde_json::to_string_pretty(&all)? + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_not_be_is_wrong() {
        assert!(!Row::none("lost", 0).is_wrong && Row::none("lost", 1).is_wrong);
        assert_eq!(Row::none("lost", 12).says(), "lost: 12");
        assert_eq!(Row::new("seconds", 1.5).says(), "seconds: 1.50");
        assert_eq!(Row::new("a second", 123_456.7).says(), "a second: 123457");
    }

    #[test]
    fn every_figure_is_in_the_json() {
        let parts = [("blocks".to_owned(), vec![Row::new("MB/s", 51.5)]), ("http".to_owned(), Vec::new())];
        let read: Value = serde_json::from_str(&json(&parts, Back::Nice(10)).expect("JSON")).expect("JSON");
        assert_eq!((&read["load"], &read["blocks"]["MB/s"]), (&json!("nice 10"), &json!(51.5)));
        assert!(read["http"].as_object().is_some_and(Map::is_empty));
    }
}
