use super::*;
use crate::capture::status::PortStatus;
use crate::deliver::stats::DeliveryState;
use crate::queue::Dropped;

fn cpu(cpu: u32, emitted: u64, read: u64, ring_full: u64) -> CpuStatus {
    let counters = [("ring_full".to_owned(), ring_full), ("faults".to_owned(), 1)].into();
    CpuStatus { cpu, emitted, read, reported_lost: ring_full / 2, counters, ..CpuStatus::default() }
}

fn example() -> Status {
    let count = |records| Count { records, bytes: records * 1500 };
    Status {
        version: "0.1.0".to_owned(),
        instance_id: "0192f3a0".to_owned(),
        pid: 4242,
        started: 1_000_000,
        now: 1_003_725,
        degraded: vec!["delivery: retrying: HTTP 503".to_owned()],
        capture: CaptureStatus {
            backend: "socket".to_owned(),
            backend_reason: "typed tracepoints, the cheapest; this kernel has them".to_owned(),
            ports: vec![PortStatus { port: 9000, listening: true }, PortStatus { port: 9001, listening: false }],
            cpus: vec![cpu(0, 1_234_567, 1_234_560, 12), cpu(1, 9, 10, 0)],
            ring_bytes: 4 << 20,
            open_at_start: 3,
            failed_windows: 0,
            missed_runs: BTreeMap::new(),
            verified_instructions: BTreeMap::new(),
        },
        rebuild: [("exchanges_begun", 1007), ("exchanges_ended", 1000), ("exchanges_open", 7)]
            .map(|(name, value)| (name.to_owned(), value))
            .into(),
        records: Ledger {
            made: count(1000),
            queued: count(90),
            in_flight: count(10),
            delivered: count(895),
            dropped: Dropped { queue_full: count(4), poison: count(1), ..Dropped::default() },
        },
        queue_limit: Count { records: 100_000, bytes: 256 << 20 },
        delivery: DeliveryStatus {
            state: DeliveryState::Retrying,
            batches: 12,
            retries: 3,
            splits: 1,
            last_success: Some(1_003_713),
            last_error: Some("HTTP 503".to_owned()),
        },
    }
}

#[test]
fn the_table_is_as_people_saw_it_last() {
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/src/status/golden.txt");
    let text = render(&example());
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(golden, &text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(golden).unwrap(), "BLESS=1 writes the new one; look at the diff");
}

#[test]
fn a_daemon_that_knows_nothing_yet_is_shown_too() {
    let empty = Status {
        capture: CaptureStatus::default(),
        rebuild: BTreeMap::new(),
        records: Ledger::default(),
        delivery: DeliveryStatus::default(),
        degraded: Vec::new(),
        ..example()
    };
    let text = render(&empty);
    for line in ["health      ok", "backend     none yet", "ports       none", "rebuild     none"] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    assert!(text.contains("ok, last success never"));
}

#[test]
fn a_record_that_is_missing_from_the_ledger_shows() {
    let mut status = example();
    status.records.delivered.records -= 1;
    assert!(render(&status).contains("made = queued + in flight + delivered + dropped: NO"));
}

#[test]
fn status_survives_its_json() {
    let text = serde_json::to_string(&example()).unwrap();
    assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), example());
}
