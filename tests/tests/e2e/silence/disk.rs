//! A spool on a disk that gets full while the webhook is away, and has room again.

use super::settled;
use s3auditd_tests::client::flood::Flood;
use s3auditd_tests::daemon::{Daemon, Status};
use s3auditd_tests::gateway::raw;
use s3auditd_tests::webhook::receiver::Receiver;
use s3auditd_tests::webhook::rude::status;
use s3auditd_tests::world::PATIENCE;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A file system of memory, of this size until it is grown; unmounted when dropped.
struct Disk(tempfile::TempDir);

impl Disk {
    fn of(size: &str) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        mount(&["-t", "tmpfs", "-o", &format!("size={size},mode=700"), "none"], folder.path())?;
        Ok(Self(folder))
    }

    fn grow(&self, size: &str) -> anyhow::Result<()> {
        mount(&["-o", &format!("remount,size={size}")], self.0.path())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

fn mount(flags: &[&str], place: &Path) -> anyhow::Result<()> {
    let status = Command::new("mount").args(flags).arg(place).status()?;
    anyhow::ensure!(status.success(), "mount {flags:?}: {status}");
    Ok(())
}

pub(super) fn full() -> anyhow::Result<()> {
    let up = Arc::new(AtomicBool::new(false));
    let answers = Arc::clone(&up);
    let receiver = Receiver::start(move |_, _| status(if answers.load(Ordering::Relaxed) { 200 } else { 503 }))?;
    let gateway = raw::answering(5)?;
    let disk = Disk::of("32m")?;
    let spool_dir = disk.0.path().join("spool").to_string_lossy().into_owned();
    // To keep the oldest: the newest are refused, for want of space.
    let flags = ["--spool-dir", &spool_dir, "--spool-min-free", "0", "--spool-when-full", "drop-newest"];
    // These records are so much alike that packed ones would fill no disk.
    let flags = [&flags[..], &["--spool-compression", "none"]].concat();
    let quick =
        ["--ring-bytes", "64MiB", "--retry-first-ms", "50", "--retry-most-ms", "500", "--batch-delay-ms", "100"];
    let daemon = Daemon::start(&[gateway.port()], Some(&receiver.url()), &[&flags[..], &quick].concat())?;
    let done = AtomicU64::new(0);
    let flood =
        |bucket, each| Flood { gateway: gateway.address, bucket, connections: 4, each, padding: 0, done: &done }.run();
    flood("too-much", 15_000)?;
    let refused = |status: &Status| status.lost_for("spool", "no_space") + status.lost_for("spool", "spool_full");
    let quiet = |status: &Status| refused(status) > 0 && status.count(&["records", "queued", "records"]) == 0;
    let while_full = daemon.status_when(PATIENCE, quiet)?;
    let dropped = refused(&while_full);
    anyhow::ensure!(dropped > 0, "the disk is full, and nothing was refused: {}", while_full.0);
    while_full.balanced()?;

    disk.grow("512m")?;
    up.store(true, Ordering::Relaxed);
    flood("room-again", 500)?;
    let after = settled(&daemon, "default")?;
    after.balanced()?;
    let ended = daemon.stop()?;
    anyhow::ensure!(ended.status.success(), "{}\n{}", ended.status, ended.stderr);

    let stream = receiver.stream()?;
    let unexplained = stream.unexplained();
    anyhow::ensure!(unexplained.is_empty(), "missing and not named: {} of them", unexplained.len());
    let (least, most) = stream.admitted();
    let operations = 4 * (15_000 + 500);
    let missing = operations - stream.operations();
    eprintln!(
        "{operations} operations, {missing} without a record, {least} to {most:?} admitted, {dropped} refused by the disk"
    );
    anyhow::ensure!(
        missing > 0 && (least..=most.unwrap_or(u64::MAX)).contains(&missing),
        "{missing} missing, {least} to {most:?} admitted"
    );
    // What came when there was room again came whole.
    let again = stream.sequences.values().map(|numbers| numbers.len()).sum::<usize>();
    anyhow::ensure!(again as u64 >= stream.operations() && stream.partial == 0, "{} partial records", stream.partial);
    Ok(())
}
