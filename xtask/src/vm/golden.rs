//! How many instructions the verifier went through for each program, held against `tests/golden/verifier/SERIES.txt`.
//!
//! For one kernel and one object the count is the same in each run, so it has to be equal; another kernel of the series
//! may count otherwise, and then a difference is only told. Kernels before 5.16 tell no counts.

use super::cell::Cell;
use crate::process::workspace;
use anyhow::Context as _;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

const FOLDER: &str = "tests/golden/verifier";
const HEAD: &str = "# Instructions that the kernel's verifier went through: backend, program, count.\n\
                    # Written by `cargo xtask test --vm --bless`.\n";

/// What one kernel told, or a golden file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// What `uname -r` says there.
    kernel: String,
    /// By backend, then program.
    backends: BTreeMap<String, BTreeMap<String, u64>>,
}

/// What came of the comparison.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Comparison {
    /// Of the same kernels: these fail.
    pub(super) wrong: Vec<String>,
    /// Of kernels that the golden file does not know yet.
    pub(super) noted: Vec<String>,
    /// How many kernels told counts.
    pub(super) kernels: usize,
}

/// Holds what the cells told against the golden files.
pub(super) fn compare(cells: &[Cell]) -> anyhow::Result<Comparison> {
    let told = Counts::told(cells)?;
    let mut all = Comparison { kernels: told.len(), ..Comparison::default() };
    for (series, told) in told {
        let place = place(series);
        let Ok(text) = fs::read_to_string(&place) else {
            all.wrong.push(format!("{series}: there is no {}", place.display()));
            continue;
        };
        let golden = Counts::read(&text).with_context(|| place.display().to_string())?;
        let found = golden.differences(&told).into_iter().map(|what| format!("{series}: {what}"));
        if golden.kernel == told.kernel {
            all.wrong.extend(found);
        } else {
            all.noted.extend(found);
        }
    }
    Ok(all)
}

/// Writes the golden files of these cells' kernels anew.
pub(super) fn bless(cells: &[Cell]) -> anyhow::Result<()> {
    for (series, told) in Counts::told(cells)? {
        let place = place(series);
        fs::create_dir_all(workspace().join(FOLDER))?;
        fs::write(&place, told.text()).with_context(|| place.display().to_string())?;
        eprintln!("vm: blessed {}", place.display());
    }
    Ok(())
}

fn place(series: &str) -> PathBuf {
    workspace().join(FOLDER).join(format!("{series}.txt"))
}

impl Counts {
    /// By series; only of kernels that tell.
    fn told(cells: &[Cell]) -> anyhow::Result<BTreeMap<&'static str, Self>> {
        let mut all: BTreeMap<_, Self> = BTreeMap::new();
        for cell in cells.iter().filter(|cell| !cell.run.verified.is_empty()) {
            let counts = all.entry(cell.kernel.series.name).or_default();
            counts.kernel.clone_from(&cell.release);
            let programs = cell.run.verified.iter().map(|(program, count)| Ok((program.clone(), count.parse()?)));
            let programs = programs.collect::<anyhow::Result<_>>().context("a count that is no number")?;
            counts.backends.insert(cell.backend.name.to_owned(), programs);
        }
        Ok(all)
    }

    fn read(text: &str) -> anyhow::Result<Self> {
        let mut counts = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            if let Some(release) = line.strip_prefix("kernel ") {
                release.clone_into(&mut counts.kernel);
                continue;
            }
            match *line.split(' ').collect::<Vec<_>>() {
                [backend, program, count] => {
                    let count = count.parse().with_context(|| line.to_owned())?;
                    counts.backends.entry(backend.to_owned()).or_default().insert(program.to_owned(), count);
                }
                _ => anyhow::bail!("neither a kernel nor a count: {line}"),
            }
        }
        anyhow::ensure!(!counts.kernel.is_empty(), "no line names the kernel");
        Ok(counts)
    }

    fn text(&self) -> String {
        let mut text = format!("{HEAD}kernel {}\n", self.kernel);
        for (backend, programs) in &self.backends {
            text.extend(programs.iter().map(|(program, count)| format!("{backend} {program} {count}\n")));
        }
        text
    }

    /// In words, a line for each program; of the backends that `told` tells of.
    fn differences(&self, told: &Self) -> Vec<String> {
        let mut found = Vec::new();
        let none = BTreeMap::new();
        for (backend, told) in &told.backends {
            let golden = self.backends.get(backend).unwrap_or(&none);
            for program in golden.keys().chain(told.keys()).collect::<BTreeSet<_>>() {
                let (was, is) = (golden.get(program), told.get(program));
                if was != is {
                    let number = |count: Option<&u64>| count.map_or_else(|| "not loaded".to_owned(), u64::to_string);
                    found.push(format!("{backend} {program}: {}, now {}", number(was), number(is)));
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: &str =
        "# words\nkernel 6.12.1-cloud preempt=full\nfexit received 100\nfexit sent 200\nkprobe received 7\n";

    #[test]
    fn only_what_differs_is_told() {
        let golden = Counts::read(GOLDEN).unwrap();
        assert_eq!(golden.differences(&golden), Vec::<String>::new());
        // A backend that did not run is no difference; a program that came or went is one.
        let told = Counts::read("kernel 6.12.1-cloud\nfexit received 101\nfexit new 5\n").unwrap();
        let expected =
            ["fexit new: not loaded, now 5", "fexit received: 100, now 101", "fexit sent: 200, now not loaded"];
        assert_eq!(golden.differences(&told), expected);
        let other = Counts::read("kernel 6.12.1-cloud\nsyscall ended 3\n").unwrap();
        assert_eq!(golden.differences(&other), ["syscall ended: not loaded, now 3"]);
    }

    #[test]
    fn a_file_is_read_as_it_was_written() {
        let golden = Counts::read(GOLDEN).unwrap();
        assert_eq!(golden.kernel, "6.12.1-cloud preempt=full");
        assert_eq!(Counts::read(&golden.text()).unwrap(), golden);
        assert!(Counts::read("fexit received 100\n").is_err());
        assert!(Counts::read("kernel 6.12.1\nfexit received many\n").is_err());
        assert!(Counts::read("kernel 6.12.1\nfexit received\n").is_err());
    }
}
