//! Plaintext of a gateway's TLS, byte for byte, as its many threads take the CPU from each other: in the middle of a probe's
//! program too, if the kernel lets them.

use super::backend;
use anyhow::{Context as _, anyhow, ensure};
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use s3auditd::capture::{Capture, CaptureSettings};
use s3auditd_common::counters::KernelCounter;
use s3auditd_common::sample::{Kind, Layer, Unseen};
use s3auditd_tests::gateway::https;
use s3auditd_tests::http::read;
use s3auditd_tests::patience::stretched;
use std::{
    collections::{HashMap, HashSet},
    io::Write as _,
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Clients at once, and threads of the server that may run at once, on however few CPUs.
const THREADS: usize = 40;
const CONNECTIONS_EACH: usize = 2;
const ROUNDS: usize = 4;
/// So short that the kernel side withholds nothing of it, and longer than one TLS record.
const MOST_BODY_BYTES: usize = 32_000;

/// What crossed a connection, in the clear.
struct Crossed {
    port: u16,
    opened: Instant,
    received: Vec<u8>,
    sent: Vec<u8>,
}

struct Seen {
    time_ns: u64,
    cookie: u64,
    kind: Kind,
    seq: u32,
    len: u32,
    unseen: Unseen,
    payload: Vec<u8>,
}

pub(super) fn many_threads() -> anyhow::Result<()> {
    let built = https::built();
    let binary = built.first().context("no server was built")?;
    let gateway = https::start_with_threads(binary, THREADS)?;
    let config = gateway.tls_client(&rustls::version::TLS13)?;
    let mut capture = Capture::start(CaptureSettings {
        tls: true,
        tls_exclude: Vec::new(),
        backend: backend()?,
        ports: vec![gateway.port()],
        // Room for everything: nothing may be lost here.
        ring_bytes: 64 << 20,
        ring_watermark_bytes: 64 << 10,
        max_connections: 4096,
    })?;
    let done = Arc::new(AtomicBool::new(false));
    let clients = {
        let (address, done) = (gateway.address, Arc::clone(&done));
        thread::spawn(move || {
            let crossed = clients(address, &config);
            done.store(true, Ordering::Release);
            crossed
        })
    };
    let mut seen: HashMap<u16, Vec<Seen>> = HashMap::new();
    let mut take = |capture: &mut Capture| {
        capture.drain(|sample, _windows| {
            if sample.layer == Layer::Plaintext && matches!(sample.kind, Kind::Received | Kind::Sent) {
                let header = &sample.header;
                let (kind, unseen, payload) = (sample.kind, sample.unseen, sample.payload.to_vec());
                let (time_ns, cookie) = (header.time_ns, header.cookie);
                let one = Seen { time_ns, cookie, kind, seq: header.seq, len: header.len, unseen, payload };
                seen.entry(header.remote_port).or_default().push(one);
            }
        })
    };
    let deadline = Instant::now() + stretched(Duration::from_secs(240));
    while !done.load(Ordering::Acquire) && Instant::now() < deadline {
        capture.wait(Duration::from_millis(20));
        take(&mut capture);
    }
    let crossed = clients.join().map_err(|_| anyhow!("the clients panicked"))??;
    capture.stop();
    take(&mut capture);
    let status = capture.status();
    let count = |counter| status.counter(counter);
    let lost = count(KernelCounter::LostRingFull) + count(KernelCounter::LostRingRefused);
    ensure!(lost == 0, "{lost} samples lost");
    ensure!(count(KernelCounter::PlaintextUntied) == 0, "plaintext of no connection: {status:?}");
    let no_buffer = count(KernelCounter::PlaintextNoBuffer);
    let faults = count(KernelCounter::Faults);
    let (mut checked, mut moved, mut holes) = (0, 0, 0);
    for (port, crossed) in &crossed {
        let samples = seen.get(port).map(Vec::as_slice).unwrap_or_default();
        let cookies = cookies(samples);
        let (told, there) = (cookies.len(), crossed.len());
        ensure!(told <= there, "port {port}: {told} connections are told, and there were {there}");
        for (nth, crossed) in crossed.iter().enumerate() {
            for (kind, bytes) in [(Kind::Received, &crossed.received), (Kind::Sent, &crossed.sent)] {
                moved += bytes.len();
                let is_of_it = |one: &&Seen| one.kind == kind && Some(&one.cookie) == cookies.get(nth);
                let found = check(bytes, samples.iter().filter(is_of_it));
                let (of_these, of_holes) = found.with_context(|| format!("port {port}, {kind:?}"))?;
                checked += of_these;
                holes += of_holes;
            }
        }
    }
    eprintln!(
        "noted: {}: {} connections, {checked} of {moved} bytes checked, {no_buffer} calls without a buffer, {faults} faults",
        status.backend,
        crossed.values().map(Vec::len).sum::<usize>()
    );
    ensure!(holes as u64 <= no_buffer + faults, "{holes} holes, and {no_buffer} + {faults} are counted");
    ensure!(checked >= moved / 2, "only {checked} of {moved} bytes were there to check");
    Ok(())
}

/// The connections in the order in which they were there.
fn cookies(samples: &[Seen]) -> Vec<u64> {
    let mut all: Vec<_> = samples.iter().map(|one| (one.time_ns, one.cookie)).collect();
    all.sort_unstable();
    let mut met = HashSet::new();
    all.into_iter().map(|(_, cookie)| cookie).filter(|cookie| met.insert(*cookie)).collect()
}

/// How many bytes were compared, and how many holes there are. Each byte that is told must be the one that crossed there.
fn check<'a>(bytes: &[u8], samples: impl Iterator<Item = &'a Seen>) -> anyhow::Result<(usize, usize)> {
    let mut samples: Vec<_> = samples.collect();
    samples.sort_unstable_by_key(|one| one.seq);
    let (mut next, mut checked, mut holes) = (0, 0, 0);
    for one in samples {
        let (at, len) = (one.seq as usize, one.len as usize);
        ensure!(at >= next, "told twice: {at}, behind {next}");
        holes += usize::from(at > next) + usize::from(one.unseen != Unseen::Seen);
        next = at + len;
        let there = bytes.get(at..next).with_context(|| format!("{at} to {next} of {} bytes", bytes.len()))?;
        if one.unseen == Unseen::Seen {
            ensure!(one.payload == there, "{}", wrong(at, there, &one.payload));
            checked += len;
        }
    }
    Ok((checked, holes + usize::from(next < bytes.len())))
}

/// What is told in place of what is there: the bodies' bytes say whose they are.
fn wrong(at: usize, there: &[u8], told: &[u8]) -> String {
    let first = there.iter().zip(told).position(|(one, other)| one != other).unwrap_or(there.len().min(told.len()));
    let piece =
        |bytes: &[u8]| bytes.iter().skip(first).take(80).copied().collect::<Vec<_>>().escape_ascii().to_string();
    let differ = there.iter().zip(told).filter(|(one, other)| one != other).count();
    let (len, told_len) = (there.len(), told.len());
    let (there, told) = (piece(there), piece(told));
    format!(
        "WRONG BYTES at {at}: {differ} of {len} ({told_len} told), first at {first}: there is {there:?}, told is {told:?}"
    )
}

/// What crossed each connection, by the client's port; the kernel may give one out twice, and not at the same time.
fn clients(address: SocketAddr, config: &Arc<ClientConfig>) -> anyhow::Result<HashMap<u16, Vec<Crossed>>> {
    thread::scope(|scope| {
        let one = |client| {
            move || -> anyhow::Result<Vec<Crossed>> {
                (0..CONNECTIONS_EACH).map(|number| connection(address, config, client * 100 + number)).collect()
            }
        };
        let clients: Vec<_> = (0..THREADS).map(|client| scope.spawn(one(client))).collect();
        let mut all: HashMap<u16, Vec<Crossed>> = HashMap::new();
        for client in clients {
            for crossed in client.join().map_err(|_| anyhow!("a client panicked"))?? {
                all.entry(crossed.port).or_default().push(crossed);
            }
        }
        all.values_mut().for_each(|crossed| crossed.sort_by_key(|one| one.opened));
        Ok(all)
    })
}

/// Bytes that are nowhere else: they say whose they are and where.
fn body(name: usize, round: usize, len: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> =
        (0..len.div_ceil(16)).flat_map(|at| format!("{name:04}{round:02}{at:010}").into_bytes()).collect();
    bytes.truncate(len);
    bytes
}

fn connection(address: SocketAddr, config: &Arc<ClientConfig>, name: usize) -> anyhow::Result<Crossed> {
    let socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(stretched(Duration::from_secs(120))))?;
    let (port, opened) = (socket.local_addr()?.port(), Instant::now());
    let mut stream = StreamOwned::new(ClientConnection::new(Arc::clone(config), address.ip().into())?, socket);
    let mut crossed = Crossed { port, opened, received: Vec::new(), sent: Vec::new() };
    for round in 0..ROUNDS {
        let body = body(name, round, 1 + (name * 7919 + round * 104_729) % MOST_BODY_BYTES);
        let target = format!("/threads/{name}-{round}");
        let mut put =
            format!("PUT {target} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
        put.extend_from_slice(&body);
        let get = format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n").into_bytes();
        for (request, expected) in [(put, 0), (get, body.len())] {
            stream.write_all(&request)?;
            stream.flush()?;
            crossed.received.extend_from_slice(&request);
            let mut reply = Vec::new();
            let mut piece = vec![0; 32 << 10];
            let end = loop {
                let head = reply.windows(4).position(|four: &[u8]| four == b"\r\n\r\n").map(|at| at + 4);
                if let Some(head) = head.filter(|head| reply.len() >= head + expected) {
                    break head;
                }
                let got = read(&mut stream, &mut piece)?;
                ensure!(got > 0, "{target}: the connection closed");
                reply.extend_from_slice(piece.get(..got).unwrap_or_default());
            };
            ensure!(reply.len() == end + expected, "{target}: more than the reply");
            ensure!(expected == 0 || reply.ends_with(&body), "{target}: another body");
            crossed.sent.extend_from_slice(&reply);
        }
    }
    Ok(crossed)
}
