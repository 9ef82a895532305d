//! The status as metrics. `docs/operate.md` lists them.

use crate::deliver::stats::{DeliveryState, DeliveryStatus};
use crate::ledger::{DropCause, EndpointBooks};
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
    scrape.gauges("rebuild", "Counters of rebuild and of the record stream, by name", rebuild);
    let lost = status
        .losses
        .iter()
        .map(|loss| (vec![("stage", loss.stage.clone()), ("cause", loss.cause.clone())], loss.count));
    scrape.counters("lost", "Everything that can be lost; docs/losses.md says what each counts", lost);
    let wrong = status.balance.iter().filter(|equation| !equation.holds()).count();
    scrape.gauge("ledger_imbalances", "Equations of the ledger that do not hold", wrong as u64);
    let books = &status.records;
    scrape.counter("records", "Records made", books.made.records);
    scrape.counter("record_bytes", "Bytes of records made", books.made.bytes);
    scrape.counter("records_stored", "Records put into the spool", books.stored.records);
    let dropped =
        DropCause::ALL.iter().map(|cause| (vec![("cause", cause.name().to_owned())], books.dropped.of(*cause).records));
    scrape.counters("records_dropped", "Records given up before the spool", dropped);
    scrape.gauge("queue_records", "Records that wait for the spool", books.queued.records);
    scrape.gauge("queue_bytes", "Bytes of records that wait for the spool", books.queued.bytes);
    scrape.gauge("records_writing", "Records on the way into the spool", books.writing.records);
    scrape.gauge("queue_limit_records", "The most records that may wait", status.queue_limit.records);
    scrape.gauge("queue_limit_bytes", "The most bytes that may wait", status.queue_limit.bytes);
    scrape.gauge("spool_records", "Records in the spool", status.spool.kept.records);
    scrape.gauge("spool_bytes", "Bytes that the spool takes", status.spool.disk_bytes);
    scrape.gauge("spool_limit_bytes", "Bytes that the spool may take", status.spool.limit);
    scrape.counter(
        "spool_corrupt_frames",
        "Batches of the spool that were damaged and left out",
        status.spool.corrupt_frames,
    );
    scrape.gauge("spool_free_bytes", "Bytes free on the spool's file system", status.spool.free_bytes);
    scrape.gauge(
        "spool_oldest_timestamp_seconds",
        "Oldest record of the spool, since 1970; 0: none",
        status.spool.oldest_ns.unwrap_or_default() / 1_000_000_000,
    );
}

fn delivery(scrape: &mut Scrape, status: &Status) {
    let endpoints = &status.records.endpoints;
    let name = |name: &str| ("endpoint", name.to_owned());
    let books =
        |value: fn(&EndpointBooks) -> u64| endpoints.iter().map(move |(of, books)| (vec![name(of)], value(books)));
    scrape.counters(
        "endpoint_records_inherited",
        "Records that waited in the spool at the start",
        books(|b| b.inherited.records),
    );
    scrape.counters("endpoint_records_offered", "Records put into the spool since", books(|b| b.offered.records));
    scrape.counters("endpoint_records_delivered", "Records that arrived", books(|b| b.delivered.records));
    scrape.counters(
        "endpoint_records_filtered",
        "Records that the endpoint's filter left out",
        books(|b| b.filtered.records),
    );
    scrape.gauges("endpoint_records_waiting", "Records that wait in the spool", books(|b| b.waiting.records));
    scrape.gauges(
        "endpoint_records_in_flight",
        "Records taken by delivery and not settled",
        books(|b| b.in_flight.records),
    );
    let dropped = endpoints.iter().flat_map(|(of, books)| {
        DropCause::ALL
            .iter()
            .map(move |cause| (vec![name(of), ("cause", cause.name().to_owned())], books.dropped.of(*cause).records))
    });
    scrape.counters("endpoint_records_dropped", "Records given up from the spool on", dropped);

    let delivery = &status.delivery;
    let stats =
        |value: fn(&DeliveryStatus) -> u64| delivery.iter().map(move |(of, stats)| (vec![name(of)], value(stats)));
    scrape.counters("delivery_batches", "Batches that arrived", stats(|stats| stats.batches));
    scrape.counters("delivery_retries", "Attempts after a failed one", stats(|stats| stats.retries));
    scrape.counters("delivery_splits", "Batches cut in halves", stats(|stats| stats.splits));
    scrape.counters(
        "delivery_ack_timeouts",
        "Batches sent again because no acknowledgement came",
        stats(|stats| stats.ack_timeouts),
    );
    let states = delivery.iter().flat_map(|(of, stats)| {
        DeliveryState::ALL
            .iter()
            .map(move |state| (vec![name(of), ("state", state.name().to_owned())], u64::from(*state == stats.state)))
    });
    scrape.gauges("delivery_state", "1 for the state that delivery is in", states);
    let last = stats(|stats| stats.last_success.unwrap_or_default());
    scrape.gauges("delivery_last_success_timestamp_seconds", "Last batch that arrived, since 1970; 0: none", last);
}
