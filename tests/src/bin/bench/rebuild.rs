//! From samples to JSON lines in this process, on one core: what the audit thread does between ring and queue.

use crate::report::{Bound, Report};
use crate::samples::{self, Batch};
use crate::stats::Spread;
use crate::{Bench, Effort, allocations, usage};
use s3auditd::config::keys::Config;
use s3auditd::config::{self, FileChoice};
use s3auditd::rebuild::{Made, Rebuild, record_settings};
use s3auditd_rebuild::pipeline::{Limits, Output, Pipeline};
use s3auditd_rebuild::record::{Clock, RecordMaker};
use s3auditd_rebuild::sample::Sample;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Duration;

const PART: &str = "rebuild";

/// As many as the ring may bring between two looks at the grace period.
const TURN: usize = 256;

/// How long before a sample everything has surely been drained.
const GRACE_NS: u64 = 5_000_000;

type Stage = fn(&Config, &Batch) -> u64;

/// Each does what those before it do, and one thing more.
const STAGES: &[(&str, Stage)] = &[
    ("decode", decode),
    ("connections and HTTP", |_, batch| exchanges(batch)),
    ("record", |config, batch| records(config, batch, false)),
    ("JSON", |config, batch| records(config, batch, true)),
    ("as the daemon runs it", whole),
];

pub(crate) fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let loaded = config::load(&FileChoice::Skip, config::keys::Flags::default(), &BTreeMap::new())?;
    for batch in [samples::keep_alive()?, samples::corpus()?] {
        batch_of(bench, report, &loaded.config, &batch);
    }
    Ok(())
}

fn batch_of(bench: &Bench, report: &mut Report, config: &Config, batch: &Batch) {
    let many = whole(config, batch);
    let name = |what: &str| format!("{}: {what}", batch.name);
    let mut before: Option<Spread> = None;
    let mut taken_before = 0.0;
    for (stage, run) in STAGES {
        let taken = allocations::so_far();
        black_box(run(config, batch));
        let taken = (allocations::so_far() - taken) as f64 / many as f64;
        let repeats = if bench.effort == Effort::Quick { 5 } else { 25 };
        let times = (0..repeats).map(|_| {
            cpu_ns(|| {
                black_box(run(config, batch));
            }) / many as f64
        });
        let time = Spread::of(times.collect());
        if *stage == "as the daemon runs it" {
            let rate = Spread::of(time.values.iter().map(|time| 1e9 / time).collect());
            report.figure(PART, name("allocations a record"), "", Spread::one(taken));
            report.figure(PART, name("time a record"), "ns", time.clone());
            report.figure(PART, name("records a second and core"), "", rate.clone());
            if batch.is_target {
                report.target("samples to JSON, records a second and core", Bound::AtLeast(150_000.0), "", rate);
            }
        } else {
            let added = time.median - before.as_ref().map_or(0.0, |before| before.median);
            report.figure(PART, name(&format!("{stage}, time a record")), "ns", Spread::one(added));
            let added = taken - taken_before;
            report.figure(PART, name(&format!("{stage}, allocations a record")), "", Spread::one(added));
        }
        (before, taken_before) = (Some(time), taken);
    }
}

/// CPU time of one call in nanoseconds: others on the machine do not count. Called until it can be told to about 1 %.
fn cpu_ns(mut call: impl FnMut()) -> f64 {
    const LONG_ENOUGH: Duration = Duration::from_millis(300);
    let (begun, mut calls) = (usage::thread_cpu(), 0);
    loop {
        call();
        calls += 1;
        let taken = usage::thread_cpu().saturating_sub(begun);
        if taken >= LONG_ENOUGH {
            return taken.as_secs_f64() * 1e9 / f64::from(calls);
        }
    }
}

fn parsed(batch: &Batch) -> impl Iterator<Item = Sample<'_>> {
    batch.samples().filter_map(|bytes| Sample::parse(bytes).ok())
}

fn decode(_: &Config, batch: &Batch) -> u64 {
    parsed(batch).map(|sample| sample.header.time_ns ^ sample.payload.len() as u64).fold(0, u64::wrapping_add)
}

/// Everything up to finished exchanges; hands out each.
fn pipeline(batch: &Batch, mut each: impl FnMut(Output)) {
    let mut pipeline = Pipeline::new(Limits::default());
    for (nth, sample) in parsed(batch).enumerate() {
        pipeline.take(&sample);
        if nth % TURN == 0 {
            pipeline.advance(sample.header.time_ns.saturating_sub(GRACE_NS));
        }
        while let Some(output) = pipeline.next_output() {
            each(output);
        }
    }
    pipeline.finish(u64::MAX);
    while let Some(output) = pipeline.next_output() {
        each(output);
    }
}

fn exchanges(batch: &Batch) -> u64 {
    let mut many = 0;
    pipeline(batch, |output| many += u64::from(matches!(output, Output::Exchange(_))));
    many
}

fn records(config: &Config, batch: &Batch, json: bool) -> u64 {
    let settings = record_settings(config, "bench".to_owned(), String::new());
    let mut maker = RecordMaker::new(settings, 0);
    let mut bytes = 0;
    pipeline(batch, |output| {
        if let Output::Exchange(exchange) = output {
            let record = maker.record(maker.read(&exchange), Clock::default());
            bytes += if json { record.to_json().len() as u64 } else { record.sequence() };
        }
    });
    bytes
}

/// Returns how many records it made.
fn whole(config: &Config, batch: &Batch) -> u64 {
    let mut rebuild = Rebuild::new(config, "bench".to_owned());
    let mut many = 0;
    let mut all = |rebuild: &mut Rebuild| {
        while let Some(made) = rebuild.next_made() {
            many += u64::from(matches!(black_box(made), Made::Record(_)));
        }
    };
    for (nth, sample) in parsed(batch).enumerate() {
        rebuild.take(&sample);
        all(&mut rebuild);
        if nth % TURN == 0 {
            rebuild.advance(sample.header.time_ns.saturating_sub(GRACE_NS));
            all(&mut rebuild);
        }
    }
    rebuild.finish(u64::MAX);
    all(&mut rebuild);
    many
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_of_the_batch_gives_a_record() {
        let config = config::load(&FileChoice::Skip, config::keys::Flags::default(), &BTreeMap::new()).unwrap().config;
        let batch = samples::keep_alive().unwrap();
        assert_eq!(whole(&config, &batch), samples::KEEP_ALIVE_OPERATIONS);
        assert_eq!(exchanges(&batch), samples::KEEP_ALIVE_OPERATIONS);
    }
}
