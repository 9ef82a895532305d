//! A backend on a kernel, and what came of it; the verdict on all of them.

use super::guest::{Outcome, Run, Verdict};
use super::kernel::Kernel;
use super::plan::{Backend, Item};
use std::path::PathBuf;

/// See the module.
pub(super) struct Cell {
    pub(super) kernel: Kernel,
    /// As the guest told it.
    pub(super) release: String,
    pub(super) backend: &'static Backend,
    expected: bool,
    scenarios: usize,
    pub(super) run: Run,
    pub(super) console: PathBuf,
    /// Why the guest could do nothing.
    broken: Option<String>,
}

/// The cells of one guest.
pub(super) fn of_guest(kernel: &Kernel, outcome: &Outcome, plan: &[Item]) -> Vec<Cell> {
    let Outcome { told, console, .. } = outcome;
    let cell = |item: &Item| Cell {
        kernel: kernel.clone(),
        release: [told.kernel.as_ref().unwrap_or(&kernel.version), kernel.series.words].join(" ").trim_end().to_owned(),
        backend: item.backend,
        expected: item.is_offered(),
        scenarios: item.scenarios.len(),
        run: told.runs.iter().find(|run| run.backend == item.backend.name).cloned().unwrap_or_default(),
        console: console.clone(),
        broken: told.broken.clone(),
    };
    plan.iter().filter(|item| item.series.name == kernel.series.name).map(cell).collect()
}

/// How many came out how. Whatever is not exactly as expected has failed, a missing verdict too.
pub(super) fn verdict(cells: &[Cell]) -> String {
    let count = |which: fn(&&Cell) -> bool| cells.iter().filter(which).count();
    let passed = count(|cell| cell.problem().is_none() && cell.ran());
    let how = if cells.iter().all(|cell| cell.scenarios == 0) { "loaded" } else { "passed" };
    let refused = count(|cell| cell.problem().is_none() && !cell.ran());
    let failed = count(|cell| cell.problem().is_some());
    format!("{} cells: {passed} {how}, {refused} refused as expected, {failed} failed", cells.len())
}

impl Cell {
    pub(super) fn is_of(&self, item: &Item) -> bool {
        self.kernel.series.name == item.series.name && self.backend.name == item.backend.name
    }

    pub(super) fn tell(&self) {
        let result = self.problem().unwrap_or_else(|| self.result());
        eprintln!("test: vm: {} {}: {result} ({} s)", self.kernel.name(), self.backend.name, self.run.seconds());
    }

    fn ran(&self) -> bool {
        matches!(self.run.verdict, Some(Verdict::Ran { .. }))
    }

    /// In words for the table.
    pub(super) fn result(&self) -> String {
        match &self.run.verdict {
            Some(Verdict::Ran { failed: 0, .. }) if self.scenarios == 0 => "loaded".to_owned(),
            Some(Verdict::Ran { passed, failed: 0 }) => format!("{passed} passed"),
            Some(Verdict::Ran { passed, failed }) => format!("**{failed} FAILED**, {passed} passed"),
            Some(Verdict::Refused(_)) => "refused".to_owned(),
            Some(Verdict::Broken(why)) => format!("**{why}**"),
            None => format!("**no verdict{}**", self.broken.as_ref().map(|why| format!(": {why}")).unwrap_or_default()),
        }
    }

    /// What is not as it should be.
    pub(super) fn problem(&self) -> Option<String> {
        let what = match (&self.run.verdict, self.expected) {
            (Some(Verdict::Ran { passed, failed: 0 }), true) if *passed == self.scenarios => return None,
            (Some(Verdict::Refused(_)), false) => return None,
            (Some(Verdict::Ran { .. }), false) => "it runs where it was not expected to".to_owned(),
            (Some(Verdict::Refused(why)), true) => format!("it should run there: {why}"),
            (Some(Verdict::Ran { .. } | Verdict::Broken(_)) | None, _) => self.result(),
        };
        let place = self.console.display();
        Some(format!("{} {}: {what} (console: {place})", self.kernel.name(), self.backend.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::kernel::ALL;
    use crate::vm::plan::BACKENDS;

    #[test]
    fn whatever_is_not_as_expected_has_failed() {
        let kernel = Kernel { series: &ALL[1], version: "6.1.0-1".to_owned(), folder: PathBuf::new() };
        let of = |scenarios, expected, verdict| Cell {
            kernel: kernel.clone(),
            release: String::new(),
            backend: &BACKENDS[0],
            expected,
            scenarios,
            run: Run { verdict, ..Run::default() },
            console: PathBuf::from("the.log"),
            broken: None,
        };
        let cell = |expected, verdict| of(2, expected, verdict);
        let ran = |passed, failed| Some(Verdict::Ran { passed, failed });
        let refused = || Some(Verdict::Refused("why".to_owned()));
        let cells = [
            cell(true, ran(2, 0)),
            cell(false, refused()),
            cell(true, ran(1, 0)),
            cell(true, ran(1, 1)),
            cell(false, ran(2, 0)),
            cell(true, refused()),
            cell(true, Some(Verdict::Broken("oh".to_owned()))),
            cell(true, None),
            cell(false, None),
        ];
        assert_eq!(verdict(&cells), "9 cells: 1 passed, 1 refused as expected, 7 failed");
        assert_eq!(verdict(&[of(0, true, ran(0, 0))]), "1 cells: 1 loaded, 0 refused as expected, 0 failed");
        assert_eq!(verdict(&cells[..2]), "2 cells: 1 passed, 1 refused as expected, 0 failed");
        assert!(cells[7].problem().is_some_and(|problem| problem.ends_with("**no verdict** (console: the.log)")));
    }
}
