//! Whose socket: everything that is not a watched connection of the gateway leaves here, the sooner the better.

use crate::{
    kernel::{Sock, TcpSock, constant},
    maps::{CONNECTIONS, PORTS, count},
};
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use core::ptr::NonNull;
use s3auditd_common::{
    counters::{KernelCounter, Program},
    head::inside,
    sample::{Direction, Layer, Role},
    settings::{ConnectionState, PORT_WORDS, Place},
};

const BPF_NOEXIST: u64 = 1;

/// Whether the agent asked for that port.
#[inline(always)]
pub fn is_watched_port(port: u16) -> bool {
    match PORTS.get(0) {
        Some(bitmap) => (bitmap.words[usize::from(port >> 6) & (PORT_WORDS - 1)] >> (port & 63)) & 1 == 1,
        None => false,
    }
}

/// A watched, accepted TCP connection; None for all others.
#[inline(always)]
pub fn watched(sock: Sock) -> Option<(TcpSock, u16)> {
    let port = sock.local_port();
    // Port 0: the kernel has released the port already (the connection was reset), but received bytes can still be
    // read. Without this a client could ask for something, reset, and be served unseen.
    if port != 0 && !is_watched_port(port) {
        return None;
    }
    let tcp = sock.tcp()?;
    let port = if port == 0 { tcp.bound_port() } else { port };
    if !is_watched_port(port) || (bpf_get_current_pid_tgid() >> 32) as u32 == constant(|c| &c.agent_tgid) {
        return None;
    }
    Some((tcp, port))
}

/// The state of a connection that is in the table. (`NonNull`, so that "none" is a null pointer and not an uninitialised
/// one, which the verifier would refuse to see spilled.)
#[inline(always)]
pub fn connection(cookie: u64) -> Option<NonNull<ConnectionState>> {
    CONNECTIONS.get_ptr_mut(cookie).and_then(NonNull::new)
}

/// The connection's state, made on first sight. Err: it was connected out by the gateway, or there is no room for it.
#[inline(always)]
pub fn state_of(program: Program, cookie: u64) -> Result<Option<NonNull<ConnectionState>>, NotOurs> {
    let mut state = connection(cookie);
    if state.is_none() {
        // Not seen opening: it was there before the probes (or the table was full then).
        let fresh = new_connection(Role::Unknown, 0);
        let _exists_or_full = CONNECTIONS.insert(cookie, fresh, BPF_NOEXIST);
        state = connection(cookie);
    }
    let Some(state) = state else {
        // A further chance cannot know whether it is needed: better a hole than the same bytes twice.
        if program.is_further_chance() {
            return Err(NotOurs);
        }
        count(program, KernelCounter::TableFull, 1);
        return Ok(None);
    };
    // SAFETY: a map value; the entry lives until the socket is destroyed, which it is not while it is in use.
    if unsafe { (*state.as_ptr()).role } == Role::Connected as u16 {
        if !program.is_further_chance() {
            count(program, KernelCounter::NotAccepted, 1);
        }
        return Err(NotOurs);
    }
    Ok(Some(state))
}

/// What the state has of that direction. (A match, and no index: the verifier must see a constant.)
#[inline(always)]
pub fn place(state: NonNull<ConnectionState>, direction: Direction) -> *mut Place {
    let state = state.as_ptr();
    // SAFETY: a map value that lives until the socket is destroyed.
    unsafe {
        match direction {
            Direction::Received => &raw mut (*state).received,
            Direction::Sent => &raw mut (*state).sent,
        }
    }
}

/// Which bytes the connection's sequence numbers count. (No conversion from the number: the verifier knows no enum.)
#[inline(always)]
pub fn layer_of(state: Option<NonNull<ConnectionState>>) -> Layer {
    let Some(state) = state else { return Layer::Socket };
    // SAFETY: a map value that lives until the socket is destroyed.
    match unsafe { (*state.as_ptr()).layer } {
        1 => Layer::Plaintext,
        2 => Layer::PlaintextMidway,
        _ => Layer::Socket,
    }
}

/// The gateway's own outgoing connection, which is not ours to audit, or nothing that this program can tell.
pub struct NotOurs;

/// What is remembered of a connection at first. `opened_ns`: 0 if that was not seen.
pub const fn new_connection(role: Role, opened_ns: u64) -> ConnectionState {
    const PLACE: Place = Place {
        run: 0,
        done: 0,
        plaintext: 0,
        inside: inside::NOTHING,
        body_end: 0,
        untold: 0,
        untold_other: 0,
        kept: 0,
    };
    ConnectionState {
        lost: 0,
        role: role as u16,
        fin_sent: 0,
        received: PLACE,
        sent: PLACE,
        request: 0,
        told: 0,
        layer: Layer::Socket as u32,
        reserved: 0,
        opened_ns,
        tls_object: 0,
        tls_tied: 0,
        tls_process: 0,
        tls_looked: 0,
        tls_random: [0; 16],
    }
}
