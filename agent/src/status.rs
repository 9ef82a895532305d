//! What the daemon says of itself, and how `s3auditd status` shows it.

use crate::balance::Equation;
use crate::capture::status::{CaptureStatus, CpuStatus, TlsStatus};
use crate::deliver::stats::DeliveryStatus;
use crate::deliver::webhook;
use crate::ledger::{Books, Count, DropCause};
use crate::losses::LossCount;
use crate::spool::SpoolStatus;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

/// The body of `/status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the daemon.
    pub version: String,
    /// Changes with every start of the daemon.
    pub instance_id: String,
    /// Process id.
    pub pid: u32,
    /// Start, in seconds since 1970.
    pub started: u64,
    /// When this was said, in seconds since 1970.
    pub now: u64,
    /// What is wrong; empty if all is well.
    pub degraded: Vec<String>,
    /// Probes and rings.
    pub capture: CaptureStatus,
    /// Counters of rebuild, by name.
    pub rebuild: BTreeMap<String, u64>,
    /// Every record that was made.
    pub records: Books,
    /// What the queue holds at most.
    pub queue_limit: Count,
    /// Where records wait for the endpoints.
    pub spool: SpoolStatus,
    /// The way to each endpoint, by name.
    pub delivery: BTreeMap<String, DeliveryStatus>,
    /// Everything that can be lost, and how often it was.
    pub losses: Vec<LossCount>,
    /// Whether the ledger balances.
    pub balance: Vec<Equation>,
}

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// Nobody answers, or not as the daemon does.
    #[error("no s3auditd answers at {address}: {problem}")]
    NoDaemon {
        /// Where it was looked for.
        address: SocketAddr,
        /// What came instead.
        problem: String,
    },
}

const TIMEOUT: Duration = Duration::from_secs(5);

/// A daemon on the machine with the most CPUs and counters stays far below this.
const MAX_STATUS_BYTES: usize = 16 << 20;

/// Asks the daemon at this address.
///
/// # Errors
/// There is none, or what answers is something else.
pub async fn fetch(address: SocketAddr) -> Result<Status, StatusError> {
    let failed = |problem: String| StatusError::NoDaemon { address, problem };
    let url = reqwest::Url::parse(&format!("http://{address}/status")).map_err(|error| failed(error.to_string()))?;
    let described = |error| failed(webhook::describe(error));
    let client = webhook::client(&url).no_proxy().timeout(TIMEOUT).build().map_err(described)?;
    let mut response = client.get(url).send().await.map_err(described)?;
    if !response.status().is_success() {
        return Err(failed(format!("HTTP {}", response.status().as_u16())));
    }
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(described)? {
        body.extend_from_slice(&piece);
        if body.len() > MAX_STATUS_BYTES {
            return Err(failed("the answer has no end".to_owned()));
        }
    }
    serde_json::from_slice(&body).map_err(|error| failed(format!("not its /status: {error}")))
}

/// Kernel counters that are samples lost before the ring. Every other one tells of something else.
pub(crate) const LOST: [&str; 2] = ["ring_full", "ring_refused"];

/// The status for people: aligned, no colours, the same on every terminal.
#[must_use]
pub fn render(status: &Status) -> String {
    let mut out = String::new();
    let mut line = |name: &str, text: &str| {
        for (nth, part) in text.lines().enumerate() {
            let name = if nth == 0 { name } else { "" };
            // Writing to a String cannot fail.
            let _infallible = writeln!(out, "{}", format!("{name:<12}{part}").trim_end());
        }
    };
    let up = age(status.now.saturating_sub(status.started));
    line("s3auditd", &format!("{}, pid {}, up {up}, instance {}", status.version, status.pid, status.instance_id));
    line("health", &if status.degraded.is_empty() { "ok".to_owned() } else { status.degraded.join("\n") });
    let capture = &status.capture;
    let backend = if capture.backend.is_empty() { "none yet" } else { &capture.backend };
    line("backend", &format!("{backend}\n{}", capture.backend_reason));
    line("ports", &ports(capture));
    if !capture.tls.is_empty() {
        line("tls", &capture.tls.iter().map(tls).collect::<Vec<_>>().join("\n"));
    }
    line("ring", &format!("{} bytes each CPU", number(capture.ring_bytes)));
    line("samples", &samples(&capture.cpus));
    line("kernel", &pairs(&kernel_counters(&capture.cpus)));
    line("at start", &format!("{} connections were open", number(capture.open_at_start)));
    line("rebuild", &pairs(&status.rebuild));
    line("records", &records(status));
    line("spool", &spool(&status.spool, status.now));
    for (name, delivery) in &status.delivery {
        line("endpoint", &endpoint(name, delivery, status));
    }
    line("lost", &losses(&status.losses));
    line("ledger", &ledger(&status.balance));
    out
}

fn ports(capture: &CaptureStatus) -> String {
    let port = |port: &crate::capture::status::PortStatus| {
        format!("{} {}", port.port, if port.listening { "listening" } else { "waiting: nobody listens yet" })
    };
    or_none(capture.ports.iter().map(port).collect::<Vec<_>>().join("\n"))
}

fn tls(process: &TlsStatus) -> String {
    let TlsStatus { pid, comm, library, version, probes, connections, problem } = process;
    if problem.is_empty() {
        format!("{comm}[{pid}]  {library} {version}, {probes} probes, {} connections read", number(*connections))
    } else {
        format!("{comm}[{pid}]  not read: {problem}")
    }
}

fn samples(cpus: &[CpuStatus]) -> String {
    let mut head = vec!["cpu", "emitted", "read", "in ring"];
    let lost = LOST.map(|cause| format!("lost: {cause}"));
    head.extend(lost.iter().map(String::as_str));
    head.extend(["undecodable", "kernel says lost"]);
    let mut rows = vec![head.into_iter().map(str::to_owned).collect::<Vec<_>>()];
    rows.extend(cpus.iter().map(|cpu| {
        let mut row = vec![cpu.cpu.to_string(), number(cpu.emitted), number(cpu.read)];
        row.push(number(cpu.emitted.saturating_sub(cpu.read)));
        row.extend(LOST.map(|cause| number(cpu.counters.get(cause).copied().unwrap_or_default())));
        row.extend([number(cpu.undecodable), number(cpu.reported_lost)]);
        row
    }));
    table(&rows)
}

/// The sum over all CPUs of every counter that has no column of its own.
fn kernel_counters(cpus: &[CpuStatus]) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for (name, value) in cpus.iter().flat_map(|cpu| &cpu.counters).filter(|(name, _)| !LOST.contains(&name.as_str())) {
        *sums.entry(name.clone()).or_default() += value;
    }
    sums
}

fn row(name: &str, count: Count) -> Vec<String> {
    vec![name.to_owned(), number(count.records), number(count.bytes)]
}

fn counts(rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let head = vec![String::new(), "records".to_owned(), "bytes".to_owned()];
    table(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
}

fn records(status: &Status) -> String {
    let books = &status.records;
    counts([
        row("made", books.made),
        row("queued", books.queued),
        row("writing", books.writing),
        row("stored", books.stored),
        row("dropped", books.dropped.total()),
        row("queue limit", status.queue_limit),
    ])
}

fn spool(spool: &SpoolStatus, now: u64) -> String {
    let oldest = spool.oldest_ns.map(|ns| now.saturating_sub(ns / 1_000_000_000));
    let oldest = oldest.map_or_else(String::new, |seconds| format!(", the oldest {} old", age(seconds)));
    let place = spool.dir.as_deref().unwrap_or("in memory: what waits is lost with the daemon");
    let corrupt = match spool.corrupt_frames {
        0 => String::new(),
        frames => format!("\n{} batches were damaged and left out", number(frames)),
    };
    format!(
        "{place}\n{} records in {} batches{oldest}\n{} of {} bytes, {} free{corrupt}",
        number(spool.kept.records),
        number(spool.frames),
        number(spool.disk_bytes),
        number(spool.limit),
        number(spool.free_bytes)
    )
}

fn endpoint(name: &str, delivery: &DeliveryStatus, status: &Status) -> String {
    let last = match delivery.last_success {
        Some(at) => format!("{} ago", age(status.now.saturating_sub(at))),
        None => "never".to_owned(),
    };
    let events = [
        ("batches", delivery.batches),
        ("retries", delivery.retries),
        ("splits", delivery.splits),
        ("acknowledgements late", delivery.ack_timeouts),
    ];
    let events = events.map(|(name, value)| format!("{} {name}", number(value))).join(", ");
    let mut text = format!("{name}: {}, last success {last}\n{events}\n", delivery.state.name());
    if let Some(books) = status.records.endpoints.get(name) {
        let rows = [
            row("inherited", books.inherited),
            row("offered", books.offered),
            row("waiting", books.waiting),
            row("in flight", books.in_flight),
            row("delivered", books.delivered),
            row("filtered", books.filtered),
        ];
        let dropped = DropCause::ALL.iter().map(|cause| (cause.name(), books.dropped.of(*cause)));
        let dropped = dropped.filter(|(_, count)| count.records > 0).map(|(name, count)| row(name, count));
        text.push_str(&counts(rows.into_iter().chain(dropped)));
    }
    if let Some(error) = &delivery.last_error {
        let _infallible = writeln!(text, "last error: {error}");
    }
    text
}

/// Only what happened: the list of what could is long, and in `docs/losses.md`.
fn losses(losses: &[LossCount]) -> String {
    let happened = losses.iter().filter(|loss| loss.count > 0);
    let rows: Vec<_> =
        happened.map(|loss| vec![format!("{} {}", loss.stage, loss.cause), number(loss.count)]).collect();
    if rows.is_empty() { format!("nothing, of {} ways to lose something", losses.len()) } else { table(&rows) }
}

fn ledger(balance: &[Equation]) -> String {
    let wrong: Vec<_> = balance.iter().filter(|equation| !equation.holds()).collect();
    if wrong.is_empty() {
        return format!("balanced: {} equations hold", balance.len());
    }
    let wrong =
        wrong.iter().map(|wrong| format!("{}: {} is not {}", wrong.name, number(wrong.left), number(wrong.right)));
    format!("NOT BALANCED\n{}", wrong.collect::<Vec<_>>().join("\n"))
}

fn or_none(text: String) -> String {
    if text.is_empty() { "none".to_owned() } else { text }
}

fn pairs(values: &BTreeMap<String, u64>) -> String {
    let rows: Vec<_> = values.iter().map(|(name, value)| vec![name.clone(), number(*value)]).collect();
    or_none(table(&rows))
}

/// The first column to the left, the others to the right, two blanks between.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or_default();
    let widths: Vec<_> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        out.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        out.push('\n');
    }
    out
}

/// Groups of three digits.
fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::new();
    for (nth, digit) in digits.chars().enumerate() {
        if nth > 0 && (digits.len() - nth).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// The two largest units of a time.
fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests;
