//! Records of our own: what the stream of records says of itself. They are numbered with the operations' records, have
//! no `api`, and carry what they say under a key that is their kind's name.
//!
//! Whoever makes one answers for its facts; here it gets its shape and its bounds. `docs/record.md` is the reference.

mod making;

pub(super) use making::record;

use super::Clock;
use jiff::Timestamp;
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

/// How long one text of a record of our own may be, in bytes.
pub const MAX_TEXT_BYTES: usize = 4 * 1024;
/// How many entries one list may have.
pub const MAX_ENTRIES: usize = 256;

macro_rules! names {
    ($($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $text:literal,)+ })+) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
        pub enum $name { $($(#[$variant_meta])* #[serde(rename = $text)] $variant,)+ }

        impl $name {
            /// Every one.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The word in the record.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
    )+};
}

names! {
    /// What a record tells of.
    #[derive(Default)]
    Kind {
        /// An S3 operation.
        #[default]
        Operation = "operation",
        /// A loss: see [`GapRecord`].
        Gap = "gap",
        /// See [`StartRecord`].
        Start = "start",
        /// See [`StopRecord`].
        Stop = "stop",
        /// See [`RecoveryRecord`].
        Recovery = "recovery",
        /// See [`CoverageRecord`].
        Coverage = "coverage",
        /// See [`ConfigurationRecord`].
        Configuration = "configuration",
        /// See [`CheckpointRecord`].
        Checkpoint = "checkpoint",
    }

    /// Where something was lost on its way.
    Stage {
        /// The kernel side or its rings.
        Kernel = "kernel",
        /// From samples to records.
        Rebuild = "rebuild",
        /// The queue before numbering.
        Queue = "queue",
        /// The store on disk.
        Spool = "spool",
        /// On the way to an endpoint.
        Delivery = "delivery",
    }

    /// A direction, as the gateway sees it.
    Way {
        /// The client's bytes.
        Received = "received",
        /// The gateway's bytes.
        Sent = "sent",
    }
}

/// A moment on the wall's clock; written as RFC 3339, UTC, nine digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(Timestamp);

impl Moment {
    /// Nanoseconds since 1970, UTC; the nearest end of time for what no calendar holds.
    #[must_use]
    pub fn from_unix_ns(ns: i128) -> Self {
        Self(Clock { wall_minus_monotonic_ns: ns }.wall(0))
    }

    pub(super) fn timestamp(self) -> Timestamp {
        self.0
    }
}

impl Clock {
    /// When it was that CLOCK_MONOTONIC said this.
    #[must_use]
    pub fn at(self, monotonic_ns: u64) -> Moment {
        Moment(self.wall(monotonic_ns))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:.9}", self.0)
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What a record of our own says.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Event {
    /// Something was lost.
    Gap(GapRecord),
    /// An agent began.
    Start(StartRecord),
    /// An agent ended.
    Stop(StopRecord),
    /// The agent before did not end in order.
    Recovery(RecoveryRecord),
    /// What is seen, and what cannot be.
    Coverage(CoverageRecord),
    /// The configuration changed, or was to.
    Configuration(ConfigurationRecord),
    /// What the chain is at, to be signed.
    Checkpoint(CheckpointRecord),
}

impl Event {
    /// Its kind.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Gap(_) => Kind::Gap,
            Self::Start(_) => Kind::Start,
            Self::Stop(_) => Kind::Stop,
            Self::Recovery(_) => Kind::Recovery,
            Self::Coverage(_) => Kind::Coverage,
            Self::Configuration(_) => Kind::Configuration,
            Self::Checkpoint(_) => Kind::Checkpoint,
        }
    }
}

/// One loss, or many that were put together; the sums are exact.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GapRecord {
    /// Where.
    pub stage: Stage,
    /// Why: a name in snake case.
    pub cause: &'static str,
    /// The connection, where it is about one.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub connection: Option<GapConnection>,
    /// Connections at most, where it is about several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<u64>,
    /// The direction, where it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direction: Option<Way>,
    /// The bytes that are missing of a direction, counted from its beginning, where it is about one range.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub range: Option<ByteRange>,
    /// Bytes of the connections.
    #[serde(skip_serializing_if = "is_zero")]
    pub bytes: u64,
    /// Samples of the kernel side, or runs of its programs.
    #[serde(skip_serializing_if = "is_zero")]
    pub samples: u64,
    /// Records that were made, or were to be.
    #[serde(skip_serializing_if = "is_zero")]
    pub records: u64,
    /// The endpoint, where only one lost something.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Numbers of lost records.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sequences: Vec<SequenceRange>,
    /// When the first was lost.
    pub first_time: Moment,
    /// When the last was lost.
    pub last_time: Moment,
    /// At least so many operations have no record for it.
    pub operations_min: u64,
    /// At most so many; None: nobody knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operations_max: Option<u64>,
    /// Losses that are in this record.
    pub merged: u64,
}

/// The connection that lost something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GapConnection {
    /// The kernel's socket cookie.
    #[serde(rename = "connection", serialize_with = "as_text")]
    pub cookie: u64,
    /// The peer of the gateway's socket.
    #[serde(serialize_with = "as_address")]
    pub client: SocketAddr,
    /// The gateway's own end.
    #[serde(serialize_with = "as_address")]
    pub server: SocketAddr,
    /// Network namespace inode; 0: not known.
    #[serde(skip_serializing_if = "is_zero_u32")]
    pub netns: u32,
}

/// Offsets of bytes, the end not included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ByteRange {
    /// The first.
    pub from: u64,
    /// Behind the last.
    pub to: u64,
}

/// Numbers of records, both ends included.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SequenceRange {
    /// The instance that numbered them; None: the one that says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<String>,
    /// The first.
    pub first: u64,
    /// The last.
    pub last: u64,
    /// How many of the range, where it is not all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// `s3auditdPrevious` of the first, where it is known: it ties what came before to what comes after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
}

impl SequenceRange {
    /// How many records.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.count.unwrap_or_else(|| self.last.saturating_sub(self.first).saturating_add(1))
    }
}

/// The first record of an instance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StartRecord {
    /// The agent's version.
    pub version: String,
    /// The instance before, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous: Option<PreviousInstance>,
    /// The kernel side that runs.
    pub backend: String,
    /// Watched ports.
    pub ports: Vec<u16>,
}

/// Where the instance before ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PreviousInstance {
    /// Its id.
    pub instance_id: String,
    /// The number of the last record that is known of it.
    pub last_sequence: u64,
    /// It ended in order, with a stop record.
    pub stopped: bool,
}

/// What is known of an instance that did not end in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RecoveryRecord {
    /// Its id.
    pub instance_id: String,
    /// The boot it ran in, where known: another one than now's says that the node went down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// The number of the last record that was kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_sequence: Option<u64>,
    /// Its time, as in the record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_time: Option<String>,
    /// Operations after it may have no record; how many nobody knows.
    pub operations_may_be_missing: bool,
    /// Records that were found in the spool.
    pub records_found: u64,
    /// Records, or frames of them, that were damaged and left out.
    pub corrupt_skipped: u64,
}

/// The last record of an instance, but for a checkpoint. What it counts is before it: it is not in its own sums.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StopRecord {
    /// Why: `signal`, for example.
    pub reason: String,
    /// Records made, by kind.
    pub records: BTreeMap<&'static str, u64>,
    /// What gap records of this instance said, summed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub losses: Vec<LossTotal>,
    /// Exchanges of which something was read.
    pub exchanges_begun: u64,
    /// Exchanges that came to an end. Those of classes that are switched off gave no record.
    pub exchanges_ended: u64,
}

/// The sum of all gap records of one stage and cause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LossTotal {
    /// Where.
    pub stage: Stage,
    /// Why.
    pub cause: &'static str,
    /// Losses.
    pub merged: u64,
    /// See [`GapRecord::bytes`].
    #[serde(skip_serializing_if = "is_zero")]
    pub bytes: u64,
    /// See [`GapRecord::samples`].
    #[serde(skip_serializing_if = "is_zero")]
    pub samples: u64,
    /// See [`GapRecord::records`].
    #[serde(skip_serializing_if = "is_zero")]
    pub records: u64,
    /// See [`GapRecord::operations_min`].
    pub operations_min: u64,
    /// None: for one of them there is no bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operations_max: Option<u64>,
}

/// What is seen, and what cannot be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CoverageRecord {
    /// The kernel side that runs.
    pub backend: String,
    /// Why it is this one.
    pub backend_reason: String,
    /// Watched ports.
    pub ports: Vec<CoveredPort>,
    /// Connections that were open before the probes.
    pub open_at_start: u64,
    /// Connections that gave no records, by reason: `tls`, `http2`, `not_http`, `outgoing`, `upper_layer`, ...
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub unseen_connections: BTreeMap<&'static str, u64>,
    /// Runs of the kernel side's programs that the kernel skipped.
    pub missed_runs: u64,
}

/// A watched port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct CoveredPort {
    /// The port.
    pub port: u16,
    /// Whether a listener was found.
    pub listening: bool,
}

/// The configuration changed, or was to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigurationRecord {
    /// What asked for it: `sighup`, for example.
    pub source: String,
    /// Whether it is in effect.
    pub accepted: bool,
    /// Why it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What changed; secrets are cut by whoever says so.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<ChangedKey>,
}

/// A key of the configuration with its texts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ChangedKey {
    /// The key.
    pub key: String,
    /// Before.
    pub old: String,
    /// After.
    pub new: String,
}

/// What the chain is at; its signature stands behind the record. `docs/verify.md` says how it is checked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckpointRecord {
    /// The records since the checkpoint before.
    pub covers: Covers,
    /// The chain's value of the line before: it stands for all that came before.
    pub hash: String,
    /// The first 16 hex digits of the public key's SHA-256.
    pub key_id: String,
    /// The public key, 32 bytes in base64.
    pub public_key: String,
}

/// The records between two checkpoints, both ends included.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Covers {
    /// The instance.
    pub instance_id: String,
    /// The first.
    pub first: u64,
    /// The last.
    pub last: u64,
}

/// A record of our own, finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRecord {
    /// Its number.
    pub sequence: u64,
    /// Its kind.
    pub kind: Kind,
    /// The record as JSON, one line without a line end.
    pub json: Vec<u8>,
}

#[derive(Serialize)]
struct Address {
    ip: String,
    port: u16,
}

fn as_address<S: Serializer>(address: &SocketAddr, serializer: S) -> Result<S::Ok, S::Error> {
    Address { ip: address.ip().to_canonical().to_string(), port: address.port() }.serialize(serializer)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands fields over by reference")]
fn as_text<S: Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(number)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands fields over by reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands fields over by reference")]
fn is_zero_u32(number: &u32) -> bool {
    *number == 0
}
