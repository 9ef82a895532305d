//! What a process costs, as the kernel books it.

use anyhow::Context as _;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

/// `USER_HZ`: the unit of times in `/proc/PID/stat` on every architecture that we build for.
const TICKS_A_SECOND: u64 = 100;

/// CPU time of all its threads so far, those that have ended too; steps of 10 ms.
pub(crate) fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let stat = read(pid, "stat")?;
    let ticks = ticks(&stat).with_context(|| format!("/proc/{pid}/stat makes no sense: {stat}"))?;
    Ok(Duration::from_millis(ticks * 1000 / TICKS_A_SECOND))
}

/// utime and stime: fields 14 and 15 of proc_pid_stat(5), the second of which may have spaces.
fn ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(user + system)
}

/// CPU time of each thread that lives now, in nanoseconds; what runs right now is brought up to date at each tick.
pub(crate) fn by_thread(pid: u32) -> anyhow::Result<BTreeMap<OsString, Duration>> {
    let mut threads = BTreeMap::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let task = task?;
        threads.insert(task.file_name(), of_thread(&task.path().join("schedstat")));
    }
    Ok(threads)
}

/// What the process took from then on, but for threads that have ended since.
pub(crate) fn fine_cpu_since(pid: u32, before: &BTreeMap<OsString, Duration>) -> anyhow::Result<Duration> {
    let since =
        |(thread, now): (OsString, Duration)| now.saturating_sub(before.get(&thread).copied().unwrap_or_default());
    Ok(by_thread(pid)?.into_iter().map(since).sum())
}

/// The same of the thread that asks.
pub(crate) fn thread_cpu() -> Duration {
    of_thread(Path::new("/proc/thread-self/schedstat"))
}

/// Nothing of a thread that ends meanwhile.
fn of_thread(schedstat: &Path) -> Duration {
    let text = std::fs::read_to_string(schedstat).unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|field| field.parse().ok()).unwrap_or_default())
}

/// Resident bytes.
pub(crate) fn resident_bytes(pid: u32) -> anyhow::Result<u64> {
    let status = read(pid, "status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().context("VmRSS")?;
    Ok(kib * 1024)
}

fn read(pid: u32, file: &str) -> anyhow::Result<String> {
    std::fs::read_to_string(format!("/proc/{pid}/{file}")).with_context(|| format!("/proc/{pid}/{file}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_brackets_moves_no_field() {
        let stat = "7 (a) b) c) S 1 7 7 0 -1 4194560 100 0 0 0 25 17 0 0 20 0 9 0 12345 1000 10";
        assert_eq!(ticks(stat), Some(42));
        assert_eq!(ticks("7 (a) S 1"), None);
    }

    #[test]
    fn this_process_costs_something() {
        let pid = std::process::id();
        assert!(resident_bytes(pid).unwrap() > 0);
        assert!(fine_cpu_since(pid, &BTreeMap::new()).unwrap() > Duration::ZERO);
        assert!(cpu(pid).is_ok());
    }
}
