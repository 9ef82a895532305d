//! The matrix as Markdown: a row for each scenario, a column for each kernel and backend.

use super::Cell;
use super::guest::Verdict;
use std::fmt::Write as _;

pub(super) fn markdown(cells: &[Cell], scenarios: &[&str]) -> String {
    let mut page = String::new();
    let mut row = |words: &mut dyn Iterator<Item = String>| {
        page.push('|');
        for word in words {
            // Writing to a string cannot fail.
            let _ = write!(page, " {word} |");
        }
        page.push('\n');
    };
    let first = |word: &str| std::iter::once(word.to_owned());
    row(&mut first("").chain(cells.iter().map(|cell| format!("{}, `{}`", cell.kernel.series, cell.backend))));
    row(&mut first("---").chain(cells.iter().map(|_| "---".to_owned())));
    row(&mut first("kernel").chain(cells.iter().map(kernel)));
    row(&mut first("hooks").chain(cells.iter().map(hooks)));
    for scenario in scenarios {
        row(&mut first(&format!("`{scenario}`")).chain(cells.iter().map(|cell| result(cell, scenario).to_owned())));
    }
    let reasons = cells.iter().filter_map(|cell| match &cell.outcome.told.verdict {
        Some(Verdict::Refused(why)) => Some((format!("{}, `{}`", cell.kernel.series, cell.backend), why)),
        _ => None,
    });
    for (place, why) in reasons {
        let _ = write!(page, "\n- {place}: {why}");
    }
    page
}

fn kernel(cell: &Cell) -> String {
    cell.outcome.told.kernel.clone().unwrap_or_else(|| cell.kernel.version.clone())
}

fn hooks(cell: &Cell) -> String {
    match (&cell.outcome.told.backend, &cell.outcome.told.verdict) {
        (Some(backend), _) => backend.clone(),
        (None, Some(Verdict::Refused(_))) => "not offered".to_owned(),
        (None, _) => "?".to_owned(),
    }
}

fn result(cell: &Cell, scenario: &str) -> &'static str {
    let told = &cell.outcome.told;
    match told.scenarios.iter().find(|(name, _)| name == scenario) {
        Some((_, true)) => "pass",
        Some((_, false)) => "**FAIL**",
        None if matches!(told.verdict, Some(Verdict::Refused(_))) => "-",
        None => "**no result**",
    }
}
