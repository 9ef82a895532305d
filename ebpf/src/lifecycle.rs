//! Connections opened and closed: what `payload` cannot know from calls alone. Typed tracepoints
//! `inet_sock_set_state` and `tcp_destroy_sock`; they run in interrupts as well as in tasks.

use crate::{
    backend::openssl,
    emit::{Origin, fill, output_unseen},
    kernel::{Sock, TcpSock, state},
    maps::{CONNECTIONS, WINDOWS, count, header},
    watch::{connection, is_watched_port, layer_of, new_connection},
};
use aya_ebpf::{
    EbpfContext as _, helpers::generated::bpf_ktime_get_ns, macros::btf_tracepoint, programs::BtfTracePointContext,
};
use aya_log_ebpf::warn;
use core::ffi::c_void;
use s3auditd_common::{
    counters::{KernelCounter, Program},
    sample::{Direction, Kind, Layer, Role, Unseen, window_key},
    settings::ConnectionState,
};

#[btf_tracepoint]
pub fn socket_state_changed(context: BtfTracePointContext) -> i32 {
    state_changed(&context, Program::StateChanged, Program::StateChangedInside)
}

#[btf_tracepoint]
pub fn socket_state_changed_second(context: BtfTracePointContext) -> i32 {
    state_changed(&context, Program::StateChangedSecond, Program::StateChangedSecond)
}

#[btf_tracepoint]
pub fn socket_state_changed_third(context: BtfTracePointContext) -> i32 {
    state_changed(&context, Program::StateChangedThird, Program::StateChangedThird)
}

#[btf_tracepoint]
pub fn socket_destroyed(context: BtfTracePointContext) -> i32 {
    ended(&context, Program::Destroyed, Program::DestroyedInside)
}

#[btf_tracepoint]
pub fn socket_destroyed_second(context: BtfTracePointContext) -> i32 {
    ended(&context, Program::DestroyedSecond, Program::DestroyedSecond)
}

#[btf_tracepoint]
pub fn socket_destroyed_third(context: BtfTracePointContext) -> i32 {
    ended(&context, Program::DestroyedThird, Program::DestroyedThird)
}

/// `inside`: where the kernel has further chances it also keeps programs from running inside themselves, so these need
/// no second bank.
#[inline(always)]
fn state_changed(context: &BtfTracePointContext, program: Program, inside: Program) -> i32 {
    // SAFETY: the first argument is a `struct sock *`.
    let sock = unsafe { Sock::typed(context.arg::<*const c_void>(0)) };
    let (old, new): (i32, i32) = (context.arg(1), context.arg(2));
    if let Some((tcp, port)) = watched_connection(sock) {
        alone(program, inside, |program| changed(context, program, sock, tcp, port, old, new));
    }
    0
}

#[inline(always)]
fn ended(context: &BtfTracePointContext, program: Program, inside: Program) -> i32 {
    // SAFETY: the first argument is a `struct sock *`.
    let sock = unsafe { Sock::typed(context.arg::<*const c_void>(0)) };
    if let Some((tcp, port)) = watched_connection(sock) {
        alone(program, inside, |program| destroyed(context, program, sock, tcp, port));
    }
    0
}

/// Runs as `program`, or as `inside` if this is an interrupt that came while `program` ran on this CPU: before 6.1 the
/// kernel does not keep a tracepoint's program from running inside itself. There is no third level, because the
/// tracepoints do not run in hard interrupts.
#[inline(always)]
fn alone(program: Program, inside: Program, run: impl FnOnce(Program)) {
    let Some(own) = header(program) else { return };
    // SAFETY: a map value of this program on this CPU, where only an interrupt can come between; it leaves the word as it
    // found it.
    let busy = unsafe { &raw mut (*own).busy };
    // SAFETY: as above. Volatile, because the order is the point.
    unsafe {
        let before = busy.read_volatile();
        busy.write_volatile(1);
        run(if before == 0 { program } else { inside });
        busy.write_volatile(before);
    }
}

#[inline(always)]
fn destroyed(context: &BtfTracePointContext, program: Program, sock: Sock, tcp: TcpSock, port: u16) {
    let Some(cookie) = sock.cookie() else { return };
    let cookie = cookie.get();
    // A further chance finds no entry where the first one has been.
    // Only what was seen as a connection: a listener has no entry.
    if let Some(known) = connection(cookie) {
        // SAFETY: a map value; this program is the only one that removes it.
        let (role, fin_sent) = unsafe { ((*known.as_ptr()).role, (*known.as_ptr()).fin_sent) };
        if role != Role::Connected as u16 {
            let origin = Origin { tcp, cookie, port, state: Some(known), program, layer: layer_of(Some(known)) };
            tell(context, &origin, Kind::Closed, u32::from(fin_sent));
        }
        openssl::untie(known, cookie);
        let _gone_already = CONNECTIONS.remove(cookie);
        let _none = WINDOWS.remove(window_key(cookie, Direction::Received));
        let _none = WINDOWS.remove(window_key(cookie, Direction::Sent));
    }
    sock.forget();
}

#[inline(always)]
fn watched_connection(sock: Sock) -> Option<(TcpSock, u16)> {
    let tcp = sock.tcp()?;
    // Not `local_port`: the kernel releases the port before it tells of the close.
    let port = tcp.bound_port();
    is_watched_port(port).then_some((tcp, port))
}

#[inline(always)]
fn changed(context: &BtfTracePointContext, program: Program, sock: Sock, tcp: TcpSock, port: u16, old: i32, new: i32) {
    let role = match (old, new) {
        (state::LISTEN, _) | (_, state::LISTEN) => return,
        (state::SYN_RECV, state::ESTABLISHED) => Role::Accepted,
        (state::SYN_SENT, state::ESTABLISHED) => Role::Connected,
        _ => Role::Unknown,
    };
    if program.is_further_chance() && is_told(sock, old, new) {
        return;
    }
    let cookie = if role == Role::Unknown { sock.cookie() } else { sock.fresh_cookie() };
    let Some(cookie) = cookie else { return count(program, KernelCounter::TableFull, 1) };
    let cookie = cookie.get();
    if role != Role::Unknown {
        // SAFETY: a helper without arguments.
        let opened_ns = unsafe { bpf_ktime_get_ns() };
        let fresh = ConnectionState { told: transition(old, new), ..new_connection(role, opened_ns) };
        if CONNECTIONS.insert(cookie, fresh, 0).is_err() {
            count(program, KernelCounter::TableFull, 1);
            warn!(context, "connection table full: port {} is captured without run budget and loss count", port);
        }
        if role == Role::Accepted {
            let state = connection(cookie);
            tell(context, &Origin { tcp, cookie, port, state, program, layer: Layer::Socket }, Kind::Opened, 0);
        }
        return;
    }
    let known = connection(cookie);
    if let Some(known) = known {
        // SAFETY: a map value that lives until the socket is destroyed.
        unsafe { (*known.as_ptr()).told = transition(old, new) };
        // Once closed by the gateway, further changes of its side (FIN_WAIT1 to CLOSE, CLOSE_WAIT to LAST_ACK ...) say
        // nothing new.
        // SAFETY: as above.
        unsafe {
            if (*known.as_ptr()).role == Role::Connected as u16
                || ((*known.as_ptr()).fin_sent != 0 && new != state::CLOSE_WAIT)
            {
                return;
            }
        }
    }
    let origin = Origin { tcp, cookie, port, state: known, program, layer: layer_of(known) };
    match new {
        state::CLOSE_WAIT => tell(context, &origin, Kind::PeerClosed, 0),
        state::FIN_WAIT1 | state::LAST_ACK => {
            // The FIN is queued after the change of state, so `write_seq` does not count it yet.
            tell(context, &origin, Kind::LocalClosed, 0);
            if let Some(known) = known {
                // SAFETY: as above.
                unsafe { (*known.as_ptr()).fin_sent = 1 };
            }
        }
        // Straight to CLOSE without a FIN of the gateway's: a reset, the peer's if it left an error behind.
        state::CLOSE if matches!(old, state::ESTABLISHED | state::CLOSE_WAIT) => {
            let kind = if tcp.error() != 0 { Kind::PeerClosed } else { Kind::LocalClosed };
            tell(context, &origin, kind, 0);
        }
        _ => {}
    }
}

/// A change of state as [`ConnectionState::told`] has it; a connection makes each once.
#[inline(always)]
const fn transition(old: i32, new: i32) -> u32 {
    (old as u32 & 0xff) << 8 | new as u32 & 0xff
}

/// Whether that change has been taken care of. Not known of a connection that the table has no room for: its changes are
/// told once or not at all.
#[inline(always)]
fn is_told(sock: Sock, old: i32, new: i32) -> bool {
    match sock.cookie().and_then(|cookie| connection(cookie.get())) {
        // SAFETY: a map value that lives until the socket is destroyed.
        Some(known) => unsafe { (*known.as_ptr()).told == transition(old, new) },
        None => !matches!((old, new), (state::SYN_RECV | state::SYN_SENT, state::ESTABLISHED)),
    }
}

/// A sample about the connection itself; `not_bytes` of the send direction's sequence numbers are its FIN.
#[inline(always)]
fn tell(context: &BtfTracePointContext, origin: &Origin, kind: Kind, not_bytes: u32) {
    let Some(own) = header(origin.program) else { return };
    // SAFETY: the buffer is this program's own.
    let header = unsafe { &raw mut (*own).header };
    let (seq, other_seq) = match origin.state {
        Some(state) if origin.layer as u8 != Layer::Socket as u8 => {
            // SAFETY: a map value that lives until the socket is destroyed.
            let (received, sent) = unsafe { ((*state.as_ptr()).received.plaintext, (*state.as_ptr()).sent.plaintext) };
            (received, sent)
        }
        _ => (origin.tcp.received_to(), origin.tcp.sent_to().wrapping_sub(not_bytes)),
    };
    // SAFETY: as above.
    unsafe { fill(header, origin, kind, other_seq) };
    // Nothing else tells of it where calls go past the hooks. Plaintext does not go through it.
    let is_upper = origin.layer as u8 == Layer::Socket as u8 && origin.tcp.has_upper_layer();
    let why = if is_upper { Unseen::UpperLayer } else { Unseen::Seen };
    // SAFETY: the context is the running program's own.
    unsafe { output_unseen(context.as_ptr(), origin.program as u32, header, seq, 0, why as u8, origin.state) };
}
