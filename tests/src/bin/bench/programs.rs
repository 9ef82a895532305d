//! What the kernel programs take in the calls of the gateway and of its client, as the kernel itself counts it while it is asked to.

use anyhow::Context as _;
use aya::sys::{Stats, enable_stats};
use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// While it lives the kernel reads its clock around each run of a program, which makes each run some 30 to 40 ns longer.
pub(crate) struct Clock(#[expect(dead_code, reason = "the kernel goes by whether it is open")] OwnedFd);

impl Clock {
    pub(crate) fn start() -> anyhow::Result<Self> {
        Ok(Self(enable_stats(Stats::RunTime).context("asking the kernel to time its programs")?))
    }
}

/// Of all programs of a process together, so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Runs {
    pub(crate) count: u64,
    pub(crate) took: Duration,
}

impl Runs {
    pub(crate) fn of(pid: u32) -> anyhow::Result<Self> {
        let folder = format!("/proc/{pid}/fdinfo");
        let mut programs = BTreeMap::new();
        for file in fs::read_dir(&folder).with_context(|| folder.clone())? {
            // A descriptor may be closed meanwhile; a program's is not.
            let text = fs::read_to_string(file?.path()).unwrap_or_default();
            programs.extend(of_program(&text));
        }
        anyhow::ensure!(!programs.is_empty(), "{folder} names no program");
        let sum = |a: Self, b: Self| Self { count: a.count + b.count, took: a.took + b.took };
        Ok(programs.into_values().fold(Self::default(), sum))
    }

    pub(crate) const fn since(self, before: Self) -> Self {
        let count = self.count.saturating_sub(before.count);
        Self { count, took: self.took.saturating_sub(before.took) }
    }
}

/// A program's number and its runs, if that is what the descriptor is. (Links name their program too, but no runs.)
fn of_program(fdinfo: &str) -> Option<(u64, Runs)> {
    let field = |name: &str| -> Option<u64> {
        let value = fdinfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"))?;
        value.trim().parse().ok()
    };
    let took = Duration::from_nanos(field("run_time_ns")?);
    Some((field("prog_id")?, Runs { count: field("run_cnt")?, took }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_told_from_other_descriptors() {
        let program = "pos:\t0\nflags:\t02000002\nprog_type:\t17\nprog_id:\t31\nrun_time_ns:\t5000\nrun_cnt:\t2\n";
        let runs = Runs { count: 2, took: Duration::from_nanos(5000) };
        assert_eq!(of_program(program), Some((31, runs)));
        assert_eq!(of_program("pos:\t0\nlink_type:\ttracing\nlink_id:\t4\nprog_id:\t31\n"), None);
        assert_eq!(of_program(""), None);
        assert!(Runs::of(std::process::id()).is_err());
    }
}
