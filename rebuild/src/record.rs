//! The audit record: what an exchange meant, redacted, in the shape of WEKA's audit entry with a part of our own.
//!
//! A record never states what was not seen: what is not known is left out, and `s3auditd.completion` and
//! `s3auditd.unseen` say why. Redaction happens here, before a record can be queued. Every text is bounded, so a record
//! is. `docs/record.md` is the reference of all fields.

mod asked;
pub mod client;
mod document;
pub mod event;
mod facts;
pub mod headers;
mod json;
mod lines;
mod making;
mod origin;
pub mod served;
pub mod status;
mod texts;

pub use document::WekaInfo;

use crate::exchange::Exchange;
use crate::redact::Redaction;
use crate::s3::operation::{Class, Dialect};
use crate::s3::outcome::Outcome;
use asked::Asked;
use client::Cidr;
use document::Document;
use event::{Event, EventRecord, Kind, Moment};
use headers::Maps;
use jiff::Timestamp;
use origin::Origins;
use served::Cgroups;
use std::collections::BTreeMap;
use texts::Short;

/// How records are made.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordSettings {
    /// Whose names `api.name` speaks.
    pub dialect: Dialect,
    /// Domains under which the gateway serves virtual-host style; empty: path style only.
    pub domains: Vec<String>,
    /// Path prefixes the gateway keeps for itself, each with both slashes.
    pub reserved_prefixes: Vec<String>,
    /// `deploymentid`; empty: left out.
    pub deployment_id: String,
    /// See [`WekaInfo`].
    pub weka_info: WekaInfo,
    /// What tells this run of this agent from all others; event ids are unique within it. A fresh random text per
    /// start, unless the sequence goes on where it ended.
    pub instance_id: String,
    /// The kernel's id of this boot of the node; empty: left out.
    pub boot_id: String,
    /// See [`Redaction`].
    pub redaction: Redaction,
    /// Hops whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<Cidr>,
    /// How many keys of a multi-delete are listed.
    pub max_delete_keys: usize,
    /// How many bytes these keys and their version ids may have together.
    pub max_delete_key_bytes: usize,
}

impl Default for RecordSettings {
    fn default() -> Self {
        Self {
            dialect: Dialect::default(),
            domains: Vec::new(),
            reserved_prefixes: vec!["/minio/".to_owned(), "/wekas3api/".to_owned()],
            deployment_id: String::new(),
            weka_info: WekaInfo::default(),
            instance_id: String::new(),
            boot_id: String::new(),
            redaction: Redaction::default(),
            trusted_proxies: Cidr::LOOPBACK.to_vec(),
            max_delete_keys: 1000,
            max_delete_key_bytes: 128 * 1024,
        }
    }
}

/// How the exchange's clock stands to the wall's: time is an argument.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    /// Wall time (nanoseconds since 1970, UTC) minus CLOCK_MONOTONIC, at about the time of the exchange.
    pub wall_minus_monotonic_ns: i128,
}

impl Clock {
    /// The wall time; the nearest end of time for what no calendar holds.
    fn wall(self, monotonic_ns: u64) -> Timestamp {
        let wall = self.wall_minus_monotonic_ns.saturating_add(i128::from(monotonic_ns));
        // Nearly every time fits, and 128 bits divide slowly.
        if let Ok(wall) = u64::try_from(wall)
            && let (Ok(second), Ok(nanosecond)) =
                (i64::try_from(wall / 1_000_000_000), i32::try_from(wall % 1_000_000_000))
            && let Ok(time) = Timestamp::new(second, nanosecond)
        {
            return time;
        }
        let nearest = if wall < 0 { Timestamp::MIN } else { Timestamp::MAX };
        Timestamp::from_nanosecond(wall).unwrap_or(nearest)
    }
}

/// Turns exchanges into records and numbers them.
#[derive(Clone, Debug)]
pub struct RecordMaker {
    settings: RecordSettings,
    cgroups: Cgroups,
    maps: Maps,
    origins: Origins,
    /// Hash of the instance's id.
    instance: u64,
    next_sequence: u64,
    made: BTreeMap<&'static str, u64>,
}

impl RecordMaker {
    /// A maker whose first record gets `next_sequence`.
    #[must_use]
    pub fn new(settings: RecordSettings, next_sequence: u64) -> Self {
        // Each start has an instance of its own, which clients do not know.
        let instance = fnv1a(settings.instance_id.as_bytes());
        let maps = Maps::new(instance);
        Self {
            settings,
            cgroups: Cgroups::default(),
            maps,
            origins: Origins::new(),
            instance,
            next_sequence,
            made: BTreeMap::new(),
        }
    }

    /// How it makes records.
    #[must_use]
    pub fn settings(&self) -> &RecordSettings {
        &self.settings
    }

    /// Changes how records are made from here on; the numbering goes on.
    pub fn reconfigure(&mut self, settings: RecordSettings) {
        self.instance = fnv1a(settings.instance_id.as_bytes());
        self.settings = settings;
        self.maps.forget();
    }

    /// What is known of cgroups: to be told by whoever can look at the node. In replays there is nobody who can.
    pub fn cgroups(&mut self) -> &mut Cgroups {
        &mut self.cgroups
    }

    /// The sequence number of the next record.
    #[must_use]
    pub fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// Reads what an exchange asked for, so that kinds of requests can be left out before a record is made of them. No
    /// number is used up.
    #[must_use]
    pub fn read<'a>(&self, exchange: &'a Exchange) -> Reading<'a> {
        let asked = exchange.request.as_ref().map(|request| Asked::read(request, exchange, &self.settings));
        Reading { exchange, asked }
    }

    /// Makes the record of an exchange that was read with the same settings.
    pub fn record<'a>(&'a mut self, reading: Reading<'a>, clock: Clock) -> Record<'a> {
        let number = self.number(Kind::Operation, clock.wall(reading.exchange.ended_ns));
        making::record(&self.settings, &self.cgroups, &mut self.maps, &mut self.origins, reading, clock, number)
    }

    /// Makes a record of our own; it is numbered like all others.
    pub fn event(&mut self, event: Event, time: Moment) -> EventRecord {
        let number = self.number(event.kind(), time.timestamp());
        event::record(&self.settings, event, time, &number)
    }

    /// Records made, by the names of their kinds; kinds without any are left out.
    #[must_use]
    pub fn made(&self) -> &BTreeMap<&'static str, u64> {
        &self.made
    }

    fn number(&mut self, kind: Kind, time: Timestamp) -> Number {
        let sequence = self.next_sequence;
        self.next_sequence = self.next_sequence.wrapping_add(1);
        *self.made.entry(kind.name()).or_default() += 1;
        Number { sequence, event_id: event_id(time, self.instance, sequence) }
    }
}

/// An exchange and what its request asked for.
pub struct Reading<'a> {
    exchange: &'a Exchange,
    /// None: the request's head was not seen.
    asked: Option<Asked<'a>>,
}

impl Reading<'_> {
    /// What kind of request it was.
    #[must_use]
    pub fn class(&self) -> Class {
        self.asked.as_ref().map_or(Class::Unknown, Asked::class)
    }
}

/// An audit record. It is made by a [`RecordMaker`] and has nothing in it that must not be written down.
#[derive(Clone, Debug, PartialEq)]
pub struct Record<'a> {
    document: Document<'a>,
    class: Class,
    outcome: Outcome,
}

impl Record<'_> {
    /// Its number; consecutive per maker.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.document.s3auditd.sequence
    }

    /// Its id: a UUID of version 7.
    #[must_use]
    pub fn event_id(&self) -> &str {
        self.document.s3auditd.event_id.as_str()
    }

    /// See [`Class`].
    #[must_use]
    pub fn class(&self) -> Class {
        self.class
    }

    /// See [`Outcome`].
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// The AWS name of the operation, where there is one.
    #[must_use]
    pub fn operation(&self) -> Option<&'static str> {
        self.document.s3auditd.operation
    }

    /// When the operation ended: RFC 3339, UTC, nanoseconds.
    #[must_use]
    pub fn time(&self) -> &str {
        self.document.time.as_str()
    }

    /// The record as JSON, without a line end. No byte of it is a control character, so it is one line wherever it is
    /// written.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let mut json = Vec::with_capacity(4096);
        self.write_json(&mut json);
        json
    }

    /// The same, into memory that was used before.
    pub fn write_json(&self, json: &mut Vec<u8>) {
        json.clear();
        // Texts, integers and maps of texts: all that the writer knows, so it has no way to fail.
        if json::write(json, &self.document).is_err() {
            json.clear();
        }
    }
}

/// What tells a record from all others.
struct Number {
    sequence: u64,
    event_id: Short,
}

/// A UUID of version 7 (RFC 9562, 5.7) without a random source: 48 bits of milliseconds, then 32 bits of a hash of the
/// instance and 42 bits of the sequence where the RFC has random ones. So ids are in order of time, do not repeat
/// within an instance, and the same exchange in the same place gives the same id.
fn event_id(time: Timestamp, instance: u64, sequence: u64) -> Short {
    let milliseconds = u64::try_from(time.as_millisecond()).unwrap_or(0) & 0xffff_ffff_ffff;
    let (high, low) = ((instance >> 20) & 0xfff, instance & 0xf_ffff);
    let first = (milliseconds << 16) | 0x7000 | high;
    let second = (0b10 << 62) | (low << 42) | (sequence & 0x3ff_ffff_ffff);
    texts::uuid(first, second)
}

/// FNV-1a, 64 bits. Not a cryptographic hash; an instance id is not a secret.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_ids_are_uuids_of_version_7() {
        let time = Timestamp::from_millisecond(1_742_539_047_915).unwrap();
        let id = event_id(time, fnv1a(b"an instance"), 5);
        let id = id.as_str();
        assert!(id.starts_with("0195b76b-c3eb-7"), "{id}");
        assert!(id.ends_with("00000005"), "{id}");
        assert!(matches!(id.as_bytes()[19], b'8'..=b'b'), "{id}");
        assert_eq!(id.len(), 36);
    }
}
