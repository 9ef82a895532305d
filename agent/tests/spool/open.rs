//! Opening: permissions, the lock, what is found again, the commands beside it.

use super::*;
use s3auditd::ledger::{Count, DropCause};
use s3auditd::spool::{GivenUp, RefusedCause, SpoolError, tool};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::Command;

#[test]
fn only_the_owner_sees_it() {
    let parent = private_dir();
    let dir = parent.path().join("a/spool");
    let (spool, _) = Spool::open(settings(&dir), &readers(&["a"])).unwrap();
    let _ = append(&spool, frame(1, 0, 3, 100));
    assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);
    for file in fs::read_dir(&dir).unwrap() {
        let file = file.unwrap();
        assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600, "{:?}", file.path());
    }
    drop(spool);
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o750)).unwrap();
    let Err(SpoolError::Open { mode: 0o750, .. }) = Spool::open(settings(&dir), &[]) else {
        panic!("others can read it")
    };
}

/// Run by `a_second_process_is_refused` in a process of its own.
#[test]
#[ignore = "a part of another test"]
fn second_process() {
    let Ok(dir) = std::env::var("SPOOL_TEST_DIR") else { return };
    match Spool::open(settings(Path::new(&dir)), &readers(&["a"])) {
        Err(error @ SpoolError::Locked { .. }) => println!("refused: {error}"),
        other => println!("not refused: {:?}", other.map(|(_, recovered)| recovered)),
    }
}

#[test]
fn a_second_process_is_refused() {
    let dir = private_dir();
    let (spool, _) = Spool::open(settings(dir.path()), &readers(&["a"])).unwrap();
    let mut second = Command::new(std::env::current_exe().unwrap());
    second.args(["--exact", "open::second_process", "--ignored", "--nocapture"]).env("SPOOL_TEST_DIR", dir.path());
    let said = String::from_utf8(second.output().unwrap().stdout).unwrap();
    let expected =
        format!("refused: spool-dir {}: in use by another s3auditd, pid {}", dir.path().display(), std::process::id());
    assert!(said.contains(&expected), "{said}");
    drop(spool);
    assert!(String::from_utf8(second.output().unwrap().stdout).unwrap().contains("not refused"));
}

#[test]
fn everything_is_found_again() {
    let dir = private_dir();
    let run = GivenUp {
        id: 0,
        cause: DropCause::Poison,
        reader: Some("a".to_owned()),
        instance_id: INSTANCE.to_owned(),
        first: 4,
        last: 4,
        records: 1,
        bytes: 0,
    };
    {
        let (spool, found) = Spool::open(settings(dir.path()), &readers(&["a", "b"])).unwrap();
        assert_eq!(found, Default::default());
        for n in 1..=4 {
            assert_eq!(
                append(&spool, frame(n, 3 * (n - 1), 3, 2000)),
                Appended::Stored { number: n, dropped: Vec::new() }
            );
        }
        assert_eq!(*spool.watch().borrow(), 4);
        spool.settle("a", 3).unwrap();
        spool.settle("b", 1).unwrap();
        assert_eq!(spool.give_up(&run).unwrap(), 1);
    }
    let (spool, found) = Spool::open(settings(dir.path()), &readers(&["a", "b"])).unwrap();
    assert_eq!((found.frames, found.records, found.corrupt_frames, found.set_aside), (3, 9, 0, None));
    assert_eq!(found.mark, Some(frame(4, 9, 3, 2000).2));
    assert_eq!(found.given_up, [GivenUp { id: 1, ..run }]);
    assert_eq!((spool.cursor("a"), spool.cursor("b")), (3, 1));
    let numbers: Vec<_> = all(&spool, "b", spool.cursor("b")).iter().map(|frame| frame.number).collect();
    assert_eq!(numbers, [2, 3, 4]);
    let (lines, key, mark) = frame(5, 12, 3, 2000);
    assert_eq!(spool.next("a", 3).unwrap().map(|frame| frame.lines), Some(frame(4, 9, 3, 2000).0));
    assert!(matches!(spool.append(lines, key, mark, &[1]), Appended::Stored { number: 5, .. }));
    assert_eq!(spool.given_up(), []);
    assert!(matches!(spool.next("nobody", 0), Err(SpoolError::NoReader(_))));
}

/// Its state then says nothing but defaults, and is whole nevertheless.
#[test]
fn an_empty_spool_without_readers_is_not_damaged() {
    let dir = private_dir();
    for _ in 0..2 {
        let (_spool, found) = Spool::open(settings(dir.path()), &[]).unwrap();
        assert_eq!(found, Default::default());
    }
}

#[test]
fn the_commands_work_beside_a_daemon() {
    let dir = private_dir();
    let (spool, _) = Spool::open(settings(dir.path()), &readers(&["a"])).unwrap();
    let frames: Vec<_> = (1..=5).map(|n| frame(n, 3 * (n - 1), 3, 40_000)).collect();
    for frame in &frames {
        assert!(matches!(append(&spool, frame.clone()), Appended::Stored { .. }));
    }
    spool.settle("a", 2).unwrap();
    spool.flush().unwrap();
    let inspection = tool::inspect(dir.path()).unwrap();
    assert_eq!((inspection.status.frames, inspection.status.kept.records, inspection.damaged_heads), (3, 9, 0));
    assert_eq!(inspection.status.readers["a"].cursor, 2);
    assert!(tool::render(&inspection).contains("a: settled up to frame 2; 3 frames, 9 records"));
    let mut out = Vec::new();
    let exported = tool::export(dir.path(), Some("a"), &mut out).unwrap();
    assert_eq!((exported.frames, exported.records, exported.corrupt_frames), (3, 9, 0));
    let expected: Vec<u8> =
        frames[2..].iter().flat_map(|(lines, ..)| lines).flat_map(|line| [line, &b"\n"[..]].concat()).collect();
    assert!(out == expected);
    assert!(tool::export(dir.path(), Some("b"), &mut out).is_err());
    assert!(tool::inspect(&dir.path().join("none")).is_err());
}

#[test]
fn in_memory_it_refuses_when_full() {
    let spool = Spool::memory(1000, &readers(&["a"]));
    let stored = |number| Appended::Stored { number, dropped: Vec::new() };
    assert_eq!(append(&spool, frame(1, 0, 1, 400)), stored(1));
    assert_eq!(append(&spool, frame(2, 1, 1, 400)), stored(2));
    assert_eq!(append(&spool, frame(3, 2, 1, 400)), Appended::Refused(RefusedCause::Full));
    assert_eq!(append(&spool, frame(3, 2, 1, 4000)), Appended::Refused(RefusedCause::TooLarge));
    assert_eq!(all(&spool, "a", 0).len(), 2);
    spool.settle("a", 1).unwrap();
    assert_eq!(append(&spool, frame(3, 2, 1, 400)), stored(3));
    assert_eq!(all(&spool, "a", 0).iter().map(|frame| frame.number).collect::<Vec<_>>(), [2, 3]);
    let waiting = spool.status().readers["a"].waiting;
    assert_eq!(waiting, Count { records: 2, bytes: waiting.bytes });
}
