//! The matrix as Markdown: a row for each kernel and backend.

use super::Cell;
use super::guest::Verdict;
use std::fmt::Write as _;

pub(super) fn markdown(cells: &[Cell]) -> String {
    let mut page =
        "| kernel | backend | scenarios | seconds | instructions that the verifier went through |\n".to_owned();
    page.push_str("| --- | --- | --- | --- | --- |\n");
    for cell in cells {
        let verified: Vec<_> = cell.run.verified.iter().map(|(program, count)| format!("{program} {count}")).collect();
        let verified = if verified.is_empty() { "-".to_owned() } else { verified.join(", ") };
        let (name, result, seconds) = (cell.backend.name, cell.result(), cell.run.seconds());
        // Writing to a string cannot fail.
        let _ = writeln!(page, "| {} | `{name}` | {result} | {seconds} | {verified} |", cell.release);
    }
    for cell in cells {
        let place = format!("{}, `{}`", cell.kernel.series.name, cell.backend.name);
        if let Some(Verdict::Refused(why)) = &cell.run.verdict {
            let _ = write!(page, "\n- {place}: refused: {why}");
        }
        for (scenario, ..) in cell.run.scenarios.iter().filter(|(_, passed, _)| !passed) {
            let _ = write!(page, "\n- {place}: failed: `{scenario}`");
        }
    }
    page
}
