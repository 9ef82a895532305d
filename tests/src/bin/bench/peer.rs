//! Another eBPF agent: OpenTelemetry's for Go programs, with its probes of HTTP servers (`tests/peers/otel`).
//!
//! `cargo xtask bench` builds it if it can, and tells where it is.

use crate::sink::Sink;
use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// Until it has put away what it made.
const END_PATIENCE: Duration = Duration::from_secs(10);

/// Running; ends when dropped.
pub(crate) struct Peer {
    child: Child,
    says: BufReader<ChildStdout>,
}

/// What it told at its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    /// Those that the webhook took.
    pub(crate) spans: u64,
    /// Of all its threads, from the moment that it watched.
    cpu: Duration,
}

impl Told {
    pub(crate) fn cpu_us_a_span(self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.spans as f64
    }
}

impl Peer {
    /// Returns when it watches that process, which takes it some seconds: it reads all symbols of it.
    ///
    /// Its spans go to the webhook, as OTLP over HTTP, with the SDK's settings for batches. What the webhook then counts as
    /// lines means nothing.
    pub(crate) fn start(process: u32, sink: &Sink) -> anyhow::Result<Self> {
        let binary = std::env::var_os("S3AUDITD_BENCH_PEER").context("it was not built")?;
        // It mounts the file system of BPF if it finds none, and leaves it: in mounts of its own, which end with it.
        let mut child = Command::new("unshare")
            .arg("--mount")
            .arg(binary)
            .arg(process.to_string())
            .env("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", sink.url())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting it")?;
        let says = BufReader::new(child.stdout.take().context("its output")?);
        // In the struct first, so that an error below ends the process too.
        let mut peer = Self { child, says };
        let line = peer.line()?;
        anyhow::ensure!(line == "watching", "it ended before it watched");
        Ok(peer)
    }

    pub(crate) fn stop(mut self) -> anyhow::Result<Told> {
        kill_process(Pid::from_child(&self.child), Signal::TERM).context("SIGTERM to OpenTelemetry's agent")?;
        let line = self.line()?;
        let told = line.split_once(' ').and_then(|(spans, cpu_us)| {
            Some(Told { spans: spans.parse().ok()?, cpu: Duration::from_micros(cpu_us.parse().ok()?) })
        });
        told.with_context(|| format!("OpenTelemetry's agent said at its end: {line:?}"))
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.says.read_line(&mut line).context("reading what OpenTelemetry's agent says")?;
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may be gone already; either way there is nobody to tell. Killed, it would leave a folder in the file system of
        // BPF for that gateway, where there is one, and not start with it again.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let deadline = Instant::now() + END_PATIENCE;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
