//! What a run found: figures, targets, plots; printed, and left as JSON and as one picture.

use crate::environment::Environment;
use crate::plot::{self, Plot};
use crate::stats::Spread;
use anyhow::Context as _;
use serde::Serialize;
use std::fmt::Write as _;
use std::path::Path;

/// Something measured.
#[derive(Debug, Serialize)]
pub(crate) struct Figure {
    pub(crate) part: &'static str,
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    pub(crate) measured: Spread,
}

/// Which side of a bound is the good one.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    const fn value(self) -> f64 {
        match self {
            Self::AtLeast(value) | Self::AtMost(value) => value,
        }
    }

    fn is_met(self, measured: f64) -> bool {
        match self {
            Self::AtLeast(bound) => measured >= bound,
            Self::AtMost(bound) => measured <= bound,
        }
    }
}

/// Something that was wanted. Nothing fails by it.
#[derive(Debug, Serialize)]
pub(crate) struct Target {
    pub(crate) what: String,
    pub(crate) bound: Bound,
    pub(crate) unit: &'static str,
    pub(crate) measured: Spread,
}

/// See the module.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) environment: Environment,
    pub(crate) targets: Vec<Target>,
    pub(crate) figures: Vec<Figure>,
    /// What a reader must know of figures that are missing or odd.
    pub(crate) notes: Vec<String>,
    pub(crate) plots: Vec<Plot>,
}

impl Report {
    pub(crate) const fn new(environment: Environment) -> Self {
        Self { environment, targets: Vec::new(), figures: Vec::new(), notes: Vec::new(), plots: Vec::new() }
    }

    /// Prints the figure at once, so that a long run shows how far it is.
    pub(crate) fn figure(&mut self, part: &'static str, name: impl Into<String>, unit: &'static str, measured: Spread) {
        let name = name.into();
        println!("bench {part}: {name}: {}", in_words(&measured, unit));
        self.figures.push(Figure { part, name, unit, measured });
    }

    pub(crate) fn target(&mut self, what: impl Into<String>, bound: Bound, unit: &'static str, measured: Spread) {
        self.targets.push(Target { what: what.into(), bound, unit, measured });
    }

    pub(crate) fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        println!("bench: note: {note}");
        self.notes.push(note);
    }

    /// The table of targets, and `NAME.json` and `NAME.svg` in that folder.
    pub(crate) fn finish(self, folder: &Path, name: &str) -> anyhow::Result<()> {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        if !self.targets.is_empty() {
            println!("\n{}", table(&self.targets));
        }
        let (json, svg) = (folder.join(format!("{name}.json")), folder.join(format!("{name}.svg")));
        std::fs::write(&json, serde_json::to_vec_pretty(&self)?).with_context(|| json.display().to_string())?;
        println!("bench: {}", json.display());
        if !self.plots.is_empty() {
            std::fs::write(&svg, plot::picture(&self.plots)).with_context(|| svg.display().to_string())?;
            println!("bench: {}", svg.display());
        }
        Ok(())
    }
}

/// Median and quartiles, or the one value there is.
fn in_words(measured: &Spread, unit: &str) -> String {
    let (median, low, high) = (short(measured.median), short(measured.low), short(measured.high));
    let unit = if unit.is_empty() { String::new() } else { format!(" {unit}") };
    if measured.values.len() > 1 { format!("{median}{unit} ({low} to {high})") } else { format!("{median}{unit}") }
}

/// About four digits.
pub(crate) fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 1000.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 => format!("{value:.3}"),
        _ => format!("{value:.5}"),
    }
}

/// Markdown, so that it goes into the documentation as it is.
fn table(targets: &[Target]) -> String {
    let mut table =
        "| target | wanted | measured (quartiles) | measured / wanted | met |\n|---|---|---|---|---|\n".to_owned();
    for Target { what, bound, unit, measured } in targets {
        let side = match bound {
            Bound::AtLeast(_) => "at least",
            Bound::AtMost(_) => "at most",
        };
        let wanted = in_words(&Spread::one(bound.value()), unit);
        let ratio =
            if bound.value() == 0.0 { "-".to_owned() } else { format!("{:.2}", measured.median / bound.value()) };
        let met = if bound.is_met(measured.median) { "yes" } else { "no" };
        // Writing into a string does not fail.
        let _ = writeln!(table, "| {what} | {side} {wanted} | {} | {ratio} | {met} |", in_words(measured, unit));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_which_targets_are_met() {
        let target = |what: &str, bound, unit, values| Target {
            what: what.to_owned(),
            bound,
            unit,
            measured: Spread::of(values),
        };
        let table = table(&[
            target("throughput", Bound::AtLeast(0.9), "", vec![0.95, 0.85, 0.99]),
            target("CPU", Bound::AtMost(5.0), "us", vec![7.5]),
            target("lost", Bound::AtMost(0.0), "samples", vec![0.0]),
        ]);
        let rows: Vec<_> = table.lines().skip(2).collect();
        assert_eq!(
            rows,
            [
                "| throughput | at least 0.900 | 0.950 (0.900 to 0.970) | 1.06 | yes |",
                "| CPU | at most 5.000 us | 7.500 us | 1.50 | no |",
                "| lost | at most 0 samples | 0 samples | - | yes |",
            ]
        );
    }

    #[test]
    fn what_was_not_measured_is_not_met() {
        assert!(!Bound::AtLeast(1.0).is_met(f64::NAN));
        assert!(!Bound::AtMost(1.0).is_met(f64::NAN));
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([0.0, 0.01234, 0.5, 12.34, 123_456.7].map(short), ["0", "0.01234", "0.500", "12.3", "123457"]);
    }
}
