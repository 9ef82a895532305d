//! Nothing is lost in silence: whatever is missing, the operations of a connection are no more than its records and what
//! its gaps may hide, but for what the kernel's count of lost bytes tells of; and every byte is accounted for.

use crate::corpus::conversations;
use crate::golden::cases;
use crate::support::{LATER_NS, Owned, RECEIVED_FROM, Random, SENT_FROM, assert_balanced, run, samples};
use s3auditd_common::sample::{Kind, Unseen};
use s3auditd_rebuild::gap::{Gap, SHORTEST_REPLY_BYTES, hidden_at_most};
use s3auditd_rebuild::pipeline::{Limits, Output, Pipeline};
use s3auditd_rebuild::sample::OwnedSample;
use std::collections::HashMap;
use std::fmt::Write as _;

/// What a run with losses gave.
#[derive(Default)]
struct Found {
    records: u64,
    gaps: Vec<Gap>,
    /// Received and sent bytes of holes.
    holes: (u64, u64),
    /// Those that the kernel counted as lost and no hole explains.
    unattributed: (u64, u64),
}

impl Found {
    fn hidden(&self) -> u64 {
        self.gaps.iter().map(|gap| gap.may_hide).sum()
    }
}

/// What becomes of a sample on its way.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Arrives,
    Lost,
    Unseen(Unseen),
}

/// `lost`: bytes of which there never was a sample.
fn play(samples: &[Owned], fates: &[Fate], lost: (u64, u64), limits: Limits, random: &mut Random) -> Found {
    let mut pipeline = Pipeline::new(limits);
    let mut found = Found::default();
    let (mut lost_received, mut lost_sent) = lost;
    for (sample, fate) in samples.iter().zip(fates) {
        let bytes = u64::from(sample.header.len);
        match fate {
            Fate::Arrives => sample.give(&mut pipeline),
            Fate::Unseen(unseen) if sample.is_data() && bytes > 0 => {
                sample.clone().with_unseen(*unseen, sample.header.len).give(&mut pipeline);
            }
            Fate::Unseen(_) => sample.give(&mut pipeline),
            Fate::Lost if sample.header.kind == Kind::Received as u8 => lost_received += bytes,
            Fate::Lost if sample.header.kind == Kind::Sent as u8 => lost_sent += bytes,
            Fate::Lost => {}
        }
        if random.below(4) == 0 {
            pipeline.advance(sample.header.time_ns);
        }
        assert_balanced(pipeline.counters());
    }
    pipeline.advance(u64::MAX);
    pipeline.finish(u64::MAX);
    let counters = pipeline.counters().clone();
    assert_balanced(&counters);
    assert_eq!(counters.connections_out_of_balance, 0, "{counters:?}");
    while let Some(output) = pipeline.next_output() {
        match output {
            Output::Exchange(_) => found.records += 1,
            Output::Gap(gap) => {
                assert!(gap.may_hide > 0 && gap.from <= gap.to && gap.first_ns <= gap.last_ns, "{gap:?}");
                found.gaps.push(*gap);
            }
            Output::Window { .. } => {}
        }
    }
    assert_eq!((counters.gaps, counters.operations_hidden_at_most), (found.gaps.len() as u64, found.hidden()));
    found.holes = (counters.received_lost_bytes, counters.sent_lost_bytes);
    found.unattributed = (
        u64::saturating_sub(lost_received, counters.received_lost_bytes),
        u64::saturating_sub(lost_sent, counters.sent_lost_bytes),
    );
    found
}

/// Sums over many runs.
#[derive(Default)]
struct Tightness {
    runs: u64,
    without_any: u64,
    missing: u64,
    hidden: u64,
    excess: HashMap<u64, u64>,
}

impl Tightness {
    fn note(&mut self, truth: u64, found: &Found) {
        if found.unattributed != (0, 0) {
            return;
        }
        let missing = truth.saturating_sub(found.records);
        self.runs += 1;
        self.without_any += u64::from(found.hidden() == 0);
        self.missing += missing;
        self.hidden += found.hidden();
        let excess = found.hidden().saturating_sub(missing);
        *self.excess.entry(excess.checked_ilog2().map_or(0, |log| 1 << log)).or_default() += 1;
    }

    fn print(&self, what: &str) {
        let mut excess: Vec<_> = self.excess.iter().collect();
        excess.sort_unstable();
        println!(
            "{what}: {} runs, {} of them with no gap; {} operations without a record, gaps may hide {}; runs by what they \
             may hide too much, from: {excess:?}",
            self.runs, self.without_any, self.missing, self.hidden
        );
    }
}

/// What is lost.
const PATTERNS: [&str; 9] = [
    "one sample",
    "a run of samples",
    "30 % of all samples",
    "some of all samples",
    "all that is received from somewhere on",
    "all that is sent from somewhere on",
    "the beginning",
    "the end",
    "nearly all data",
];

fn fates(samples: &[Owned], random: &mut Random) -> (Vec<Fate>, usize) {
    let fate = match random.below(8) {
        0 => Fate::Unseen(Unseen::ALL[2 + random.below(Unseen::ALL.len() - 2)]),
        _ => Fate::Lost,
    };
    let count = samples.len();
    let mut fates = vec![Fate::Arrives; count];
    let pattern = random.below(PATTERNS.len());
    match pattern {
        0 => fates[random.below(count)] = fate,
        1 => {
            let from = random.below(count);
            let to = (from + 1 + random.below(6)).min(count);
            fates[from..to].fill(fate);
        }
        2 | 3 => {
            let percent = if pattern == 2 { 30 } else { 10 + random.below(80) };
            for one in &mut fates {
                if random.below(100) < percent {
                    *one = fate;
                }
            }
        }
        4 | 5 => {
            let kind = if pattern == 4 { Kind::Received } else { Kind::Sent };
            let from = random.below(count);
            for (sample, one) in samples.iter().zip(&mut fates).skip(from) {
                if sample.header.kind == kind as u8 {
                    *one = fate;
                }
            }
        }
        6 => fates[..random.below(count)].fill(fate),
        7 => fates[count - 1 - random.below(count)..].fill(fate),
        _ => {
            // All data between the opening and the end.
            for (sample, one) in samples.iter().zip(&mut fates) {
                if sample.is_data() && random.below(10) > 0 {
                    *one = fate;
                }
            }
        }
    }
    (fates, pattern)
}

fn check(name: &str, truth: u64, found: &Found, depth: usize, what: &str) {
    let (requests, _) = hidden_at_most(found.unattributed.0, found.unattributed.1);
    // Of clients that pipeline: the last replies may lie behind the last sample.
    let replies = if depth > 1 { found.unattributed.1.div_ceil(SHORTEST_REPLY_BYTES) } else { 0 };
    let unattributed = requests + replies;
    assert!(
        truth <= found.records + found.hidden() + unattributed,
        "{name}, {what}: {truth} operations, {} records, {} hidden, {unattributed} unattributed of {:?}\n{:#?}",
        found.records,
        found.hidden(),
        found.unattributed,
        found.gaps
    );
}

fn show(samples: &[Owned], fates: &[Fate]) -> String {
    let mut text = String::new();
    for (sample, fate) in samples.iter().zip(fates) {
        let fate = match fate {
            Fate::Arrives => "",
            Fate::Lost => "LOST",
            Fate::Unseen(_) => "UNSEEN",
        };
        let head = &sample.payload[..sample.payload.len().min(70)];
        let (kind, len) = (Kind::try_from(sample.header.kind).unwrap(), sample.header.len);
        writeln!(text, "{} {kind:?} {len} {} {fate}", sample.header.time_ns, head.escape_ascii()).unwrap();
    }
    text
}

fn some_survive(samples: &[Owned], fates: &[Fate]) -> bool {
    samples.iter().zip(fates).any(|(_, fate)| *fate != Fate::Lost)
}

#[test]
fn over_the_corpus() {
    let mut random = Random(21);
    let mut tightness: [Tightness; PATTERNS.len()] = Default::default();
    for conversation in conversations() {
        let owned = |sample: &OwnedSample| Owned { header: sample.header, payload: sample.payload.clone() };
        let samples: Vec<_> = conversation.samples.iter().map(owned).collect();
        let whole = play(&samples, &vec![Fate::Arrives; samples.len()], (0, 0), Limits::default(), &mut random);
        assert_eq!(whole.gaps, [], "{}", conversation.name);
        for round in 0..10 {
            let (fates, pattern) = fates(&samples, &mut random);
            if some_survive(&samples, &fates) {
                let found = play(&samples, &fates, whole.holes, Limits::default(), &mut random);
                let what_is_shown = format!("round {round}, {}\n{}", PATTERNS[pattern], show(&samples, &fates));
                check(&conversation.name, whole.records, &found, 1, &what_is_shown);
                tightness[pattern].note(whole.records, &found);
            }
        }
    }
    for (what, tightness) in PATTERNS.iter().zip(&tightness) {
        tightness.print(&format!("corpus, {what}"));
    }
}

#[test]
fn over_the_written_cases() {
    let mut random = Random(22);
    let mut tightness = Tightness::default();
    for (name, _, samples) in cases() {
        let whole = play(&samples, &vec![Fate::Arrives; samples.len()], (0, 0), Limits::default(), &mut random);
        for round in 0..60 {
            let (fates, pattern) = fates(&samples, &mut random);
            if some_survive(&samples, &fates) {
                let found = play(&samples, &fates, whole.holes, Limits::default(), &mut random);
                let depth = if name.starts_with("pipelined") { 2 } else { 1 };
                check(
                    &name,
                    whole.records,
                    &found,
                    depth,
                    &format!("round {round}, {}\n{}", PATTERNS[pattern], show(&samples, &fates)),
                );
                tightness.note(whole.records, &found);
            }
        }
    }
    tightness.print("written cases");
}

/// A connection with operations of all shapes; `depth` requests are read before the oldest is answered.
fn generated(random: &mut Random, depth: usize, orderly: bool) -> (u64, Vec<Owned>) {
    let mut text = String::new();
    let count = 1 + random.below(8);
    let (mut read, mut answered) = (0, 0);
    let mut heads: Vec<&str> = Vec::new();
    let mut held = String::new();
    let stop = if orderly { usize::MAX } else { 1 + random.below(2 * count) };
    for step in 0.. {
        if answered == count || (step >= stop && held.is_empty()) {
            break;
        }
        if read < count && read - answered < depth && (read == answered || random.below(2) == 0) {
            let method = ["GET", "HEAD", "PUT", "DELETE", "POST"][random.below(5)];
            let (fields, body) = match (method, random.below(3)) {
                ("PUT" | "POST", 0) => ("Transfer-Encoding: chunked\\r\\n", "a\\r\\n{x*10}\\r\\n0\\r\\n\\r\\n"),
                ("PUT" | "POST", _) => ("Content-Length: 400\\r\\n", "{y*400}"),
                _ => ("", ""),
            };
            let head = format!("{method} /b/k{read} HTTP/1.1\\r\\nHost: h\\r\\n{fields}\\r\\n");
            read += 1;
            heads.push(method);
            let more = read < count && read - answered < depth;
            match random.below(3) {
                0 if body.is_empty() || random.below(2) == 0 => write!(held, "{head}{body}").unwrap(),
                _ if body.is_empty() => writeln!(text, "> {}{head}", std::mem::take(&mut held)).unwrap(),
                _ => writeln!(text, "> {}{head}\n> {body}", std::mem::take(&mut held)).unwrap(),
            }
            if !held.is_empty() && (!more || random.below(2) == 0) {
                writeln!(text, "> {}", std::mem::take(&mut held)).unwrap();
            }
        } else if read > answered {
            if !held.is_empty() {
                writeln!(text, "> {}", std::mem::take(&mut held)).unwrap();
            }
            let method = heads[answered];
            answered += 1;
            match (method, random.below(4)) {
                ("HEAD", _) => writeln!(text, "< HTTP/1.1 200 OK\\r\\nContent-Length: 300\\r\\n\\r\\n"),
                ("DELETE", _) => writeln!(text, "< HTTP/1.1 204 No Content\\r\\n\\r\\n"),
                (_, 0) => writeln!(text, "< HTTP/1.1 200 OK\\r\\nContent-Length: 300\\r\\n\\r\\n\n< {{z*300}}"),
                (_, 1) => writeln!(text, "< HTTP/1.1 200 OK\\r\\nContent-Length: 5\\r\\n\\r\\nhello"),
                (_, 2) => writeln!(
                    text,
                    "< HTTP/1.1 200 OK\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n3\\r\\nabc\\r\\n\n< 0\\r\\n\\r\\n"
                ),
                _ => writeln!(text, "< HTTP/1.1 404 Not Found\\r\\nContent-Length: 0\\r\\n\\r\\n"),
            }
            .unwrap();
        }
    }
    match random.below(3) {
        0 => text.push_str("peer closes\ngateway closes\nclosed\n"),
        1 => text.push_str("gateway closes\nclosed\n"),
        _ => {}
    }
    (read as u64, samples(&text))
}

fn generated_with_losses(seed: u64, depth: usize, orderly: bool) {
    let mut random = Random(seed);
    let mut tightness = Tightness::default();
    for round in 0..2000 {
        let (operations, samples) = generated(&mut random, depth, orderly);
        if samples.len() < 2 {
            continue;
        }
        assert_eq!(run(&samples).0.len() as u64, operations, "{}", show(&samples, &vec![Fate::Arrives; samples.len()]));
        let limits = Limits {
            max_open_exchanges_per_connection: if random.below(4) == 0 { 1 + random.below(3) } else { 64 },
            max_pending_bytes: if random.below(4) == 0 { 500 } else { 1 << 20 },
            max_total_bytes: if random.below(4) == 0 { 200 + random.below(1500) } else { 1 << 28 },
            ..Limits::default()
        };
        let (fates, pattern) = fates(&samples, &mut random);
        if some_survive(&samples, &fates) {
            let found = play(&samples, &fates, (0, 0), limits, &mut random);
            check(
                "generated",
                operations,
                &found,
                depth,
                &format!("round {round}, {}\n{}", PATTERNS[pattern], show(&samples, &fates)),
            );
            tightness.note(operations, &found);
        }
    }
    tightness.print(&format!("generated, {depth} at a time, orderly {orderly}"));
}

#[test]
fn one_at_a_time() {
    generated_with_losses(31, 1, true);
    generated_with_losses(32, 1, false);
}

#[test]
fn pipelined() {
    generated_with_losses(33, 2, true);
    generated_with_losses(34, 5, true);
}

/// A table for one connection: each of two evicts the other.
#[test]
fn evicted_again_and_again() {
    let mut random = Random(5);
    for round in 0..1000 {
        let (operations, samples) = generated(&mut random, 1, true);
        let other: Vec<_> = samples.iter().map(|sample| sample.clone().of(2)).collect();
        let every = 1 + random.below(3);
        let both: Vec<_> = samples
            .iter()
            .zip(other)
            .enumerate()
            .flat_map(|(at, (one, other))| if at % every == 0 { vec![one.clone(), other] } else { vec![one.clone()] })
            .collect();
        let limits = Limits { max_connections: 1, ..Limits::default() };
        let mut pipeline = Pipeline::new(limits);
        let (mut records, mut hidden) = (0, 0);
        for sample in &both {
            sample.give(&mut pipeline);
        }
        pipeline.finish(LATER_NS);
        while let Some(output) = pipeline.next_output() {
            match output {
                Output::Exchange(exchange) if exchange.connection.cookie == 1 => records += 1,
                Output::Gap(gap) if gap.cookie == 1 => hidden += gap.may_hide,
                Output::Exchange(_) | Output::Gap(_) | Output::Window { .. } => {}
            }
        }
        assert_balanced(pipeline.counters());
        let shown = show(&both, &vec![Fate::Arrives; both.len()]);
        assert!(operations <= records + hidden, "{round}: {operations}, {records} records, {hidden} hidden\n{shown}");
    }
}

fn gaps(text: &str) -> (u64, Vec<Gap>) {
    let samples = samples(text);
    let found = play(&samples, &vec![Fate::Arrives; samples.len()], (0, 0), Limits::default(), &mut Random(1));
    (found.records, found.gaps)
}

#[test]
fn no_gap_where_nothing_can_hide() {
    let head = "> PUT /b/k HTTP/1.1\\r\\nContent-Length: 5000\\r\\n\\r\\n\n";
    let reply = "< HTTP/1.1 200 OK\\r\\nContent-Length: 5000\\r\\n\\r\\n\n";
    for mark in ["!", "?"] {
        let text = format!("{head}{mark}> {{x*5000}}\n{reply}{mark}< {{x*5000}}\nclosed");
        assert_eq!(gaps(&text), (1, vec![]));
        let chunks = format!(
            "> PUT /b/k HTTP/1.1\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n1000\\r\\n\n{mark}> {{x*4096}}\n> \\r\\n0\\r\\n\\r\\n\n\
             {reply}< {{x*5000}}\nclosed"
        );
        assert_eq!(gaps(&chunks), (1, vec![]));
        // A request's head is missing: it has its record, and the reply that was read is its own.
        let next = "> GET /b/next HTTP/1.1\\r\\n\\r\\n\n< HTTP/1.1 204 No\\r\\n\\r\\n\n";
        let one = format!("{next}{mark}> GET /b/k HTTP/1.1\\r\\n\\r\\n\n< HTTP/1.1 204 No\\r\\n\\r\\n\n{next}closed");
        assert_eq!(gaps(&one), (3, vec![]));
        // A reply's head is missing: its record is there too.
        let one = format!("{next}> GET /b/k HTTP/1.1\\r\\n\\r\\n\n{mark}< HTTP/1.1 204 No\\r\\n\\r\\n\n{next}closed");
        assert_eq!(gaps(&one), (3, vec![]));
    }
}

#[test]
fn a_gap_for_exchanges_that_are_missing_whole() {
    let whole = "> GET /b/k HTTP/1.1\\r\\n\\r\\n\n< HTTP/1.1 204 No\\r\\n\\r\\n\n";
    let lost = "!> GET /b/k HTTP/1.1\\r\\n\\r\\n\n!< HTTP/1.1 204 No\\r\\n\\r\\n\n";
    let (records, gaps) = gaps(&format!("{whole}{lost}{lost}{whole}closed"));
    let hidden: u64 = gaps.iter().map(|gap| gap.may_hide).sum();
    // Of the two one has a record: something was there.
    assert_eq!(records, 3);
    assert!((1..=3).contains(&hidden), "{gaps:#?}");
    assert_eq!(gaps.len(), 1);
    assert_eq!((gaps[0].from, gaps[0].to), (19, 3 * 19));
}

/// As MPTCP does it: lifecycle samples only, and the socket is cut off from its peer before it ends.
#[test]
fn a_socket_that_was_cut_off_ends_where_it_stood_before() {
    let mut pipeline = Pipeline::new(Limits::default());
    let at = |kind, time_ns, (received, sent): (u32, u32)| {
        let (seq, other_seq) = (RECEIVED_FROM.wrapping_add(received), SENT_FROM.wrapping_add(sent));
        Owned::new(kind, time_ns, seq, other_seq).with_unseen(Unseen::UpperLayer, 0)
    };
    let mut closed = at(Kind::Closed, 40, (100, 70_200));
    closed.header.remote_port = 0;
    // The rings are read in turn, so the end may come first.
    let samples = [
        at(Kind::Opened, 10, (0, 0)),
        closed,
        at(Kind::LocalClosed, 30, (100, 200)),
        at(Kind::PeerClosed, 20, (90, 0)),
    ];
    samples.iter().for_each(|sample| sample.give(&mut pipeline));
    pipeline.advance(100);
    let counters = pipeline.counters();
    assert_eq!((counters.received_lost_bytes, counters.sent_lost_bytes), (100, 200));
    assert_eq!((counters.upper_layer_connections, counters.connections_closed), (1, 1));
    assert_balanced(counters);
    assert_eq!(counters.connections_out_of_balance, 0);
}
