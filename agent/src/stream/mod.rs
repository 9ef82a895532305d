//! The stream of records: what makes it say itself what is complete.
//!
//! The [`Author`] numbers every record, of operations and of our own, keeps the book of losses ([`gaps`]) and seals the
//! lines ([`chain`]). Lines come out in the order of their numbers, which has to be the order of delivery.

pub mod chain;
pub mod gaps;
mod roll;

use bytes::Bytes;
use chain::{Hash, Key, Seal};
use gaps::{ConnectionGap, GapBook, NodeCounts, RecordLoss, Told};
use roll::Roll;
use s3auditd_rebuild::exchange::Exchange;
use s3auditd_rebuild::record::event::{
    CheckpointRecord, ConfigurationRecord, CoverageRecord, Covers, Event, GapRecord, Kind, RecoveryRecord, StartRecord,
    StopRecord,
};
use s3auditd_rebuild::record::{Clock, Reading, RecordMaker, RecordSettings, served::Cgroups};
use std::collections::VecDeque;

/// A finished record: one line of JSON without its line end, which belongs to whoever writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its number.
    pub sequence: u64,
    /// What it tells of.
    pub kind: Kind,
    /// The JSON, sealed. Not to be changed by a byte.
    pub bytes: Bytes,
}

/// The kernel's id of this boot of the node; empty: it does not say.
#[must_use]
pub fn boot_id() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    id.map(|id| id.trim().to_owned()).unwrap_or_default()
}

/// Writes the stream of one instance: what goes in becomes lines, to be taken with [`Author::next_line`] after each step.
/// All times are nanoseconds of CLOCK_MONOTONIC.
#[derive(Debug)]
pub struct Author {
    maker: RecordMaker,
    gaps: GapBook,
    seal: Seal,
    clock: Clock,
    /// The latest time that was told.
    now_ns: u64,
    /// The first number that the next checkpoint covers.
    uncovered: u64,
    /// Where an operation's line is written.
    text: Vec<u8>,
    roll: Roll,
    lines: VecDeque<Line>,
}

/// What is kept of the memory in which lines are written; few are longer.
const USUAL_LINE_BYTES: usize = 16 * 1024;

impl Author {
    /// Nothing written yet. The clock is zero until it is set.
    #[must_use]
    pub fn new(maker: RecordMaker, seal: Seal) -> Self {
        let uncovered = maker.next_sequence();
        let (gaps, clock) = (GapBook::default(), Clock::default());
        let (text, roll, lines) = (Vec::new(), Roll::default(), VecDeque::new());
        Self { maker, gaps, seal, clock, now_ns: 0, uncovered, text, roll, lines }
    }

    /// The next finished line.
    pub fn next_line(&mut self) -> Option<Line> {
        self.lines.pop_front()
    }

    /// How CLOCK_MONOTONIC stands to the wall's clock from here on.
    pub fn set_clock(&mut self, clock: Clock) {
        self.clock = clock;
    }

    /// See [`RecordMaker::reconfigure`].
    pub fn reconfigure(&mut self, settings: RecordSettings) {
        self.maker.reconfigure(settings);
    }

    /// See [`RecordMaker::cgroups`].
    pub fn cgroups(&mut self) -> &mut Cgroups {
        self.maker.cgroups()
    }

    /// How records are made.
    #[must_use]
    pub fn settings(&self) -> &RecordSettings {
        self.maker.settings()
    }

    /// Records made so far, by kind.
    pub fn made(&self) -> impl Iterator<Item = (Kind, u64)> {
        let made = self.maker.made();
        Kind::ALL.iter().map(|kind| (*kind, made.get(kind.name()).copied().unwrap_or_default()))
    }

    /// The number of the next record.
    #[must_use]
    pub fn next_sequence(&self) -> u64 {
        self.maker.next_sequence()
    }

    /// See [`Seal::head`].
    #[must_use]
    pub fn head(&self) -> Option<Hash> {
        self.seal.head()
    }

    /// See [`RecordMaker::read`].
    #[must_use]
    pub fn read<'a>(&self, exchange: &'a Exchange) -> Reading<'a> {
        self.maker.read(exchange)
    }

    /// An operation ended.
    pub fn operation(&mut self, reading: Reading<'_>, ended_ns: u64) {
        self.now_ns = self.now_ns.max(ended_ns);
        let record = self.maker.record(reading, self.clock);
        let (sequence, mut text) = (record.sequence(), std::mem::take(&mut self.text));
        record.write_json(&mut text);
        self.push(sequence, Kind::Operation, text);
        self.checkpoint_if_due();
    }

    /// The first records of an instance. `recovery`: the one before did not stop in order.
    pub fn start(&mut self, start: StartRecord, recovery: Option<RecoveryRecord>, now_ns: u64) {
        self.event(Event::Start(start), now_ns);
        if let Some(recovery) = recovery {
            self.event(Event::Recovery(recovery), now_ns);
        }
        self.checkpoint();
    }

    /// The last records of an instance: what was lost and not told yet, then the sums of all.
    pub fn stop(&mut self, reason: &str, exchanges_begun: u64, exchanges_ended: u64, now_ns: u64) {
        loop {
            let gaps = self.gaps.flush_now(now_ns, self.clock);
            if gaps.is_empty() {
                break;
            }
            self.tell(gaps, now_ns);
        }
        let stop = StopRecord {
            reason: reason.to_owned(),
            records: self.maker.made().clone(),
            losses: self.gaps.totals(),
            exchanges_begun,
            exchanges_ended,
        };
        self.event(Event::Stop(stop), now_ns);
        self.checkpoint();
    }

    /// What is seen now, and what cannot be.
    pub fn coverage(&mut self, coverage: CoverageRecord, now_ns: u64) {
        self.event(Event::Coverage(coverage), now_ns);
        self.checkpoint_if_due();
    }

    /// The configuration changed, or was to.
    pub fn configuration(&mut self, configuration: ConfigurationRecord, now_ns: u64) {
        self.event(Event::Configuration(configuration), now_ns);
        self.checkpoint_if_due();
    }

    /// A connection lost something; told with the next [`Author::tick`] that is due.
    pub fn connection_gap(&mut self, gap: ConnectionGap) {
        self.gaps.connection(gap);
    }

    /// Records were lost; told with the next [`Author::tick`] that is due.
    pub fn record_loss(&mut self, loss: RecordLoss) {
        self.gaps.records(loss);
    }

    /// What the kernel side lost so far; told with the next [`Author::tick`] that is due. See [`GapBook::node`].
    pub fn node_counts(&mut self, counts: &NodeCounts<'_>, now_ns: u64) {
        self.gaps.node(counts, now_ns);
    }

    /// Time passed: gap records and checkpoints that are due. To be called several times a second.
    pub fn tick(&mut self, now_ns: u64) {
        self.now_ns = self.now_ns.max(now_ns);
        let gaps = self.gaps.flush(now_ns, self.clock);
        self.tell(gaps, now_ns);
        self.checkpoint_if_due();
    }

    /// Every record below this number is kept: see [`GapBook::kept`].
    pub fn kept(&mut self, below: u64) {
        self.gaps.kept(below);
    }

    /// These records were lost after they were written: see [`GapBook::lost`]. That they were is a loss of its own.
    pub fn lost(&mut self, first: u64, last: u64) {
        self.gaps.lost(first, last);
    }

    fn tell(&mut self, gaps: Vec<(GapRecord, Told)>, now_ns: u64) {
        for (gap, told) in gaps {
            let sequence = self.event(Event::Gap(gap), now_ns);
            self.gaps.told(sequence, told);
        }
    }

    fn event(&mut self, event: Event, now_ns: u64) -> u64 {
        self.now_ns = self.now_ns.max(now_ns);
        let record = self.maker.event(event, self.clock.at(now_ns));
        self.push(record.sequence, record.kind, record.json);
        record.sequence
    }

    fn push(&mut self, sequence: u64, kind: Kind, json: Vec<u8>) {
        let text = self.seal.line(json);
        self.push_sealed(sequence, kind, text);
    }

    /// Keeps a copy; the memory serves the next operation's line.
    fn push_sealed(&mut self, sequence: u64, kind: Kind, text: Vec<u8>) {
        self.lines.push_back(Line { sequence, kind, bytes: self.roll.keep(&text) });
        self.text = text;
        self.text.shrink_to(USUAL_LINE_BYTES);
    }

    fn checkpoint_if_due(&mut self) {
        if self.seal.due(self.now_ns) {
            self.checkpoint();
        }
    }

    /// A signed checkpoint over everything before it, if checkpoints are signed.
    fn checkpoint(&mut self) {
        let (Some(head), Some(key)) = (self.seal.head(), self.seal.key()) else { return };
        let Some(last) = self.maker.next_sequence().checked_sub(1) else { return };
        let instance_id = self.maker.settings().instance_id.clone();
        let checkpoint = CheckpointRecord {
            covers: Covers { instance_id, first: self.uncovered, last },
            hash: head.as_str().to_owned(),
            key_id: Key::id(key).to_owned(),
            public_key: key.public().to_owned(),
        };
        let record = self.maker.event(Event::Checkpoint(checkpoint), self.clock.at(self.now_ns));
        self.uncovered = record.sequence;
        let text = self.seal.sign(record.json, self.now_ns);
        self.push_sealed(record.sequence, record.kind, text);
    }
}
