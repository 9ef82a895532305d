//! The status as metrics. `docs/operate.md` lists them.

use crate::deliver::stats::DeliveryState;
use crate::queue::DropCause;
use crate::status::{LOST, Status};
use prometheus_client::encoding::text::encode as encode_text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;

type Labels = Vec<(&'static str, String)>;

/// A registry made anew from one snapshot for every scrape, so that the numbers of a scrape belong together.
struct Scrape(Registry);

impl Scrape {
    fn counters(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (Labels, u64)>) {
        let family = Family::<Labels, Counter>::default();
        for (labels, value) in values {
            family.get_or_create(&labels).inc_by(value);
        }
        self.0.register(name, help, family);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        let counter = Counter::<u64>::default();
        counter.inc_by(value);
        self.0.register(name, help, counter);
    }

    fn gauges(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (Labels, u64)>) {
        let family = Family::<Labels, Gauge<u64, AtomicU64>>::default();
        for (labels, value) in values {
            family.get_or_create(&labels).set(value);
        }
        self.0.register(name, help, family);
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) {
        let gauge = Gauge::<u64, AtomicU64>::default();
        gauge.set(value);
        self.0.register(name, help, gauge);
    }
}

/// OpenMetrics text.
pub(super) fn encode(status: &Status) -> Result<String, std::fmt::Error> {
    let mut scrape = Scrape(Registry::with_prefix("s3auditd"));
    daemon(&mut scrape, status);
    capture(&mut scrape, status);
    records(&mut scrape, status);
    delivery(&mut scrape, status);
    let mut text = String::new();
    encode_text(&mut text, &scrape.0)?;
    Ok(text)
}

fn daemon(scrape: &mut Scrape, status: &Status) {
    scrape.gauge("up", "1 while the daemon runs", 1);
    scrape.gauge("healthy", "1 while /health answers 200", u64::from(status.degraded.is_empty()));
    let build = vec![("version", status.version.clone()), ("backend", status.capture.backend.clone())];
    scrape.gauges("build_info", "Version and backend", [(build, 1)]);
    scrape.gauge("start_time_seconds", "Start, since 1970", status.started);
}

fn capture(scrape: &mut Scrape, status: &Status) {
    let capture = &status.capture;
    let per_cpu = |value: fn(&crate::capture::status::CpuStatus) -> u64| {
        capture.cpus.iter().map(move |cpu| (vec![("cpu", cpu.cpu.to_string())], value(cpu)))
    };
    scrape.counters("samples_emitted", "Samples put into the ring", per_cpu(|cpu| cpu.emitted));
    scrape.counters("samples_read", "Samples read from the ring", per_cpu(|cpu| cpu.read));
    scrape.counters("samples_read_bytes", "Bytes read from the ring", per_cpu(|cpu| cpu.read_bytes));
    scrape.counters("samples_undecodable", "Read, but not understood", per_cpu(|cpu| cpu.undecodable));
    scrape.counters("samples_reported_lost", "PERF_RECORD_LOST, a cross-check", per_cpu(|cpu| cpu.reported_lost));
    let counters = |label: &'static str, lost: bool| {
        capture.cpus.iter().flat_map(move |cpu| {
            let of_kind = cpu.counters.iter().filter(move |(name, _)| LOST.contains(&name.as_str()) == lost);
            of_kind.map(move |(name, value)| (vec![("cpu", cpu.cpu.to_string()), (label, name.clone())], *value))
        })
    };
    scrape.counters("samples_lost", "Samples that the ring did not take", counters("cause", true));
    scrape.counters("kernel_events", "Every other counter of the probes", counters("event", false));
    let missed = capture.missed_runs.iter().map(|(program, count)| (vec![("program", program.clone())], *count));
    scrape.counters("missed_runs", "Times that the kernel skipped a program", missed);
    scrape.counter("windows_failed", "Windows that the kernel's table had no room for", capture.failed_windows);
    scrape.gauge("ring_bytes", "Ring of each CPU", capture.ring_bytes);
    scrape.gauge("connections_open_at_start", "Open when the probes were attached", capture.open_at_start);
    let ports = capture.ports.iter().map(|port| (vec![("port", port.port.to_string())], u64::from(port.listening)));
    scrape.gauges("port_listening", "Whether something listens at a watched port", ports);
}

fn records(scrape: &mut Scrape, status: &Status) {
    let rebuild = status.rebuild.iter().map(|(name, value)| (vec![("counter", name.clone())], *value));
    scrape.gauges("rebuild", "Counters of rebuild, by name", rebuild);
    let ledger = &status.records;
    scrape.counter("records", "Records made", ledger.made.records);
    scrape.counter("record_bytes", "Bytes of records made", ledger.made.bytes);
    scrape.counter("records_delivered", "Records that arrived", ledger.delivered.records);
    let dropped = DropCause::ALL
        .iter()
        .map(|cause| (vec![("cause", cause.name().to_owned())], ledger.dropped.of(*cause).records));
    scrape.counters("records_dropped", "Records given up", dropped);
    scrape.gauge("records_in_flight", "Records taken by delivery and not settled", ledger.in_flight.records);
    scrape.gauge("queue_records", "Records that wait", ledger.queued.records);
    scrape.gauge("queue_bytes", "Bytes of records that wait", ledger.queued.bytes);
    scrape.gauge("queue_limit_records", "The most records that may wait", status.queue_limit.records);
    scrape.gauge("queue_limit_bytes", "The most bytes that may wait", status.queue_limit.bytes);
}

fn delivery(scrape: &mut Scrape, status: &Status) {
    let delivery = &status.delivery;
    scrape.counter("delivery_batches", "Batches that arrived", delivery.batches);
    scrape.counter("delivery_retries", "Attempts after a failed one", delivery.retries);
    scrape.counter("delivery_splits", "Batches cut in halves", delivery.splits);
    let states = [DeliveryState::Ok, DeliveryState::Retrying, DeliveryState::Held];
    let states = states.map(|state| (vec![("state", state.name().to_owned())], u64::from(state == delivery.state)));
    scrape.gauges("delivery_state", "1 for the state that delivery is in", states);
    let last = delivery.last_success.unwrap_or_default();
    scrape.gauge("delivery_last_success_timestamp_seconds", "Last batch that arrived, since 1970; 0: none", last);
}
