//! Typed tracepoints `sock_recv_length` and `sock_send_length` (`net/socket.c`, since 6.3), x86-64.
//!
//! They run when a receive or send has done its work, know the socket and the length, and need no entry program: the
//! user buffer is found in the registers that the task saved when it entered the kernel. One program a call, no map
//! between entry and exit, no descriptor walk. What they cannot see: bytes moved by something else than the task's
//! own system call, and `splice` from a socket, for which they do not fire (user space sees a hole in the sequence).

use super::{Moved, moved, registers};
use crate::{
    kernel::{Sock, Task},
    maps::count,
    payload::Source,
};
use aya_ebpf::{EbpfContext as _, macros::btf_tracepoint, programs::BtfTracePointContext};
use core::ffi::c_void;
use s3auditd_common::{
    counters::{KernelCounter, Program},
    sample::{Direction, Unseen},
};

#[btf_tracepoint]
pub fn socket_received(context: BtfTracePointContext) -> i32 {
    received(&context, 0)
}

#[btf_tracepoint]
pub fn socket_received_second(context: BtfTracePointContext) -> i32 {
    received(&context, 1)
}

#[btf_tracepoint]
pub fn socket_received_third(context: BtfTracePointContext) -> i32 {
    received(&context, 2)
}

#[btf_tracepoint]
pub fn socket_sent(context: BtfTracePointContext) -> i32 {
    sent(&context, 0)
}

#[btf_tracepoint]
pub fn socket_sent_second(context: BtfTracePointContext) -> i32 {
    sent(&context, 1)
}

#[btf_tracepoint]
pub fn socket_sent_third(context: BtfTracePointContext) -> i32 {
    sent(&context, 2)
}

#[inline(always)]
fn received(context: &BtfTracePointContext, chance: u32) -> i32 {
    ended(context, Program::received(chance), Direction::Received, context.arg(2))
}

#[inline(always)]
fn sent(context: &BtfTracePointContext, chance: u32) -> i32 {
    ended(context, Program::sent(chance), Direction::Sent, 0)
}

/// Of a tracepoint `(struct sock *sk, int ret, int flags)`.
#[inline(always)]
fn ended(context: &BtfTracePointContext, program: Program, direction: Direction, flags: u32) -> i32 {
    // SAFETY: the first argument is a `struct sock *`.
    let sock = unsafe { Sock::typed(context.arg::<*const c_void>(0)) };
    let call = Moved { program, sock, direction, flags, result: context.arg(1) };
    // SAFETY: the context is this program's own.
    unsafe { moved::<false>(context.as_ptr(), &call, |_| buffer_of_current_call(program, sock, direction)) };
    0
}

/// Where the task's current system call has its buffer, if that call is the one that moved the bytes.
#[inline(always)]
fn buffer_of_current_call(program: Program, sock: Sock, direction: Direction) -> Source {
    let task = Task::current();
    if task.is_foreign() {
        return Source::nowhere(Unseen::ForeignCaller);
    }
    let arguments = task.arguments();
    // The direction must agree: io_uring's deferred work runs inside whatever system call the task happens to make.
    let source = registers::buffer(direction, task.system_call(), &arguments);
    if !task.uses_io_uring() {
        return source;
    }
    if source.unseen() == Unseen::NoBuffer as u8 {
        return Source::nowhere(Unseen::Deferred);
    }
    if source.unseen() != Unseen::Seen as u8 {
        return source;
    }
    // Number and direction fit, but the task has an io_uring: without this check its log file's bytes were taken for
    // the socket's (measured: 131 of 300 samples). Only the descriptor tells.
    if task.descriptor_is(arguments[0] as u32, sock) {
        source
    } else {
        count(program, KernelCounter::GuardRejects, 1);
        Source::nowhere(Unseen::Deferred)
    }
}
