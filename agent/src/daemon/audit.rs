//! From the rings to the queue, in one thread: drain, rebuild, make records, tell the kernel side what it need not copy.

use crate::capture::{Capture, Windows, wall_minus_monotonic_ns};
use crate::config::{AuditClass, Dialect as DialectKey, RedactMode, keys::Config};
use crate::health::Health;
use crate::queue::Producer;
use s3auditd_rebuild::{
    exchange::Exchange,
    pipeline::{Limits, Output, Pipeline},
    record::{Clock, RecordMaker, RecordSettings, WekaInfo},
    redact::Redaction,
    s3::operation::{Class, Dialect},
};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// How often the snapshot for `status` and metrics is renewed.
const PUBLISH_EVERY: Duration = Duration::from_millis(250);

/// Everything between the kernel and the queue.
pub(super) struct Audit {
    capture: Capture,
    rebuild: Rebuild,
    flush: Duration,
    health: Arc<Health>,
    published: Instant,
}

/// The part that turns samples into records.
struct Rebuild {
    pipeline: Pipeline,
    maker: RecordMaker,
    audited: Vec<Class>,
    producer: Producer,
    clock: Clock,
    /// Exchanges that gave no record because their class is switched off.
    not_audited: BTreeMap<&'static str, u64>,
}

impl Audit {
    pub(super) fn new(
        config: &Config,
        capture: Capture,
        producer: Producer,
        health: Arc<Health>,
        instance_id: String,
    ) -> Self {
        let limits = Limits {
            max_connections: config.max_connections,
            max_head_bytes: usize::try_from(config.max_head_bytes).unwrap_or(usize::MAX),
            max_body_start_bytes: usize::try_from(config.max_body_start_bytes).unwrap_or(usize::MAX),
            ..Limits::default()
        };
        let rebuild = Rebuild {
            pipeline: Pipeline::new(limits),
            maker: RecordMaker::new(record_settings(config, instance_id), 0),
            audited: audited_classes(config),
            producer,
            clock: Clock { wall_minus_monotonic_ns: wall_minus_monotonic_ns() },
            not_audited: BTreeMap::new(),
        };
        let flush = Duration::from_millis(config.ring_flush_ms);
        let mut audit = Self { capture, rebuild, flush, health, published: Instant::now() };
        audit.publish();
        audit
    }

    /// Runs until `stop` is true, then sees to it that everything captured until then is in the queue.
    pub(super) fn run(mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Acquire) {
            self.capture.wait(self.flush);
            self.turn();
            if self.published.elapsed() >= PUBLISH_EVERY {
                self.publish();
            }
        }
        let now = self.capture.stop();
        self.turn();
        self.rebuild.pipeline.finish(now);
        self.rebuild.outputs(None);
        self.publish();
    }

    fn turn(&mut self) {
        self.rebuild.clock = Clock { wall_minus_monotonic_ns: wall_minus_monotonic_ns() };
        let rebuild = &mut self.rebuild;
        let passed = self.capture.drain(|sample, windows| {
            rebuild.pipeline.take(sample);
            // At once: every moment that a window comes earlier keeps body bytes out of the ring.
            rebuild.outputs(Some(windows));
        });
        rebuild.pipeline.advance(passed);
        rebuild.outputs(Some(self.capture.windows()));
    }

    fn publish(&mut self) {
        self.published = Instant::now();
        self.health.publish_capture(self.capture.status());
        let own = self.rebuild.not_audited.iter().map(|(class, count)| (format!("not_audited_{class}"), *count));
        let counters = self.rebuild.pipeline.counters();
        let open = [("connections_open", counters.connections_open()), ("exchanges_open", counters.exchanges_open())];
        let named = counters.iter().chain(open).map(|(name, value)| (name.to_owned(), value));
        self.health.publish_rebuild(named.chain(own));
    }
}

impl Rebuild {
    /// Everything that came out of the pipeline; without `windows` there is no kernel side to tell any more.
    fn outputs(&mut self, mut windows: Option<&mut Windows>) {
        while let Some(output) = self.pipeline.next_output() {
            match output {
                Output::Exchange(exchange) => self.record(&exchange),
                Output::Window { cookie, direction, window } => {
                    if let Some(windows) = &mut windows {
                        windows.set(cookie, direction, window);
                    }
                }
            }
        }
    }

    fn record(&mut self, exchange: &Exchange) {
        let reading = self.maker.read(exchange);
        let class = reading.class();
        // A request whose head was not seen could have been anything, so it is never left out.
        if exchange.request.is_some() && !self.audited.contains(&class) {
            *self.not_audited.entry(class.name()).or_default() += 1;
            return;
        }
        let record = self.maker.record(reading, self.clock);
        // A full queue counts what it refuses; there is nothing else to do here, and no time to wait.
        let _taken = self.producer.push(record.to_json().into());
    }
}

fn audited_classes(config: &Config) -> Vec<Class> {
    let chosen = config.audit_classes.iter().map(|class| match class {
        AuditClass::Health => Class::Health,
        AuditClass::Metrics => Class::Metrics,
        AuditClass::Admin => Class::Admin,
        AuditClass::Console => Class::Console,
        AuditClass::Internode => Class::Internode,
        AuditClass::Preflight => Class::Preflight,
        AuditClass::Unknown => Class::Unknown,
    });
    [Class::S3, Class::Sts].into_iter().chain(chosen).collect()
}

fn record_settings(config: &Config, instance_id: String) -> RecordSettings {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    RecordSettings {
        dialect: match config.dialect {
            DialectKey::Weka => Dialect::Weka,
            DialectKey::Minio => Dialect::Minio,
            DialectKey::Aws => Dialect::Aws,
        },
        domains: config.domain.clone(),
        deployment_id: text(&config.deployment_id),
        weka_info: WekaInfo {
            cluster_guid: text(&config.cluster_guid),
            cluster_name: text(&config.cluster_name),
            release: text(&config.release),
            server_ip: config.server_ip.map(|address| address.to_string()).unwrap_or_default(),
            server_name: text(&config.server_name),
            version: text(&config.version),
        },
        instance_id,
        redaction: Redaction {
            extra_names: config.redact_names.clone(),
            only_names: match config.redact_mode {
                RedactMode::DenyList => None,
                RedactMode::AllowList => Some(config.keep_names.clone()),
            },
        },
        // Both sides parse the same notation, so none is lost on the way.
        trusted_proxies: config.trusted_proxies.iter().filter_map(|net| net.to_string().parse().ok()).collect(),
        ..RecordSettings::default()
    }
}
