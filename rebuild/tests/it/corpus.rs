//! Recorded conversations of real clients with real servers (`data/conversations.jsonl.gz`, made by `cargo xtask
//! corpus`): one record a request, with the operation that the client meant, whatever happens on the way.

use crate::support::{Random, assert_balanced};
use flate2::read::GzDecoder;
use s3auditd_rebuild::exchange::{Completion, Exchange, Oddity};
use s3auditd_rebuild::pipeline::{Limits, Moved, Output, Pipeline};
use s3auditd_rebuild::record::{Clock, RecordMaker, RecordSettings};
use s3auditd_rebuild::redact::Redaction;
use s3auditd_rebuild::replay::conversation::{Line, Reader};
use s3auditd_rebuild::replay::scrub::Scrubber;
use s3auditd_rebuild::sample::OwnedSample;
use serde::Deserialize;
use serde_json::Value;
use std::io::{BufRead as _, BufReader};

/// Longer ones are not replayed byte by byte.
const MAX_ONE_BYTE_EACH: usize = 64 * 1024;
/// Longer ones are not cut at every place.
const MAX_CUT_EVERYWHERE: usize = 2500;
const LOSSES: usize = 1000;

#[derive(Deserialize)]
pub(crate) struct About {
    client: String,
    ops: Vec<String>,
    requests: usize,
    ops_exact: bool,
}

pub(crate) struct Conversation {
    pub(crate) name: String,
    about: About,
    pub(crate) samples: Vec<OwnedSample>,
}

impl Conversation {
    fn bytes(&self) -> usize {
        self.samples.iter().map(|sample| sample.payload.len()).sum()
    }
}

pub(crate) fn conversations() -> Vec<Conversation> {
    let file = std::fs::File::open(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/conversations.jsonl.gz")).unwrap();
    let mut reader = Reader::default();
    let mut all: Vec<Conversation> = Vec::new();
    for text in BufReader::new(GzDecoder::new(file)).lines() {
        let mut line = Line::parse(text.unwrap().as_bytes()).unwrap();
        if let Some(about) = line.about.take() {
            let about = serde_json::from_value(about).unwrap();
            all.push(Conversation { name: line.connection.clone(), about, samples: Vec::new() });
        }
        all.last_mut().unwrap().samples.extend(reader.take(&line).unwrap());
    }
    assert_eq!(all.len(), 524);
    all
}

fn exchanges<'a>(samples: impl IntoIterator<Item = &'a OwnedSample>) -> (Vec<Exchange>, Pipeline) {
    let mut pipeline = Pipeline::new(Limits::default());
    for sample in samples {
        pipeline.take(&sample.sample().unwrap());
    }
    pipeline.advance(u64::MAX);
    pipeline.finish(u64::MAX);
    assert_balanced(pipeline.counters());
    assert_eq!(pipeline.counters().connections_out_of_balance, 0);
    let outputs = std::iter::from_fn(|| pipeline.next_output());
    let exchanges = outputs.filter_map(|output| match output {
        Output::Exchange(exchange) => Some(*exchange),
        Output::Gap(_) | Output::Window { .. } => None,
    });
    (exchanges.collect(), pipeline)
}

fn records(exchanges: &[Exchange]) -> Vec<Value> {
    let settings = RecordSettings { domains: vec!["localhost".to_owned()], ..RecordSettings::default() };
    let mut maker = RecordMaker::new(settings, 0);
    exchanges
        .iter()
        .map(|exchange| {
            let reading = maker.read(exchange);
            serde_json::from_slice(&maker.record(reading, Clock::default()).to_json()).unwrap()
        })
        .collect()
}

/// The AWS name of what a client library calls an operation.
fn aws_name(label: &str) -> &str {
    match label {
        "presigned:put_object" => "PutObject",
        "presigned:get_object" => "GetObject",
        "presigned:head_object" => "HeadObject",
        "presigned:delete_object" => "DeleteObject",
        "POST form upload (PostObject)" => "PostObject",
        // The deprecated twins are the same on the wire.
        "PutBucketLifecycle" => "PutBucketLifecycleConfiguration",
        "GetBucketLifecycle" => "GetBucketLifecycleConfiguration",
        "PutBucketNotification" => "PutBucketNotificationConfiguration",
        "ListDirectoryBuckets" => "ListBuckets",
        "GetBucketNotification" => "GetBucketNotificationConfiguration",
        other => other,
    }
}

#[test]
fn one_record_a_request_with_the_labelled_operation() {
    let mut wrong = Vec::new();
    let mut named = 0;
    for conversation in conversations() {
        let (exchanges, pipeline) = exchanges(&conversation.samples);
        let names: Vec<String> = records(&exchanges)
            .iter()
            .map(|record| record["s3auditd"]["operation"].as_str().unwrap_or("-").to_owned())
            .collect();
        let Conversation { name, about, .. } = &conversation;
        if exchanges.len() != about.requests {
            wrong.push(format!("{name} ({}): {} records, {} requests", about.client, names.len(), about.requests));
        } else if about.ops_exact {
            named += names.len();
            let expected: Vec<_> = about.ops.iter().map(|label| aws_name(label)).collect();
            if names != expected {
                wrong.push(format!("{name} ({}): {names:?}, meant {expected:?}", about.client));
            }
        }
        if pipeline.counters().gaps > 0 {
            wrong.push(format!("{name}: a gap, and nothing was lost"));
        }
        let losses: u64 = pipeline.counters().iter().filter(|(name, _)| *name == "holes").map(|(_, count)| count).sum();
        if losses > 0 {
            wrong.push(format!("{name}: {losses} holes"));
        }
    }
    assert!(wrong.is_empty(), "{} of 524:\n{}", wrong.len(), wrong.join("\n"));
    assert!(named > 600, "{named} operations are labelled exactly");
}

fn cut(sample: &OwnedSample, at: usize) -> [OwnedSample; 2] {
    let (a, b) = sample.payload.split_at(at);
    let part = |from: usize, payload: &[u8]| {
        let mut part = OwnedSample { header: sample.header, payload: payload.to_vec() };
        part.header.seq = part.header.seq.wrapping_add(u32::try_from(from).unwrap());
        part.header.len = u32::try_from(payload.len()).unwrap();
        part.header.copied = part.header.len;
        part
    };
    [part(0, a), part(at, b)]
}

#[test]
fn split_at_every_byte() {
    let (mut replayed, mut everywhere) = (0, 0);
    for conversation in conversations() {
        let (name, bytes) = (&conversation.name, conversation.bytes());
        if bytes > MAX_ONE_BYTE_EACH {
            continue;
        }
        replayed += 1;
        let expected = exchanges(&conversation.samples).0;
        let mut single = Vec::new();
        for sample in &conversation.samples {
            let mut rest = sample.clone();
            while rest.payload.len() > 1 {
                let [first, second] = cut(&rest, 1);
                single.push(first);
                rest = second;
            }
            single.push(rest);
        }
        let (found, pipeline) = exchanges(&single);
        assert!(found == expected && pipeline.counters().gaps == 0, "{name}, one byte a call");
        if bytes > MAX_CUT_EVERYWHERE {
            continue;
        }
        everywhere += 1;
        for (index, sample) in conversation.samples.iter().enumerate() {
            for at in 1..sample.payload.len() {
                let parts = cut(sample, at);
                let (before, after) = (&conversation.samples[..index], &conversation.samples[index + 1..]);
                let (found, pipeline) = exchanges(before.iter().chain(&parts).chain(after));
                assert!(found == expected && pipeline.counters().gaps == 0, "{name}, {index} at {at}");
            }
        }
    }
    assert!(replayed > 450 && everywhere > 250, "{replayed} byte by byte, {everywhere} cut at every place");
}

#[test]
fn with_random_pieces_missing() {
    let all = conversations();
    let mut random = Random(3);
    let (mut same, mut partial, mut counted) = (0, 0, 0);
    for _ in 0..LOSSES {
        let conversation = &all[random.below(all.len())];
        let data: Vec<usize> =
            (0..conversation.samples.len()).filter(|at| !conversation.samples[*at].payload.is_empty()).collect();
        let missing = data[random.below(data.len())];
        let (truth, _) = exchanges(&conversation.samples);
        let rest = conversation.samples.iter().enumerate().filter(|(at, _)| *at != missing).map(|(_, sample)| sample);
        let (found, pipeline) = exchanges(rest);
        let what = format!("{} without sample {missing}", conversation.name);
        assert_never_wrong(&found, &truth, &what);
        let (as_found, as_true) = (records(&found), records(&truth));
        let alike = |(found, truth): (&Value, &Value)| {
            difference(found, truth, true).is_none() && difference(truth, found, true).is_none()
        };
        // Bytes that nobody needs may be missing: only times tell.
        if found.len() == truth.len() && as_found.iter().zip(&as_true).all(alike) {
            same += 1;
        } else if found.iter().any(|exchange| exchange.completion == Completion::Partial) {
            partial += 1;
        } else {
            // Of a connection that never closes, nothing tells of its last bytes.
            let counters = pipeline.counters();
            let ends_open = conversation.samples.last().unwrap().header.kind <= 2;
            assert!(counters.holes > 0 || ends_open, "silent loss: {what}");
            counted += 1;
        }
    }
    assert!(partial > LOSSES / 4, "{same} the same, {partial} partial, {counted} counted");
}

/// Every field of every record is the true one; only what says how much was seen may differ.
fn assert_never_wrong(found: &[Exchange], truth: &[Exchange], what: &str) {
    let (found_records, true_records) = (records(found), records(truth));
    for (exchange, record) in found.iter().zip(&found_records) {
        let fits = |true_one: &Exchange| {
            (exchange.request.is_none() || exchange.request == true_one.request)
                && (exchange.response.is_none() || exchange.response == true_one.response)
        };
        let wholly =
            exchange.completion == Completion::Complete && !exchange.oddities.contains(&Oddity::InferredFraming);
        let candidates = truth.iter().zip(&true_records).filter(|(true_one, _)| fits(true_one));
        let differences: Vec<_> = candidates.map(|(_, true_record)| difference(record, true_record, wholly)).collect();
        assert!(
            differences.iter().any(Option::is_none),
            "{what}: {}\nof {record:#}",
            differences.into_iter().flatten().next().unwrap_or("an exchange that never was".to_owned())
        );
    }
}

/// The first field of `record` that says something else than `truth`.
fn difference(record: &Value, truth: &Value, wholly: bool) -> Option<String> {
    // What counts, times and judges how much was seen.
    const ABOUT_SEEING: [&str; 18] = [
        "completion",
        "unseen",
        "oddities",
        "outcome",
        "bytesIn",
        "bytesOut",
        "requestBodyBytes",
        "responseBodyBytes",
        "startTime",
        "time",
        "timeToFirstByte",
        "timeToResponse",
        "exchange",
        "interimReplies",
        "truncated",
        "objectSize",
        "deleteKeysCut",
        "s3ErrorCode",
    ];
    const NEVER: [&str; 3] = ["sequence", "eventId", "connectionPreexisting"];
    fn walk(path: &str, a: &Value, b: &Value, wholly: bool) -> Option<String> {
        match (a, b) {
            (Value::Object(a), Value::Object(b)) => a.iter().find_map(|(name, value)| {
                if NEVER.contains(&name.as_str()) || (!wholly && ABOUT_SEEING.contains(&name.as_str())) {
                    return None;
                }
                if wholly
                    && ["time", "timeToResponse", "startTime", "exchange", "timeToFirstByte"].contains(&name.as_str())
                {
                    return None;
                }
                match b.get(name) {
                    Some(truth) => walk(&format!("{path}.{name}"), value, truth, wholly),
                    // The mark of a list that was not seen whole.
                    None if name == "deleteKeysCut" => None,
                    None => Some(format!("{path}.{name} is {value}, in truth absent")),
                }
            }),
            (a, b) if a == b => None,
            // Where the request was not seen, nothing says what it was.
            (Value::String(unknown), _) if unknown == "Unknown" || unknown == "unknown" => None,
            (a, b) => Some(format!("{path} is {a}, in truth {b}")),
        }
    }
    walk("", record, truth, wholly)
}

/// A maker keeps what it has written: what it writes then is what one writes that keeps nothing yet.
#[test]
fn what_was_written_before_changes_no_record() {
    let settings = RecordSettings { instance_id: "an instance".to_owned(), ..RecordSettings::default() };
    let mut maker = RecordMaker::new(settings.clone(), 0);
    let exchanges: Vec<_> =
        conversations().iter().flat_map(|conversation| exchanges(&conversation.samples).0).collect();
    for round in 0..3 {
        for exchange in &exchanges {
            let mut fresh = RecordMaker::new(settings.clone(), maker.next_sequence());
            let reading = fresh.read(exchange);
            let expected = fresh.record(reading, Clock::default()).to_json();
            let reading = maker.read(exchange);
            let found = maker.record(reading, Clock::default()).to_json();
            assert!(found == expected, "{round}: {}", String::from_utf8_lossy(&found));
        }
    }
}

/// What `run --record` writes of a conversation gives the same records, and none of its secrets is in it.
#[test]
fn scrubbed() {
    let mut wrong = Vec::new();
    for conversation in conversations() {
        let mut pipeline = Pipeline::new(Limits::default());
        pipeline.follow_moves();
        for sample in &conversation.samples {
            pipeline.take(&sample.sample().unwrap());
        }
        pipeline.advance(u64::MAX);
        pipeline.finish(u64::MAX);
        let live: Vec<_> = std::iter::from_fn(|| pipeline.next_output())
            .filter_map(|output| if let Output::Exchange(exchange) = output { Some(*exchange) } else { None })
            .collect();
        let mut scrubber = Scrubber::new(Redaction::default());
        while let Some(moved) = pipeline.next_moved() {
            // The agent's end is none of the connection's: what is held comes out all the same.
            scrubber.take(moved);
        }
        scrubber.take(Moved::Forgotten { cookie: conversation.samples[0].header.cookie });
        let scrubbed: Vec<_> = std::iter::from_fn(|| scrubber.next_sample()).collect();
        for sample in &scrubbed {
            let text = String::from_utf8_lossy(&sample.payload).into_owned();
            for name in ["Signature=", "X-Amz-Signature=", "X-Amz-Security-Token: ", "Customer-Key: "] {
                for (at, _) in text.match_indices(name) {
                    let value = text[at + name.len()..].split([' ', '&', '\r', ',']).next().unwrap();
                    assert!(value.bytes().all(|byte| byte == b'*'), "{}: {name}{value}", conversation.name);
                }
            }
        }
        let replayed = exchanges(&scrubbed).0;
        let (live, replayed) = (records(&live), records(&replayed));
        if live.len() != replayed.len() {
            wrong.push(format!("{}: {} records, replayed {}", conversation.name, live.len(), replayed.len()));
        }
        for (live, replayed) in live.iter().zip(&replayed) {
            if live != replayed {
                let field = difference(replayed, live, true).or_else(|| difference(live, replayed, true));
                wrong.push(format!("{}: {}", conversation.name, field.unwrap_or("a field is missing".to_owned())));
            }
        }
    }
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
}
