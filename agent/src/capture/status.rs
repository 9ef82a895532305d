//! What capture says of itself, for `status`, metrics and the coverage of the audit.

use s3auditd_common::counters::KernelCounter;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A snapshot; all counts since the daemon started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureStatus {
    /// Name of the backend that runs.
    pub backend: String,
    /// Why: what makes it the choice, or why better ones do not run.
    pub backend_reason: String,
    /// Watched ports, and whether something listens there now.
    pub ports: Vec<PortStatus>,
    /// By CPU.
    pub cpus: Vec<CpuStatus>,
    /// Ring size of each CPU in bytes.
    pub ring_bytes: u64,
    /// Connections that were open on watched ports when the probes were attached.
    pub open_at_start: u64,
    /// Windows that the kernel's table had no room for: more of a body crosses the ring than need be.
    pub failed_windows: u64,
    /// Times that the kernel skipped every program of an event (`recursion_misses`), by program; where an event has several,
    /// at most that many.
    pub missed_runs: BTreeMap<String, u64>,
    /// Each process that serves a watched port, and whether its TLS is read. Empty when that is switched off.
    pub tls: Vec<TlsStatus>,
    /// Instructions that the verifier went through, by program; empty before 5.16.
    pub verified_instructions: BTreeMap<String, u32>,
}

impl CaptureStatus {
    /// A kernel counter, over all CPUs.
    #[must_use]
    pub fn counter(&self, counter: KernelCounter) -> u64 {
        let of_cpu = |cpu: &CpuStatus| match counter {
            KernelCounter::Emitted => cpu.emitted,
            _ => cpu.counters.get(counter.name()).copied().unwrap_or_default(),
        };
        self.cpus.iter().map(of_cpu).sum()
    }
}

/// One watched port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortStatus {
    /// The port.
    pub port: u16,
    /// Whether a listener was found at the last look, in any network namespace.
    pub listening: bool,
}

/// A process that serves a watched port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsStatus {
    /// Process.
    pub pid: u32,
    /// Its name.
    pub comm: String,
    /// The TLS library found in it; empty: none.
    pub library: String,
    /// Of the library.
    pub version: String,
    /// Probes attached to the file that it runs from.
    pub probes: usize,
    /// Connections whose plaintext was seen there, by all processes that run from that file.
    pub connections: u64,
    /// Why its TLS would not be read; empty: it is.
    pub problem: String,
}

/// One CPU's ledger: `emitted = read + in the ring`, and what was lost by cause.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuStatus {
    /// CPU number.
    pub cpu: u32,
    /// Samples that the kernel side put into the ring.
    pub emitted: u64,
    /// Samples that were read from it.
    pub read: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Read, but not understood as a sample.
    pub undecodable: u64,
    /// `PERF_RECORD_LOST` as the kernel reports it: lags and undercounts, a cross-check only.
    pub reported_lost: u64,
    /// Every other kernel counter, by name (`s3auditd_common::counters::KernelCounter`).
    pub counters: BTreeMap<String, u64>,
}
