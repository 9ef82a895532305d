//! From samples to records, as configured: the same for the daemon and for replays.

use crate::config::{AuditClass, Dialect as DialectKey, RedactMode, keys::Config};
use s3auditd_common::sample::{Direction, Window};
use s3auditd_rebuild::{
    exchange::Exchange,
    gap::Gap,
    pipeline::{Limits, Moved, Output, Pipeline},
    record::{Clock, RecordMaker, RecordSettings, WekaInfo},
    redact::Redaction,
    s3::operation::{Class, Dialect},
    sample::Sample,
};
use std::collections::BTreeMap;

/// Samples in; records and windows out.
#[derive(Debug)]
pub struct Rebuild {
    pipeline: Pipeline,
    maker: RecordMaker,
    audited: Vec<Class>,
    clock: Clock,
    /// Exchanges that gave no record because their class is switched off.
    not_audited: BTreeMap<&'static str, u64>,
}

/// What comes out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Made {
    /// A record: one line of JSON without its line end, which belongs to whoever writes it.
    Record(Vec<u8>),
    /// Bytes in which operations may hide that leave no record.
    Gap(Box<Gap>),
    /// To be told to the kernel side, if there is one; see `Output::Window`.
    Window {
        /// The connection.
        cookie: u64,
        /// The direction.
        direction: Direction,
        /// What is wanted of it.
        window: Window,
    },
}

impl Rebuild {
    /// Nothing seen yet; the first record gets the number 0. The clock is zero until it is set.
    #[must_use]
    pub fn new(config: &Config, instance_id: String) -> Self {
        let limits = Limits {
            max_connections: config.max_connections,
            max_head_bytes: usize::try_from(config.max_head_bytes).unwrap_or(usize::MAX),
            max_body_start_bytes: usize::try_from(config.max_body_start_bytes).unwrap_or(usize::MAX),
            ..Limits::default()
        };
        Self {
            pipeline: Pipeline::new(limits),
            maker: RecordMaker::new(record_settings(config, instance_id), 0),
            audited: audited_classes(config),
            clock: Clock::default(),
            not_audited: BTreeMap::new(),
        }
    }

    /// How the clock of the samples to come stands to the wall's.
    pub fn set_clock(&mut self, clock: Clock) {
        self.clock = clock;
    }

    /// See [`Pipeline::take`].
    pub fn take(&mut self, sample: &Sample<'_>) {
        self.pipeline.take(sample);
    }

    /// See [`Pipeline::advance`].
    pub fn advance(&mut self, drained_until_ns: u64) {
        self.pipeline.advance(drained_until_ns);
    }

    /// See [`Pipeline::finish`].
    pub fn finish(&mut self, now_ns: u64) {
        self.pipeline.finish(now_ns);
    }

    /// See [`Pipeline::follow_moves`].
    pub fn follow_moves(&mut self) {
        self.pipeline.follow_moves();
    }

    /// See [`Pipeline::next_moved`].
    pub fn next_moved(&mut self) -> Option<Moved> {
        self.pipeline.next_moved()
    }

    /// The next thing that came out. To be emptied after each step.
    pub fn next_made(&mut self) -> Option<Made> {
        loop {
            match self.pipeline.next_output()? {
                Output::Exchange(exchange) => {
                    if let Some(record) = self.record(&exchange) {
                        return Some(Made::Record(record));
                    }
                }
                Output::Gap(gap) => return Some(Made::Gap(gap)),
                Output::Window { cookie, direction, window } => {
                    return Some(Made::Window { cookie, direction, window });
                }
            }
        }
    }

    /// Every counter with its name.
    pub fn counters(&self) -> impl Iterator<Item = (String, u64)> {
        let own = self.not_audited.iter().map(|(class, count)| (format!("not_audited_{class}"), *count));
        let counters = self.pipeline.counters();
        let open = [("connections_open", counters.connections_open()), ("exchanges_open", counters.exchanges_open())];
        counters.iter().chain(open).map(|(name, value)| (name.to_owned(), value)).chain(own)
    }

    fn record(&mut self, exchange: &Exchange) -> Option<Vec<u8>> {
        let reading = self.maker.read(exchange);
        let class = reading.class();
        // A request whose head was not seen could have been anything, so it is never left out.
        if exchange.request.is_some() && !self.audited.contains(&class) {
            *self.not_audited.entry(class.name()).or_default() += 1;
            return None;
        }
        Some(self.maker.record(reading, self.clock).to_json())
    }
}

/// What of names and values is never written down.
#[must_use]
pub fn redaction(config: &Config) -> Redaction {
    Redaction {
        extra_names: config.redact_names.clone(),
        only_names: match config.redact_mode {
            RedactMode::DenyList => None,
            RedactMode::AllowList => Some(config.keep_names.clone()),
        },
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
        redaction: redaction(config),
        // Both sides parse the same notation, so none is lost on the way.
        trusted_proxies: config.trusted_proxies.iter().filter_map(|net| net.to_string().parse().ok()).collect(),
        ..RecordSettings::default()
    }
}
