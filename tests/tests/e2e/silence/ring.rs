//! A ring of two pages under full load: most samples are lost, and the stream says what that may have cost.

use super::settled;
use s3auditd_tests::client::flood::Flood;
use s3auditd_tests::daemon::Daemon;
use s3auditd_tests::gateway::raw;
use s3auditd_tests::webhook::receiver::Receiver;
use s3auditd_tests::webhook::rude::status;
use s3auditd_tests::world::PATIENCE;
use std::sync::atomic::AtomicU64;

const CONNECTIONS: usize = 8;
const EACH: usize = 500;

pub(super) fn two_pages() -> anyhow::Result<()> {
    let receiver = Receiver::start(|_, _| status(200))?;
    let gateway = raw::answering(5)?;
    let flags = ["--ring-bytes", "8KiB", "--ring-watermark-bytes", "4KiB"];
    let daemon = Daemon::start(&[gateway.port()], Some(&receiver.url()), &flags)?;
    let done = AtomicU64::new(0);
    let flood = Flood {
        gateway: gateway.address,
        bucket: "flood",
        connections: CONNECTIONS,
        each: EACH,
        padding: 100,
        done: &done,
    };
    flood.run()?;
    // What is published lags a little.
    let _lost = daemon.status_when(PATIENCE, |status| status.lost_for("kernel", "ring_full") > 0)?;
    let after = settled(&daemon, "default")?;
    after.balanced()?;
    let ended = daemon.stop()?;
    anyhow::ensure!(ended.status.success(), "{}\n{}", ended.status, ended.stderr);
    let lost = after.lost_for("kernel", "ring_full");
    anyhow::ensure!(lost > 0, "nothing was lost: the ring was not too small for this load, so nothing is shown");

    let stream = receiver.stream()?;
    let unexplained = stream.unexplained();
    anyhow::ensure!(unexplained.is_empty(), "missing and not named: {unexplained:?}");
    let operations = (CONNECTIONS * EACH) as u64;
    let complete: u64 = stream.complete.values().sum();
    let (least, most) = stream.admitted();
    let said = format!(
        "{operations} operations, {lost} samples lost; {complete} complete records, {} partial; {least} to {most:?} admitted by {} gap records",
        stream.partial,
        stream.gaps.len()
    );
    eprintln!("{said}");
    let strange: Vec<_> = stream.complete.iter().filter(|(_, count)| **count != 1).take(3).collect();
    anyhow::ensure!(strange.is_empty(), "{said}; several records of one operation: {strange:?}");
    // A record of an operation that was not seen whole may be one of two halves that could not be joined.
    anyhow::ensure!(complete <= operations, "{said}");
    let with_a_record = complete + stream.partial;
    anyhow::ensure!(with_a_record + least <= operations + stream.partial, "{said}");
    anyhow::ensure!(
        most.is_none_or(|most| with_a_record + most >= operations),
        "{said}: more are missing than admitted"
    );
    anyhow::ensure!(most.is_some(), "{said}: every sample that was lost is counted, so there is a bound");
    Ok(())
}
