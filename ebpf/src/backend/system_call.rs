//! The end of every system call (typed tracepoint `sys_exit`), x86-64: for kernels where nothing better may be attached.
//!
//! Not the tracepoints of single calls (`syscalls:sys_exit_read` ...): those go through the perf layer, need tracefs, do not
//! show the arguments, and whatever raises `bpf_prog_active` on the CPU keeps them from running. The socket is found by
//! the descriptor that the call was given. What this cannot see: bytes moved by something else than a system call of the
//! task's own (io_uring, kernel threads), and several messages of one `recvmmsg` or `sendmmsg` (holes in the sequence).

use super::{Moved, moved, registers};
use crate::{
    kernel::{Sock, Task},
    maps::{buffer_of, forget, scratch},
};
use aya_ebpf::{
    EbpfContext as _, helpers::generated::bpf_probe_read_user, macros::btf_tracepoint, programs::BtfTracePointContext,
};
use core::ffi::c_void;
use s3auditd_common::{counters::Program, sample::Direction};

#[btf_tracepoint]
pub fn system_call_ended(context: BtfTracePointContext) -> i32 {
    ended::<false>(&context, 0)
}

#[btf_tracepoint]
pub fn system_call_ended_second(context: BtfTracePointContext) -> i32 {
    ended::<false>(&context, 1)
}

#[btf_tracepoint]
pub fn system_call_ended_third(context: BtfTracePointContext) -> i32 {
    ended::<false>(&context, 2)
}

#[btf_tracepoint]
pub fn system_call_ended_bounded(context: BtfTracePointContext) -> i32 {
    ended::<true>(&context, 0)
}

/// Numbers of the calls that are looked at; those of plain reads and writes stand in `registers`.
const SENDFILE: u64 = 40;
const RECVMSG: u64 = 47;
const SPLICE: u64 = 275;
const RECVMMSG: u64 = 299;
const SENDMMSG: u64 = 307;

/// Of a tracepoint `(struct pt_regs *regs, long ret)`.
#[inline(always)]
fn ended<const BOUNDED: bool>(context: &BtfTracePointContext, chance: u32) -> i32 {
    let result: i64 = context.arg(1);
    if result <= 0 {
        return 0;
    }
    // SAFETY: the first argument is the registers.
    let task = unsafe { Task::with(context.arg::<*const c_void>(0)) };
    let nr = task.system_call();
    let sends = match nr {
        // read, readv, recvfrom, recvmsg, preadv2
        0 | 19 | 45 | RECVMSG | 327 | RECVMMSG => false,
        // write, writev, sendto, sendmsg, pwritev2
        1 | 20 | 44 | 46 | 328 | SENDFILE | SENDMMSG => true,
        SPLICE => false,
        _ => return 0,
    };
    let arguments = task.arguments();
    let (mut direction, mut address) =
        (if sends { Direction::Sent } else { Direction::Received }, task.sock_of(arguments[0] as u32));
    if nr == SPLICE && address == 0 {
        // From a pipe, perhaps to a socket.
        (direction, address) = (Direction::Sent, task.sock_of(arguments[2] as u32));
    }
    if address == 0 || task.is_32_bit() {
        return 0;
    }
    let mut moved_bytes = result as i32;
    if nr == RECVMMSG || nr == SENDMMSG {
        // Their result is a number of messages. One says its own length; several are left to show as a hole.
        let Some(len) = single_message_len(arguments[1], result) else { return 0 };
        moved_bytes = len;
    }
    let flags = match nr {
        45 => arguments[3] as u32,
        RECVMSG => arguments[2] as u32,
        RECVMMSG => arguments[3] as u32,
        _ => 0,
    };
    let program = match direction {
        Direction::Received => Program::received(chance),
        Direction::Sent => Program::sent(chance),
    };
    let Some(scratch) = scratch(buffer_of(program)) else { return 0 };
    // SAFETY: the buffer is this program's own, and nothing is in it yet.
    let (nr, flags) = unsafe { (u64::from(forget(scratch, nr as u32)), forget(scratch, flags)) };
    // SAFETY: what lies behind a socket's file is a `struct sock`.
    let sock = unsafe { Sock::untyped(address) };
    let call = Moved { program, sock, direction, flags, result: moved_bytes };
    let source = |_| match nr {
        RECVMMSG | SENDMMSG => registers::message_segments(arguments[1]),
        _ => registers::buffer(direction, nr, &arguments),
    };
    // SAFETY: the context is this program's own.
    unsafe { moved::<BOUNDED>(context.as_ptr(), &call, source) };
    0
}

/// `msg_len` of a `struct mmsghdr` in user memory, if it is the only one.
#[inline(always)]
fn single_message_len(message: u64, messages: i64) -> Option<i32> {
    const LEN_OFFSET: u64 = 56;
    let mut len = 0_i32;
    // SAFETY: the helper checks the user address and writes at most the given size.
    let result = unsafe { bpf_probe_read_user((&raw mut len).cast(), 4, (message + LEN_OFFSET) as *const c_void) };
    if messages == 1 && result == 0 { Some(len) } else { None }
}
