//! What is left in the kernel when the daemon is gone: nothing, however it went.
//!
//! What a daemon has loaded is told by its descriptors; that it is gone, by the kernel's own lists, which have also what
//! is pinned or attached and has no descriptor any more.

use crate::Scenario;
use anyhow::{Context as _, ensure};
use aya::maps::loaded_maps;
use aya::programs::{loaded_links, loaded_programs};
use s3auditd_tests::client::flood::Flood;
use s3auditd_tests::daemon::Daemon;
use s3auditd_tests::gateway::raw;
use s3auditd_tests::need;
use s3auditd_tests::patience::stretched;
use s3auditd_tests::world::PATIENCE;
use std::collections::BTreeSet;
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![Scenario::new("leftovers::nothing_stays_in_the_kernel", nothing_stays)]
}

#[derive(Clone, Copy, Debug)]
enum End {
    Term,
    Kill,
}

fn nothing_stays() -> anyhow::Result<()> {
    let all = [(End::Term, false), (End::Kill, true), (End::Term, true), (End::Kill, false)];
    // Each start takes an emulated machine half a minute.
    let of_these = if need::is_guest() { 2 } else { all.len() };
    for (end, load) in all.into_iter().take(of_these) {
        one(end, load).with_context(|| format!("{end:?}, under load: {load}"))?;
    }
    Ok(())
}

/// Requests of each connection before the end, and after it at least: the load goes on over the end.
const ENOUGH: u64 = 50;

fn one(end: End, load: bool) -> anyhow::Result<()> {
    let gateway = raw::start(|_, stream| stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").is_ok())?;
    // No endpoint: records go to standard output, and no spool has to be drained.
    let daemon = Daemon::start(&[gateway.port()], None, &[])?;
    let own = Objects::of(daemon.pid())?;
    // Two programs for connections and two for bytes; the tables, the ring and the globals.
    ensure!(own.programs.len() >= 4 && own.maps.len() >= 8, "the daemon has only {own:?}");
    let all = Objects::of_the_kernel()?;
    ensure!(own.programs.is_subset(&all.programs) && own.maps.is_subset(&all.maps), "not among {all:?}: {own:?}");
    let done = AtomicU64::new(0);
    let until = AtomicU64::new(u64::MAX);
    std::thread::scope(|scope| {
        let (address, done, until) = (gateway.address, &done, &until);
        let load = load.then(|| {
            scope.spawn(move || -> anyhow::Result<()> {
                while done.load(Ordering::Relaxed) < until.load(Ordering::Relaxed) {
                    Flood { gateway: address, bucket: "load", connections: 4, each: 64, padding: 200, done }.run()?;
                }
                Ok(())
            })
        });
        let result = (|| {
            if load.is_some() {
                reached(done, ENOUGH)?;
            }
            match end {
                End::Term => {
                    let ended = daemon.stop()?;
                    ensure!(ended.status.success(), "it ended with {}\n{}", ended.status, ended.stderr);
                }
                End::Kill => drop(daemon),
            }
            if load.is_some() {
                reached(done, done.load(Ordering::Relaxed) + ENOUGH)?;
            }
            // Programs are freed after a grace period, so not at once.
            let deadline = Instant::now() + stretched(PATIENCE);
            loop {
                let left = Objects::of_the_kernel()?.both(&own);
                if left.is_empty() {
                    return Ok(());
                }
                ensure!(Instant::now() < deadline, "still in the kernel: {left:?}");
                std::thread::sleep(Duration::from_millis(50));
            }
        })();
        until.store(0, Ordering::Relaxed);
        if let Some(load) = load {
            load.join().map_err(|_| anyhow::anyhow!("the load panicked"))??;
        }
        result
    })
}

fn reached(done: &AtomicU64, count: u64) -> anyhow::Result<()> {
    let deadline = Instant::now() + stretched(PATIENCE);
    while done.load(Ordering::Relaxed) < count {
        ensure!(Instant::now() < deadline, "the load stands still at {}", done.load(Ordering::Relaxed));
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// By their ids, which the kernel gives in turn: none comes again soon.
#[derive(Debug, Default)]
struct Objects {
    programs: BTreeSet<u32>,
    maps: BTreeSet<u32>,
    links: BTreeSet<u32>,
}

impl Objects {
    /// What a process has descriptors of.
    fn of(pid: u32) -> anyhow::Result<Self> {
        let mut own = Self::default();
        for entry in std::fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
            // Some are closed while we look.
            let Ok(text) = std::fs::read_to_string(entry?.path()) else { continue };
            let value = |name: &str| -> Option<u32> {
                text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
            };
            own.programs.extend(value("prog_id:"));
            own.maps.extend(value("map_id:"));
            own.links.extend(value("link_id:"));
        }
        Ok(own)
    }

    fn of_the_kernel() -> anyhow::Result<Self> {
        let programs = loaded_programs().map(|program| Ok(program?.id()));
        let maps = loaded_maps().map(|map| Ok(map?.id()));
        let links = loaded_links().map(|link| Ok(link?.id()));
        Ok(Self {
            programs: programs.collect::<anyhow::Result<_>>()?,
            maps: maps.collect::<anyhow::Result<_>>()?,
            links: links.collect::<anyhow::Result<_>>()?,
        })
    }

    fn both(&self, other: &Self) -> Self {
        let both = |a: &BTreeSet<u32>, b: &BTreeSet<u32>| a.intersection(b).copied().collect();
        Self {
            programs: both(&self.programs, &other.programs),
            maps: both(&self.maps, &other.maps),
            links: both(&self.links, &other.links),
        }
    }

    fn is_empty(&self) -> bool {
        self.programs.is_empty() && self.maps.is_empty() && self.links.is_empty()
    }
}
