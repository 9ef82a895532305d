//! SIGKILL at random moments, under load, again and again on one spool.

use super::settled;
use s3auditd_tests::client::flood::Flood;
use s3auditd_tests::daemon::{self, Daemon};
use s3auditd_tests::gateway::{Gateway, raw};
use s3auditd_tests::stream::Stream;
use s3auditd_tests::webhook::receiver::Receiver;
use s3auditd_tests::webhook::rude::{Reply, status};
use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, Hasher as _};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const KILLS: usize = 50;
/// From the moment its probes are attached.
const LONGEST_LIFE_MS: u64 = 600;

pub(super) fn fifty_times() -> anyhow::Result<()> {
    let receiver = Receiver::start(|nth, _| match nth % 7 {
        3 => status(503),
        5 => Reply::Lost,
        _ => status(200),
    })?;
    let gateway = raw::answering(5)?;
    let folder = tempfile::tempdir()?;
    let spool_dir = folder.path().join("spool").to_string_lossy().into_owned();
    let key_file = folder.path().join("key.pem").to_string_lossy().into_owned();
    let mut made = Command::new("openssl");
    made.args(["genpkey", "-algorithm", "ed25519", "-out", &key_file]);
    let made = made.stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    anyhow::ensure!(made.success(), "openssl genpkey: {made}");
    let quick = ["--batch-delay-ms", "20", "--retry-first-ms", "5", "--retry-most-ms", "50"];
    let flags = [&["--spool-dir", spool_dir.as_str(), "--checkpoint-key-file", key_file.as_str()], &quick[..]].concat();

    let over = AtomicBool::new(false);
    let mut lived = 0;
    std::thread::scope(|scope| {
        let load = scope.spawn(|| load(&gateway, &over));
        let mut kill = || -> anyhow::Result<()> {
            for _ in 0..KILLS {
                let daemon = Daemon::start(&[gateway.port()], Some(&receiver.url()), &flags)?;
                std::thread::sleep(Duration::from_millis(random() % LONGEST_LIFE_MS));
                // SIGKILL: see `Daemon`.
                drop(daemon);
                lived += 1;
            }
            Ok(())
        };
        let killed = kill();
        over.store(true, Ordering::Relaxed);
        load.join().map_err(|_| anyhow::anyhow!("the load panicked"))??;
        killed
    })?;
    let daemon = Daemon::start(&[gateway.port()], Some(&receiver.url()), &flags)?;
    let after = settled(&daemon, "default")?;
    after.balanced()?;
    anyhow::ensure!(after.count(&["spool", "corrupt_frames"]) == 0, "damage in the spool: {}", after.0);
    let ended = daemon.stop()?;
    anyhow::ensure!(ended.status.success(), "{}\n{}", ended.status, ended.stderr);

    // Reading fails at a torn or mixed record, and at two records with one number.
    let text = receiver.text();
    let stream = Stream::read(text.lines().map(str::as_bytes))?;
    check(&stream, lived)?;
    let file = folder.path().join("stream.ndjson");
    std::fs::write(&file, &text)?;
    let verified = daemon::run(&["verify", &file.to_string_lossy()])?;
    anyhow::ensure!(verified.status.success(), "verify: {}\n{}{}", verified.status, verified.stdout, verified.stderr);
    Ok(())
}

fn check(stream: &Stream, lived: usize) -> anyhow::Result<()> {
    let unexplained = stream.unexplained();
    anyhow::ensure!(
        unexplained.is_empty(),
        "missing and not named: {} such as {:?}",
        unexplained.len(),
        unexplained.first()
    );
    let instances = stream.starts.len();
    eprintln!("{lived} kills, {instances} instances left records, {} operations", stream.operations());
    anyhow::ensure!(instances > lived / 2 && stream.operations() > 1000, "too little was left to show anything");
    // Each instance that left something is followed by one that names where it ended, and that it was not in order.
    let mut before: Option<&str> = None;
    for (instance, previous) in &stream.starts {
        let named = previous.as_ref().map(|previous| previous.instance_id.as_str());
        anyhow::ensure!(named == before, "{instance} names {named:?} as the one before, not {before:?}");
        if let Some(previous) = previous {
            anyhow::ensure!(!previous.stopped, "{instance} says that {} ended in order", previous.instance_id);
            let last = stream.sequences.get(&previous.instance_id).and_then(|numbers| numbers.last().copied());
            anyhow::ensure!(last == Some(previous.last_sequence), "{previous:?}, and the last that came is {last:?}");
        }
        before = Some(instance);
    }
    let recovered: BTreeSet<_> = stream.recoveries.keys().map(String::as_str).collect();
    let killed: BTreeSet<_> =
        stream.starts.iter().map(|(instance, _)| instance.as_str()).filter(|i| Some(*i) != before).collect();
    anyhow::ensure!(recovered == killed, "recovered {recovered:?}, killed {killed:?}");
    Ok(())
}

/// Small floods, one after the other, until it is over.
fn load(gateway: &Gateway, over: &AtomicBool) -> anyhow::Result<()> {
    let done = AtomicU64::new(0);
    for round in 0..100_000 {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let bucket = format!("round-{round}");
        Flood { gateway: gateway.address, bucket: &bucket, connections: 2, each: 50, padding: 0, done: &done }.run()?;
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn random() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
}
