//! A webhook that is away for 100,000 operations, and loses replies when it is back.

use super::{LONG, settled};
use s3auditd_tests::client::flood::Flood;
use s3auditd_tests::daemon::Daemon;
use s3auditd_tests::gateway::raw;
use s3auditd_tests::webhook::receiver::Receiver;
use s3auditd_tests::webhook::rude::{Reply, status};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const CONNECTIONS: usize = 8;
const EACH: usize = 25_000;
const OPERATIONS: usize = CONNECTIONS * EACH;

pub(super) fn half() -> anyhow::Result<()> {
    let up = Arc::new(AtomicBool::new(false));
    let answers = Arc::clone(&up);
    let receiver = Receiver::start(move |nth, _| match answers.load(Ordering::Relaxed) {
        false => status(503),
        // The batch is taken, and the sender does not know: it comes again, under the same key.
        true if nth % 5 == 0 => Reply::Lost,
        true => status(200),
    })?;
    let gateway = raw::answering(5)?;
    let spool = tempfile::tempdir()?;
    let spool_dir = spool.path().join("spool");
    let spool_dir = spool_dir.to_string_lossy();
    // What is shown is delivery: the ring and the queue are to hold whatever a dev build is late with.
    let flags =
        ["--spool-dir", &*spool_dir, "--ring-bytes", "64MiB", "--queue-records", "400000", "--queue-bytes", "1GiB"];
    let quick = ["--retry-first-ms", "50", "--retry-most-ms", "500"];
    let daemon = Daemon::start(&[gateway.port()], Some(&receiver.url()), &[&flags[..], &quick].concat())?;

    let done = AtomicU64::new(0);
    let flood = Flood {
        gateway: gateway.address,
        bucket: "flood",
        connections: CONNECTIONS,
        each: EACH,
        padding: 0,
        done: &done,
    };
    std::thread::scope(|scope| {
        let flooding = scope.spawn(|| flood.run());
        while !flooding.is_finished() && done.load(Ordering::Relaxed) < OPERATIONS as u64 / 2 {
            std::thread::sleep(Duration::from_millis(5));
        }
        anyhow::ensure!(receiver.taken() == 0, "the webhook was away, and has {} records", receiver.taken());
        up.store(true, Ordering::Relaxed);
        flooding.join().map_err(|_| anyhow::anyhow!("the flood panicked"))?
    })?;
    let taken = receiver.wait_for(OPERATIONS, LONG);
    anyhow::ensure!(taken >= OPERATIONS, "{taken} of {OPERATIONS} records came");
    let after = settled(&daemon, "default")?;
    after.whole()?;
    let retries = after.count(&["delivery", "default", "retries"]);
    anyhow::ensure!(retries > 0, "the webhook was away, and nothing was tried again: {}", after.0);
    let ended = daemon.stop()?;
    anyhow::ensure!(ended.status.success(), "{}\n{}", ended.status, ended.stderr);

    let stream = receiver.stream()?;
    anyhow::ensure!(receiver.taken() as u64 > stream.kinds.values().sum::<u64>(), "no batch was sent twice");
    anyhow::ensure!(stream.repeated == 0, "{} records came under two keys", stream.repeated);
    stream.has_exactly(flood.keys())?;
    let unexplained = stream.unexplained();
    anyhow::ensure!(unexplained.is_empty(), "missing and not named: {unexplained:?}");
    anyhow::ensure!(stream.gaps.is_empty(), "nothing was lost, and the stream says {:?}", stream.gaps);
    Ok(())
}
