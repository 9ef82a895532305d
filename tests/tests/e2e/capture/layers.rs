//! Connections whose socket something in the kernel has taken over: that is told, and no byte is.
//!
//! After its first bytes the server hands the socket over; what follows goes past the hooks, or through them with
//! lengths and buffers that are not those of the connection's bytes. Samples may say that this is so, and the end of the
//! connection shows how much has moved. Nothing else is known, so nothing else may be said.
#![expect(unsafe_code, reason = "bpf(2) and the options of kernel TLS have no safe interface among our dependencies")]

use super::{
    Report, Seen,
    plan::{Plan, SEED_BYTES, Step, Way},
    run,
};
use anyhow::{Context as _, ensure};
use s3auditd_common::sample::{Kind, Unseen};
use std::{
    collections::HashMap,
    io::{self, Error, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
};

/// What takes a socket over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// A sockmap whose programs let everything pass: both directions go through it, and are what they were.
    Sockmap,
    /// A sockmap whose program sends what the server sends out of another socket.
    Redirect,
    /// Kernel TLS, both directions.
    Tls,
}

const ALL: [Layer; 3] = [Layer::Sockmap, Layer::Redirect, Layer::Tls];
/// The seed of the first one's plan.
const FIRST_SEED: u64 = 500;

impl Layer {
    pub fn of_seed(seed: u64) -> Option<Self> {
        let index = usize::try_from(seed.checked_sub(FIRST_SEED)?).ok()?;
        ALL.get(index).copied()
    }

    fn plan(self) -> Plan {
        Plan::of_seed(FIRST_SEED + ALL.iter().position(|layer| *layer == self).unwrap_or(0) as u64)
    }

    /// What crosses the connection after the seed.
    pub fn steps(self) -> Vec<Step> {
        let steps: &[(Way, usize)] = match self {
            // What the server sends while it is redirected does not cross it.
            Self::Redirect => &[(Way::Write, 40)],
            Self::Sockmap | Self::Tls => {
                &[(Way::Write, 4000), (Way::Read, 40), (Way::Write, 100_000), (Way::Read, 70_000), (Way::Write, 1)]
            }
        };
        steps.iter().map(|(way, len)| Step { way: *way, len: *len }).collect()
    }

    /// At the server's end. What comes back has to be kept.
    pub fn put_on_server(self, stream: &TcpStream) -> io::Result<Vec<OwnedFd>> {
        // Before 5.11 maps and programs count against it. Where it may not be raised, they say what is wrong.
        let unlimited = rustix::process::Rlimit { current: None, maximum: None };
        let _refused = rustix::process::setrlimit(rustix::process::Resource::Memlock, unlimited);
        match self {
            Self::Sockmap => {
                let map = sockmap()?;
                let sent = program(SK_MSG, &[PASS, EXIT])?;
                attach(&map, &sent, SK_MSG_VERDICT)?;
                let received = program(SK_SKB, &[PASS, EXIT])?;
                attach(&map, &received, SK_SKB_STREAM_VERDICT)?;
                insert(&map, 0, stream.as_raw_fd())?;
                Ok(vec![map, sent, received])
            }
            Self::Redirect => redirect(stream).map(|()| Vec::new()),
            Self::Tls => tls(stream).map(|()| Vec::new()),
        }
    }

    /// At the client's end.
    pub fn put_on_client(self, stream: &TcpStream) -> io::Result<()> {
        if self == Self::Tls { tls(stream) } else { Ok(()) }
    }
}

/// `r0 = SK_PASS`
const PASS: u64 = 0x01_0000_00b7;
const EXIT: u64 = 0x95;

pub(super) fn sockmap_passes() -> anyhow::Result<()> {
    check(&run("127.0.0.1:0", vec![Layer::Sockmap.plan()], 1)?, SEED_BYTES as u64)
}

pub(super) fn sockmap_redirects() -> anyhow::Result<()> {
    let report = run("127.0.0.1:0", vec![Layer::Redirect.plan()], 1)?;
    // The functions are not called for what is redirected, so nothing is to be told.
    let told = report.samples.values().flat_map(HashMap::values).flatten().any(names_layer);
    ensure!(told || matches!(&*report.backend, "fexit" | "kprobe"), "nothing tells that the socket was taken");
    // Byte for byte, as if nothing had been redirected: it never crossed this connection.
    report.check().map(drop)
}

pub(super) fn kernel_tls() -> anyhow::Result<()> {
    // What is wrong with it is said here; in a run one end would only tell that the other has gone.
    let listener = TcpListener::bind("127.0.0.1:0")?;
    tls(&TcpStream::connect(listener.local_addr()?)?).context("a socket with kernel TLS")?;
    check(&run("127.0.0.1:0", vec![Layer::Tls.plan()], 1)?, SEED_BYTES as u64)
}

pub(super) fn multipath() -> anyhow::Result<()> {
    // A client that does not speak it gets plain TCP, as Go's listeners serve everybody.
    run("mptcp+127.0.0.1:0", (0..5).map(Plan::random).collect(), 1)?.check().context("a plain client")?;
    let plans = (0..5).map(|number| Plan::random(number).by_mptcp()).collect();
    check(&run("mptcp+127.0.0.1:0", plans, 1)?, 0).context("a client that speaks it")
}

/// Of each connection at most the first `clear` bytes received are told; that something has the socket; and at the end how
/// much has moved.
fn check(report: &Report, clear: u64) -> anyhow::Result<()> {
    ensure!(report.emitted == report.read && report.read > 0, "emitted {}, read {}", report.emitted, report.read);
    ensure!(report.lost == 0, "{} samples lost", report.lost);
    ensure!(!report.plans.is_empty(), "no connection");
    for (port, plans) in &report.plans {
        let connections = report.samples.get(port).context("no sample of a connection")?;
        ensure!((plans.len(), connections.len()) == (1, 1), "port {port}: {} seen", connections.len());
        for (plan, samples) in plans.iter().zip(connections.values()) {
            check_connection(plan, samples, clear).with_context(|| format!("{}, {plan}", report.backend))?;
        }
    }
    Ok(())
}

fn names_layer(sample: &Seen) -> bool {
    sample.unseen == Unseen::UpperLayer
}

fn check_connection(plan: &Plan, samples: &[Seen], clear: u64) -> anyhow::Result<()> {
    let of_kind = |kind| samples.iter().find(|sample| sample.kind == kind);
    let (opened, closed) =
        (of_kind(Kind::Opened).context("not opened")?, of_kind(Kind::LocalClosed).context("not closed")?);
    ensure!(samples.iter().any(names_layer), "nothing tells that the socket is taken");
    let without_length = samples.iter().filter(|sample| sample.len == 0);
    ensure!(without_length.clone().all(|sample| sample.payload.is_empty()), "bytes without a length");
    for sample in samples.iter().filter(|sample| sample.len != 0) {
        let at = u64::from(sample.seq.wrapping_sub(opened.seq));
        let end = at + u64::from(sample.len);
        ensure!(sample.kind == Kind::Received && end <= clear, "{:?}: {} bytes at {at}", sample.kind, sample.len);
        ensure!(sample.payload == plan.bytes(Kind::Received, at, sample.payload.len()), "WRONG BYTES at {at}");
    }
    for (kind, moved) in [
        (Kind::Received, closed.seq.wrapping_sub(opened.seq)),
        (Kind::Sent, closed.other_seq.wrapping_sub(opened.other_seq)),
    ] {
        let of_kind = plan.steps.iter().enumerate().filter(|(_, step)| step.way.kind() == kind);
        // Nothing has the socket yet when the first step's bytes cross.
        let least: usize =
            of_kind.map(|(number, step)| if number == 0 { step.len } else { on_the_wire(plan, step.len) }).sum();
        ensure!(moved as usize >= least, "{kind:?}: {least} bytes and more, and the end is at {moved}");
    }
    Ok(())
}

/// Of a call of that length at least so many: kernel TLS sends records, each with a header, a nonce and a tag of its own.
fn on_the_wire(plan: &Plan, len: usize) -> usize {
    const RECORD: usize = 16_384;
    const BESIDES: usize = 5 + 8 + 16;
    if plan.layer() == Some(Layer::Tls) { len + len.div_ceil(RECORD) * BESIDES } else { len }
}

/// Something that the server sends on `stream` comes out elsewhere; then the socket is as it was.
fn redirect(stream: &TcpStream) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let elsewhere = TcpStream::connect(listener.local_addr()?)?;
    let (mut end, _) = listener.accept()?;
    let map = sockmap()?;
    let fd = u64::from(map.as_raw_fd().cast_unsigned());
    // r2 = map; r3 = 0 (its key); r4 = 0 (flags); call bpf_msg_redirect_map; the result is its own.
    let redirect = program(SK_MSG, &[0x1218 | fd << 32, 0, 0x03b7, 0x04b7, 60 << 32 | 0x85, EXIT])?;
    attach(&map, &redirect, SK_MSG_VERDICT)?;
    insert(&map, 0, elsewhere.as_raw_fd())?;
    insert(&map, 1, stream.as_raw_fd())?;
    let sent = vec![b'd'; 5000];
    (&mut &*stream).write_all(&sent)?;
    let mut arrived = vec![0; sent.len()];
    end.read_exact(&mut arrived)?;
    if arrived != sent {
        return Err(Error::other("other bytes came out elsewhere"));
    }
    remove(&map, 1)
}

const MAP_CREATE: libc::c_long = 0;
const MAP_UPDATE_ELEM: libc::c_long = 2;
const MAP_DELETE_ELEM: libc::c_long = 3;
const PROG_LOAD: libc::c_long = 5;
const PROG_ATTACH: libc::c_long = 8;
const SOCKMAP: u64 = 15;
const SK_SKB: u32 = 14;
const SK_MSG: u32 = 16;
const SK_SKB_STREAM_VERDICT: u32 = 5;
const SK_MSG_VERDICT: u32 = 7;

/// `bpf(2)` with the first words of its attributes, as `include/uapi/linux/bpf.h` has them.
///
/// # Safety
/// Every address among them is valid for what the command does with it.
unsafe fn bpf(command: libc::c_long, attributes: &[u64]) -> io::Result<libc::c_long> {
    // SAFETY: the caller upholds it.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), size_of_val(attributes)) };
    if result < 0 { Err(Error::last_os_error()) } else { Ok(result) }
}

/// Two attributes of 32 bits.
fn pair(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

fn descriptor(result: libc::c_long) -> io::Result<OwnedFd> {
    let fd = RawFd::try_from(result).map_err(Error::other)?;
    // SAFETY: the kernel has just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn sockmap() -> io::Result<OwnedFd> {
    // Type, size of a key, size of a value, entries.
    // SAFETY: no addresses.
    descriptor(unsafe { bpf(MAP_CREATE, &[SOCKMAP | 4 << 32, pair(4, 2)]) }?)
}

fn program(kind: u32, instructions: &[u64]) -> io::Result<OwnedFd> {
    let count = u32::try_from(instructions.len()).map_err(Error::other)?;
    let attributes = [pair(kind, count), instructions.as_ptr().addr() as u64, c"GPL".as_ptr().addr() as u64];
    // SAFETY: instructions and licence live through the call.
    descriptor(unsafe { bpf(PROG_LOAD, &attributes) }?)
}

fn attach(map: &OwnedFd, program: &OwnedFd, how: u32) -> io::Result<()> {
    let [map, program] = [map, program].map(|fd| fd.as_raw_fd().cast_unsigned());
    // SAFETY: no addresses.
    unsafe { bpf(PROG_ATTACH, &[pair(map, program), pair(how, 0)]) }.map(drop)
}

fn insert(map: &OwnedFd, key: u32, socket: RawFd) -> io::Result<()> {
    let map = u64::from(map.as_raw_fd().cast_unsigned());
    let attributes = [map, (&raw const key).addr() as u64, (&raw const socket).addr() as u64, 0];
    // SAFETY: key and value live through the call, and are as long as the map was made with.
    unsafe { bpf(MAP_UPDATE_ELEM, &attributes) }.map(drop)
}

fn remove(map: &OwnedFd, key: u32) -> io::Result<()> {
    let map = u64::from(map.as_raw_fd().cast_unsigned());
    // SAFETY: the key lives through the call, and is as long as the map was made with.
    unsafe { bpf(MAP_DELETE_ELEM, &[map, (&raw const key).addr() as u64]) }.map(drop)
}

/// Both directions with one key that both ends know; the test is not about secrets.
pub(crate) fn tls(stream: &TcpStream) -> io::Result<()> {
    const SOL_TLS: libc::c_int = 282;
    const TLS_1_2: u16 = 0x0303;
    const AES_GCM_128: u16 = 51;
    option(stream, libc::IPPROTO_TCP, libc::TCP_ULP, b"tls")?;
    // `struct tls12_crypto_info_aes_gcm_128`: version, cipher; nonce, key, salt and record number are all zero.
    let mut information = [0_u8; 40];
    for (at, byte) in information.iter_mut().zip([TLS_1_2, AES_GCM_128].map(u16::to_ne_bytes).concat()) {
        *at = byte;
    }
    for direction in [libc::TLS_TX, libc::TLS_RX] {
        option(stream, SOL_TLS, direction, &information)?;
    }
    Ok(())
}

fn option(stream: &TcpStream, level: libc::c_int, name: libc::c_int, value: &[u8]) -> io::Result<()> {
    let len = libc::socklen_t::try_from(value.len()).map_err(Error::other)?;
    // SAFETY: the value lives through the call and is that long.
    let result = unsafe { libc::setsockopt(stream.as_raw_fd(), level, name, value.as_ptr().cast(), len) };
    if result == 0 { Ok(()) } else { Err(Error::last_os_error()) }
}
