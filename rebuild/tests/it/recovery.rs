//! Behind a loss a connection comes back: what is read again has its record, at once and not when the connection ends,
//! and no reply goes to a request that it may not answer.

use crate::support::{LATER_NS, Owned, Random, assert_balanced, exchanges, samples};
use s3auditd_common::sample::Kind;
use s3auditd_rebuild::exchange::{Exchange, UnseenPart};
use s3auditd_rebuild::pipeline::{Limits, Pipeline};
use std::fmt::Write as _;

/// The records before the connection ends. `lost`: the samples of these do not arrive.
fn before_the_end(all: &[Owned], lost: impl Fn(usize) -> bool, limits: Limits) -> (Vec<Exchange>, Pipeline) {
    let mut pipeline = Pipeline::new(limits);
    for (_, sample) in all.iter().enumerate().filter(|(index, _)| !lost(*index)) {
        sample.give(&mut pipeline);
        pipeline.advance(sample.header.time_ns);
        assert_balanced(pipeline.counters());
    }
    pipeline.advance(LATER_NS);
    let found = exchanges(&mut pipeline);
    (found, pipeline)
}

/// `per_turn` requests in a receive, each answered in a send of its own, in order.
fn conversation(turns: usize, per_turn: usize) -> Vec<Owned> {
    let mut text = String::new();
    for turn in 0..turns {
        let numbers = turn * per_turn..(turn + 1) * per_turn;
        let requests: String = numbers.clone().map(request).collect();
        writeln!(text, "> {requests}").unwrap();
        numbers.for_each(|number| writeln!(text, "< {}", reply(number)).unwrap());
    }
    samples(&text)
}

fn request(number: usize) -> String {
    let method = ["GET", "HEAD", "PUT", "DELETE", "POST"][number % 5];
    let rest = match method {
        "PUT" => "Content-Length: 20\\r\\n\\r\\n{b*20}",
        "POST" => "Transfer-Encoding: chunked\\r\\n\\r\\na\\r\\n{c*10}\\r\\n0\\r\\n\\r\\n",
        _ => "\\r\\n",
    };
    format!("{method} /b/{number} HTTP/1.1\\r\\nHost: h\\r\\n{rest}")
}

fn is_request(sample: &Owned) -> bool {
    sample.header.kind == Kind::Received as u8
}

fn reply(number: usize) -> String {
    let rest = match number % 5 {
        0 => "Content-Length: 30\\r\\n\\r\\n{a*30}",
        1 => "Content-Length: 30\\r\\n\\r\\n",
        4 => "Transfer-Encoding: chunked\\r\\n\\r\\na\\r\\n{d*10}\\r\\n0\\r\\n\\r\\n",
        _ => "Content-Length: 0\\r\\n\\r\\n",
    };
    format!("HTTP/1.1 200 OK\\r\\nX: {number}\\r\\n{rest}")
}

/// A client that keeps up to `depth` requests on their way, each in a receive of its own.
fn window(operations: usize, depth: usize, random: &mut Random) -> Vec<Owned> {
    let mut text = String::new();
    let (mut asked, mut answered) = (0, 0);
    while answered < operations {
        let must = asked == answered || asked < depth;
        if asked < operations && asked - answered < depth && (must || random.below(3) > 0) {
            writeln!(text, "> {}", request(asked)).unwrap();
            asked += 1;
        } else {
            writeln!(text, "< {}", reply(answered)).unwrap();
            answered += 1;
        }
    }
    samples(&text)
}

/// The number in the target, and that in the reply.
fn numbers(exchange: &Exchange) -> (Option<usize>, Option<usize>) {
    let number = |bytes: &[u8]| std::str::from_utf8(bytes).ok()?.parse().ok();
    let asked = exchange.request.as_ref().and_then(|request| number(request.target.strip_prefix(b"/b/")?));
    let answered = exchange.response.as_ref().and_then(|response| number(response.headers.first("x")?));
    (asked, answered)
}

fn assert_none_is_wrong(found: &[Exchange], what: &str) {
    for exchange in found {
        if let (Some(asked), Some(answered)) = numbers(exchange) {
            assert_eq!(asked, answered, "{what}");
        }
    }
}

fn whole(found: &[Exchange], number: usize) -> bool {
    found.iter().any(|exchange| numbers(exchange) == (Some(number), Some(number)) && exchange.unseen.is_empty())
}

/// Both directions lose what they lose: behind it, only the first operation may be torn.
#[test]
fn one_request_at_a_time() {
    const TURNS: usize = 200;
    let all = conversation(TURNS, 1);
    let mut random = Random(71);
    for round in 0..400 {
        let until = 1 + random.below(all.len() - 20);
        let percent = 5 + random.below(90);
        let fates: Vec<_> =
            (0..all.len()).map(|index| (1..until).contains(&index) && random.below(100) < percent).collect();
        let limits = Limits { max_open_exchanges_per_connection: 4 + random.below(60), ..Limits::default() };
        let (found, _) = before_the_end(&all, |index| fates[index], limits);
        let what = format!("round {round}, {percent} % of {until} samples lost");
        assert_none_is_wrong(&found, &what);
        // Two samples an operation, behind the one that opens the connection; the last one is settled by the clock.
        let first_whole = until.div_ceil(2) + 1;
        for number in first_whole..TURNS {
            assert!(whole(&found, number), "{what}: number {number} of {first_whole}.. has no whole record");
        }
    }
}

/// It cannot be told any more which reply is whose: every request has its record all the same.
#[test]
fn many_requests_at_a_time() {
    const TURNS: usize = 40;
    const PER_TURN: usize = 16;
    let all = conversation(TURNS, PER_TURN);
    let mut random = Random(72);
    let mut unpaired = 0;
    for round in 0..200 {
        let until = 1 + random.below(all.len() / 2);
        let percent = 5 + random.below(90);
        let lost: Vec<_> = (0..all.len())
            .map(|index| !is_request(&all[index]) && index < until && random.below(100) < percent)
            .collect();
        let (found, pipeline) = before_the_end(&all, |index| lost[index], Limits::default());
        let what = format!("round {round}, {percent} % of {until} samples lost");
        assert_none_is_wrong(&found, &what);
        assert_eq!(found.len(), TURNS * PER_TURN, "{what}");
        let unanswered = found.iter().filter(|exchange| exchange.unseen.contains(&UnseenPart::ResponseHead)).count();
        let counters = pipeline.counters();
        assert_eq!(counters.pipelining_limit_hits, 0, "{what}");
        assert_eq!(counters.response_heads_unseen, unanswered as u64, "{what}");
        unpaired += counters.replies_unpaired;
    }
    assert!((150..=200).contains(&unpaired), "{unpaired}");
}

/// Requests and replies are lost after the client was seen to pipeline.
#[test]
fn some_requests_at_a_time() {
    const OPERATIONS: usize = 150;
    let mut random = Random(73);
    let mut unpaired = 0;
    for round in 0..1000 {
        let depth = 2 + random.below(6);
        let all = window(OPERATIONS, depth, &mut random);
        let from = 8 * depth;
        let until = from + 1 + random.below(all.len() - from);
        let percent = 1 + random.below(90);
        let lost: Vec<_> =
            (0..all.len()).map(|index| (from..until).contains(&index) && random.below(100) < percent).collect();
        let (found, pipeline) = before_the_end(&all, |index| lost[index], Limits::default());
        let what = format!("round {round}, {depth} at a time, {percent} % of {from}..{until} lost");
        assert_none_is_wrong(&found, &what);
        unpaired += pipeline.counters().replies_unpaired;
        // What comes behind the loss has a record, but for what is needed to come back into step.
        let behind = all.iter().skip(until).filter(|sample| is_request(sample)).count();
        let known = found.iter().filter(|exchange| numbers(exchange).0.is_some()).count();
        let before = all.iter().take(from).filter(|sample| is_request(sample)).count();
        assert!(known + 2 * depth >= behind + before, "{what}: {known} of {before} and {behind}");
    }
    assert!(unpaired > 500, "{unpaired}");
}
