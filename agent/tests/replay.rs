//! `s3auditd replay` and what `run --record` writes, without a kernel.

#![expect(
    clippy::unwrap_used,
    reason = "a panic is a test's failure report; clippy.toml allows it in test functions, not in their helpers"
)]

use s3auditd::config::keys::{Config, Flags};
use s3auditd::config::{FileChoice, load};
use s3auditd::rebuild::{Made, Rebuild, redaction};
use s3auditd::recorder::Recorder;
use s3auditd::replay::replay;
use s3auditd_rebuild::replay::conversation::{Line, Reader};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

const CONVERSATION: &str = concat!(
    r#"{"connection":"1","time_us":1000000,"event":"opened","client":"192.0.2.7:40000","server":"192.0.2.1:9000"}"#,
    "\n",
    r#"{"connection":"1","time_us":1000010,"from":"client","bytes":"PUT /b/k?X-Amz-Sig"}"#,
    "\n",
    r#"{"connection":"1","time_us":1000020,"from":"client","bytes":"nature=SECRET1 HTTP/1.1\r\nHost: h\r\nCookie: SECRET2\r\nx-amz-server-side-encryption-customer-key: SECRET3\r\nContent-Length: 70000\r\n\r\n"}"#,
    "\n",
    r#"{"connection":"1","time_us":1000030,"from":"client","bytes":["SECRET4",[65,69993]]}"#,
    "\n",
    r#"{"connection":"1","time_us":1000040,"from":"gateway","bytes":"HTTP/1.1 403 Forbidden\r\nContent-Length: 67\r\n\r\n<Error><Code>AccessDenied</Code><Message>SECRET5 !</Message></Error>"}"#,
    "\n",
    r#"{"connection":"1","time_us":1000050,"event":"client closed"}"#,
    "\n",
    r#"{"connection":"1","time_us":1000060,"event":"closed"}"#,
    "\n",
);

fn config() -> Config {
    load(&FileChoice::Skip, Flags::default(), &BTreeMap::new()).unwrap().config
}

fn replayed(files: &[PathBuf]) -> (String, String, Option<String>) {
    let (mut records, mut remarks) = (Vec::new(), Vec::new());
    let error = replay(&config(), files, &mut records, &mut remarks).err().map(|error| error.to_string());
    (String::from_utf8(records).unwrap(), String::from_utf8(remarks).unwrap(), error)
}

fn write(directory: &Path, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, content).unwrap();
    path
}

/// What the daemon would do with the conversation; its records, and the recording.
fn record(path: &Path, max_bytes: u64, times: usize) -> (Vec<String>, BTreeMap<String, u64>) {
    let config = config();
    let mut rebuild = Rebuild::new(&config, "replay".to_owned());
    rebuild.follow_moves();
    let mut recorder = Recorder::start(path, max_bytes, redaction(&config)).unwrap();
    let (mut records, mut reader) = (Vec::new(), Reader::default());
    for _ in 0..times {
        for line in CONVERSATION.lines() {
            for sample in reader.take(&Line::parse(line.as_bytes()).unwrap()).unwrap() {
                rebuild.take(&sample.sample().unwrap());
            }
        }
        rebuild.advance(u64::MAX);
        while let Some(made) = rebuild.next_made() {
            if let Made::Record(line) = made {
                records.push(String::from_utf8(line.bytes.to_vec()).unwrap() + "\n");
            }
        }
        while let Some(moved) = rebuild.next_moved() {
            recorder.take(moved);
        }
        recorder.turn(u64::MAX);
    }
    recorder.stop(2_000_000_000);
    (records, recorder.counters().collect())
}

#[test]
fn conversations_give_records_and_the_same_ones_each_time() {
    let directory = tempfile::tempdir().unwrap();
    let file = write(directory.path(), "c.jsonl", CONVERSATION);
    let (records, remarks, error) = replayed(std::slice::from_ref(&file));
    assert_eq!(error, None);
    assert_eq!(remarks, format!("{}: 1 records\n", file.display()));
    let record: serde_json::Value = serde_json::from_str(&records).unwrap();
    assert_eq!(record["s3auditd"]["operation"], "PutObject");
    assert_eq!(record["s3auditd"]["s3ErrorCode"], "AccessDenied");
    assert_eq!(record["s3auditd"]["peer"]["ip"], "192.0.2.7");
    assert_eq!(record["time"], "1970-01-01T00:00:01.000040000Z");
    assert_eq!(replayed(std::slice::from_ref(&file)).0, records);
    let twice = replayed(&[file.clone(), file]).0;
    let numbers: Vec<u64> = twice
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["s3auditd"]["sequence"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, [0, 1]);
}

#[test]
fn a_recording_gives_the_same_records_and_has_no_secret() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("recording");
    let (live, counters) = record(&file, 1 << 20, 3);
    assert_eq!(live.len(), 3);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let bytes = std::fs::read(&file).unwrap();
    assert_eq!(bytes.len() as u64, counters["recorded_bytes"]);
    assert!(bytes.len() < 9000, "bodies are not in it: {} bytes", bytes.len());
    assert!(!bytes.windows(6).any(|window| window == b"SECRET"));
    let (records, remarks, error) = replayed(std::slice::from_ref(&file));
    assert_eq!((remarks, error), (format!("{}: 3 records\n", file.display()), None));
    assert_eq!(records, live.concat());
    // Never over what is there.
    assert!(Recorder::start(&file, 1 << 20, redaction(&config())).is_err());
}

#[test]
fn a_full_recording_ends_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("recording");
    let (live, counters) = record(&file, 10_000, 20);
    assert_eq!(live.len(), 20);
    assert_eq!(counters["recording_full"], 1);
    assert!(counters["recording_dropped_samples"] > 0);
    // The writer ends by itself then.
    let mut remarks = String::new();
    for _ in 0..100 {
        remarks = replayed(std::slice::from_ref(&file)).1;
        if remarks.contains("its limit was reached") {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert!(remarks.contains("its limit was reached"), "{remarks}");
    assert!(std::fs::metadata(&file).unwrap().len() <= 10_000);
}

#[test]
fn a_cut_tail_is_tolerated_and_said() {
    let directory = tempfile::tempdir().unwrap();
    let text = write(directory.path(), "c.jsonl", format!("{CONVERSATION}{{\"connection\":\"2\",\"ti"));
    let (records, remarks, error) = replayed(&[text]);
    assert_eq!((records.lines().count(), error), (1, None));
    assert!(remarks.contains("line 8 is cut off and was left out"), "{remarks}");
    let file = directory.path().join("recording");
    let (live, _) = record(&file, 1 << 20, 2);
    let bytes = std::fs::read(&file).unwrap();
    for cut in 17..bytes.len() {
        let (records, remarks, error) = replayed(&[write(directory.path(), "cut", &bytes[..cut])]);
        assert_eq!(error, None, "cut at {cut}");
        assert!(remarks.contains("cut off") || remarks.contains("has no end"), "cut at {cut}: {remarks}");
        assert!(records.lines().count() <= live.len());
    }
}

#[test]
fn what_is_wrong_with_a_file_is_one_line_with_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let error = |name: &str, content: &[u8]| {
        let path = write(directory.path(), name, content);
        let error = replayed(std::slice::from_ref(&path)).2.unwrap();
        assert!(!error.contains('\n'), "{error}");
        error.strip_prefix(&path.display().to_string()).unwrap().to_owned()
    };
    assert!(error("a", b"{}\n").starts_with(":1: missing field `connection`"));
    assert!(error("b", format!("{CONVERSATION}nonsense\n").as_bytes()).starts_with(":8: expected"));
    assert!(error("c", b"\x7fELF\n").starts_with(":1: expected value"));
    assert!(error("d", b"S3AUDREC\x09\0\0\0\x70\0\0\0").contains("byte 0: a recording of version 9"));
    assert!(
        error("e", b"S3AUDREC\x01\0\0\0\x70\0\0\0\x01\0\0\0\x09").contains("byte 16: a frame has the unknown kind 9")
    );
    assert!(error("f", b"S3AUDREC").contains("byte 0: not a recording"));
    assert!(replayed(&[directory.path().join("none")]).2.unwrap().contains("No such file"));
}

#[test]
fn without_room_operations_become_a_gap_and_take_no_number() {
    let mut rebuild = Rebuild::new(&config(), "i".to_owned());
    let mut reader = Reader::default();
    let mut made = Vec::new();
    for room in [true, false, true] {
        rebuild.set_room(room);
        for line in CONVERSATION.lines() {
            for sample in reader.take(&Line::parse(line.as_bytes()).unwrap()).unwrap() {
                rebuild.take(&sample.sample().unwrap());
            }
        }
        rebuild.advance(u64::MAX);
        rebuild.author().tick(5_000_000_000);
        while let Some(next) = rebuild.next_made() {
            if let Made::Record(line) = next {
                assert_eq!(line.sequence, made.len() as u64);
                made.push(serde_json::from_slice::<serde_json::Value>(&line.bytes).unwrap());
            }
        }
    }
    let kinds: Vec<_> = made.iter().map(|record| record["s3auditd"]["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["operation", "gap", "operation"]);
    let gap = &made[1]["s3auditd"]["gap"];
    assert_eq!((&gap["stage"], &gap["cause"]), (&"queue".into(), &"queue_full".into()));
    assert_eq!((&gap["operationsMin"], &gap["operationsMax"]), (&1.into(), &1.into()));
}
