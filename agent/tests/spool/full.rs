//! A full disk: a small file system of its own (tmpfs), which takes root.

use super::*;
use s3auditd::spool::RefusedCause;
use std::fs;
use std::process::Command;

struct Mounted(tempfile::TempDir);

impl Mounted {
    fn new(size: &str) -> Option<Self> {
        let dir = private_dir();
        let options = format!("size={size},mode=0700");
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "none"]).arg(dir.path()).status();
        if done.is_ok_and(|status| status.success()) {
            return Some(Self(dir));
        }
        println!("not run: this test mounts a tmpfs, and may not");
        None
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _status = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

fn nth(n: u64) -> (Vec<Bytes>, Uuid, Mark) {
    frame(n, 4 * n, 4, 60_000)
}

#[test]
fn a_full_disk_refuses_and_recovers() {
    for when_full in WhenFull::ALL {
        let Some(disk) = Mounted::new("12m") else { return };
        let dir = disk.0.path().join("spool");
        let settings = Settings { when_full: *when_full, ..settings(&dir) };
        let (spool, _) = Spool::open(settings.clone(), &readers(&["a"])).unwrap();
        // Somebody else fills the disk step by step.
        let filler = disk.0.path().join("filler");
        let mut number = 0;
        let mut refused = 0;
        for step in 0..60 {
            let whole = fs::read(&filler).unwrap_or_default().len();
            let _full = fs::write(&filler, vec![1; whole + (256 << 10)]);
            match append(&spool, nth(number + 1)) {
                Appended::Stored { number: stored, .. } => number = stored,
                Appended::Refused(cause) => {
                    assert_eq!(cause, RefusedCause::NoSpace, "step {step}");
                    refused += 1;
                }
            }
            // Settling goes on working for the process, whatever the disk says.
            if step == 30 {
                spool.settle("a", 1).unwrap();
            }
        }
        assert!(refused > 0 && number > 3, "{refused} refused, {number} stored");
        let kept = all(&spool, "a", spool.cursor("a"));
        assert_eq!(kept.last().map(|frame| frame.number), Some(number));
        assert!(kept.iter().all(|frame| frame.lines == nth(frame.number).0));
        drop(spool);
        // A start on a disk without any room may be refused, and is not once there is some.
        let _refused = Spool::open(settings.clone(), &readers(&["a"])).map(|_| ());
        fs::remove_file(&filler).unwrap();
        let (spool, found) = Spool::open(settings, &readers(&["a"])).unwrap();
        assert_eq!((found.corrupt_frames, &found.set_aside), (0, &None));
        assert!(all(&spool, "a", spool.cursor("a")).iter().all(|frame| frame.lines == nth(frame.number).0));
        assert!(matches!(append(&spool, nth(number + 1)), Appended::Stored { .. }), "it did not recover");
        assert_eq!(all(&spool, "a", number).len(), 1);
    }
}

#[test]
fn it_leaves_what_it_has_to_leave() {
    let Some(disk) = Mounted::new("16m") else { return };
    let settings =
        Settings { min_free_bytes: 6 << 20, when_full: WhenFull::DropNewest, ..settings(&disk.0.path().join("spool")) };
    let (spool, _) = Spool::open(settings, &readers(&["a"])).unwrap();
    let mut refused = 0;
    for n in 1..=60 {
        match append(&spool, nth(n)) {
            Appended::Stored { .. } => assert_eq!(refused, 0),
            Appended::Refused(cause) => {
                assert_eq!(cause, RefusedCause::NoSpace);
                refused += 1;
            }
        }
        assert!(spool.status().free_bytes >= 6 << 20, "frame {n}: {:?}", spool.status());
    }
    assert!(refused > 0);
}
