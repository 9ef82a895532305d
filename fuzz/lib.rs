//! What the targets share: arbitrary bytes become samples, and what comes out is checked.

use s3auditd_common::sample::{MAX_PIECE_BYTES, SampleHeader};
use s3auditd_rebuild::exchange::Exchange;
use s3auditd_rebuild::pipeline::{Limits, Output, Pipeline};
use s3auditd_rebuild::record::{Clock, RecordMaker, RecordSettings};
use s3auditd_rebuild::redact::Redaction;
use s3auditd_rebuild::replay::scrub::Scrubber;
use s3auditd_rebuild::sample::OwnedSample;
use zerocopy::FromZeros as _;

/// Small, so that every limit is met.
pub const LIMITS: Limits = Limits {
    max_connections: 3,
    max_head_bytes: 4096,
    max_body_start_bytes: 512,
    max_pending_bytes: 8192,
    max_total_bytes: 32 * 1024,
    max_open_exchanges_per_connection: 4,
};

/// Takes apart what it is given; zeros when there is no more.
pub struct Bytes<'a>(pub &'a [u8]);

impl<'a> Bytes<'a> {
    pub fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    pub fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// A stream of samples: each begins with a byte that says what, one of how far it jumps, and two of its length.
/// Sequence numbers mostly go on where they were, as they would live.
pub fn samples(data: &[u8]) -> Vec<OwnedSample> {
    let mut bytes = Bytes(data);
    let mut at = [[u32::MAX - 50, 1 << 31]; 4];
    let (mut time_ns, mut samples) = (0, Vec::new());
    while !bytes.0.is_empty() && samples.len() < 4000 {
        let what = bytes.byte();
        let jump = bytes.byte();
        let cookie = usize::from(what >> 6);
        let kind = [1, 1, 2, 2, 3, 4, 5, 6][usize::from(what & 7)];
        time_ns += u64::from(jump & 3);
        let mut header = SampleHeader::new_zeroed();
        header.time_ns = time_ns;
        header.cookie = cookie as u64;
        header.kind = kind;
        header.role = u8::from(what & 8 == 0);
        header.family = 2;
        let this = usize::from(kind == 2);
        (header.seq, header.other_seq) = (at[cookie][this], at[cookie][1 - this]);
        match jump >> 4 {
            0 => header.seq = header.seq.wrapping_sub(u32::from(jump)),
            1 => header.seq = header.seq.wrapping_add(u32::from(jump)),
            2 => header.other_seq = header.other_seq.wrapping_add(u32::from(jump)),
            _ => {}
        }
        let mut payload = Vec::new();
        if kind <= 2 {
            let length = usize::from(u16::from_le_bytes([bytes.byte(), bytes.byte()])).min(MAX_PIECE_BYTES);
            if what & 16 == 0 {
                payload = bytes.take(length).to_vec();
                header.len = payload.len() as u32;
                header.copied = header.len;
            } else {
                header.len = length as u32;
                header.unseen = 1 + jump % 8;
            }
            at[cookie][this] = header.seq.wrapping_add(header.len);
        }
        samples.push(OwnedSample { header, payload });
    }
    samples
}

/// Runs samples through everything behind the ring, the scrubber included, and checks what must always hold.
pub fn run(samples: &[OwnedSample]) -> Vec<Exchange> {
    let mut pipeline = Pipeline::new(LIMITS);
    pipeline.follow_moves();
    let mut exchanges = Vec::new();
    let mut scrubber = Scrubber::new(Redaction::default());
    let mut scrubbed = Vec::new();
    let mut collect = |pipeline: &mut Pipeline| {
        while let Some(output) = pipeline.next_output() {
            if let Output::Exchange(exchange) = output {
                exchanges.push(*exchange);
            }
        }
        while let Some(moved) = pipeline.next_moved() {
            scrubber.take(moved);
        }
        while let Some(sample) = scrubber.next_sample() {
            scrubbed.push(sample);
        }
    };
    for (index, sample) in samples.iter().enumerate() {
        if let Ok(sample) = sample.sample() {
            pipeline.take(&sample);
        }
        if index % 7 == 0 {
            pipeline.advance(sample.header.time_ns);
        }
        collect(&mut pipeline);
        assert!(pipeline.buffered_bytes() < 2 * 1024 * 1024, "{} bytes held", pipeline.buffered_bytes());
    }
    pipeline.finish(u64::MAX);
    collect(&mut pipeline);
    let counters = pipeline.counters();
    assert_eq!(counters.exchanges_begun, counters.exchanges_ended);
    assert_eq!(counters.exchanges_ended, exchanges.len() as u64);
    assert_eq!(pipeline.buffered_bytes(), 0);
    let received = counters.received_seen_bytes
        + counters.received_skipped_bytes
        + counters.received_unseen_bytes
        + counters.received_lost_bytes
        + counters.received_dropped_bytes;
    assert_eq!(counters.received_moved_bytes, received);
    for sample in &scrubbed {
        sample.sample().expect("what is recorded is a sample");
    }
    exchanges
}

/// The record of an exchange is one line of JSON, and not longer than it may be.
pub fn record(maker: &mut RecordMaker, exchange: &Exchange) {
    let reading = maker.read(exchange);
    let _class = reading.class();
    let line = maker.record(reading, Clock { wall_minus_monotonic_ns: 1 << 60 }).to_json();
    assert!(line.iter().all(|byte| *byte >= 0x20), "control characters");
    assert!(line.len() < 4 * 1024 * 1024, "{} bytes", line.len());
    let parsed: serde_json::Value = serde_json::from_slice(&line).expect("a record is JSON");
    assert!(parsed["api"]["name"].is_string());
}

/// A maker with every kind of setting.
pub fn maker(choice: u8) -> RecordMaker {
    use s3auditd_rebuild::s3::operation::Dialect;
    let settings = RecordSettings {
        dialect: [Dialect::Weka, Dialect::Minio, Dialect::Aws][usize::from(choice % 3)],
        domains: if choice & 8 == 0 { Vec::new() } else { vec!["s3.example".to_owned()] },
        max_delete_keys: 5,
        ..RecordSettings::default()
    };
    RecordMaker::new(settings, 0)
}

/// The two sides of a separator; all on the left where there is none.
pub fn split<'a>(data: &'a [u8], separator: &[u8]) -> (&'a [u8], &'a [u8]) {
    match data.windows(separator.len()).position(|window| window == separator) {
        Some(at) => (&data[..at], &data[at + separator.len()..]),
        None => (data, &[]),
    }
}
