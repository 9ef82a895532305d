//! The same functions as in `function`, by kprobes at their entry and their return.
//!
//! At the return a kprobe knows nothing but the result, so the entry notes what was asked for. Should the kernel skip
//! either run, the other must not be taken for its counterpart: the entry notes also where the stream stood, and the
//! return compares.
//!
//! The kernel keeps a fixed number of places for functions that have been entered and not left (ten, or two for each CPU
//! if that is more: `register_kretprobe` in `kernel/kprobes.c`). A receive that waits for its peer holds one. Of the calls
//! beyond them nobody tells the return: their notes stay, and are counted when the thread's next call or its end finds them.

use super::{Moved, moved};
use crate::{
    kernel::{Message, Sock, TcpSock, constant},
    maps::{IN_FLIGHT, count},
    payload::Source,
    watch::watched,
};
use aya_ebpf::{
    EbpfContext as _,
    helpers::bpf_get_current_pid_tgid,
    macros::{btf_tracepoint, kprobe, kretprobe},
    programs::{BtfTracePointContext, ProbeContext, RetProbeContext},
};
use s3auditd_common::{
    counters::{KernelCounter, Program},
    sample::{Direction, Unseen},
};

/// What a call was asked for.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct InFlight {
    sock: u64,
    /// Nothing when pages are sent.
    message: u64,
    requested: u64,
    /// The fourth and the fifth argument: one of them are the flags of a receive. (Chosen at the return: the verifier does
    /// not take a computed place in a context.)
    fourth: u32,
    fifth: u32,
    /// Where its direction stood.
    seq: u32,
    reserved: u32,
}

#[kprobe]
pub fn probe_receive(context: ProbeContext) -> u32 {
    enter(&context, Program::Received, Direction::Received, context.arg(1).unwrap_or(0))
}

#[kprobe]
pub fn probe_send(context: ProbeContext) -> u32 {
    enter(&context, Program::Sent, Direction::Sent, context.arg(1).unwrap_or(0))
}

#[kprobe]
pub fn probe_send_pages(context: ProbeContext) -> u32 {
    enter(&context, Program::PagesSent, Direction::Sent, 0)
}

#[kretprobe]
pub fn probe_received(context: RetProbeContext) -> u32 {
    leave::<false>(&context, Program::Received, Direction::Received)
}

#[kretprobe]
pub fn probe_received_bounded(context: RetProbeContext) -> u32 {
    leave::<true>(&context, Program::Received, Direction::Received)
}

#[kretprobe]
pub fn probe_sent(context: RetProbeContext) -> u32 {
    leave::<false>(&context, Program::Sent, Direction::Sent)
}

#[kretprobe]
pub fn probe_sent_bounded(context: RetProbeContext) -> u32 {
    leave::<true>(&context, Program::Sent, Direction::Sent)
}

#[kretprobe]
pub fn probe_sent_pages(context: RetProbeContext) -> u32 {
    let Some(call) = left(Direction::Sent) else { return 0 };
    // SAFETY: the entry saw the socket, and the call held it until now.
    let sock = unsafe { Sock::untyped(call.sock) };
    let call = Moved { program: Program::PagesSent, sock, direction: Direction::Sent, flags: 0, result: context.ret() };
    // SAFETY: the context is this program's own. (Nothing is walked, so bounded or not is the same.)
    unsafe { moved::<true, false>(context.as_ptr(), &call, |_| Source::nowhere(Unseen::NoBuffer)) };
    0
}

/// The thread is gone, so no call of it is in flight (`sched_process_exit`).
#[btf_tracepoint]
pub fn thread_ended(_: BtfTracePointContext) -> i32 {
    for direction in [Direction::Received, Direction::Sent] {
        if IN_FLIGHT.remove(key(direction)).is_ok() {
            count(Program::ThreadEnded, KernelCounter::MissedReturns, 1);
        }
    }
    0
}

/// Thread and direction.
#[inline(always)]
fn key(direction: Direction) -> u64 {
    bpf_get_current_pid_tgid() & 0xffff_ffff | (direction as u64) << 32
}

#[inline(always)]
fn position(tcp: TcpSock, direction: Direction) -> u32 {
    match direction {
        Direction::Received => tcp.received_to(),
        Direction::Sent => tcp.sent_to(),
    }
}

/// It counts where the program at the return does: kprobes of one CPU do not run while another one does.
#[inline(always)]
fn enter(context: &ProbeContext, program: Program, direction: Direction, message: u64) -> u32 {
    let address: u64 = context.arg(0).unwrap_or(0);
    // SAFETY: the first argument is a `struct sock *`.
    let Some((tcp, _)) = watched(unsafe { Sock::untyped(address) }) else { return 0 };
    let call = InFlight {
        sock: address,
        message,
        requested: context.arg(2).unwrap_or(0),
        fourth: context.arg(3).unwrap_or(0),
        fifth: context.arg(4).unwrap_or(0),
        seq: position(tcp, direction),
        reserved: 0,
    };
    let key = key(direction);
    // A thread makes one call at a time: what is noted there is over, and its bytes are a hole.
    if IN_FLIGHT.get_ptr(key).is_some() {
        count(program, KernelCounter::MissedReturns, 1);
    }
    if IN_FLIGHT.insert(key, call, 0).is_err() {
        count(program, KernelCounter::NotesRefused, 1);
    }
    0
}

/// What this thread's call was asked for, which is over now.
#[inline(always)]
fn left(direction: Direction) -> Option<InFlight> {
    let key = key(direction);
    // SAFETY: the entry is this thread's own; nobody else changes it.
    let call = unsafe { IN_FLIGHT.get(key) }.copied();
    let _none = IN_FLIGHT.remove(key);
    call
}

#[inline(always)]
fn leave<const BOUNDED: bool>(context: &RetProbeContext, program: Program, direction: Direction) -> u32 {
    let Some(InFlight { sock, message, requested, fourth, fifth, seq, .. }) = left(direction) else { return 0 };
    let result: i32 = context.ret();
    let flags = match direction {
        Direction::Received if constant(|c| &c.receive_parameters) == 6 => fifth,
        Direction::Received => fourth,
        Direction::Sent => 0,
    };
    // SAFETY: the entry saw the socket, and the call held it until now.
    let sock = unsafe { Sock::untyped(sock) };
    let call = Moved { program, sock, direction, flags, result };
    let source = |tcp: TcpSock| {
        let moved = result as u32;
        if position(tcp, direction).wrapping_sub(seq) != moved {
            return Source::nowhere(Unseen::NoBuffer);
        }
        // SAFETY: the second argument was a message, and it outlives the call.
        unsafe { Message::at(message) }.source(requested, moved)
    };
    // SAFETY: the context is this program's own.
    unsafe { moved::<BOUNDED, false>(context.as_ptr(), &call, source) };
    0
}
