//! What goes into the book comes out of it.

use super::*;
use proptest::prelude::*;

const CAUSES: [&str; 3] = ["hole", "poison", "queue_full"];

fn records(flushed: Vec<(GapRecord, Told)>) -> Vec<GapRecord> {
    flushed.into_iter().map(|(record, _)| record).collect()
}

fn connection(cookie: u64, way: Way, from: u64, to: u64) -> ConnectionGap {
    ConnectionGap {
        stage: Stage::Rebuild,
        cause: "hole",
        cookie,
        client: "192.0.2.7:40000".parse().unwrap(),
        server: "192.0.2.1:9000".parse().unwrap(),
        netns: 1,
        direction: Some(way),
        from,
        to,
        first_ns: from,
        last_ns: to,
        may_hide: 1,
    }
}

#[test]
fn one_connection_is_told_exactly_and_joins_what_touches() {
    let mut book = GapBook::default();
    book.connection(connection(1, Way::Received, 10, 20));
    book.connection(connection(1, Way::Received, 20, 50));
    book.connection(connection(1, Way::Sent, 5, 6));
    book.connection(connection(1, Way::Sent, 9, 10));
    let records = records(book.flush(0, Clock::default()));
    assert_eq!(records.len(), 2);
    let [received, sent] = &records[..] else { panic!() };
    assert_eq!(received.range, Some(ByteRange { from: 10, to: 50 }));
    assert_eq!((received.bytes, received.merged, received.operations_max), (40, 2, Some(2)));
    assert_eq!((sent.range, sent.bytes, sent.connections), (None, 2, None));
    assert_eq!(sent.connection.as_ref().unwrap().cookie, 1);
    assert!(book.flush(u64::MAX, Clock::default()).is_empty());
    // Not sooner than a second later.
    book.connection(connection(1, Way::Sent, 5, 6));
    let mut book = GapBook { flushed_ns: Some(5), ..book };
    assert!(book.flush(4 + FLUSH_NS, Clock::default()).is_empty());
    assert_eq!(book.flush(5 + FLUSH_NS, Clock::default()).len(), 1);
}

#[test]
fn the_node_admits_only_growth() {
    let mut book = GapBook::default();
    let mut look = |lost, attributed, runs| {
        let bytes = LostBytes { lost, attributed };
        let samples = [("ring_full", lost / 100)];
        let counts =
            NodeCounts { lost_samples: &samples, received: bytes, sent: bytes, missed: &[("missed_runs", runs)] };
        book.node(&counts, 7);
        let records = records(book.flush_now(7, Clock::default()));
        records.iter().map(|gap| (gap.cause, gap.bytes, gap.samples, gap.operations_max)).collect::<Vec<_>>()
    };
    assert_eq!(look(0, 0, 0), []);
    assert_eq!(look(1800, 0, 0), [("ring_full", 0, 18, Some(0)), ("unattributed", 3600, 0, Some(1800 / 13))]);
    assert_eq!(look(1800, 1800, 0), []);
    assert_eq!(look(3600, 1800, 0), [("ring_full", 0, 18, Some(0))]);
    assert_eq!(look(3800, 1800, 2).last(), Some(&("unattributed", 400, 0, Some(2000 / 13 - 1800 / 13))));
}

#[test]
fn missed_runs_have_no_bound() {
    let mut book = GapBook::default();
    book.node(&NodeCounts { missed: &[("missed_runs", 3)], ..NodeCounts::default() }, 7);
    let (record, told) = book.flush(7, Clock::default()).remove(0);
    assert_eq!((record.cause, record.samples, record.operations_max), ("missed_runs", 3, None));
    book.told(0, told);
    assert_eq!(book.totals()[0].operations_max, None);
}

#[test]
fn ranges_are_bounded_and_their_count_is_exact() {
    let mut list = Vec::new();
    for number in 0..1000 {
        add_range(&mut list, SequenceRange { first: 3 * number, last: 3 * number + 1, ..SequenceRange::default() });
    }
    assert_eq!(list.len(), MAX_ENTRIES);
    assert_eq!(list.iter().map(SequenceRange::records).sum::<u64>(), 2000);
    assert_eq!(list.last().unwrap().last, 2998);
    let mut list = Vec::new();
    for number in 0..1000 {
        add_range(&mut list, SequenceRange { first: number, last: number, ..SequenceRange::default() });
    }
    assert_eq!(list, [SequenceRange { first: 0, last: 999, ..SequenceRange::default() }]);
}

#[derive(Clone, Debug)]
enum Input {
    Connection(u64, bool, u64, u64, u64),
    Records(usize, u8, u64, Option<u64>),
    Node(u64, u64, u64),
    Flush(u64),
}

fn input() -> impl Strategy<Value = Input> {
    prop_oneof![
        8 => (0..200u64, any::<bool>(), 0..1000u64, 0..1000u64, 0..9u64)
            .prop_map(|(cookie, way, from, length, hide)| Input::Connection(cookie, way, from, length, hide)),
        3 => (0..3usize, 0..4u8, 1..9u64, proptest::option::of(0..9u64))
            .prop_map(|(cause, endpoint, records, more)| Input::Records(cause, endpoint, records, more)),
        1 => (0..9000u64, 0..9000u64, 0..2u64).prop_map(|(lost, found, runs)| Input::Node(lost, found, runs)),
        1 => (0..2 * FLUSH_NS).prop_map(Input::Flush),
    ]
}

/// Bytes, records, samples, least and most operations (of bounded losses), losses.
type Sums = [u64; 6];

proptest! {
    #[test]
    fn sums_are_the_inputs(inputs in proptest::collection::vec(input(), 0..400)) {
        let mut book = GapBook::default();
        let (mut given, mut made): (Sums, Sums) = ([0; 6], [0; 6]);
        let (mut now, mut next, mut flushes) = (0, 0, 0);
        let (mut numbers, mut told) = (0, 0);
        let (mut lost, mut found, mut runs) = (0, 0, 0);
        let (mut most_rest, mut most_hidden) = (0, 0);
        let mut sequence = 0;
        let mut unbounded = (false, false);
        let mut take = |records: Vec<GapRecord>, made: &mut Sums| {
            assert!(records.len() <= MAX_RECORDS);
            for gap in records {
                let numbers = [gap.bytes, gap.records, gap.samples, gap.operations_min, gap.operations_max.unwrap_or(0)];
                for (sum, number) in made.iter_mut().zip(numbers.into_iter().chain([gap.merged])) {
                    *sum += number;
                }
                unbounded.1 |= gap.operations_max.is_none();
                told += gap.sequences.iter().map(SequenceRange::records).sum::<u64>();
                assert!(gap.sequences.len() <= MAX_ENTRIES);
                assert!(gap.connection.is_none() || gap.connections.is_none());
            }
        };
        for input in inputs {
            match input {
                Input::Connection(cookie, way, from, length, may_hide) => {
                    let way = if way { Way::Sent } else { Way::Received };
                    book.connection(ConnectionGap { may_hide, ..connection(cookie, way, from, from + length) });
                    given[0] += length;
                    given[4] += may_hide;
                    given[5] += 1;
                }
                Input::Records(cause, endpoint, records, more) => {
                    book.records(RecordLoss {
                        endpoint: (endpoint > 0).then(|| endpoint.to_string().into()),
                        operations_max: more.map(|more| records + more),
                        sequences: vec![SequenceRange { first: next, last: next + records - 1, ..SequenceRange::default() }],
                        ..RecordLoss::unnumbered(Stage::Delivery, CAUSES[cause], records, now)
                    });
                    next += records + 1;
                    numbers += records;
                    given[1] += records;
                    given[3] += records;
                    given[4] += more.map_or(0, |more| records + more);
                    unbounded.0 |= more.is_none();
                    given[5] += 1;
                }
                Input::Node(more_lost, more_found, more_runs) => {
                    (lost, found, runs) = (lost + more_lost, found + more_found, runs + more_runs);
                    let bytes = LostBytes { lost, attributed: found };
                    book.node(&NodeCounts { lost_samples: &[("ring_full", lost)], received: bytes, sent: bytes, missed: &[("missed_runs", runs)] }, now);
                    let rest = lost.saturating_sub(found);
                    let new = rest.saturating_sub(most_rest);
                    most_rest = most_rest.max(rest);
                    most_hidden = most_hidden.max(hidden_at_most(rest, rest).0);
                    given[0] += 2 * new;
                    given[2] += more_lost + more_runs;
                    given[5] += u64::from(new > 0) + u64::from(more_lost > 0) + u64::from(more_runs > 0);
                    unbounded.0 |= more_runs > 0;
                }
                Input::Flush(later) => {
                    now += later;
                    let flushed = book.flush(now, Clock::default());
                    flushes += u64::from(!flushed.is_empty());
                    let mut kept = Vec::new();
                    for (record, told) in flushed {
                        sequence += 1;
                        book.told(sequence, told);
                        // Every third one is lost itself: what it told comes again.
                        if sequence % 3 == 0 {
                            book.lost(sequence, sequence);
                        } else {
                            kept.push(record);
                        }
                    }
                    take(kept, &mut made);
                }
            }
        }
        prop_assert!(flushes <= now / FLUSH_NS + 1);
        loop {
            let flushed = book.flush_now(now, Clock::default());
            if flushed.is_empty() {
                break;
            }
            let mut kept = Vec::new();
            for (record, told) in flushed {
                sequence += 1;
                book.told(sequence, told);
                kept.push(record);
            }
            take(kept, &mut made);
        }
        let on_their_way = book.totals();
        book.kept(u64::MAX);
        prop_assert_eq!(&on_their_way, &book.totals());
        prop_assert!(book.told.is_empty());
        given[4] += most_hidden;
        prop_assert_eq!(given, made);
        prop_assert_eq!(numbers, told);
        prop_assert_eq!(unbounded.0, unbounded.1);
        let totals = book.totals();
        prop_assert_eq!(totals.iter().map(|total| total.merged).sum::<u64>(), made[5]);
        prop_assert_eq!(totals.iter().map(|total| total.bytes).sum::<u64>(), made[0]);
    }

    #[test]
    fn memory_and_records_are_bounded(connections in 1..20_000u64) {
        let mut book = GapBook::default();
        for cookie in 0..connections {
            book.connection(connection(cookie, Way::Sent, 0, 10));
        }
        prop_assert!(book.entries.len() <= MAX_TRACKED + 1);
        let records = records(book.flush(1, Clock::default()));
        prop_assert!(records.len() <= MAX_RECORDS && book.entries.is_empty());
        prop_assert_eq!(records.iter().map(|gap| gap.bytes).sum::<u64>(), 10 * connections);
        prop_assert_eq!(
            records.iter().map(|gap| gap.connections.unwrap_or(1)).sum::<u64>(),
            connections
        );
    }
}
