//! Figures of a comparison as a table.

use serde_json::{Value, json};

use super::brokers::Kind;
use crate::cpu;

/// What is to be reached.
#[derive(Clone, Copy, Debug)]
pub(super) enum Goal {
    /// So many times the floor.
    Floor(f64),
    /// So many times what the floor needs for QoS 0, which is what it ran.
    FloorOfQos0(f64),
    /// An absolute figure.
    Most(f64),
}

#[derive(Clone, Debug)]
pub(super) struct Row {
    /// Its place in the table.
    pub(super) number: usize,
    pub(super) name: &'static str,
    pub(super) unit: &'static str,
    pub(super) goal: Goal,
}

/// All figures.
pub(super) struct Table {
    kinds: Vec<Kind>,
    rounds: u32,
    rows: Vec<(Row, Vec<Vec<f64>>)>,
}

impl Goal {
    fn text(self) -> String {
        match self {
            Self::Floor(times) => format!("≤ {times} × floor"),
            Self::FloorOfQos0(times) => format!("≤ {times:.1} × floor's QoS 0"),
            Self::Most(most) => format!("≤ {most}"),
        }
    }

    fn is_reached(self, floor: Option<f64>, own: Option<f64>) -> Option<bool> {
        match self {
            Self::Floor(times) | Self::FloorOfQos0(times) => Some(own? <= times * floor?),
            Self::Most(most) => Some(own? <= most),
        }
    }
}

impl Table {
    pub(super) fn new(kinds: Vec<Kind>, rounds: u32) -> Self {
        Self { kinds, rounds, rows: Vec::new() }
    }

    /// Of each broker, a figure a round; none if it can't do the work.
    pub(super) fn add(&mut self, row: Row, figures: Vec<Vec<f64>>) {
        self.rows.push((row, figures));
        self.rows.sort_by_key(|(row, _)| row.number);
    }

    fn median(&self, figures: &[Vec<f64>], kind: Kind) -> Option<f64> {
        let at = self.kinds.iter().position(|known| *known == kind)?;
        median(&figures[at])
    }

    /// Header and rows: a name, a figure of each broker with its ratio to the floor, what is to be reached, and whether it is.
    fn cells(&self) -> Vec<Vec<String>> {
        let names = self.kinds.iter().map(ToString::to_string);
        let head = std::iter::once("work".to_owned()).chain(names);
        let mut cells: Vec<Vec<String>> = vec![head.chain(["to reach".to_owned(), "reached".to_owned()]).collect()];
        for (row, figures) in &self.rows {
            let floor = self.median(figures, Kind::Floor);
            let figure = |kind: &Kind| match (self.median(figures, *kind), floor) {
                (None, _) => "–".to_owned(),
                (Some(figure), Some(floor)) if *kind != Kind::Floor => {
                    format!("{} ({} ×)", number(figure), number(figure / floor))
                }
                (Some(figure), _) => number(figure),
            };
            let reached = row.goal.is_reached(floor, self.median(figures, Kind::Turnpike));
            let mut line = vec![format!("{} ({})", row.name, row.unit)];
            line.extend(self.kinds.iter().map(figure));
            line.push(row.goal.text());
            line.push(reached.map_or("–", |reached| if reached { "yes" } else { "no" }).to_owned());
            cells.push(line);
        }
        cells
    }

    fn footer(&self) -> String {
        let rounds = self.rounds;
        format!("Median of {rounds}; × is the ratio to the floor. {}.", cpu::machine())
    }

    /// In Markdown.
    pub(super) fn markdown(&self) -> String {
        let mut text = String::new();
        for (at, line) in self.cells().iter().enumerate() {
            text += &format!("| {} |\n", line.join(" | "));
            if at == 0 {
                text += &format!("|{}\n", "---|".repeat(line.len()));
            }
        }
        format!("{text}\n{}", self.footer())
    }

    /// In columns.
    pub(super) fn text(&self) -> String {
        let cells = self.cells();
        let width = |column: usize| cells.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..cells[0].len()).map(width).collect();
        let mut text = String::new();
        for line in &cells {
            let padded: Vec<String> =
                line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}", width = *width)).collect();
            text += padded.join("  ").trim_end();
            text.push('\n');
        }
        format!("{text}\n{}", self.footer())
    }

    /// With every round's figures.
    pub(super) fn json(&self) -> Value {
        let rows = self.rows.iter().map(|(row, figures)| {
            let floor = self.median(figures, Kind::Floor);
            let brokers = self.kinds.iter().zip(figures).map(|(kind, figures)| {
                let median = median(figures);
                let ratio = median.zip(floor).map(|(figure, floor)| figure / floor);
                (kind.to_string(), json!({ "median": median, "ratio_to_floor": ratio, "rounds": figures }))
            });
            json!({
                "name": row.name,
                "unit": row.unit,
                "to_reach": row.goal.text(),
                "reached": row.goal.is_reached(floor, self.median(figures, Kind::Turnpike)),
                "brokers": brokers.collect::<serde_json::Map<_, _>>(),
            })
        });
        json!({ "machine": cpu::machine(), "rounds": self.rounds, "rows": rows.collect::<Vec<_>>() })
    }
}

fn number(figure: f64) -> String {
    if figure >= 100.0 { format!("{figure:.0}") } else { format!("{figure:.2}") }
}

/// The middle one; of an even number, the mean of the two in the middle.
fn median(figures: &[f64]) -> Option<f64> {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (low, high) = (sorted.get(sorted.len().checked_sub(1)? / 2)?, sorted.get(sorted.len() / 2)?);
    Some(f64::midpoint(*low, *high))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(vec![Kind::Floor, Kind::Turnpike, Kind::Mosquitto], 3);
        let row = |number, name, goal| Row { number, name, unit: "µs", goal };
        table.add(row(1, "b", Goal::Most(30.0)), vec![vec![], vec![31.0], vec![]]);
        table.add(row(0, "a", Goal::Floor(1.5)), vec![vec![3.0, 1.0, 2.0], vec![9.0, 2.5, 3.0], vec![20.0, 10.0]]);
        table
    }

    #[test]
    fn medians_and_ratios() {
        let text = table().markdown();
        assert!(text.contains("| a (µs) | 2.00 | 3.00 (1.50 ×) | 15.00 (7.50 ×) | ≤ 1.5 × floor | yes |"), "{text}");
        assert!(text.contains("| b (µs) | – | 31.00 | – | ≤ 30 | no |"), "{text}");
        let json = table().json();
        assert_eq!(json["rows"][0]["brokers"]["turnpike"]["ratio_to_floor"], 1.5);
        assert_eq!(json["rows"][1]["brokers"]["floor"]["median"], Value::Null);
        assert_eq!(json["rows"][1]["reached"], false);
    }

    #[test]
    fn columns_are_straight() {
        let text = table().text();
        let column = |line: &str| line.chars().collect::<Vec<_>>().windows(1).count();
        assert!(text.lines().next().is_some_and(|line| line.starts_with("work") && column(line) > 20), "{text}");
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[4.0]), Some(4.0));
    }
}
