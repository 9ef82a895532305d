//! The notes that the `kprobe` backend keeps of calls in flight: what has no room, or is never picked up, is counted.

use super::{Server, backend};
use anyhow::{Context as _, ensure};
use aya::maps::{HashMap, Map, MapData, loaded_maps};
use s3auditd::capture::{Capture, CaptureSettings};
use s3auditd::config::BackendChoice;
use s3auditd_common::{counters::KernelCounter, sample::Kind};
use s3auditd_tests::patience::stretched;
use std::{
    collections::HashSet,
    io::Write as _,
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

/// Each with a thread of the server that waits in a receive. More than the kernel has places for returns on two CPUs.
const WAITING: usize = 20;
/// Notes for each connection that the limit allows.
const NOTES_EACH: usize = 2;

pub(super) fn is_about_this_run() -> bool {
    backend().is_ok_and(|backend| backend == BackendChoice::Kprobe)
}

fn settings(address: SocketAddr, max_connections: u32) -> anyhow::Result<CaptureSettings> {
    Ok(CaptureSettings {
        backend: backend()?,
        ports: vec![address.port()],
        ring_bytes: 1 << 20,
        ring_watermark_bytes: 4096,
        max_connections,
        tls: false,
        tls_exclude: Vec::new(),
    })
}

/// Waits until the counter has come that far; where it stands then.
fn counted(capture: &mut Capture, counter: KernelCounter, least: u64) -> u64 {
    let deadline = Instant::now() + stretched(Duration::from_secs(10));
    loop {
        let count = capture.status().counter(counter);
        if count >= least || Instant::now() > deadline {
            return count;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// More calls in flight than there is room for notes.
pub(super) fn no_room() -> anyhow::Result<()> {
    const CONNECTIONS: usize = 4;
    let server = Server::start("127.0.0.1:0")?;
    let mut capture = Capture::start(settings(server.address, u32::try_from(CONNECTIONS)?)?)?;
    let waiting: Result<Vec<_>, _> = (0..WAITING).map(|_| TcpStream::connect(server.address)).collect();
    let expected = (WAITING - NOTES_EACH * CONNECTIONS) as u64;
    let refused = counted(&mut capture, KernelCounter::NotesRefused, expected);
    ensure!(refused == expected, "{WAITING} calls, {CONNECTIONS} connections: {refused} notes refused, not {expected}");
    drop(waiting);
    Ok(())
}

/// More calls in flight than the kernel follows to their returns: each is seen, or counted; and no note stays.
pub(super) fn missed_returns() -> anyhow::Result<()> {
    let mut server = Server::start("127.0.0.1:0")?;
    let before = notes()?;
    let mut capture = Capture::start(settings(server.address, 64)?)?;
    let mut clients = (0..WAITING).map(|_| TcpStream::connect(server.address)).collect::<Result<Vec<_>, _>>()?;
    let ids: Vec<_> = notes()?.difference(&before).copied().collect();
    let [id] = ids.as_slice() else {
        anyhow::bail!("the kernel has these maps of notes that it had not before: {ids:?}")
    };
    // All are in their first receive, which nothing ends.
    let deadline = Instant::now() + stretched(Duration::from_secs(10));
    while kept(*id)? < WAITING && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    ensure!(kept(*id)? == WAITING, "{WAITING} calls wait, and {} are noted", kept(*id)?);
    // The server takes it for the seed of a plan; that the client then goes away is the end of its thread.
    for (seed, client) in (1_000_u64..).zip(&mut clients) {
        client.write_all(&seed.to_le_bytes())?;
    }
    drop(clients);
    let deadline = Instant::now() + stretched(Duration::from_secs(10));
    while kept(*id)? > 0 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    server.child.kill()?;
    server.child.wait()?;
    capture.stop();
    let mut seen = HashSet::new();
    capture.drain(|sample, _windows| {
        if sample.kind == Kind::Received {
            seen.insert(sample.header.cookie);
        }
    });
    let missed = capture.status().counter(KernelCounter::MissedReturns);
    eprintln!("noted: kprobe: of {WAITING} receives {} were seen, {missed} returns were missed", seen.len());
    ensure!(missed > 0, "no return was missed: the kernel follows more calls than were made, so nothing is shown");
    ensure!(seen.len() as u64 + missed >= WAITING as u64, "seen {} and missed {missed} of {WAITING}", seen.len());
    ensure!(kept(*id)? == 0, "{} notes stay when no thread does", kept(*id)?);
    Ok(())
}

/// Ids of the maps of notes that the kernel has now.
fn notes() -> anyhow::Result<HashSet<u32>> {
    let maps = loaded_maps().collect::<Result<Vec<_>, _>>()?;
    Ok(maps.iter().filter(|map| map.name() == b"IN_FLIGHT").map(|map| map.id()).collect())
}

/// How many notes are in it.
fn kept(id: u32) -> anyhow::Result<usize> {
    const BYTES: usize = 40;
    let map = Map::HashMap(MapData::from_id(id).context("the map of notes")?);
    let map = HashMap::<_, u64, [u8; BYTES]>::try_from(map)?;
    // A note that goes while they are counted is an error of its step, and gone.
    Ok(map.keys().filter(Result::is_ok).count())
}
