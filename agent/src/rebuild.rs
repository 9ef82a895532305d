//! From samples to records, as configured: the same for the daemon and for replays.

use crate::capture::status::CaptureStatus;
use crate::config::{AuditClass, Dialect as DialectKey, RedactMode, keys::Config};
use crate::ledger::DropCause;
use crate::stream::{
    Author, Line,
    chain::Seal,
    gaps::{ConnectionGap, LostBytes, NodeCounts, RecordLoss},
};
use s3auditd_common::{
    counters::KernelCounter,
    sample::{Direction, Window},
};
use s3auditd_rebuild::{
    exchange::Exchange,
    gap::Gap,
    loss::LossCause,
    pipeline::{Limits, Moved, Output, Pipeline},
    record::{
        Clock, RecordMaker, RecordSettings, WekaInfo,
        event::{Stage, Way},
    },
    redact::Redaction,
    s3::operation::{Class, Dialect},
    sample::Sample,
};
use std::collections::BTreeMap;

/// Samples in; records and windows out.
#[derive(Debug)]
pub struct Rebuild {
    pipeline: Pipeline,
    author: Author,
    audited: Vec<Class>,
    room: bool,
    /// Operations that gave no record because there was no room.
    refused: u64,
    /// Exchanges that gave no record because their class is switched off.
    not_audited: BTreeMap<&'static str, u64>,
}

/// What comes out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Made {
    /// A record, of an operation or of our own.
    Record(Line),
    /// No record, because there is no room for it; the author has taken note of the loss.
    Refused,
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
    /// Nothing seen yet; the first record gets the number 0. Lines are not chained. The clock is zero until it is set.
    #[must_use]
    pub fn new(config: &Config, instance_id: String) -> Self {
        let maker = RecordMaker::new(record_settings(config, instance_id, String::new()), 0);
        Self::with_author(config, Author::new(maker, Seal::off()))
    }

    /// The same with an author who may chain and sign.
    #[must_use]
    pub fn with_author(config: &Config, author: Author) -> Self {
        let limits = Limits {
            max_connections: config.max_connections,
            max_head_bytes: usize::try_from(config.max_head_bytes).unwrap_or(usize::MAX),
            max_body_start_bytes: usize::try_from(config.max_body_start_bytes).unwrap_or(usize::MAX),
            ..Limits::default()
        };
        Self {
            pipeline: Pipeline::new(limits),
            author,
            audited: audited_classes(config),
            room: true,
            refused: 0,
            not_audited: BTreeMap::new(),
        }
    }

    /// How the clock of the samples to come stands to the wall's.
    pub fn set_clock(&mut self, clock: Clock) {
        self.author.set_clock(clock);
    }

    /// Who writes the stream: for records of our own, and for what was lost elsewhere.
    pub fn author(&mut self) -> &mut Author {
        &mut self.author
    }

    /// Whether there is room for records. While there is none, operations are counted as lost (`queue`, `queue_full`)
    /// before they get a number; records of our own are made all the same.
    pub fn set_room(&mut self, room: bool) {
        self.room = room;
    }

    /// Makes records as this configuration says from here on; the numbering goes on.
    pub fn reconfigure(&mut self, config: &Config) {
        self.audited = audited_classes(config);
        let RecordSettings { instance_id, boot_id, .. } = self.author.settings().clone();
        self.author.reconfigure(record_settings(config, instance_id, boot_id));
    }

    /// Tells the author what the kernel side lost that no connection's gap tells of.
    pub fn node_losses(&mut self, capture: &CaptureStatus, now_ns: u64) {
        let counters = self.pipeline.counters();
        let lost = |counter| capture.counter(counter);
        let counts = NodeCounts {
            lost_samples: &[
                ("ring_full", lost(KernelCounter::LostRingFull)),
                ("ring_refused", lost(KernelCounter::LostRingRefused)),
            ],
            received: LostBytes {
                lost: lost(KernelCounter::LostReceivedBytes),
                attributed: counters.received_lost_bytes,
            },
            sent: LostBytes { lost: lost(KernelCounter::LostSentBytes), attributed: counters.sent_lost_bytes },
            missed: &[
                ("missed_runs", capture.missed_runs.values().sum()),
                ("missed_returns", lost(KernelCounter::MissedReturns)),
                ("note_refused", lost(KernelCounter::NotesRefused)),
            ],
        };
        self.author.node_counts(&counts, now_ns);
    }

    /// How many exchanges began and ended.
    #[must_use]
    pub fn exchanges(&self) -> (u64, u64) {
        let counters = self.pipeline.counters();
        (counters.exchanges_begun, counters.exchanges_ended)
    }

    /// Connections that give no records, or not from their beginning, by reason.
    #[must_use]
    pub fn unseen_connections(&self) -> BTreeMap<&'static str, u64> {
        let counters = self.pipeline.counters();
        let reasons = [
            ("tls", counters.tls_connections_unread),
            ("http2", counters.http2_connections),
            ("not_http", counters.not_http_connections),
            ("outgoing", counters.outgoing_connections),
            ("upgraded", counters.upgraded_connections),
            ("upper_layer", counters.upper_layer_connections),
        ];
        reasons.into_iter().filter(|(_, count)| *count > 0).collect()
    }

    /// Connections of TLS that are not read, or not from their beginning.
    #[must_use]
    pub fn tls_connections_unread(&self) -> u64 {
        self.pipeline.counters().tls_connections_unread
    }

    /// Every way to lose something between samples and records, with its count.
    pub fn losses(&self) -> impl Iterator<Item = (&'static str, u64)> {
        LossCause::ALL.iter().map(|cause| (cause.name(), cause.count(self.pipeline.counters())))
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
            if let Some(line) = self.author.next_line() {
                return Some(Made::Record(line));
            }
            match self.pipeline.next_output()? {
                Output::Exchange(exchange) => {
                    if !self.exchange(&exchange) {
                        return Some(Made::Refused);
                    }
                }
                Output::Gap(gap) => self.author.connection_gap(connection_gap(&gap)),
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
        let more = [
            ("connections_open", counters.connections_open()),
            ("exchanges_open", counters.exchanges_open()),
            ("records_refused", self.refused),
        ];
        let made = self.author.made().map(|(kind, count)| (format!("records_{}", kind.name()), count));
        let own = own.chain(made);
        counters.iter().chain(more).map(|(name, value)| (name.to_owned(), value)).chain(own)
    }

    /// False: it would have given a record, and there is no room.
    fn exchange(&mut self, exchange: &Exchange) -> bool {
        let reading = self.author.read(exchange);
        let class = reading.class();
        // A request whose head was not seen could have been anything, so it is never left out.
        if exchange.request.is_some() && !self.audited.contains(&class) {
            *self.not_audited.entry(class.name()).or_default() += 1;
        } else if self.room {
            self.author.operation(reading, exchange.ended_ns);
        } else {
            self.refused += 1;
            let cause = DropCause::QueueFull.name();
            self.author.record_loss(RecordLoss::unnumbered(Stage::Queue, cause, 1, exchange.ended_ns));
            return false;
        }
        true
    }
}

fn connection_gap(gap: &Gap) -> ConnectionGap {
    ConnectionGap {
        stage: Stage::Rebuild,
        cause: gap.cause.name(),
        cookie: gap.cookie,
        client: gap.client,
        server: gap.server,
        netns: gap.netns,
        direction: Some(match gap.direction {
            Direction::Received => Way::Received,
            Direction::Sent => Way::Sent,
        }),
        from: gap.from,
        to: gap.to,
        first_ns: gap.first_ns,
        last_ns: gap.last_ns,
        may_hide: gap.may_hide,
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

/// How records are made.
#[must_use]
pub fn record_settings(config: &Config, instance_id: String, boot_id: String) -> RecordSettings {
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
        boot_id,
        redaction: redaction(config),
        // Both sides parse the same notation, so none is lost on the way.
        trusted_proxies: config.trusted_proxies.iter().filter_map(|net| net.to_string().parse().ok()).collect(),
        ..RecordSettings::default()
    }
}
