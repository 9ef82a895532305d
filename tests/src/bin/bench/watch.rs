//! The daemon as operators run it: optimised, default settings, a spool on disk, a webhook that reads fast.

use crate::sink::Sink;
use crate::usage;
use anyhow::Context as _;
use s3auditd_tests::daemon::{Daemon, Status};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long delivery may lag behind a run.
const DELIVERY_PATIENCE: Duration = Duration::from_secs(60);

/// A daemon with its folder.
pub(crate) struct Watch {
    pub(crate) daemon: Daemon,
    sink: Sink,
    _spool: tempfile::TempDir,
}

/// Where it stood.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    cpu: Duration,
    own_cpu: Duration,
    delivered: u64,
    pub(crate) status: Status,
}

/// What one run cost it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// Records that reached the webhook.
    pub(crate) records: u64,
    /// CPU time of all its threads for them.
    pub(crate) cpu: Duration,
    /// CPU time of the bench itself, which is the webhook, and the client if that is no program of its own.
    pub(crate) own_cpu: Duration,
    /// Samples that the kernel side made and the rings did not take.
    pub(crate) lost_samples: u64,
    pub(crate) samples: u64,
    pub(crate) ring_bytes: u64,
    /// Records refused or given up anywhere behind the rings.
    pub(crate) lost_records: u64,
}

impl Cost {
    pub(crate) fn cpu_us_a_record(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.records as f64
    }

    pub(crate) fn own_cpu_us_a_record(&self) -> f64 {
        self.own_cpu.as_secs_f64() * 1e6 / self.records as f64
    }

    /// Part of the samples that was lost.
    pub(crate) fn loss(&self) -> f64 {
        self.lost_samples as f64 / (self.lost_samples + self.samples).max(1) as f64
    }
}

impl Watch {
    pub(crate) fn start(binary: &Path, port: u16, sink: &Sink, flags: &[&str]) -> anyhow::Result<Self> {
        let spool = tempfile::tempdir().context("a folder for the spool")?;
        let folder = spool.path().join("spool");
        let folder = folder.to_string_lossy();
        let mut all = Vec::new();
        if !flags.contains(&"--spool-dir") {
            all.extend(["--spool-dir", &folder]);
        }
        all.extend(flags);
        let daemon = Daemon::start_binary(binary, &[port], Some(&sink.url()), &all)?;
        Ok(Self { daemon, sink: sink.clone(), _spool: spool })
    }

    /// Before a run, when all before is delivered.
    pub(crate) fn mark(&self) -> anyhow::Result<Mark> {
        self.sink.settle(DELIVERY_PATIENCE);
        let status = self.daemon.status()?;
        let (cpu, own_cpu) = (usage::cpu(self.daemon.pid())?, usage::cpu(std::process::id())?);
        Ok(Mark { cpu, own_cpu, delivered: self.sink.lines(), status })
    }

    /// After a run: waits for the last record.
    pub(crate) fn cost_since(&self, mark: &Mark) -> anyhow::Result<Cost> {
        let (cost, _) = self.cost_and_end_since(mark)?;
        Ok(cost)
    }

    /// And when that came.
    pub(crate) fn cost_and_end_since(&self, mark: &Mark) -> anyhow::Result<(Cost, Instant)> {
        let last = self.sink.settle(DELIVERY_PATIENCE);
        let cpu = usage::cpu(self.daemon.pid())?.saturating_sub(mark.cpu);
        let own_cpu = usage::cpu(std::process::id())?.saturating_sub(mark.own_cpu);
        let status = self.daemon.status()?;
        let since = |of: fn(&Status) -> u64| of(&status).saturating_sub(of(&mark.status));
        let cost = Cost {
            records: self.sink.lines() - mark.delivered,
            cpu,
            own_cpu,
            lost_samples: since(Status::lost),
            samples: since(|status| status.ring("read")),
            ring_bytes: since(|status| status.ring("read_bytes")),
            lost_records: since(|status| {
                ["queue", "spool", "delivery"].iter().map(|stage| status.lost_at(stage)).sum()
            }),
        };
        Ok((cost, last))
    }
}
