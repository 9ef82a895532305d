//! The book of losses: many go in, few gap records come out, and the sums are the same.
//!
//! Losses of one connection, cause and direction between two flushes are one record; what would be more than
//! [`MAX_RECORDS`] records a flush is put together by stage and cause. Losses with a bound and without one are never put
//! together, so that the sum of the bounds stays exact. Time is an argument, in nanoseconds of CLOCK_MONOTONIC.

use s3auditd_rebuild::gap::hidden_at_most;
use s3auditd_rebuild::record::Clock;
use s3auditd_rebuild::record::event::{
    ByteRange, GapConnection, GapRecord, LossTotal, MAX_ENTRIES, SequenceRange, Stage, Way,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

/// Records are made no more often than this.
pub const FLUSH_NS: u64 = 1_000_000_000;
/// At most so many records a flush.
pub const MAX_RECORDS: usize = 64;
/// So many losses are told apart between two flushes; what comes then is put together at once.
pub const MAX_TRACKED: usize = 4096;

/// A connection lost something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionGap {
    /// Where.
    pub stage: Stage,
    /// Why: a name in snake case.
    pub cause: &'static str,
    /// The kernel's socket cookie.
    pub cookie: u64,
    /// The peer of the gateway's socket.
    pub client: SocketAddr,
    /// The gateway's own end.
    pub server: SocketAddr,
    /// Network namespace inode.
    pub netns: u32,
    /// The direction, if it is one.
    pub direction: Option<Way>,
    /// The first byte that is missing, as an offset.
    pub from: u64,
    /// Behind the last.
    pub to: u64,
    /// When it was lost at the earliest.
    pub first_ns: u64,
    /// When it was lost at the latest.
    pub last_ns: u64,
    /// By how much it raises the number of operations that may have no record.
    pub may_hide: u64,
}

/// What the kernel side lost of the whole node. All counts since the start; they never go down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeCounts<'a> {
    /// Lost samples, by cause.
    pub lost_samples: &'a [(&'static str, u64)],
    /// Bytes in lost samples, and how many of them rebuild has found as holes of connections.
    pub received: LostBytes,
    /// The same of the other direction.
    pub sent: LostBytes,
    /// Runs of programs that the kernel skipped, and calls that they could not follow, by cause: nobody knows what they
    /// would have seen.
    pub missed: &'a [(&'static str, u64)],
}

/// Lost bytes of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LostBytes {
    /// All.
    pub lost: u64,
    /// Those that a connection's gap tells of.
    pub attributed: u64,
}

impl LostBytes {
    const fn rest(self) -> u64 {
        self.lost.saturating_sub(self.attributed)
    }
}

/// Records were lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordLoss {
    /// Where.
    pub stage: Stage,
    /// Why: a name in snake case.
    pub cause: &'static str,
    /// The endpoint, if only one lost them.
    pub endpoint: Option<Arc<str>>,
    /// How many.
    pub records: u64,
    /// Operations among them: at least, and at most where that is known.
    pub operations_min: u64,
    /// None: nobody knows.
    pub operations_max: Option<u64>,
    /// Their numbers, as far as they had any.
    pub sequences: Vec<SequenceRange>,
    /// When the first was lost.
    pub first_ns: u64,
    /// When the last was lost.
    pub last_ns: u64,
}

impl RecordLoss {
    /// So many operations whose records were never numbered.
    #[must_use]
    pub fn unnumbered(stage: Stage, cause: &'static str, records: u64, now_ns: u64) -> Self {
        Self {
            stage,
            cause,
            endpoint: None,
            records,
            operations_min: records,
            operations_max: Some(records),
            sequences: Vec::new(),
            first_ns: now_ns,
            last_ns: now_ns,
        }
    }
}

/// What losses have in common that go into one record. The order is that in which records are kept apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Sum { stage: Stage, cause: &'static str, bounded: bool },
    Endpoint { stage: Stage, cause: &'static str, bounded: bool, endpoint: Arc<str> },
    Connection { stage: Stage, cause: &'static str, cookie: u64, way: Option<Way> },
}

impl Key {
    fn sum(&self) -> Self {
        match *self {
            Self::Sum { stage, cause, bounded } | Self::Endpoint { stage, cause, bounded, .. } => {
                Self::Sum { stage, cause, bounded }
            }
            Self::Connection { stage, cause, .. } => Self::Sum { stage, cause, bounded: true },
        }
    }

    fn place(&self) -> (Stage, &'static str) {
        match *self {
            Self::Sum { stage, cause, .. }
            | Self::Endpoint { stage, cause, .. }
            | Self::Connection { stage, cause, .. } => (stage, cause),
        }
    }
}

#[derive(Clone, Debug)]
struct Entry {
    connection: Option<GapConnection>,
    connections: u64,
    range: Option<ByteRange>,
    bytes: u64,
    samples: u64,
    records: u64,
    sequences: Vec<SequenceRange>,
    first_ns: u64,
    last_ns: u64,
    operations_min: u64,
    operations_max: Option<u64>,
    merged: u64,
}

impl Entry {
    fn new(first_ns: u64, last_ns: u64) -> Self {
        Self {
            connection: None,
            connections: 0,
            range: None,
            bytes: 0,
            samples: 0,
            records: 0,
            sequences: Vec::new(),
            first_ns,
            last_ns,
            operations_min: 0,
            operations_max: Some(0),
            merged: 1,
        }
    }

    fn absorb(&mut self, other: Self) {
        self.connections = match (&self.connection, &other.connection) {
            (Some(one), Some(other)) if one == other => 1,
            _ => self.connections.saturating_add(other.connections),
        };
        if self.connection != other.connection {
            self.connection = None;
        }
        self.range = match (self.range, other.range) {
            (Some(range), Some(next)) if range.to == next.from => Some(ByteRange { from: range.from, to: next.to }),
            _ => None,
        };
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.samples = self.samples.saturating_add(other.samples);
        self.records = self.records.saturating_add(other.records);
        for range in other.sequences {
            add_range(&mut self.sequences, range);
        }
        self.first_ns = self.first_ns.min(other.first_ns);
        self.last_ns = self.last_ns.max(other.last_ns);
        self.operations_min = self.operations_min.saturating_add(other.operations_min);
        self.operations_max = sum_of_bounds(self.operations_max, other.operations_max);
        self.merged = self.merged.saturating_add(other.merged);
    }

    fn record(self, key: &Key, clock: Clock) -> GapRecord {
        let (stage, cause) = key.place();
        let one = self.connection.is_some();
        GapRecord {
            stage,
            cause,
            connection: self.connection,
            connections: (!one && self.connections > 0).then_some(self.connections),
            direction: if let Key::Connection { way, .. } = key { *way } else { None },
            range: self.range.filter(|_| one),
            bytes: self.bytes,
            samples: self.samples,
            records: self.records,
            endpoint: if let Key::Endpoint { endpoint, .. } = key { Some(endpoint.to_string()) } else { None },
            sequences: self.sequences,
            first_time: clock.at(self.first_ns),
            last_time: clock.at(self.last_ns),
            operations_min: self.operations_min,
            operations_max: self.operations_max,
            merged: self.merged,
        }
    }
}

fn sum_of_bounds(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    Some(one?.saturating_add(other?))
}

/// Adds a range to a list of at most [`MAX_ENTRIES`]; beyond it the last range of the same instance grows over it, with
/// the exact count.
fn add_range(list: &mut Vec<SequenceRange>, range: SequenceRange) {
    let full = list.len() >= MAX_ENTRIES;
    let same = list.iter_mut().rev().find(|there| there.instance_id == range.instance_id);
    match same {
        Some(there)
            if there.count.is_none() && range.count.is_none() && there.last.checked_add(1) == Some(range.first) =>
        {
            there.last = range.last;
        }
        Some(there) if full => {
            there.count = Some(there.records().saturating_add(range.records()));
            there.first = there.first.min(range.first);
            there.last = there.last.max(range.last);
            there.previous = None;
        }
        // Of more instances than that only the number of records is known.
        None if full => {}
        _ => list.push(range),
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct GapBook {
    entries: BTreeMap<Key, Entry>,
    /// In records that were written, and are not in the spool yet as far as is known; by the records' numbers.
    told: BTreeMap<u64, (Key, Entry)>,
    flushed_ns: Option<u64>,
    node: Admitted,
    totals: Totals,
}

/// What a gap record tells, until it has its number; see [`GapBook::told`].
#[derive(Debug)]
pub struct Told(Key, Entry);

/// What of the node's counts is in gap records already.
#[derive(Debug, Default)]
struct Admitted {
    samples: BTreeMap<&'static str, u64>,
    received: u64,
    sent: u64,
    operations: u64,
    missed: BTreeMap<&'static str, u64>,
    looked_ns: Option<u64>,
}

impl GapBook {
    /// A connection lost something.
    pub fn connection(&mut self, gap: ConnectionGap) {
        let ConnectionGap { stage, cause, cookie, client, server, netns, direction, .. } = gap;
        let entry = Entry {
            connection: Some(GapConnection { cookie, client, server, netns }),
            connections: 1,
            range: (gap.from < gap.to).then_some(ByteRange { from: gap.from, to: gap.to }),
            bytes: gap.to.saturating_sub(gap.from),
            operations_max: Some(gap.may_hide),
            ..Entry::new(gap.first_ns, gap.last_ns)
        };
        self.add(Key::Connection { stage, cause, cookie, way: direction }, entry);
    }

    /// Records were lost.
    pub fn records(&mut self, loss: RecordLoss) {
        let (stage, cause, bounded) = (loss.stage, loss.cause, loss.operations_max.is_some());
        let mut sequences = Vec::new();
        for range in loss.sequences {
            add_range(&mut sequences, range);
        }
        let entry = Entry {
            records: loss.records,
            sequences,
            operations_min: loss.operations_min,
            operations_max: loss.operations_max,
            ..Entry::new(loss.first_ns, loss.last_ns)
        };
        let key = match loss.endpoint {
            Some(endpoint) => Key::Endpoint { stage, cause, bounded, endpoint },
            None => Key::Sum { stage, cause, bounded },
        };
        self.add(key, entry);
    }

    /// What the kernel side lost so far, as read now. Lost bytes that no connection's gap tells of may have been whole
    /// connections; since a gap may be found later than its loss, only what was never admitted before is a new loss.
    pub fn node(&mut self, counts: &NodeCounts<'_>, now_ns: u64) {
        let since_ns = self.node.looked_ns.replace(now_ns).unwrap_or(now_ns);
        let stage = Stage::Kernel;
        for &(cause, samples) in counts.lost_samples {
            let new = grow(self.node.samples.entry(cause).or_default(), samples);
            if new > 0 {
                let entry = Entry { samples: new, ..Entry::new(since_ns, now_ns) };
                self.add(Key::Sum { stage, cause, bounded: true }, entry);
            }
        }
        let (received, sent) = (counts.received.rest(), counts.sent.rest());
        let bytes = grow(&mut self.node.received, received).saturating_add(grow(&mut self.node.sent, sent));
        // Also those that were never answered: of these connections nothing is known.
        let (hidden, _answered) = hidden_at_most(received, sent);
        let operations = grow(&mut self.node.operations, hidden);
        if bytes > 0 || operations > 0 {
            let entry = Entry { bytes, operations_max: Some(operations), ..Entry::new(since_ns, now_ns) };
            self.add(Key::Sum { stage, cause: "unattributed", bounded: true }, entry);
        }
        for &(cause, missed) in counts.missed {
            let new = grow(self.node.missed.entry(cause).or_default(), missed);
            if new > 0 {
                let entry = Entry { samples: new, operations_max: None, ..Entry::new(since_ns, now_ns) };
                self.add(Key::Sum { stage, cause, bounded: false }, entry);
            }
        }
    }

    /// Gap records of what came in, at most [`MAX_RECORDS`], no more often than each [`FLUSH_NS`]. Each is to be
    /// [`Told`] when it has its number.
    #[must_use]
    pub fn flush(&mut self, now_ns: u64, clock: Clock) -> Vec<(GapRecord, Told)> {
        let early = self.flushed_ns.is_some_and(|flushed| now_ns.saturating_sub(flushed) < FLUSH_NS);
        if self.entries.is_empty() || early { Vec::new() } else { self.flush_now(now_ns, clock) }
    }

    /// A gap record got this number. What it tells is kept until [`Self::kept`] or [`Self::lost`] says what became of it.
    pub fn told(&mut self, sequence: u64, Told(key, entry): Told) {
        self.told.insert(sequence, (key, entry));
    }

    /// Every record below this number is kept: what they tell is said.
    pub fn kept(&mut self, below: u64) {
        let rest = self.told.split_off(&below);
        for (key, entry) in std::mem::replace(&mut self.told, rest).into_values() {
            count(&mut self.totals, &key, &entry);
        }
    }

    /// These records were lost: what gap records among them told is to be said again.
    pub fn lost(&mut self, first: u64, last: u64) {
        let numbers: Vec<u64> = self.told.range(first..=last).map(|(number, _)| *number).collect();
        for number in numbers {
            if let Some((key, entry)) = self.told.remove(&number) {
                self.add(key, entry);
            }
        }
    }

    /// The same, whenever it was the last time: for the end. To be called until nothing comes.
    #[must_use]
    pub fn flush_now(&mut self, now_ns: u64, clock: Clock) -> Vec<(GapRecord, Told)> {
        self.flushed_ns = Some(now_ns);
        self.put_together();
        let mut records = Vec::with_capacity(self.entries.len().min(MAX_RECORDS));
        while records.len() < MAX_RECORDS
            && let Some((key, entry)) = self.entries.pop_first()
        {
            records.push((entry.clone().record(&key, clock), Told(key, entry)));
        }
        records
    }

    /// The sums of all gap records that are kept, or on their way.
    #[must_use]
    pub fn totals(&self) -> Vec<LossTotal> {
        let mut totals = self.totals.clone();
        for (key, entry) in self.told.values() {
            count(&mut totals, key, entry);
        }
        totals.into_values().collect()
    }

    fn add(&mut self, key: Key, entry: Entry) {
        // Causes are names in the program, so their sums are few.
        let full = self.entries.len() >= MAX_TRACKED && !self.entries.contains_key(&key);
        self.put(if full { key.sum() } else { key }, entry);
    }

    fn put(&mut self, key: Key, entry: Entry) {
        match self.entries.get_mut(&key) {
            Some(there) => there.absorb(entry),
            None => {
                self.entries.insert(key, entry);
            }
        }
    }

    /// Sees to it that one flush takes all, if that can be: keeps as many apart as there is room for, sums up the rest.
    fn put_together(&mut self) {
        if self.entries.len() <= MAX_RECORDS {
            return;
        }
        let mut apart = self.entries.len();
        let mut sums = BTreeSet::new();
        for key in self.entries.keys().rev() {
            if apart + sums.len() <= MAX_RECORDS {
                break;
            }
            apart -= 1;
            sums.insert(key.sum());
        }
        let rest: Vec<Key> = self.entries.keys().skip(apart).cloned().collect();
        for key in rest {
            if let Some(entry) = self.entries.remove(&key) {
                // Its connection or endpoint is not told any more.
                self.put(key.sum(), Entry { connection: None, range: None, ..entry });
            }
        }
    }
}

type Totals = BTreeMap<(Stage, &'static str), LossTotal>;

fn count(totals: &mut Totals, key: &Key, entry: &Entry) {
    let (stage, cause) = key.place();
    let total = totals.entry((stage, cause)).or_insert(LossTotal {
        stage,
        cause,
        merged: 0,
        bytes: 0,
        samples: 0,
        records: 0,
        operations_min: 0,
        operations_max: Some(0),
    });
    total.merged = total.merged.saturating_add(entry.merged);
    total.bytes = total.bytes.saturating_add(entry.bytes);
    total.samples = total.samples.saturating_add(entry.samples);
    total.records = total.records.saturating_add(entry.records);
    total.operations_min = total.operations_min.saturating_add(entry.operations_min);
    total.operations_max = sum_of_bounds(total.operations_max, entry.operations_max);
}

/// Raises what was admitted; by how much.
fn grow(admitted: &mut u64, to: u64) -> u64 {
    let new = to.saturating_sub(*admitted);
    *admitted = (*admitted).max(to);
    new
}

#[cfg(test)]
mod tests;
