//! CPUs that come and go. In a guest only: no other machine's CPUs are ours to take.
#![expect(unsafe_code, reason = "binding a thread to a CPU is a system call")]

use anyhow::{Context as _, ensure};
use s3auditd_tests::call::Call;
use s3auditd_tests::client::light::Light;
use s3auditd_tests::daemon::Status;
use s3auditd_tests::expect;
use s3auditd_tests::gateway::s3s;
use s3auditd_tests::need;
use s3auditd_tests::patience::stretched;
use s3auditd_tests::world::{PATIENCE, World};
use serde_json::Value;
use std::path::Path;
use std::time::Instant;

const CPU: u64 = 1;
const SWITCH: &str = "/sys/devices/system/cpu/cpu1/online";

pub(super) fn is_about_this_run() -> bool {
    need::is_guest() && Path::new(SWITCH).exists()
}

/// A CPU that was offline at the start.
pub(super) fn comes_later() -> anyhow::Result<()> {
    switch(false)?;
    let world = World::around(s3s::start()?, &[])?;
    let before = emitted(&world.daemon.status()?);
    ensure!(before.is_none(), "CPU {CPU} is offline, and has a ring");
    switch(true)?;
    let status = world.daemon.status_when(PATIENCE, |status| emitted(status).is_some())?;
    ensure!(emitted(&status).is_some(), "CPU {CPU} is online, and has no ring: {}", status.0);
    bind_all_threads()?;
    let calls = Light::of(&world.gateway)?.round("late-cpu")?;
    settle(world, &calls)
}

/// One that went and came back: its ring died with it.
pub(super) fn comes_back() -> anyhow::Result<()> {
    let world = World::around(s3s::start()?, &[])?;
    bind_all_threads()?;
    Light::of(&world.gateway)?.round("before")?;
    switch(false)?;
    switch(true)?;
    bind_all_threads()?;
    let gone = emitted(&world.daemon.status()?).context("the CPU had a ring")?;
    // Until the agent has looked, what runs there is refused, and counted.
    let deadline = Instant::now() + stretched(PATIENCE);
    let mut rounds = 0;
    while emitted(&world.daemon.status()?) == Some(gone) && Instant::now() < deadline {
        rounds += 1;
        Light::of(&world.gateway)?.round(&format!("again-{rounds}"))?;
    }
    let status = world.daemon.status_when(PATIENCE, |status| status.ring_agrees().is_ok())?;
    ensure!(emitted(&status) > Some(gone), "CPU {CPU} is back, and its ring takes nothing: {}", status.0);
    eprintln!("noted: refused while the ring was dead: {} samples", status.kernel("ring_refused"));
    status.ring_agrees()?;
    let ended = world.daemon.stop()?;
    ensure!(ended.status.success(), "the daemon ended with {}\n{}", ended.status, ended.stderr);
    Ok(())
}

/// Everything that ran on the CPU is there, whole, and came through its ring.
fn settle(world: World, calls: &[Call]) -> anyhow::Result<()> {
    let after = world.settle(calls.len())?;
    let through = emitted(&after.status).unwrap_or_default();
    ensure!(through >= 2 * calls.len() as u64, "{} calls on CPU {CPU}, and {through} samples of it", calls.len());
    if after.status.missed_runs() > 0 {
        eprintln!("noted: the kernel skipped runs");
        return expect::none_wrong(calls, &after.records);
    }
    expect::same(calls, &after.records)?;
    after.status.whole()
}

/// What the CPU's ring took, if it has one.
fn emitted(status: &Status) -> Option<u64> {
    let cpus = status.0.pointer("/capture/cpus").and_then(Value::as_array)?;
    let cpu = cpus.iter().find(|cpu| cpu.get("cpu").and_then(Value::as_u64) == Some(CPU))?;
    cpu.get("emitted")?.as_u64()
}

fn switch(on: bool) -> anyhow::Result<()> {
    std::fs::write(SWITCH, if on { "1" } else { "0" }).with_context(|| format!("writing {SWITCH}"))
}

/// The gateway's and the client's are threads of this process; the daemon stays free.
fn bind_all_threads() -> anyhow::Result<()> {
    for thread in std::fs::read_dir("/proc/self/task")? {
        let Some(thread) = thread?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let mask: u64 = 1 << CPU;
        // SAFETY: the mask lives through the call and is as long as it is told.
        let result = unsafe { libc::sched_setaffinity(thread, size_of_val(&mask), (&raw const mask).cast()) };
        ensure!(result == 0, "binding thread {thread}: {}", std::io::Error::last_os_error());
    }
    Ok(())
}
