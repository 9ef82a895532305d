//! The spool against a model, damage, SIGKILL, a full disk and a second process.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a panic in a test is the report of its failure"
)]

mod damage;
mod full;
mod kill;
mod model;
mod open;

use bytes::Bytes;
use s3auditd::config::{SpoolCompression, SpoolSync, WhenFull};
use s3auditd::spool::{Appended, Frame, Mark, Settings, Spool};
use std::path::Path;
use uuid::Uuid;

const INSTANCE: &str = "0192f3a0-0000-7000-8000-000000000000";

fn settings(dir: &Path) -> Settings {
    Settings {
        dir: dir.to_owned(),
        max_bytes: 64 << 20,
        min_free_bytes: 0,
        when_full: WhenFull::DropOldest,
        sync: SpoolSync::Never,
        compression: SpoolCompression::Lz4,
    }
}

fn readers(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// The n-th frame of a stream: its lines, key and mark follow from n and `first`, the sequence number of its first line.
fn frame(n: u64, first: u64, count: u64, length: usize) -> (Vec<Bytes>, Uuid, Mark) {
    let line = |nth: u64| {
        let mut text = format!("{{\"frame\":{n},\"sequence\":{},\"x\":\"", first + nth);
        let mut mixed = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ nth;
        while text.len() < length {
            mixed = mixed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            text.push_str(&format!("{:08x}", mixed >> 32));
        }
        Bytes::from(text + "\"}")
    };
    let mark = Mark {
        instance_id: INSTANCE.to_owned(),
        boot_id: "boot".to_owned(),
        sequence: first + count - 1,
        time_ns: 1_700_000_000_000_000_000 + n,
        chain: Some("07".repeat(32)),
        stopped: false,
    };
    ((0..count).map(line).collect(), Uuid::from_u128(u128::from(n) << 64 | 1), mark)
}

fn append(spool: &Spool, (lines, key, mark): (Vec<Bytes>, Uuid, Mark)) -> Appended {
    spool.append(lines, key, mark, &[])
}

/// All that a reader can get above `after`.
fn all(spool: &Spool, reader: &str, mut after: u64) -> Vec<Frame> {
    let mut frames = Vec::new();
    while let Some(frame) = spool.next(reader, after).unwrap() {
        after = frame.number;
        frames.push(frame);
    }
    frames
}

/// A directory that a spool accepts.
fn private_dir() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt as _;
    tempfile::Builder::new().permissions(std::fs::Permissions::from_mode(0o700)).tempdir().unwrap()
}
