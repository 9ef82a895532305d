//! Records of our own, one of each kind, and what keeps them bounded.

use crate::exchanges::{CLOCK, exchange, request, response, settings};
use s3auditd_rebuild::record::event::{
    ByteRange, ChangedKey, CheckpointRecord, ConfigurationRecord, CoverageRecord, CoveredPort, Covers, Event,
    GapConnection, GapRecord, Kind, LossTotal, MAX_ENTRIES, PreviousInstance, RecoveryRecord, SequenceRange, Stage,
    StartRecord, StopRecord, Way,
};
use s3auditd_rebuild::record::{RecordMaker, RecordSettings, WekaInfo};
use serde_json::Value;
use std::collections::BTreeMap;

const NOW_NS: u64 = 915_055_685;

fn made(event: Event) -> Value {
    let settings = RecordSettings {
        boot_id: "5f2f2b3c-9d3a-4c56-8a38-7f2a0c1b7e11".to_owned(),
        weka_info: WekaInfo { server_name: "obj-115-07".to_owned(), ..WekaInfo::default() },
        ..settings()
    };
    let kind = event.kind();
    let record = RecordMaker::new(settings, 7).event(event, CLOCK.at(NOW_NS));
    assert_eq!((record.sequence, record.kind), (7, kind));
    assert!(record.json.iter().all(|byte| *byte >= 0x20), "one line");
    let value: Value = serde_json::from_slice(&record.json).unwrap();
    assert!(value.get("api").is_none());
    assert_eq!(value["s3auditd"]["kind"], kind.name());
    assert!(value["s3auditd"][kind.name()].is_object());
    value
}

fn show(name: &str, event: Event) {
    let text = serde_json::to_string_pretty(&made(event)).unwrap();
    insta::with_settings!({prepend_module_to_snapshot => false, omit_expression => true}, {
        insta::assert_snapshot!(name, text);
    });
}

fn gap() -> GapRecord {
    GapRecord {
        stage: Stage::Kernel,
        cause: "hole",
        connection: Some(GapConnection {
            cookie: u64::MAX,
            client: "[::ffff:192.0.2.7]:40000".parse().unwrap(),
            server: "10.26.211.72:9001".parse().unwrap(),
            netns: 4_026_531_840,
        }),
        connections: None,
        direction: Some(Way::Received),
        range: Some(ByteRange { from: 1000, to: 33_768 }),
        bytes: 32_768,
        samples: 0,
        records: 0,
        endpoint: None,
        sequences: Vec::new(),
        first_time: CLOCK.at(NOW_NS - 5),
        last_time: CLOCK.at(NOW_NS),
        operations_min: 0,
        operations_max: Some(12),
        merged: 1,
    }
}

fn delivery_gap() -> GapRecord {
    GapRecord {
        stage: Stage::Delivery,
        cause: "poison",
        connection: None,
        direction: None,
        range: None,
        bytes: 0,
        records: 12,
        endpoint: Some("splunk".to_owned()),
        sequences: vec![
            SequenceRange { first: 3, last: 3, previous: Some("ab".repeat(32)), ..SequenceRange::default() },
            SequenceRange {
                instance_id: Some("node-1/boot-0".to_owned()),
                first: 90,
                last: 110,
                count: Some(11),
                previous: None,
            },
        ],
        operations_min: 12,
        merged: 2,
        ..gap()
    }
}

#[test]
fn gaps() {
    show("event_gap_connection", Event::Gap(gap()));
    show("event_gap_delivery", Event::Gap(delivery_gap()));
    let many = GapRecord { connection: None, connections: Some(40), operations_max: None, range: None, ..gap() };
    show("event_gap_connections", Event::Gap(many));
}

#[test]
fn beginnings_and_ends() {
    let previous = PreviousInstance { instance_id: "node-1/boot-0".to_owned(), last_sequence: 110, stopped: false };
    show(
        "event_start",
        Event::Start(StartRecord {
            version: "0.1.0".to_owned(),
            previous: Some(previous),
            backend: "tracepoints".to_owned(),
            ports: vec![9000, 9001],
        }),
    );
    show(
        "event_recovery",
        Event::Recovery(RecoveryRecord {
            instance_id: "node-1/boot-0".to_owned(),
            boot_id: Some("d8b1f3f2-0c3f-4d07-9a53-5e5f3c9f8a10".to_owned()),
            last_sequence: Some(110),
            last_time: Some("2025-03-21T06:30:00.000000000Z".to_owned()),
            operations_may_be_missing: true,
            records_found: 20,
            corrupt_skipped: 1,
        }),
    );
    show(
        "event_stop",
        Event::Stop(StopRecord {
            reason: "signal".to_owned(),
            records: BTreeMap::from([("operation", 100), ("start", 1), ("gap", 1)]),
            losses: vec![LossTotal {
                stage: Stage::Queue,
                cause: "queue_full",
                merged: 2,
                bytes: 0,
                samples: 0,
                records: 5,
                operations_min: 5,
                operations_max: Some(5),
            }],
            exchanges_begun: 105,
            exchanges_ended: 105,
        }),
    );
}

#[test]
fn coverage_configuration_checkpoint() {
    show(
        "event_coverage",
        Event::Coverage(CoverageRecord {
            backend: "tracepoints".to_owned(),
            backend_reason: "kernel 6.8 has both".to_owned(),
            ports: vec![CoveredPort { port: 9000, listening: true }, CoveredPort { port: 9001, listening: false }],
            open_at_start: 3,
            unseen_connections: BTreeMap::from([("tls", 2), ("not_http", 1)]),
            missed_runs: 0,
        }),
    );
    show(
        "event_configuration",
        Event::Configuration(ConfigurationRecord {
            source: "sighup".to_owned(),
            accepted: false,
            error: Some("listen: must be ports from 1 to 65535, not \"0\"".to_owned()),
            changes: vec![ChangedKey { key: "listen".to_owned(), old: "9000".to_owned(), new: "0".to_owned() }],
        }),
    );
    show(
        "event_checkpoint",
        Event::Checkpoint(CheckpointRecord {
            covers: Covers { instance_id: "node-1/boot-1".to_owned(), first: 0, last: 6 },
            hash: "0f".repeat(32),
            key_id: "0123456789abcdef".to_owned(),
            public_key: "A".repeat(43) + "=",
        }),
    );
}

#[test]
fn all_kinds_share_one_numbering() {
    let mut maker = RecordMaker::new(settings(), 0);
    let exchange = exchange(request("GET", "/b/k", [("Host", "h")]), response(200, []));
    let first = maker.event(Event::Start(StartRecord::default()), CLOCK.at(1)).sequence;
    let second = maker.record(maker.read(&exchange), CLOCK).sequence();
    let third = maker.event(Event::Gap(gap()), CLOCK.at(1)).sequence;
    assert_eq!((first, second, third, maker.next_sequence()), (0, 1, 2, 3));
    assert_eq!(maker.made(), &BTreeMap::from([("start", 1), ("operation", 1), ("gap", 1)]));
    assert_eq!(Kind::ALL.len(), 8);
}

#[test]
fn hostile_texts_stay_one_bounded_line() {
    let text = "\"}\n\u{2028}\u{0}\u{7f}".repeat(4000);
    let change = ChangedKey { key: text.clone(), old: text.clone(), new: text.clone() };
    let value = made(Event::Configuration(ConfigurationRecord {
        source: text.clone(),
        accepted: true,
        error: Some(text.clone()),
        changes: vec![change; 2 * MAX_ENTRIES],
    }));
    assert_eq!(value["s3auditd"]["truncated"], serde_json::json!(["changes", "error", "source"]));
    assert_eq!(value["s3auditd"]["configuration"]["changes"].as_array().unwrap().len(), MAX_ENTRIES);
    assert!(text.starts_with(value["s3auditd"]["configuration"]["source"].as_str().unwrap()));
}
