use super::*;
use crate::balance;
use crate::capture::status::PortStatus;
use crate::deliver::stats::DeliveryState;
use crate::ledger::{Dropped, EndpointBooks};
use crate::losses;

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
            cpus: vec![cpu(0, 1_234_567, 1_234_560, 12), cpu(1, 9, 9, 0)],
            ring_bytes: 4 << 20,
            open_at_start: 3,
            failed_windows: 0,
            missed_runs: BTreeMap::new(),
            tls: vec![
                TlsStatus {
                    pid: 6875,
                    comm: "minio".to_owned(),
                    library: "go crypto/tls".to_owned(),
                    version: "go1.26.8".to_owned(),
                    probes: 2,
                    connections: 1204,
                    problem: String::new(),
                },
                TlsStatus { pid: 811, comm: "nginx".to_owned(), problem: "none".to_owned(), ..TlsStatus::default() },
            ],
            verified_instructions: BTreeMap::new(),
        },
        rebuild: [
            ("exchanges_begun", 1007),
            ("exchanges_ended", 1000),
            ("exchanges_open", 7),
            ("records_operation", 1000),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into(),
        records: books(),
        queue_limit: Count { records: 100_000, bytes: 256 << 20 },
        spool: SpoolStatus {
            dir: Some("/var/lib/s3auditd/spool".to_owned()),
            disk_bytes: 147_456,
            limit: 1 << 30,
            free_bytes: 5 << 30,
            frames: 1,
            kept: count(90),
            oldest_ns: Some(1_003_600 * 1_000_000_000),
            ..SpoolStatus::default()
        },
        delivery: [("default".to_owned(), delivery())].into(),
        losses: Vec::new(),
        balance: Vec::new(),
    }
    .settled()
}

fn books() -> Books {
    let count = |records| Count { records, bytes: records * 1500 };
    let endpoint = EndpointBooks {
        inherited: count(5),
        offered: count(990),
        waiting: count(80),
        in_flight: count(10),
        delivered: count(900),
        filtered: count(4),
        dropped: Dropped { dead_lettered: count(1), ..Dropped::default() },
    };
    Books {
        made: count(1000),
        queued: count(6),
        writing: count(0),
        stored: count(990),
        dropped: Dropped { queue_full: count(4), ..Dropped::default() },
        endpoints: [("default".to_owned(), endpoint)].into(),
    }
}

fn delivery() -> DeliveryStatus {
    DeliveryStatus {
        state: DeliveryState::Retrying,
        batches: 12,
        retries: 3,
        splits: 1,
        last_success: Some(1_003_713),
        last_error: Some("HTTP 503".to_owned()),
        ..DeliveryStatus::default()
    }
}

impl Status {
    /// With what follows from the rest.
    fn settled(self) -> Self {
        let rebuild_losses = BTreeMap::new();
        Self {
            losses: losses::counts(&self.capture, &rebuild_losses, &self.records),
            balance: balance::equations(&self.capture, &self.rebuild, &self.records),
            ..self
        }
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
        records: Books::default(),
        delivery: [("default".to_owned(), DeliveryStatus::default())].into(),
        degraded: Vec::new(),
        ..example()
    }
    .settled();
    let text = render(&empty);
    for line in ["health      ok", "backend     none yet", "ports       none", "rebuild     none"] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    assert!(text.contains("ok, last success never"));
}

#[test]
fn a_record_that_is_missing_from_the_ledger_shows() {
    let mut status = example();
    status.records.endpoints.get_mut("default").unwrap().delivered.records -= 1;
    let text = render(&status.settled());
    assert!(text.contains("NOT BALANCED") && text.contains("endpoint default: "), "{text}");
}

#[test]
fn status_survives_its_json() {
    let text = serde_json::to_string(&example()).unwrap();
    assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), example());
}
