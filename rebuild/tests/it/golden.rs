//! Golden conversations (`golden/*.txt`) and what must come of them (`golden/*.out`), whatever happens on the way.
//!
//! `BLESS=1 cargo test -p s3auditd-rebuild --test it` writes the expected files anew; review the difference.

use crate::support::{LATER_NS, Owned, Random, exchanges, render, run, samples};
use s3auditd_common::sample::Kind;
use s3auditd_rebuild::exchange::{Completion, Exchange, Oddity};
use s3auditd_rebuild::pipeline::{Limits, Pipeline};
use std::path::PathBuf;

pub(crate) fn cases() -> Vec<(String, PathBuf, Vec<Owned>)> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut cases: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .map(|path| {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            let samples = samples(&std::fs::read_to_string(&path).unwrap());
            (name, path, samples)
        })
        .collect();
    cases.sort_by(|a, b| a.0.cmp(&b.0));
    cases
}

#[test]
fn as_written() {
    let mut wrong = Vec::new();
    for (name, path, samples) in cases() {
        let (exchanges, pipeline) = run(&samples);
        let mut text = render(&exchanges);
        let always = [
            "connections_seen",
            "connections_closed",
            "connections_stopped",
            "connections_balanced",
            "samples",
            "seen_bytes",
        ];
        for (counter, value) in pipeline.counters().iter() {
            if value > 0 && !always.contains(&counter) && !is_shown_otherwise(counter) {
                text.push_str(&format!("{counter}: {value}\n"));
            }
        }
        let expected = path.with_extension("out");
        if std::env::var_os("BLESS").is_some_and(|bless| bless == "1") {
            std::fs::write(&expected, &text).unwrap();
        } else if std::fs::read_to_string(&expected).unwrap_or_default() != text {
            wrong.push(format!("=== {name}\n{text}"));
        }
    }
    assert!(wrong.is_empty(), "not as expected:\n{}", wrong.join("\n"));
}

/// By the exchanges themselves, or by the counters of both directions together.
fn is_shown_otherwise(counter: &str) -> bool {
    counter.starts_with("exchanges_") || counter.starts_with("received_") || counter.starts_with("sent_")
}

#[test]
fn split_at_every_byte() {
    for (name, _, samples) in cases() {
        let expected = render(&run(&samples).0);
        let total: usize = samples.iter().map(|sample| sample.payload.len()).sum();
        if samples[0].header.role == 0 || total > 20_000 {
            continue; // where a sample begins means something to a connection met in mid-stream
        }
        let bytes: Vec<_> = samples.iter().flat_map(one_byte_each).collect();
        assert_eq!(render(&run(&bytes).0), expected, "{name}, one byte a call");
        if total > 2_000 {
            continue;
        }
        for (index, sample) in samples.iter().enumerate() {
            for at in 1..sample.payload.len() {
                let mut cut = samples.clone();
                cut.splice(index..=index, sample.cut(at));
                assert_eq!(render(&run(&cut).0), expected, "{name}, sample {index} cut at {at}");
            }
        }
    }
}

fn one_byte_each(sample: &Owned) -> Vec<Owned> {
    let mut rest = sample.clone();
    let mut pieces = Vec::new();
    while rest.payload.len() > 1 {
        let [first, second] = rest.cut(1);
        pieces.push(first);
        rest = second;
    }
    pieces.push(rest);
    pieces
}

#[test]
fn with_each_sample_missing() {
    for (name, _, samples) in cases() {
        let truth = run(&samples).0;
        for missing in 0..samples.len() {
            let mut rest = samples.clone();
            let gone = rest.remove(missing);
            let (exchanges, pipeline) = run(&rest);
            let what = format!("{name} without sample {missing}\n{}", render(&exchanges));
            assert_nothing_invented(&exchanges, &truth, &what);
            let shows_it =
                rest.iter().skip(missing).any(|sample| sample.is_data() || sample.header.kind == Kind::Closed as u8);
            let from_the_start = rest[0].header.kind == Kind::Opened as u8;
            if gone.is_data() && shows_it && from_the_start && render(&exchanges) != render(&truth) {
                assert!(pipeline.counters().holes > 0, "silent loss: {what}");
            }
        }
    }
}

#[test]
fn with_each_two_neighbours_missing_and_cut_in_the_middle() {
    for (name, _, samples) in cases() {
        let truth = run(&samples).0;
        // Who pipelines on a connection that we meet in mid-stream cannot be told from who does not.
        let first = if name.starts_with("pipelined") { 2 } else { 1 };
        for missing in first..samples.len() {
            let mut rest = samples.clone();
            rest.drain(missing - 1..=missing);
            if !rest.is_empty() {
                let exchanges = run(&rest).0;
                let what = format!("{name} without samples {missing} and before\n{}", render(&exchanges));
                assert_nothing_invented(&exchanges, &truth, &what);
            }
            let half = samples[missing].payload.len() / 2;
            if half > 0 {
                for lost in 0..2 {
                    let mut rest = samples.clone();
                    let mut halves = samples[missing].cut(half);
                    rest[missing] = std::mem::replace(&mut halves[lost], samples[missing].clone());
                    let exchanges = run(&rest).0;
                    let what = format!("{name} with half {lost} of sample {missing}\n{}", render(&exchanges));
                    assert_nothing_invented(&exchanges, &truth, &what);
                }
            }
        }
    }
}

/// Every head is a true one, every reply stands with its own request, and what is called complete is.
fn assert_nothing_invented(exchanges: &[Exchange], truth: &[Exchange], what: &str) {
    for exchange in exchanges {
        let matches = |true_one: &&Exchange| {
            (exchange.request.is_none() || exchange.request == true_one.request)
                && (exchange.response.is_none() || exchange.response == true_one.response)
        };
        if truth.is_empty() && exchange.request.is_none() && exchange.completion == Completion::Partial {
            continue; // what was received was no HTTP, and not seen; the reply to it was
        }
        let true_one = truth.iter().find(matches);
        let Some(true_one) = true_one else { panic!("an exchange that never was: {what}") };
        if exchange.completion == Completion::Complete && !exchange.oddities.contains(&Oddity::InferredFraming) {
            assert_eq!(exchange.request, true_one.request, "{what}");
            assert_eq!(exchange.response, true_one.response, "{what}");
            assert_eq!(exchange.request_body_bytes, true_one.request_body_bytes, "{what}");
            assert_eq!(exchange.response_body_bytes, true_one.response_body_bytes, "{what}");
        }
    }
}

#[test]
fn interleaved_with_another_connection() {
    for (name, _, samples) in cases() {
        let expected = render(&run(&samples).0);
        let other: Vec<_> = samples.iter().map(|sample| sample.clone().of(2)).collect();
        let both: Vec<_> = samples.iter().zip(other).flat_map(|(a, b)| [a.clone(), b]).collect();
        let all = run(&both).0;
        for cookie in 1..=2 {
            let of_one: Vec<_> = all.iter().filter(|one| one.connection.cookie == cookie).cloned().collect();
            assert_eq!(render(&of_one), expected, "{name}, connection {cookie}");
        }
    }
}

#[test]
fn from_several_cpus_in_any_order() {
    const CPUS: usize = 4;
    let mut random = Random(1);
    for (name, _, samples) in cases() {
        let expected = render(&run(&samples).0);
        for round in 0..20 {
            let mut cpus: [std::collections::VecDeque<Owned>; CPUS] = Default::default();
            let pieces: Vec<_> = samples
                .iter()
                .flat_map(|sample| match sample.payload.len() {
                    2.. if round % 2 == 0 && samples[0].header.role != 0 => {
                        sample.cut(1 + random.below(sample.payload.len() - 1)).to_vec()
                    }
                    _ => vec![sample.clone()],
                })
                .collect();
            for piece in pieces {
                cpus[random.below(CPUS)].push_back(piece);
            }
            let mut pipeline = Pipeline::new(Limits::default());
            while cpus.iter().any(|cpu| !cpu.is_empty()) {
                let cpu = random.below(CPUS);
                for _ in 0..random.below(4) {
                    if let Some(sample) = cpus[cpu].pop_front() {
                        sample.give(&mut pipeline);
                    }
                }
                let drained = cpus.iter().filter_map(|cpu| cpu.front()).map(|sample| sample.header.time_ns).min();
                // Surplus may follow at the same moment as the reply that it belongs to: only whole moments are drained.
                if round % 3 == 0 {
                    pipeline.advance(drained.unwrap_or(LATER_NS));
                }
            }
            pipeline.advance(LATER_NS);
            pipeline.finish(LATER_NS);
            assert_eq!(render(&exchanges(&mut pipeline)), expected, "{name}, round {round}");
        }
    }
}
