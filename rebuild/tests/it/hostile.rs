//! Hostile and broken input: no panic, bounded memory, linear work, and every byte accounted for.

use crate::support::{LATER_NS, Owned, RECEIVED_FROM, SENT_FROM, assert_balanced, exchanges, render, run, samples};
use proptest::prelude::*;
use s3auditd_common::sample::{Direction, Kind, Unseen, WindowKind};
use s3auditd_rebuild::exchange::{Completion, UnseenPart};
use s3auditd_rebuild::pipeline::{Limits, Output, Pipeline};

fn opened(pipeline: &mut Pipeline, cookie: u64) {
    Owned::new(Kind::Opened, 1, RECEIVED_FROM, SENT_FROM).of(cookie).give(pipeline);
}

fn received(pipeline: &mut Pipeline, cookie: u64, at: usize, bytes: &[u8]) {
    let seq = RECEIVED_FROM.wrapping_add(u32::try_from(at).unwrap());
    Owned::new(Kind::Received, 10, seq, SENT_FROM).with_bytes(bytes).of(cookie).give(pipeline);
}

#[test]
fn a_head_of_one_mib_byte_by_byte() {
    let mut head = b"GET /b/k HTTP/1.1\r\n".to_vec();
    while head.len() < (1 << 20) - 100 {
        head.extend_from_slice(b"a: b\r\n");
    }
    head.extend_from_slice(b"\r\n");
    let mut pipeline = Pipeline::new(Limits::default());
    opened(&mut pipeline, 1);
    // Quadratic work would take hours here.
    for (at, byte) in head.iter().enumerate() {
        received(&mut pipeline, 1, at, &[*byte]);
    }
    pipeline.finish(LATER_NS);
    let exchanges = exchanges(&mut pipeline);
    assert_eq!(exchanges[0].request_head_bytes, head.len() as u64);
    assert!(exchanges[0].request.as_ref().unwrap().headers.len() > 170_000);
}

#[test]
fn a_head_that_is_too_long_is_a_counted_loss_and_the_next_exchange_is_whole() {
    let mut all = samples(
        "> GET /b/long HTTP/1.1\\r\\nX: {a*20000}\n> {b*20000}\\r\\n\\r\\n\n< HTTP/1.1 431 Too Large\\r\\nContent-Length: 0\\r\\n\\r\\n\n\
         > GET /b/next HTTP/1.1\\r\\n\\r\\n\n< HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n\nclosed",
    );
    let limits = Limits { max_head_bytes: 30_000, ..Limits::default() };
    let mut pipeline = Pipeline::new(limits);
    for sample in all.drain(..) {
        sample.give(&mut pipeline);
    }
    pipeline.advance(LATER_NS);
    assert_eq!(pipeline.counters().heads_too_long, 1);
    let exchanges = exchanges(&mut pipeline);
    let text = render(&exchanges);
    assert_eq!(exchanges.len(), 2, "{text}");
    assert_eq!(exchanges[0].unseen, [UnseenPart::RequestHead]);
    assert_eq!(exchanges[0].response.as_ref().unwrap().status, 431);
    assert_eq!(exchanges[1].completion, Completion::Complete);
}

#[test]
fn the_table_is_bounded_and_gives_up_the_least_recently_active() {
    let mut pipeline = Pipeline::new(Limits { max_connections: 3, ..Limits::default() });
    for cookie in 1..=3 {
        opened(&mut pipeline, cookie);
        received(&mut pipeline, cookie, 0, format!("GET /b/{cookie} HTTP/1.1\r\n\r\n").as_bytes());
    }
    received(&mut pipeline, 1, 21, b"GET /b/again HTTP/1.1\r\n\r\n");
    opened(&mut pipeline, 4);
    let exchanges = exchanges(&mut pipeline);
    assert_eq!(exchanges.len(), 1);
    assert_eq!((exchanges[0].connection.cookie, exchanges[0].completion), (2, Completion::Partial));
    assert_eq!(pipeline.counters().connection_table_evictions, 1);
    assert_eq!(pipeline.counters().connections_open(), 3);
}

#[test]
fn what_waits_is_bounded() {
    let limits = Limits { max_pending_bytes: 100_000, ..Limits::default() };
    let mut pipeline = Pipeline::new(limits);
    opened(&mut pipeline, 1);
    // The first byte never comes, and nobody says that it is lost.
    for piece in 0..1000 {
        received(&mut pipeline, 1, 1 + piece * 1000, &[b'x'; 1000]);
        assert!(pipeline.buffered_bytes() < 110_000);
    }
    assert!(pipeline.counters().pending_limit_hits >= 1);
    let mut pipeline = Pipeline::new(limits);
    opened(&mut pipeline, 1);
    // One-byte pieces cost more than their byte.
    for piece in 0..100_000 {
        received(&mut pipeline, 1, 1 + piece * 2, b"x");
        assert!(pipeline.buffered_bytes() < 110_000);
    }
}

#[test]
fn all_connections_together_are_bounded() {
    let limits = Limits { max_total_bytes: 1_000_000, ..Limits::default() };
    let mut pipeline = Pipeline::new(limits);
    for cookie in 0..1000 {
        opened(&mut pipeline, cookie);
        received(&mut pipeline, cookie, 0, b"GET /b/k HTTP/1.1\r\n");
        received(&mut pipeline, cookie, 19, &[b'x'; 10_000]);
    }
    assert!(pipeline.buffered_bytes() < 1_500_000, "{}", pipeline.buffered_bytes());
    assert!(pipeline.counters().total_limit_hits > 0);
    pipeline.finish(LATER_NS);
    assert_eq!(pipeline.buffered_bytes(), 0);
}

#[test]
fn pipelining_is_bounded() {
    let mut pipeline = Pipeline::new(Limits { max_open_exchanges_per_connection: 4, ..Limits::default() });
    opened(&mut pipeline, 1);
    for request in 0..100 {
        received(&mut pipeline, 1, request * 21, b"GET /b/k HTTP/1.1\r\n\r\n");
    }
    pipeline.finish(LATER_NS);
    assert_eq!(exchanges(&mut pipeline).len(), 4);
    assert_eq!(pipeline.counters().pipelining_limit_hits, 1);
}

/// A sample from nowhere: places near each other, so that they overlap, repeat and leave holes.
fn any_sample() -> impl Strategy<Value = Owned> {
    let text = prop_oneof![
        Just(b"GET /b/k HTTP/1.1\r\n\r\n".to_vec()),
        Just(b"PUT /b/k HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 30\r\n\r\n".to_vec()),
        Just(b"PUT /b/k HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n".to_vec()),
        Just(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n".to_vec()),
        Just(b"HTTP/1.1 100 Continue\r\n\r\n".to_vec()),
        Just(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n".to_vec()),
        Just(b"HTTP/1.1 200 OK\r\n\r\n".to_vec()),
        proptest::collection::vec(any::<u8>(), 1..40),
        proptest::collection::vec(proptest::sample::select(b"HTTP/1. 20GET\r\n:".to_vec()), 1..40),
    ];
    let place = prop_oneof![0_u32..200, any::<u32>()];
    (1_u8..=6, 0..Unseen::ALL.len(), 0_u64..100, 1_u64..4, place.clone(), place, text, 0_u8..=1).prop_map(
        |(kind, unseen, time, cookie, seq, other, text, role)| {
            let kind = Kind::try_from(kind).unwrap();
            let sample = Owned::new(kind, time, RECEIVED_FROM.wrapping_add(seq), SENT_FROM.wrapping_add(other));
            let mut sample = match (sample.is_data(), Unseen::ALL[unseen]) {
                (false, _) => sample,
                (true, Unseen::Seen | Unseen::Fault | Unseen::Deferred) => sample.with_bytes(&text),
                (true, unseen) => sample.with_unseen(unseen, seq % 5000),
            };
            sample.header.role = role;
            sample.of(cookie)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_samples_in_any_order(all in proptest::collection::vec((any_sample(), any::<bool>()), 0..40)) {
        let limits = Limits { max_connections: 2, max_open_exchanges_per_connection: 3, max_pending_bytes: 2000, ..Limits::default() };
        let mut pipeline = Pipeline::new(limits);
        let mut ended = 0;
        for (sample, advance) in all {
            sample.give(&mut pipeline);
            if advance {
                pipeline.advance(sample.header.time_ns);
            }
            assert_balanced(pipeline.counters());
            while let Some(output) = pipeline.next_output() {
                match output {
                    Output::Exchange(_) => ended += 1,
                    Output::Gap(gap) => prop_assert!(gap.may_hide > 0 && gap.from <= gap.to),
                    Output::Window { window, .. } => prop_assert!(window.kind <= WindowKind::Want as u8),
                }
            }
        }
        pipeline.finish(LATER_NS);
        ended += exchanges(&mut pipeline).len() as u64;
        assert_balanced(pipeline.counters());
        prop_assert_eq!(pipeline.buffered_bytes(), 0);
        prop_assert_eq!(pipeline.counters().exchanges_begun, ended);
        prop_assert_eq!(pipeline.counters().exchanges_ended, ended);
        prop_assert_eq!(pipeline.counters().connections_open(), 0);
    }

    /// The assembler's model: whatever pieces come, in whatever order, twice or overlapping, the bytes that come out
    /// are the stream's, and each byte up to the last one known has exactly one fate.
    #[test]
    fn pieces_in_any_order_give_the_stream(
        cuts in proptest::collection::vec((0_usize..2000, 1_usize..300), 1..40),
        order in any::<u64>(),
    ) {
        let body: Vec<u8> = (0..2300_usize).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let head = b"POST /b?delete HTTP/1.1\r\nContent-Length: 2300\r\n\r\n";
        let stream: Vec<u8> = head.iter().copied().chain(body.iter().copied()).collect();
        let mut pieces: Vec<_> = cuts.iter().map(|(at, length)| (head.len() + at, *length)).collect();
        pieces.push((0, head.len()));
        let mut random = crate::support::Random(order);
        for last in (1..pieces.len()).rev() {
            pieces.swap(last, random.below(last + 1));
        }
        let mut pipeline = Pipeline::new(Limits::default());
        opened(&mut pipeline, 1);
        let mut known = vec![false; stream.len()];
        for (at, length) in pieces {
            let bytes = &stream[at..at + length];
            known[at..at + length].fill(true);
            received(&mut pipeline, 1, at, bytes);
        }
        pipeline.finish(LATER_NS);
        let exchange = exchanges(&mut pipeline).remove(0);
        let end = known.iter().rposition(|known| *known).unwrap() + 1;
        let first_hole = known.iter().position(|known| !known).unwrap_or(end).min(end);
        prop_assert_eq!(&exchange.request_body.bytes[..], &stream[head.len()..first_hole]);
        prop_assert_eq!(exchange.request_body_bytes, (end - head.len()) as u64);
        let counters = pipeline.counters();
        let seen = known.iter().filter(|known| **known).count() as u64;
        prop_assert_eq!((counters.seen_bytes, counters.lost_bytes), (seen, end as u64 - seen));
    }
}

#[test]
fn no_skip_window_reaches_a_body_that_is_kept() {
    let mut pipeline = Pipeline::new(Limits::default());
    opened(&mut pipeline, 1);
    received(&mut pipeline, 1, 0, b"POST /b?delete HTTP/1.1\r\nContent-Length: 100000\r\n\r\n");
    assert_eq!(pipeline.next_output(), None);
    received(&mut pipeline, 1, 51, &[b'x'; 65_536 - 1]);
    assert_eq!(pipeline.next_output(), None);
    received(&mut pipeline, 1, 51 + 65_535, b"x");
    let Some(Output::Window { direction, window, .. }) = pipeline.next_output() else { panic!("no window") };
    assert_eq!(direction, Direction::Received);
    assert_eq!(window.until, RECEIVED_FROM.wrapping_add(51 + 100_000));
}

#[test]
fn a_skip_waits_until_the_expecting_client_goes_on() {
    let mut pipeline = Pipeline::new(Limits::default());
    opened(&mut pipeline, 1);
    let head = b"PUT /b/k HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 1000000\r\n\r\n";
    received(&mut pipeline, 1, 0, head);
    assert_eq!(pipeline.next_output(), None);
    let at = RECEIVED_FROM.wrapping_add(u32::try_from(head.len()).unwrap());
    Owned::new(Kind::Sent, 20, SENT_FROM, at).with_bytes(b"HTTP/1.1 100 Continue\r\n\r\n").give(&mut pipeline);
    assert!(matches!(pipeline.next_output(), Some(Output::Window { direction: Direction::Received, .. })));
}

#[test]
fn the_same_samples_twice_change_nothing() {
    let text = "> GET /b/1 HTTP/1.1\\r\\n\\r\\n\n< HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok\nclosed";
    let once = samples(text);
    let twice: Vec<_> = once.iter().flat_map(|sample| [sample.clone(), sample.clone()]).collect();
    let (exchanges, pipeline) = run(&twice);
    assert_eq!(render(&exchanges), render(&run(&once).0));
    assert_eq!(pipeline.counters().stale_bytes, pipeline.counters().seen_bytes);
}

const NEXT: &[u8] = b"GET /b/next HTTP/1.1\r\n\r\n";

/// Gives a pipeline one connection's two streams, as calls that alternate.
struct Talk {
    pipeline: Pipeline,
    received: u32,
    sent: u32,
    time_ns: u64,
    most: usize,
}

impl Talk {
    fn new(limits: Limits) -> Self {
        let mut pipeline = Pipeline::new(limits);
        opened(&mut pipeline, 1);
        Self { pipeline, received: RECEIVED_FROM, sent: SENT_FROM, time_ns: 10, most: 0 }
    }

    fn receive(&mut self, bytes: &[u8]) {
        self.time_ns += 1;
        Owned::new(Kind::Received, self.time_ns, self.received, self.sent).with_bytes(bytes).give(&mut self.pipeline);
        self.received = self.received.wrapping_add(u32::try_from(bytes.len()).unwrap());
        self.most = self.most.max(self.pipeline.buffered_bytes());
    }

    fn send(&mut self, bytes: &[u8]) {
        self.time_ns += 1;
        Owned::new(Kind::Sent, self.time_ns, self.sent, self.received).with_bytes(bytes).give(&mut self.pipeline);
        self.sent = self.sent.wrapping_add(u32::try_from(bytes.len()).unwrap());
        self.most = self.most.max(self.pipeline.buffered_bytes());
    }

    /// One more exchange, then the end: the last exchange must be whole.
    fn next_is_whole(mut self) -> (Vec<s3auditd_rebuild::exchange::Exchange>, Pipeline) {
        self.receive(NEXT);
        self.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        self.pipeline.advance(LATER_NS);
        self.pipeline.finish(LATER_NS);
        let exchanges = exchanges(&mut self.pipeline);
        let last = exchanges.last().unwrap();
        assert_eq!(last.request.as_ref().unwrap().target, b"/b/next", "{}", render(&exchanges));
        assert_eq!((last.completion, last.response.as_ref().unwrap().status), (Completion::Complete, 200));
        assert_eq!(self.pipeline.buffered_bytes(), 0);
        (exchanges, self.pipeline)
    }
}

#[test]
fn clients_that_never_end_their_heads() {
    let mut pipeline = Pipeline::new(Limits::default());
    const CLIENTS: u64 = 1000;
    for cookie in 0..CLIENTS {
        opened(&mut pipeline, cookie);
    }
    for at in 0..200 {
        for cookie in 0..CLIENTS {
            let byte = b"GET /b/k HTTP/1.1\r\n".get(at).copied().unwrap_or(b'x');
            received(&mut pipeline, cookie, at, &[byte]);
        }
    }
    // What one of them costs: its bytes, doubled at worst by the buffer's growth, and the open exchange.
    assert!(pipeline.buffered_bytes() < 1000 * (2 * 200 + 1024), "{}", pipeline.buffered_bytes());
    pipeline.finish(LATER_NS);
    let all = exchanges(&mut pipeline);
    assert_eq!(all.len(), 1000);
    assert!(all.iter().all(|one| one.completion == Completion::AgentStopped && one.request.is_none()));
    assert_eq!(pipeline.buffered_bytes(), 0);
}

#[test]
fn a_head_over_one_mib_in_single_bytes() {
    let mut talk = Talk::new(Limits::default());
    talk.receive(b"GET /b/k HTTP/1.1\r\nX: ");
    for _ in 0..(1 << 20) + 1000 {
        talk.receive(b"x");
    }
    assert!(talk.most < (2 << 20) + 8192, "{}", talk.most);
    talk.send(b"HTTP/1.1 431 Too Large\r\nContent-Length: 0\r\n\r\n");
    let (exchanges, pipeline) = talk.next_is_whole();
    assert_eq!(exchanges.len(), 2);
    assert_eq!(exchanges[0].unseen, [UnseenPart::RequestHead]);
    assert_eq!(pipeline.counters().heads_too_long, 1);
}

#[test]
fn a_hundred_thousand_headers() {
    let mut talk = Talk::new(Limits::default());
    talk.receive(b"GET /b/k HTTP/1.1\r\n");
    talk.receive("a: b\r\n".repeat(100_000).as_bytes());
    talk.receive(b"\r\n");
    // 600,000 bytes as they came, or as they were parsed with the places of the fields.
    assert!(talk.most < 100_000 * (6 + 16) + 100_000, "{}", talk.most);
    talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let (exchanges, _) = talk.next_is_whole();
    assert_eq!(exchanges[0].request.as_ref().unwrap().headers.len(), 100_000);
}

#[test]
fn chunk_extensions_and_trailers_without_end() {
    let mut talk = Talk::new(Limits::default());
    talk.receive(b"PUT /b/k HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;");
    for _ in 0..100 {
        talk.receive(&[b'x'; 10_000]);
    }
    assert!(talk.most < 16 * 1024, "{}", talk.most);
    talk.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    let (exchanges, pipeline) = talk.next_is_whole();
    assert_eq!(exchanges.len(), 2);
    assert_eq!(pipeline.counters().request_framing_lost, 1);

    let mut talk = Talk::new(Limits::default());
    talk.receive(NEXT);
    talk.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n");
    for _ in 0..150 {
        talk.send("x: y\r\n".repeat(2000).as_bytes());
    }
    assert!(talk.most < 16 * 1024, "{}", talk.most);
    let (exchanges, pipeline) = talk.next_is_whole();
    assert_eq!(exchanges.len(), 2);
    assert_eq!(pipeline.counters().response_framing_lost, 1);
}

#[test]
fn a_multi_delete_longer_than_is_kept_is_marked_cut_on_both_sides() {
    for chunked in [false, true] {
        let mut talk = Talk::new(Limits { max_body_start_bytes: 5000, ..Limits::default() });
        let keys = "<Object><Key>k</Key></Object>".repeat(300);
        let framed = |head: &str, content: &str| {
            if chunked {
                let chunks: String = content.as_bytes().chunks(999).fold(String::new(), |all, chunk| {
                    format!("{all}{:x};ext\r\n{}\r\n", chunk.len(), String::from_utf8_lossy(chunk))
                });
                format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunks}0\r\nTrailer: t\r\n\r\n")
            } else {
                format!("{head}Content-Length: {}\r\n\r\n{content}", content.len())
            }
        };
        talk.receive(framed("POST /b?delete HTTP/1.1\r\n", &keys).as_bytes());
        talk.send(framed("HTTP/1.1 200 OK\r\n", &keys).as_bytes());
        let (exchanges, _) = talk.next_is_whole();
        assert_eq!(exchanges[0].completion, Completion::Complete);
        for start in [&exchanges[0].request_body, &exchanges[0].response_body] {
            assert_eq!((start.bytes.as_slice(), start.whole), (&keys.as_bytes()[..5000], false));
        }
    }
}

/// Whatever comes: what is held stays below the limit, but for one sample and what one connection may hold besides.
#[test]
fn memory_is_bounded_under_whatever_comes() {
    const LIMIT: usize = 200_000;
    let limits =
        Limits { max_total_bytes: LIMIT, max_pending_bytes: 50_000, max_head_bytes: 30_000, ..Limits::default() };
    let texts: [&[u8]; 7] = [
        b"GET /b/k HTTP/1.1\r\n",
        b"a: b\r\n",
        b"\r\n",
        b"POST /b?delete HTTP/1.1\r\nContent-Length: 60000\r\n\r\n",
        b"HTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\n",
        &[b'x'; 5000],
        b"PROXY TCP4 1.2.3.4",
    ];
    let mut random = crate::support::Random(7);
    let mut most = 0;
    for _ in 0..20 {
        let mut pipeline = Pipeline::new(limits);
        let mut places = [(0_u32, 0_u32); 64];
        for step in 0..5000 {
            let connection = random.below(places.len());
            let cookie = connection as u64 + 1;
            let place = &mut places[connection];
            if random.below(50) == 0 {
                place.0 += 10; // lost
            }
            let text = texts[random.below(texts.len())];
            let length = u32::try_from(text.len()).unwrap();
            let (received, sent) = (RECEIVED_FROM.wrapping_add(place.0), SENT_FROM.wrapping_add(place.1));
            if random.below(3) > 0 {
                Owned::new(Kind::Received, step, received, sent).with_bytes(text).of(cookie).give(&mut pipeline);
                place.0 += length;
            } else {
                Owned::new(Kind::Sent, step, sent, received).with_bytes(text).of(cookie).give(&mut pipeline);
                place.1 += length;
            }
            if random.below(200) == 0 {
                pipeline.advance(step.saturating_sub(20));
            }
            while pipeline.next_output().is_some() {}
            most = most.max(pipeline.buffered_bytes());
        }
        pipeline.finish(LATER_NS);
        while pipeline.next_output().is_some() {}
        assert_eq!(pipeline.buffered_bytes(), 0);
    }
    // A head of 30,000 bytes in fields of 6 becomes 110,000 bytes when it is parsed.
    assert!(most < LIMIT + 200_000, "{most}");
    assert!(most > LIMIT, "the test does not reach the limit: {most}");
}
